/**
 * The mutation log as everybody's source: whole commits after a version, for
 * several named readers at once (the backup, replicas, change feeds).
 *
 * Promises:
 * 1. A reader sees every commit after its position, in order, whole, and only
 *    what is acknowledged: nothing that a power cut could still take back.
 * 2. Nothing is gathered for a reader: it takes the next rows when it has room.
 * 3. A reader holds back the trim up to its own limit. Past it the log goes on
 *    without the reader, which then gets a {@linkcode LogGoneError}.
 */
import { UnavailableError } from "../common/errors.ts";
import type { LogRow } from "./backup_source.ts";

/** The log does not reach back to a reader's position. */
export class LogGoneError extends UnavailableError {
  override name = "LogGoneError";

  constructor(
    /** The oldest version that a reader can begin after. */
    readonly floorVersion: number,
    message: string,
  ) {
    super(message);
  }
}

export interface LogReaderOptions {
  /** For metrics and the log, such as `backup` or `changes 3`. */
  name: string;
  /** Its position: what it has already. */
  afterVersion: number;
  /**
   * Rows after its position stay while the log takes less than this; 0 holds
   * nothing back.
   */
  maxRetainedBytes: number;
  /** About how much `next` hands out at once; at least one row. */
  maxBatchBytes: number;
}

export interface LogReader extends AsyncIterable<LogRow[]> {
  /** All up to here was handed out, and may be trimmed. */
  readonly version: number;

  /**
   * The next rows after the position, as soon as there are any. The first row
   * may begin with commits that the position has already: pass those over.
   * One call at a time. Resolves with null after `close`.
   * @throws LogGoneError where the log no longer reaches back to the position
   * @throws UnavailableError when the store closes or fails
   */
  next(signal?: AbortSignal): Promise<LogRow[] | null>;

  /** It holds nothing back from then on. */
  close(): void;
}

/** How a reader stands, for metrics. */
export interface LogReaderReport {
  name: string;
  version: number;
  /** Of the log, behind what is acknowledged; 0 where it has all of it. */
  lagBytes: number;
  /** Since the oldest commit that it has not got was made. */
  lagMs: number;
}

export interface LogSource {
  /** Every commit after it is in the log. */
  readonly logFloorVersion: number;
  /** The newest version that is acknowledged. */
  readonly durableVersion: number;

  /**
   * Whether this is a state of the history that the log tells. One that only
   * another line of it had lies between two commits: before a takeover or a
   * rewind versions leapt over it.
   * @param timeMs when its commit was made, where that is known: an older copy
   *   that was put back may have given the same version to another commit
   * @throws LogGoneError where the log does not reach back that far
   */
  hasBeenAt(version: number, timeMs?: number): boolean;

  /**
   * @throws InvalidRequestError where the database has not come that far
   * @throws LogGoneError where the log does not reach back that far
   * @throws TooManyError past the limit of readers
   */
  openLogReader(options: LogReaderOptions): LogReader;

  logReaders(): LogReaderReport[];
}

/** What a log no longer has, out of a backup. */
export interface PastLog {
  /**
   * A reader that begins where the position is, and goes on in the log from
   * where that begins. It fails as the log does where the position is in neither.
   */
  openLogReader(log: LogSource, options: LogReaderOptions): LogReader;
}
