/**
 * The readers of an engine's log, whatever the engine: who they are, how far
 * each is, what each holds back, and when there is something new for them.
 * What the engine adds is the log itself.
 *
 * Invariant: nothing is handed out above `durableVersion`. What a failed sync
 * cuts away lies above it, so no reader has seen it, and a reader lives on when
 * the engine opens its file anew.
 */
import {
  InvalidRequestError,
  TooManyError,
  UnavailableError,
} from "../common/errors.ts";
import { Waiters } from "../common/waiters.ts";
import type { LogRow } from "./backup_source.ts";
import {
  LogGoneError,
  type LogReader,
  type LogReaderOptions,
  type LogReaderReport,
  type LogSource,
} from "./log_source.ts";

/** At once, the backup not counted: each costs work with every commit. */
export const MAX_LOG_READERS = 64;

/** What somebody still needs of the log. */
export interface Retention {
  readonly name: string;
  /** Rows after this version stay… */
  afterVersion: number;
  /** …while the log takes less than this. */
  maxBytes: number;
}

/** The log as an engine has it. */
export interface ReadableLog {
  /** Every commit after it is in the log. */
  readonly floorVersion: number;
  /** The newest version that is acknowledged. */
  readonly durableVersion: number;
  /**
   * Whole rows after `version` and not beyond `upTo`, oldest first, about
   * `maxBytes` of them, but at least one where there is one.
   */
  rows(version: number, upTo: number, maxBytes: number): LogRow[];
  /** Whether a row has it, from its first commit to its last. */
  isInRow(version: number, timeMs?: number): boolean;
  /** About how many bytes lie after `version`. */
  bytesAfter(version: number): number;
  /** When the first row after `version` was committed. */
  timeAfter(version: number): number | undefined;
}

export class LogReaders implements LogSource {
  /** What the engine's log asks when it trims. */
  readonly retentions = new Set<Retention>();
  private readonly open = new Set<Reader>();
  private readonly waiting = new Waiters();
  private ended: UnavailableError | undefined;
  private last:
    | { after: number; upTo: number; maxBytes: number; rows: LogRow[] }
    | undefined;

  /**
   * @param log throws UnavailableError while the engine's file is being opened
   *   anew: readers wait until it is there again
   */
  constructor(
    private readonly log: () => ReadableLog,
    private readonly nowMs: () => number,
  ) {}

  get logFloorVersion(): number {
    return this.log().floorVersion;
  }

  get durableVersion(): number {
    return this.log().durableVersion;
  }

  hasBeenAt(version: number, timeMs?: number): boolean {
    const log = this.log();
    const { floorVersion } = log;
    if (version < floorVersion) throw gone(version, floorVersion);
    return version === floorVersion || log.isInRow(version, timeMs);
  }

  openLogReader(options: LogReaderOptions): LogReader {
    if (this.ended) throw this.ended;
    const { floorVersion, durableVersion } = this.log();
    const { name, afterVersion, maxRetainedBytes, maxBatchBytes } = options;
    if (this.open.size >= MAX_LOG_READERS) {
      throw new TooManyError(
        `The log has ${MAX_LOG_READERS} readers already; no more are taken at once.`,
      );
    }
    if (afterVersion < floorVersion) throw gone(afterVersion, floorVersion);
    if (afterVersion > durableVersion) {
      throw new InvalidRequestError(
        "There is no such version yet: what was asked for comes after the database's newest commit. Whoever has seen that version has seen another history of this database.",
      );
    }
    const reader = new Reader(
      this,
      { name, afterVersion, maxBytes: maxRetainedBytes },
      maxBatchBytes,
    );
    this.open.add(reader);
    this.retentions.add(reader.retention);
    return reader;
  }

  /** Commits up to `version` are acknowledged. Cheap where nobody waits. */
  durable(version: number): void {
    if (this.waiting.size > 0) this.waiting.reached(version);
  }

  /** The engine's file was opened anew: whoever waits looks again. */
  reopened(): void {
    this.waiting.reached(Infinity);
  }

  /** All of them end, and no more are taken. */
  end(error: UnavailableError): void {
    this.ended ??= error;
    this.waiting.fail(error);
    for (const reader of this.open) this.remove(reader);
    this.last = undefined;
  }

  logReaders(): LogReaderReport[] {
    const log = this.log();
    return [...this.retentions].map((retention) =>
      report(retention, log, this)
    );
  }

