/**
 * The streams of KV Connect watches: frames as the consumer takes them, piece
 * by piece, and a keep-alive now and then for the proxies in between.
 */
import type { Bytes } from "../common/bytes.ts";
import type { Clock, Timer } from "../common/clock.ts";
import { WATCH_PING, watchFramePieces } from "../protocol/datapath_answers.ts";
import type { Entry } from "../protocol/messages.ts";
import type { Watch } from "../store/store.ts";
import { type Answers, NotTakenError, type Taker } from "./answers.ts";
import { FramePieces, type Piece } from "./frame_pieces.ts";

const PING_INTERVAL_MS = 5000;

/**
 * Watches on one connection. An HTTP/2 connection carries at most 200 streams
 * at once here, and a client whose watches take them all hangs in its next
 * write without an error.
 */
const MAX_WATCHES_PER_CONNECTION = 128;

export class WatchStreams {
  private readonly open = new Set<WatchStream>();
  private readonly perConnection = new Map<string, number>();
  private readonly frames: FramePieces;
  private timer: Timer | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly answers: Answers,
  ) {
    this.frames = new FramePieces(answers.frames);
  }

  /** Whether this connection may carry one more; why not, in a sentence. */
  refusal(connection: string): string | undefined {
    const count = this.perConnection.get(connection) ?? 0;
    if (count < MAX_WATCHES_PER_CONNECTION) return undefined;
    return `This connection carries ${count} watches, which is the limit: with more, the other requests on it would hang. Open another Deno.openKv handle, or watch up to 10 keys at once.`;
  }

  /** The body of the answer to a watch. */
  stream(watch: Watch, connection: string): ReadableStream<Bytes> {
    const count = this.perConnection.get(connection) ?? 0;
    this.perConnection.set(connection, count + 1);
    const stream = new WatchStream(
      watch,
      this.answers,
      this.frames,
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
  /** The large ones among them. */
  private held: Piece[] = [];
  /** Taken from the budget for a frame that is yet to be made. */
  private reservedBytes = 0;
  private taker: Taker | undefined;
  /** Takes it out of the line for room. */
  private waiting: AbortController | undefined;

  constructor(
    private readonly watch: Watch,
    private readonly answers: Answers,
    private readonly frames: FramePieces,
    private readonly onLeave: () => void,
  ) {}

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
      const state = await this.watch.next((entries) => this.admit(entries));
      this.isWaiting = false;
      if (state === null || !this.isOpen) return;
      this.hasFrame = true;
      this.begin();
    } catch {
      // The store fails or closes: the client opens the watch again.
      this.isWaiting = false;
      this.end();
    }
  }

  /**
   * Makes the frame of these entries where there is room for it. Later would
   * be too late: another could have taken the room, or let go of a piece that
   * was counted as its own.
   */
  private admit(
    entries: readonly (Entry | null)[] | null,
  ): void | Promise<void> {
    // Deleted again while it waited, say.
    if (entries === null) return this.giveReserved();
    const { frames } = this.answers;
    const newBytes = this.frames.newBytes(entries);
    // What it has waited for, and what has become of it since.
    const more = newBytes - this.reservedBytes;
    if (more > 0 && !frames.tryTake(more)) {
      this.giveReserved();
      const { signal } = this.waiting = new AbortController();
      return frames.take(newBytes, { signal }).then(() => {
        this.reservedBytes = newBytes;
        if (!this.isOpen) this.giveReserved();
      });
    }
    this.reservedBytes = 0;
    if (more < 0) frames.give(-more);
    const held: Piece[] = [];
    // Every key in every frame, changed or not: Deno 2.9.6 shows a key that a
    // later frame calls unchanged as absent. The Rust server sends all of them
    // too.
    this.pieces = watchFramePieces(entries, (entry) => {
      const piece = this.frames.hold(entry);
      held.push(piece);
      return piece.bytes;
    }).reverse();
    this.held = held;
  }

  /** The first piece of a frame; the others follow as they are taken. */
  private begin(): void {
    const { answers } = this;
    if (this.held.length > 0) {
      this.taker = answers.track(answers.frames, true, () => {
        this.taker = undefined;
        this.leave();
        this.out.error(new NotTakenError());
      });
    }
    this.out.enqueue(this.pieces.pop()!);
  }

  /** The frame has been taken, or nobody will take it. */
  private letGo(): void {
    if (this.taker) this.answers.leave(this.taker);
    this.taker = undefined;
    for (const piece of this.held) this.frames.release(piece);
    this.held = [];
    this.pieces = [];
  }

  private giveReserved(): void {
    const sizeBytes = this.reservedBytes;
    this.reservedBytes = 0;
    if (sizeBytes > 0) this.answers.frames.give(sizeBytes);
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
    const isWhole = this.isWaiting || this.pieces.length === 0;
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
    this.giveReserved();
    this.watch.cancel();
    this.waiting?.abort();
    this.onLeave();
  }
}
