/**
 * The streams of KV Connect watches: frames as the consumer takes them, piece
 * by piece, and a keep-alive now and then for the proxies in between.
 */
import type { Bytes } from "../common/bytes.ts";
import type { Clock, Timer } from "../common/clock.ts";
import { WATCH_PING, watchFramePieces } from "../protocol/datapath_answers.ts";
import { MAX_READ_KEY_BYTES, MAX_VALUE_BYTES } from "../protocol/limits.ts";
import type { Admission, Watch } from "../store/store.ts";
import { type Answers, NotTakenError, type Taker } from "./answers.ts";

const PING_INTERVAL_MS = 5000;

/**
 * Watches on one connection. An HTTP/2 connection carries at most 200 streams
 * at once here, and a client whose watches take them all hangs in its next
 * write without an error.
 */
const MAX_WATCHES_PER_CONNECTION = 128;
/** The most that a key can add to a frame, framing included. */
const MAX_KEY_FRAME_BYTES = MAX_VALUE_BYTES + MAX_READ_KEY_BYTES + 64;
/** A frame up to this size goes out in one piece, and nobody waits for it. */
const SMALL_FRAME_BYTES = 4096;

export class WatchStreams {
  private readonly open = new Set<WatchStream>();
  private readonly perConnection = new Map<string, number>();
  private timer: Timer | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly answers: Answers,
  ) {}

  /** Whether this connection may carry one more; why not, in a sentence. */
  refusal(connection: string): string | undefined {
    const count = this.perConnection.get(connection) ?? 0;
    if (count < MAX_WATCHES_PER_CONNECTION) return undefined;
    return `This connection carries ${count} watches, which is the limit: with more, the other requests on it would hang. Open another Deno.openKv handle, or watch up to 10 keys at once.`;
  }

  /** The body of the answer to a watch of so many keys. */
  stream(
    watch: Watch,
    keyCount: number,
    connection: string,
  ): ReadableStream<Bytes> {
    const count = this.perConnection.get(connection) ?? 0;
    this.perConnection.set(connection, count + 1);
    const stream = new WatchStream(
      watch,
      keyCount * MAX_KEY_FRAME_BYTES,
      this.answers,
      () => this.leave(stream, connection),
    );
    this.open.add(stream);
    this.timer ??= this.clock.every(PING_INTERVAL_MS, () => this.pingAll());
    // Nothing ahead: a frame is made when the one before it has been taken.
    return new ReadableStream(stream, { highWaterMark: 0 });
  }

  private leave(stream: WatchStream, connection: string): void {
    this.open.delete(stream);
    const left = (this.perConnection.get(connection) ?? 1) - 1;
    if (left > 0) this.perConnection.set(connection, left);
    else this.perConnection.delete(connection);
    if (this.open.size > 0) return;
    this.timer?.stop();
    this.timer = undefined;
  }

  private pingAll(): void {
    for (const stream of this.open) stream.ping();
  }

  /** Ends every stream in order, as before a shutdown. */
  endAll(): void {
    for (const stream of [...this.open]) stream.end();
  }
}

/** One watch, as the source of the stream that answers it. */
class WatchStream implements UnderlyingDefaultSource<Bytes> {
  private out!: ReadableStreamDefaultController<Bytes>;
  private isOpen = true;
  private hasFrame = false;
  /** The client has taken all there is and waits for a change. */
  private isWaiting = false;
  /** What is left of the present frame, the next piece last. */
  private pieces: Bytes[] = [];
  /** Taken from the budget for the present frame. */
  private heldBytes = 0;
  private taker: Taker | undefined;
  private readonly admission: Admission;

  /** @param mostBytes what a frame may take at most */
  constructor(
    private readonly watch: Watch,
    private readonly mostBytes: number,
    private readonly answers: Answers,
    private readonly onLeave: () => void,
  ) {
    const { frames } = answers;
    this.admission = {
      take: () =>
        frames.tryTake(mostBytes) ? undefined : frames.take(mostBytes),
      giveBack: () => frames.give(mostBytes),
    };
  }

  start(controller: ReadableStreamDefaultController<Bytes>): void {
    this.out = controller;
  }

  async pull(): Promise<void> {
    const { taker, answers } = this;
    if (taker) answers.taken(taker, 0);
    const piece = this.pieces.pop();
    if (piece) return this.out.enqueue(piece);
    this.letGo();
    this.isWaiting = true;
    try {
      const state = await this.watch.next(this.admission);
      this.isWaiting = false;
      if (state === null) return;
      if (!this.isOpen) return this.admission.giveBack();
      this.hasFrame = true;
      // Every key in every frame, changed or not: Deno 2.9.6 shows a key
      // that a later frame calls unchanged as absent. The Rust server
      // sends all of them too.
      this.begin(watchFramePieces(state.entries));
    } catch {
      // The store fails or closes: the client opens the watch again.
      this.isWaiting = false;
      this.end();
    }
  }

  /** The first piece of a frame; the others follow as they are taken. */
  private begin(pieces: Bytes[]): void {
    const { answers, mostBytes } = this;
    let sizeBytes = 0;
    for (const piece of pieces) sizeBytes += piece.length;
    const held = sizeBytes <= SMALL_FRAME_BYTES ? 0 : sizeBytes;
    answers.frames.give(mostBytes - held);
    this.heldBytes = held;
    if (held > 0) {
      this.taker = answers.track(answers.frames, true, () => {
        this.taker = undefined;
        this.leave();
        this.out.error(new NotTakenError());
      });
    }
    this.pieces = pieces.reverse();
    this.out.enqueue(this.pieces.pop()!);
  }

  /** The frame has been taken, or nobody will take it. */
  private letGo(): void {
    if (this.taker) this.answers.leave(this.taker);
    this.taker = undefined;
    if (this.heldBytes > 0) this.answers.frames.give(this.heldBytes);
    this.heldBytes = 0;
    this.pieces = [];
  }

  ping(): void {
    // The first frame comes first; where one ping waits, it is enough.
    if (this.hasFrame && this.isWaiting && this.out.desiredSize === 0) {
      this.out.enqueue(WATCH_PING);
    }
  }

  end(): void {
    if (!this.isOpen) return;
    // A frame that has begun is no frame without its end.
    const isWhole = this.pieces.length === 0;
    this.leave();
    if (isWhole) this.out.close();
    else this.out.error(new Error("The server ends its watches."));
  }

  cancel(): void {
    this.leave();
  }

  private leave(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.letGo();
    this.watch.cancel();
    this.onLeave();
  }
}