  ageMs(timeMs: number): number {
    return Math.max(0, this.nowMs() - timeMs);
  }

  // ------------------------------------------------------------ for a reader

  /** Undefined where there is nothing more at present. */
  take({ retention, maxBatchBytes }: Reader): LogRow[] | undefined {
    if (this.ended) throw this.ended;
    let log: ReadableLog;
    try {
      log = this.log();
    } catch (error) {
      if (error instanceof UnavailableError) return undefined;
      throw error;
    }
    const { afterVersion } = retention;
    const { floorVersion, durableVersion } = log;
    if (afterVersion < floorVersion) throw gone(afterVersion, floorVersion);
    if (afterVersion >= durableVersion) return undefined;
    const rows = this.rows(log, afterVersion, durableVersion, maxBatchBytes);
    const last = rows.at(-1);
    if (last === undefined) return undefined;
    retention.afterVersion = last.version;
    return rows;
  }

  /** Readers that go along with the writes ask for the same rows: read once. */
  private rows(
    log: ReadableLog,
    after: number,
    upTo: number,
    maxBytes: number,
  ): LogRow[] {
    const { last } = this;
    if (
      last?.after === after && last.upTo === upTo && last.maxBytes === maxBytes
    ) return last.rows;
    const rows = log.rows(after, upTo, maxBytes);
    this.last = this.open.size > 1
      ? { after, upTo, maxBytes, rows }
      : undefined;
    return rows;
  }

  /** Resolves when there may be something after the version. */
  more(version: number, signal: AbortSignal): Promise<void> {
    return this.waiting.wait(version + 1, signal);
  }

  remove(reader: Reader): void {
    this.open.delete(reader);
    this.retentions.delete(reader.retention);
    if (this.open.size < 2) this.last = undefined;
  }
}

/** Ends one wait. */
class Ending {
  private readonly controller = new AbortController();
  readonly signal = this.controller.signal;
  readonly abort = () => this.controller.abort();
}

class Reader implements LogReader {
  private isClosed = false;
  private waiting: Ending | undefined;

  constructor(
    private readonly readers: LogReaders,
    readonly retention: Retention,
    readonly maxBatchBytes: number,
  ) {}

  get version(): number {
    return this.retention.afterVersion;
  }

  async next(signal?: AbortSignal): Promise<LogRow[] | null> {
    for (;;) {
      signal?.throwIfAborted();
      if (this.isClosed) return null;
      const rows = this.readers.take(this);
      if (rows !== undefined) return rows;
      // One for each wait: a signal that lives long gathers nothing.
      const { signal: ended, abort } = this.waiting = new Ending();
      signal?.addEventListener("abort", abort);
      try {
        await this.readers.more(this.version, ended);
      } catch (error) {
        if (!ended.aborted) throw error;
      } finally {
        signal?.removeEventListener("abort", abort);
      }
    }
  }

  close(): void {
    this.isClosed = true;
    this.waiting?.abort();
    this.readers.remove(this);
  }

  async *[Symbol.asyncIterator](): AsyncIterator<LogRow[]> {
    try {
      for (;;) {
        const rows = await this.next();
        if (rows === null) return;
        yield rows;
      }
    } finally {
      this.close();
    }
  }
}

function report(
  { name, afterVersion }: Retention,
  log: ReadableLog,
  readers: LogReaders,
): LogReaderReport {
  const { durableVersion } = log;
  const timeMs = afterVersion < durableVersion
    ? log.timeAfter(afterVersion)
    : undefined;
  // The backup reads what is synced, and may be ahead of what is acknowledged.
  if (timeMs === undefined) {
    return { name, version: afterVersion, lagBytes: 0, lagMs: 0 };
  }
  const lagBytes = log.bytesAfter(afterVersion) -
    log.bytesAfter(durableVersion);
  return {
    name,
    version: afterVersion,
    lagBytes: Math.max(0, lagBytes),
    lagMs: readers.ageMs(timeMs),
  };
}

function gone(afterVersion: number, floorVersion: number): LogGoneError {
  return new LogGoneError(
    floorVersion,
    `The log no longer reaches back to version ${afterVersion}: it begins after ${floorVersion}. Nothing of the database is lost; whoever follows it has to begin anew, with a snapshot or from ${floorVersion} on.`,
  );
}
