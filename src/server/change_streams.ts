/**
 * Change feeds on their way out. A feed holds one batch of the log and the
 * slice of text that is being taken, counted against a number of bytes for all
 * feeds, and reads on when its consumer has taken that: one that is slow falls
 * behind in the log and nowhere else (docs/changes.md).
 */
import { Budget } from "../common/budget.ts";
import { type Bytes, utf8 } from "../common/bytes.ts";
import { type Clock, sleepUntil, type Timer } from "../common/clock.ts";
import { messageOf, TooManyError, UnavailableError } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { LogRow } from "../store/backup_source.ts";
import {
  LogGoneError,
  type LogReader,
  type LogReaderOptions,
  type LogSource,
  type PastLog,
} from "../store/log_source.ts";
import {
  type Answers,
  NotTakenError,
  PIECE_BYTES,
  type Taker,
} from "./answers.ts";
import { type ChangeFormat, ChangeLines } from "./change_lines.ts";
import { goneSentence } from "./change_query.ts";

/** At once. Fewer than a log has readers, so that replicas find a place. */
export const MAX_CHANGE_FEEDS = 32;
/** How often a feed without changes says so. */
export const HEARTBEAT_MS = 5000;
/** About how much of the log a feed holds at once; a row may be larger. */
export const BATCH_BYTES = 256 * 1024;
/**
 * Changes that come one after the other are gathered for this long: each time
 * that a feed hands something out costs as much as ten of them. One that comes
 * alone goes at once.
 */
export const GATHER_MS = 10;
/** Who gets more than this at once is behind, and has no time to wait. */
const GATHER_BYTES = 64 * 1024;
/**
 * What all feeds may hold, beside what each has as little as: a feed alone gets
 * a row of any size.
 */
export const MAX_FEEDS_BYTES = 8 * 1024 * 1024;

export interface ChangeStreamsOptions {
  clock: Clock;
  logger: Logger;
  answers: Pick<Answers, "track" | "taken" | "leave">;
  /** What the log keeps for feeds that are behind. */
  maxRetainedBytes: number;
  /** What it no longer has; absent where there is no backup. */
  past?: PastLog | undefined;
}

export interface FeedOptions {
  log: LogSource;
  afterVersion: number;
  /** Whether it goes on with what is yet to be committed. */
  follows: boolean;
  format: ChangeFormat;
  prefixes: readonly Bytes[];
}

export class ChangeStreams {
  /** What waits to be taken, of all feeds. */
  readonly budget: Budget;
  /** Mutations and heartbeats handed out, in bytes. */
  sentBytes = 0;
  /** By number: a name in metrics is used again when its feed is over. */
  private readonly open = new Map<number, ChangeStream>();
  private timer: Timer | undefined;
  /** Feeds that have work to do. */
  private readonly line: (() => void)[] = [];

  constructor(private readonly options: ChangeStreamsOptions) {
    const { clock } = options;
    this.budget = new Budget({ clock, limitBytes: MAX_FEEDS_BYTES });
  }

  get count(): number {
    return this.open.size;
  }

  /**
   * The body of a feed.
   * @throws LogGoneError where the log does not reach back that far
   * @throws TooManyError past the limit of feeds
   */
  stream(options: FeedOptions): ReadableStream<Bytes> {
    if (this.open.size >= MAX_CHANGE_FEEDS) {
      throw new TooManyError(
        `This server has ${MAX_CHANGE_FEEDS} change feeds open, which is the limit. Close one, or let one consumer hand the changes on.`,
      );
    }
    const { clock, maxRetainedBytes } = this.options;
    let number = 1;
    while (this.open.has(number)) number++;
    const stream = new ChangeStream(this, this.options, {
      ...options,
      openReader: (afterVersion) =>
        this.openReader(options.log, {
          name: `changes ${number}`,
          afterVersion,
          maxRetainedBytes,
          maxBatchBytes: BATCH_BYTES,
        }),
      onLeave: () => this.leave(number),
    });
    this.open.set(number, stream);
    this.timer ??= clock.every(HEARTBEAT_MS, () => this.beatAll());
    return new ReadableStream(stream, { highWaterMark: 0 });
  }

  /** Whether a feed may begin before the log does. */
  get reachesBack(): boolean {
    return this.options.past !== undefined;
  }

