/**
 * The log on its way to live replicas (docs/formats/replica-stream.md). A
 * stream holds the one frame that is being taken, and reads on when its replica
 * has taken that: one that is slow falls behind in the log and nowhere else.
 */
import type { Bytes } from "../common/bytes.ts";
import { type Clock, sleepUntil, type Timer } from "../common/clock.ts";
import { messageOf, TooManyError, UnavailableError } from "../common/errors.ts";
import { encodeCommits, encodeFrame } from "../log/frames.ts";
import type { LogRow } from "../store/backup_source.ts";
import {
  LogGoneError,
  type LogReader,
  type LogSource,
} from "../store/log_source.ts";

/** At once. Fewer than a log has readers, so that change feeds find a place. */
export const MAX_LOG_STREAMS = 24;
/** What a frame holds, about; a row of the log may be larger. */
const FRAME_BYTES = 256 * 1024;
/** How often a stream without commits says so. */
const BEAT_MS = 1000;
/**
 * Frames that follow each other closely leave at multiples of this: each has
 * its price on both sides, a group commit comes every millisecond or so, and
 * streams that leave together share what they send. At 5,000 writes/s the lag
 * is 6 ms in the middle and 15 at the 99th percentile, with half of this 3 and
 * 8; the rows `replica-lag` and `replica-writes-…` of the benchmark tell.
 */
const GATHER_MS = 8;
/** A replica that takes nothing for so long is gone. */
const MAX_SILENCE_MS = 60_000;

export interface LogStreamsOptions {
  clock: Clock;
  /** What the log keeps for replicas that are behind. */
  maxRetainedBytes: number;
}

export class LogStreams {
  sentBytes = 0;
  private readonly open = new Set<LogStream>();
  private readonly names = new Set<number>();
  private readonly frames = new SharedFrames();
  private timer: Timer | undefined;

  constructor(private readonly options: LogStreamsOptions) {}

  get count(): number {
    return this.open.size;
  }

  /**
   * The body of a replica's stream.
   * @throws LogGoneError where the log does not reach back that far
   * @throws TooManyError past the limit of streams
   */
  stream(
    log: LogSource,
    afterVersion: number,
    deflates: boolean,
  ): ReadableStream<Bytes> {
    if (this.open.size >= MAX_LOG_STREAMS) {
      throw new TooManyError(
        `This server has ${MAX_LOG_STREAMS} live replicas, which is the limit. Let further ones follow the backup.`,
      );
    }
    const { clock, maxRetainedBytes } = this.options;
    let number = 1;
    while (this.names.has(number)) number++;
    const reader = log.openLogReader({
      name: `replica ${number}`,
      afterVersion,
      maxRetainedBytes,
      maxBatchBytes: FRAME_BYTES,
    });
    this.names.add(number);
    const { frames } = this;
    const stream = new LogStream(clock, log, reader, deflates, frames, {
      sent: (sizeBytes) => this.sentBytes += sizeBytes,
      left: () => {
        this.names.delete(number);
        this.leave(stream);
      },
    });
    this.open.add(stream);
    this.timer ??= clock.every(BEAT_MS, () => this.beatAll());
    // Nothing ahead: a frame is made when the one before it has been taken.
    return new ReadableStream(stream, { highWaterMark: 0 });
  }

  private leave(stream: LogStream): void {
    this.open.delete(stream);
    if (this.open.size > 0) return;
    this.frames.forget();
    this.timer?.stop();
    this.timer = undefined;
  }

  private beatAll(): void {
    for (const stream of [...this.open]) stream.beat();
  }

  /** Ends every stream in order, as before a shutdown. */
  endAll(sentence: string): void {
    for (const stream of [...this.open]) stream.end(503, sentence);
  }
}

/** The newest frame, for streams that stand where another one just stood. */
class SharedFrames {
  private newest: { rows: LogRow[]; after: number; bytes: Bytes } | undefined;

