/**
 * Answers on their way out. The runtime keeps what a client does not take, so
 * a large answer is handed over in pieces, as they are taken: what waits
 * counts against one number of bytes for all connections, and a client that
 * takes nothing is cut off; where others wait, so is one that takes too little.
 *
 * The last two pieces of an answer are in the runtime's hands before the
 * client has taken them, and can be cut off no more: they count until it says
 * that they are gone, for a while against the whole (a client that takes
 * nothing gives its room to others then) and to the end against what one
 * connection may have (connection_rooms.ts).
 *
 * Small answers go out whole (a stream costs 20 µs, as much as everything
 * else of a small request), and nobody learns when the client has taken them.
 * While the process holds much more memory than it should, they go out as
 * streams too.
 */
import { Budget } from "../common/budget.ts";
import type { Bytes } from "../common/bytes.ts";
import type { Clock, Timer } from "../common/clock.ts";
import { type Client, nameOf } from "./client.ts";
import { ConnectionRooms } from "./connection_rooms.ts";

/** Up to here an answer goes out whole. */
export const MAX_WHOLE_ANSWER_BYTES = 32 * 1024;
/** The same while memory is short. */
const MAX_PRESSED_WHOLE_BYTES = 512;
/** What the process may hold beside the budget before memory counts as short. */
const USUAL_RESIDENT_BYTES = 224 * 1024 * 1024;
/** How old the last look at the resident memory may be. */
const RESIDENT_LOOK_MS = 1000;
/**
 * What one turn of the serving thread reads at most: about a millisecond.
 * Whatever is larger is read in slices, others in between.
 */
export const MAX_TURN_BYTES = 1024 * 1024;
/** One piece of an answer. */
export const PIECE_BYTES = 64 * 1024;
/** What the runtime takes of a stream before the client does, about. */
const READ_AHEAD_BYTES = 2 * PIECE_BYTES;
/** A client that takes nothing for this long is cut off… */
const MAX_STALL_MS = 10_000;
/** …and, while others wait for room, one that has taken less than this. */
const MIN_BYTES_PER_SECOND = 256 * 1024;
const LOOK_EVERY_MS = 1000;
/** How long an answer waits for its turn, and how many may wait. */
const MAX_WAIT_MS = 15_000;
const MAX_WAITING = 1024;

/**
 * The shares of the whole. Reads of more than a turn have half of it, and a
 * line of their own: each takes up to 64 MiB, and an answer of 40 KB waited
 * 15 s behind two of them that nobody took.
 */
const FRAMES_SHARE = 1 / 4;
const LARGE_READS_SHARE = 1 / 2;

export interface AnswersOptions {
  clock: Clock;
  /** Large answers and watch frames, made and not yet taken, in all. */
  maxBytes: number;
  /** Of this process; default: what the runtime says. */
  residentBytes?: () => number;
}

/** A client that has not yet taken all of its answer. */
export interface Taker {
  readonly startedMs: number;
  lastTakenMs: number;
  takenBytes: number;
  /** Where what it holds back belongs to; others may wait for it. */
  readonly budget: Budget;
  /** Left alone while nobody waits, however long it takes. */
  readonly isPatient: boolean;
  cut(): void;
}

export class Answers {
  /** For answers that one turn makes. */
  readonly budget: Budget;
  /** For those that take more than a turn. */
  readonly largeReads: Budget;
  /** For frames of watches, so that neither keeps the other waiting. */
  readonly frames: Budget;
  /** Clients that were cut off because they did not take their answer. */
  cut = 0;
  private readonly open = new Set<Taker>();
  private timer: Timer | undefined;
  private readonly clock: Clock;
  private readonly pressedBytes: number;
  private readonly residentBytes: () => number;
  private readonly rooms: ConnectionRooms;
  private isPressed = false;
  private lookedMs = -Infinity;

  constructor({ clock, maxBytes, residentBytes }: AnswersOptions) {
    this.clock = clock;
    this.rooms = new ConnectionRooms(clock);
    this.residentBytes = residentBytes ?? (() => Deno.memoryUsage().rss);
    this.pressedBytes = USUAL_RESIDENT_BYTES + maxBytes;
    const framesBytes = Math.floor(maxBytes * FRAMES_SHARE);
    // Watches wait as long as it takes, each with a flag and no frame.
    this.frames = new Budget({ clock, limitBytes: framesBytes });
    const largeBytes = Math.floor(maxBytes * LARGE_READS_SHARE);
    const line = {
      clock,
      maxWaitMs: MAX_WAIT_MS,
      maxWaiting: MAX_WAITING,
      refusal:
        "More answers are on their way than this server keeps in memory. Nothing was changed; ask again, or for less at once (a smaller limit). The operator can raise --max-in-flight-mib.",
    };
    this.largeReads = new Budget({ ...line, limitBytes: largeBytes });
    this.budget = new Budget({
      ...line,
      limitBytes: maxBytes - framesBytes - largeBytes,
    });
  }

  get count(): number {
    return this.open.size;
  }

  /** Whether an answer of this size goes out as it is, without a budget. */
  isSmall(sizeBytes: number): boolean {
    if (sizeBytes <= MAX_PRESSED_WHOLE_BYTES) return true;
    return sizeBytes <= MAX_WHOLE_ANSWER_BYTES && !this.isMemoryShort();
  }

  /**
   * What may be read for an answer that has no room of its own yet. While
   * others wait for theirs, nothing large is read to wait with them: it takes
   * its place in line first.
   */
  maxReadBytes(client: Client): number {
    return this.budget.waiting > 0 || this.rooms.isSpent(client)
      ? MAX_WHOLE_ANSWER_BYTES
      : MAX_TURN_BYTES;
  }