  private openReader(log: LogSource, options: LogReaderOptions): LogReader {
    const { past } = this.options;
    return past?.openLogReader(log, options) ?? log.openLogReader(options);
  }

  private leave(number: number): void {
    this.open.delete(number);
    if (this.open.size > 0) return;
    this.timer?.stop();
    this.timer = undefined;
  }

  /**
   * The turn of a feed to read or to write a slice. One of them all has it in a
   * turn of the event loop: 31 at once kept other requests waiting for seconds.
   */
  turn(): Promise<void> {
    return new Promise((resolve) => {
      this.line.push(resolve);
      if (this.line.length === 1) this.options.clock.endOfTurn(this.onTurn);
    });
  }

  private readonly onTurn = () => {
    this.line.shift()!();
    if (this.line.length > 0) this.options.clock.endOfTurn(this.onTurn);
  };

  private beatAll(): void {
    for (const stream of [...this.open.values()]) stream.beat();
  }

  /** Ends every feed in order, as before a shutdown. */
  endAll(reason: string): void {
    for (const stream of [...this.open.values()]) stream.end(503, reason);
  }
}

interface OpenFeed extends FeedOptions {
  openReader(afterVersion: number): LogReader;
  onLeave(): void;
}

/** One feed, as the source of the stream that answers it. */
class ChangeStream implements UnderlyingDefaultSource<Bytes> {
  private out!: ReadableStreamDefaultController<Bytes>;
  private readonly lines: ChangeLines;
  private reader: LogReader;
  /** Where a feed ends that does not follow. */
  private readonly untilVersion: number;
  private isOpen = true;
  private hasBegun = false;
  /** Its consumer has taken all there is and waits for a change. */
  private isWaiting = false;
  /** Of the batch that is being written. */
  private heldBytes = 0;
  private taker: Taker | undefined;
  /** What is left of the present slice. */
  private piece: Bytes = NOTHING;
  private sentMs: number;
  /** When the present batch came, and how large it was. */
  private batch = { atMs: -Infinity, sizeBytes: 0 };
  private readonly ended = new AbortController();

  constructor(
    private readonly streams: Pick<
      ChangeStreams,
      "budget" | "sentBytes" | "turn"
    >,
    private readonly own: ChangeStreamsOptions,
    private readonly options: OpenFeed,
  ) {
    const { format, prefixes, afterVersion, log } = options;
    this.lines = new ChangeLines(format, prefixes, afterVersion);
    this.untilVersion = log.durableVersion;
    this.reader = options.openReader(afterVersion);
    this.sentMs = own.clock.monotonicMs();
  }

  start(controller: ReadableStreamDefaultController<Bytes>): void {
    this.out = controller;
  }

  async pull(): Promise<void> {
    if (this.taker) this.own.answers.taken(this.taker, this.piece.length);
    try {
      // The first line says where the feed begins.
      if (!this.hasBegun) {
        this.hasBegun = true;
        return this.sendHeartbeat();
      }
      while (this.isOpen) {
        if (this.piece.length > 0) return this.sendPiece();
        if (this.lines.isDone && !await this.goOn()) return;
        // Others get their turn between two slices.
        await this.streams.turn();
        if (!this.isOpen) return;
        this.piece = utf8(this.lines.slice());
        if (this.piece.length === 0 && this.isBeatDue()) {
          return this.sendHeartbeat();
        }
      }
    } catch (error) {
      this.fail(error);
    }
  }

  /** Begins with more of the log; false where the feed is over. */
  private async goOn(): Promise<boolean> {
    this.letGo();
    if (!this.isComplete()) return await this.nextBatch();
    this.sendHeartbeat();
    this.leave();
    this.out.close();
    return false;
  }

  private isComplete(): boolean {
    const { follows } = this.options;
    return !follows && this.lines.version >= this.untilVersion;
  }