  of(
    after: number,
    rows: LogRow[],
    durableVersion: number,
    deflates: boolean,
  ): Bytes {
    const { newest } = this;
    // Where compressed payloads are not understood, none is taken over.
    if (newest?.rows === rows && newest.after === after && !deflates) {
      return newest.bytes;
    }
    const bytes = encodeCommits(after, rows, durableVersion, deflates);
    this.newest = deflates ? undefined : { rows, after, bytes };
    return bytes;
  }

  forget(): void {
    this.newest = undefined;
  }
}

/** One replica's, as the source of the stream that answers it. */
class LogStream implements UnderlyingDefaultSource<Bytes> {
  private out!: ReadableStreamDefaultController<Bytes>;
  private isOpen = true;
  private hasBegun = false;
  /** The replica has taken all there is and waits for a commit. */
  private isWaiting = false;
  private pulledMs: number;
  private sentMs = -Infinity;
  /** The last frame had all there was. */
  private isFollowing = false;
  /** Up to where it was sent. */
  private version: number;
  private readonly ended = new AbortController();

  constructor(
    private readonly clock: Clock,
    private readonly log: LogSource,
    private readonly reader: LogReader,
    private readonly deflates: boolean,
    private readonly frames: SharedFrames,
    private readonly told: { sent(sizeBytes: number): void; left(): void },
  ) {
    this.version = reader.version;
    this.pulledMs = clock.monotonicMs();
  }

  start(controller: ReadableStreamDefaultController<Bytes>): void {
    this.out = controller;
  }

  async pull(): Promise<void> {
    this.pulledMs = this.clock.monotonicMs();
    try {
      // The first frame says that it has begun, and where the primary is.
      if (!this.hasBegun) {
        this.hasBegun = true;
        return this.sendBeat();
      }
      this.isWaiting = true;
      if (this.isFollowing) await this.gather();
      const rows = await this.reader.next(this.ended.signal);
      this.isWaiting = false;
      if (rows === null || !this.isOpen) return;
      const { durableVersion } = this.log;
      const frame = this.frames.of(
        this.version,
        rows,
        durableVersion,
        this.deflates,
      );
      this.version = rows[rows.length - 1].version;
      this.isFollowing = this.version >= durableVersion;
      this.sentMs = this.clock.monotonicMs();
      this.send(frame);
    } catch (error) {
      this.isWaiting = false;
      this.fail(error);
    }
  }

  /** Behind a frame that has just left, what comes goes along with others. */
  private async gather(): Promise<void> {
    const nowMs = this.clock.monotonicMs();
    if (nowMs - this.sentMs >= GATHER_MS) return;
    const leftMs = GATHER_MS - nowMs % GATHER_MS;
    await sleepUntil(this.clock, leftMs, this.ended.signal);
  }

  private send(frame: Bytes): void {
    this.told.sent(frame.length);
    this.out.enqueue(frame);
  }

  private sendBeat(): void {
    const { version, log, clock } = this;
    const { durableVersion } = log;
    const nowMs = clock.nowMs();
    this.send(encodeFrame({ kind: "beat", version, durableVersion, nowMs }));
  }

  beat(): void {
    if (!this.isOpen) return;
    if (this.clock.monotonicMs() - this.pulledMs > MAX_SILENCE_MS) {
      if (!this.isWaiting) {
        this.leave();
        return this.out.error(new Error("The replica took nothing."));
      }
    }
    if (!this.hasBegun || !this.isWaiting || this.out.desiredSize !== 0) return;
    try {
      this.sendBeat();
    } catch {
      // The file is being opened anew; the next one tells.
    }
  }

  private fail(error: unknown): void {
    if (!this.isOpen) return;
    if (error instanceof LogGoneError) return this.end(410, error.message);
    if (error instanceof UnavailableError) return this.end(503, error.message);
    this.leave();
    this.out.error(
      error instanceof Error ? error : new Error(messageOf(error)),
    );
  }

  /** In order: the replica learns why. */
  end(status: number, sentence: string): void {
    if (!this.isOpen) return;
    this.leave();
    this.out.enqueue(encodeFrame({ kind: "end", status, sentence }));
    this.out.close();
  }

  cancel(): void {
    this.leave();
  }

  private leave(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.ended.abort(new UnavailableError("The stream has ended."));
    this.reader.close();
    this.told.left();
  }
}