  /**
   * Waits for room for an answer; each connection gets its turn. A client that
   * goes away leaves the line.
   */
  async take(
    sizeBytes: number,
    request: Request,
    client: Client,
    budget = this.budget,
  ): Promise<void> {
    const aheadBytes = Math.min(sizeBytes, READ_AHEAD_BYTES);
    if (!this.rooms.tryTake(client, aheadBytes)) {
      await this.rooms.take(client, aheadBytes, request.signal);
    }
    if (budget.tryTake(sizeBytes)) return;
    const { signal } = request;
    await budget.take(sizeBytes, { who: nameOf(client), signal });
  }

  /**
   * The answer with this body, now or when its turn comes.
   * @param reservedBytes what the caller has taken from the budget for it
   */
  respond(
    body: Bytes,
    init: ResponseInit,
    request: Request,
    client: Client,
    reservedBytes = 0,
  ): Response | Promise<Response> {
    const sizeBytes = body.length;
    const { budget } = this;
    if (this.isSmall(sizeBytes)) {
      if (reservedBytes > 0) budget.give(reservedBytes);
      return new Response(body, init);
    }
    const answer = () =>
      this.inPieces(slices(body), sizeBytes, init, client, budget);
    if (reservedBytes > 0) {
      // It stands in memory already; waiting for more would help nobody.
      const more = sizeBytes - reservedBytes;
      if (more > 0) budget.takeAnyway(more);
      else budget.give(-more);
      return answer();
    }
    const aheadBytes = Math.min(sizeBytes, READ_AHEAD_BYTES);
    if (
      this.rooms.tryTake(client, aheadBytes) && budget.tryTake(sizeBytes)
    ) return answer();
    return this.take(sizeBytes, request, client).then(answer);
  }

  /**
   * An answer of exactly `sizeBytes`, which the caller has taken from this
   * budget; they are given back as the client takes them.
   */
  inPieces(
    pieces: Iterator<Bytes>,
    sizeBytes: number,
    init: ResponseInit,
    client: Client,
    budget: Budget,
  ): Response {
    const headers = new Headers(init.headers);
    headers.set("content-length", String(sizeBytes));
    let held = sizeBytes;
    const give = (count: number) => {
      held -= count;
      budget.give(count);
    };
    let pending = 0;
    let isClosed = false;
    const taker = this.track(budget, false, () => {
      if (!isClosed) controller.error(new NotTakenError());
      give(held);
    });
    const over = () => {
      this.leave(taker);
      give(held);
    };
    let controller: ReadableStreamDefaultController<Bytes>;
    const stream = new ReadableStream<Bytes>({
      start: (given) => {
        controller = given;
      },
      pull: () => {
        this.taken(taker, pending);
        // The runtime has it, and keeps it until the client takes it.
        if (held - pending >= READ_AHEAD_BYTES) give(pending);
        const next = pieces.next();
        pending = next.done ? 0 : next.value.length;
        if (!next.done) return controller.enqueue(next.value);
        // From here on it cannot be cut off any more, but its room can go.
        isClosed = true;
        controller.close();
      },
      cancel: over,
    }, NOTHING_AHEAD);
    // Only now nothing of it is kept.
    client.completed.then(over, over);
    return new Response(stream, { ...init, headers });
  }

  /**
   * Watches over a client that has something to take: `cut` is called when it
   * does not. The caller reports with `taken`, and ends it with `leave`.
   */
  track(budget: Budget, isPatient: boolean, cut: () => void): Taker {
    const now = this.clock.monotonicMs();
    const taker: Taker = {
      startedMs: now,
      lastTakenMs: now,
      takenBytes: 0,
      budget,
      isPatient,
      cut,
    };
    this.open.add(taker);
    this.timer ??= this.clock.every(LOOK_EVERY_MS, () => this.lookOver());
    return taker;
  }

  taken(taker: Taker, sizeBytes: number): void {
    taker.lastTakenMs = this.clock.monotonicMs();
    taker.takenBytes += sizeBytes;
  }

  leave(taker: Taker): void {
    this.open.delete(taker);
    if (this.open.size > 0) return;
    this.timer?.stop();
    this.timer = undefined;
  }

  private lookOver(): void {
    const now = this.clock.monotonicMs();
    for (const taker of [...this.open]) {
      if (!this.isToBeCut(taker, now)) continue;
      this.leave(taker);
      this.cut++;
      taker.cut();
    }
  }

  private isToBeCut(taker: Taker, now: number): boolean {
    const isShort = taker.budget.waiting > 0;
    if (taker.isPatient && !isShort) return false;
    if (now - taker.lastTakenMs > MAX_STALL_MS) return true;
    const sinceMs = now - taker.startedMs - MAX_STALL_MS;
    return isShort && taker.takenBytes < sinceMs / 1000 * MIN_BYTES_PER_SECOND;
  }

  private isMemoryShort(): boolean {
    const now = this.clock.monotonicMs();
    if (now - this.lookedMs >= RESIDENT_LOOK_MS) {
      this.lookedMs = now;
      this.isPressed = this.residentBytes() > this.pressedBytes;
    }
    return this.isPressed;
  }
}

/** What the stream of an answer ends with that nobody took. */
export class NotTakenError extends Error {
  override name = "NotTakenError";

  constructor() {
    super("The client did not take its answer and was cut off.");
  }
}

/** A piece is made when the one before it has been taken. */
const NOTHING_AHEAD: QueuingStrategy<Bytes> = { highWaterMark: 0 };

/** A body that is there, piece by piece. */
function* slices(body: Bytes): Generator<Bytes> {
  for (let at = 0; at < body.length; at += PIECE_BYTES) {
    yield body.subarray(at, at + PIECE_BYTES);
  }
}