  /**
   * Waits for more of the log, and for room to hold it; false where the feed is
   * over. Where there is none,
   * nothing is kept: it is read again when there is.
   */
  private async nextBatch(): Promise<boolean> {
    const { signal } = this.ended;
    const { budget } = this.streams;
    let reservedBytes = 0;
    this.isWaiting = true;
    try {
      await this.gather();
      for (;;) {
        const rows = await this.reader.next(signal);
        if (!this.isOpen) return false;
        // Closed by whoever has the database: it is not served here any more.
        if (rows === null) {
          this.end(503, NOT_SERVED);
          return false;
        }
        const sizeBytes = sizeOf(rows);
        const moreBytes = sizeBytes - reservedBytes;
        if (moreBytes <= 0) budget.give(-moreBytes);
        else if (reservedBytes > 0) budget.takeAnyway(moreBytes);
        else if (!budget.tryTake(moreBytes)) {
          this.reader.close();
          this.reader = this.options.openReader(this.lines.version);
          await budget.take(sizeBytes, { signal });
          reservedBytes = sizeBytes;
          continue;
        }
        reservedBytes = 0;
        this.hold(rows, sizeBytes);
        return true;
      }
    } finally {
      this.isWaiting = false;
      if (reservedBytes > 0) budget.give(reservedBytes);
    }
  }

  private async gather(): Promise<void> {
    const { atMs, sizeBytes } = this.batch;
    const { clock } = this.own;
    const leftMs = atMs + GATHER_MS - clock.monotonicMs();
    if (!this.options.follows || sizeBytes > GATHER_BYTES || leftMs <= 0) {
      return;
    }
    await sleepUntil(clock, leftMs, this.ended.signal);
  }

  private hold(rows: LogRow[], sizeBytes: number): void {
    this.lines.begin(rows);
    this.heldBytes = sizeBytes;
    this.batch = { atMs: this.own.clock.monotonicMs(), sizeBytes };
    this.taker = this.own.answers.track(this.streams.budget, true, () => {
      this.taker = undefined;
      this.leave();
      this.out.error(new NotTakenError());
    });
  }

  private letGo(): void {
    if (this.taker) this.own.answers.leave(this.taker);
    this.taker = undefined;
    if (this.heldBytes > 0) this.streams.budget.give(this.heldBytes);
    this.heldBytes = 0;
  }

  private sendPiece(): void {
    const { piece } = this;
    this.piece = piece.subarray(PIECE_BYTES);
    this.send(piece.subarray(0, PIECE_BYTES));
  }

  private send(bytes: Bytes): void {
    this.sentMs = this.own.clock.monotonicMs();
    this.streams.sentBytes += bytes.length;
    this.out.enqueue(bytes);
  }

  private sendHeartbeat(): void {
    const { log } = this.options;
    const { clock } = this.own;
    const text = this.lines.heartbeat(log.durableVersion, clock.nowMs());
    this.send(utf8(text));
  }

  private isBeatDue(): boolean {
    return this.lines.isDone &&
      this.own.clock.monotonicMs() - this.sentMs >= HEARTBEAT_MS;
  }

  beat(): void {
    // Where one waits to be taken, it is enough.
    if (!this.hasBegun || !this.isWaiting || this.out.desiredSize !== 0) return;
    try {
      this.sendHeartbeat();
    } catch (error) {
      this.fail(error);
    }
  }

  private fail(error: unknown): void {
    if (error instanceof LogGoneError) {
      this.end(410, goneSentence(this.lines.version, error.floorVersion));
    } else if (error instanceof UnavailableError || !this.isOpen) {
      this.end(503, messageOf(error));
    } else {
      this.own.logger.error("A change feed failed in an unforeseen way.", {
        reason: messageOf(error),
      });
      this.end(
        500,
        "The feed failed in an unforeseen way; the server's log says more.",
      );
    }
  }

  end(status: number, message: string): void {
    if (!this.isOpen) return;
    const isBetween = this.piece.length === 0;
    this.leave();
    // In the middle of a line nothing can be said.
    if (!isBetween) return this.out.error(new Error(message));
    this.out.enqueue(utf8(this.lines.end(status, message)));
    this.out.close();
  }

  cancel(): void {
    this.leave();
  }

  private leave(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.letGo();
    this.ended.abort();
    this.reader.close();
    this.options.onLeave();
  }
}

const NOTHING: Bytes = new Uint8Array(0);

const NOT_SERVED =
  "This instance does not serve the database any more. Go on at the one that does, after the last versionstamp that you have.";

function sizeOf(rows: readonly LogRow[]): number {
  let sizeBytes = 0;
  for (const { entries } of rows) sizeBytes += entries.length;
  return sizeBytes;
}
