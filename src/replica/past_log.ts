/**
 * A log that reaches back as far as the backup does: what the engine's log no
 * longer has, or never had because this instance restored the database, is read
 * out of the bucket, and the log goes on from where that ends.
 *
 * The bucket is read by its owner: its segments are what this database went
 * through, in that order. Where a position is no place in it, or the bucket
 * lacks what lies between, the reader fails as the log itself does.
 */
import { UnavailableError } from "../common/errors.ts";
import { readVersion } from "../protocol/versionstamp.ts";
import { ProtoReader } from "../protocol/protobuf.ts";
import type { LogRow } from "../store/backup_source.ts";
import {
  LogGoneError,
  type LogReader,
  type LogReaderOptions,
  type LogSource,
  type PastLog,
} from "../store/log_source.ts";
import type { Commits, Position, Source } from "./source.ts";

/** Each holds some segments in memory while it reads the bucket. */
const MAX_PAST_READERS = 2;

export class BackupPastLog implements PastLog {
  private reading = 0;

  /** @param open a source of the database's own backup; one for each reader */
  constructor(private readonly open: () => Pick<Source, "next">) {}

  openLogReader(log: LogSource, options: LogReaderOptions): LogReader {
    return new PastReader(log, options, () => {
      if (this.reading >= MAX_PAST_READERS) {
        throw new UnavailableError(
          `${MAX_PAST_READERS} readers are being given old changes out of the backup, which is the limit. Nothing is lost; try again in a moment.`,
        );
      }
      this.reading++;
      return { source: this.open(), leave: () => this.reading-- };
    });
  }
}

interface Past {
  source: Pick<Source, "next">;
  leave(): void;
}

class PastReader implements LogReader {
  private present: LogReader | undefined;
  private past: Past | undefined;
  private position: Position;
  private readonly ended = new AbortController();

  constructor(
    private readonly log: LogSource,
    private readonly options: LogReaderOptions,
    private readonly enter: () => Past,
  ) {
    this.position = placeless(options.afterVersion);
  }

  get version(): number {
    return this.present?.version ?? this.position.version;
  }

  async next(signal?: AbortSignal): Promise<LogRow[] | null> {
    for (;;) {
      signal?.throwIfAborted();
      if (this.ended.signal.aborted) return null;
      try {
        this.present ??= this.openPresent();
        return await this.present.next(signal);
      } catch (error) {
        if (!(error instanceof LogGoneError)) throw error;
        const rows = await this.nextPast(error, signal);
        if (rows.length > 0) return rows;
      }
    }
  }

  /** @throws LogGoneError where the log does not reach back to the position */
  private openPresent(): LogReader {
    const { version } = this.position;
    const reader = this.log.openLogReader({
      ...this.options,
      afterVersion: version,
    });
    this.leavePast();
    return reader;
  }

  /** @throws gone where the bucket does not have it either */
  private async nextPast(
    gone: LogGoneError,
    signal: AbortSignal | undefined,
  ): Promise<LogRow[]> {
    if (this.present) {
      this.position = placeless(this.present.version);
      this.present.close();
      this.present = undefined;
    }
    this.past ??= this.enter();
    const { position } = this;
    const ended = signal
      ? AbortSignal.any([signal, this.ended.signal])
      : this.ended.signal;
    const next = await this.past.source.next(position, ended);
    // It waits by itself before it says so again.
    if (next.kind === "notYet") return [];
    if (next.kind !== "commits") throw gone;
    this.position = next.position;
    return rowsOf(next);
  }

  private leavePast(): void {
    this.past?.leave();
    this.past = undefined;
  }

  close(): void {
    this.ended.abort();
    this.present?.close();
    this.leavePast();
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

/** The source finds the place by the version. */
function placeless(version: number): Position {
  return { version, timeMs: 0, epoch: 0, place: "" };
}

/** A row for each time at which commits of the segment were made. */
export function rowsOf({ entries, times, position }: Commits): LogRow[] {
  const rows: LogRow[] = [];
  const reader = new ProtoReader(entries);
  let startAt = 0;
  let firstVersion = 0;
  let version = 0;
  let run = 0;
  const close = (at: number) => {
    if (at === startAt) return;
    const { timeMs } = times.at(run) ?? position;
    const part = entries.subarray(startAt, at);
    rows.push({ firstVersion, version, timeMs, entries: part });
    startAt = at;
    firstVersion = 0;
  };
  for (let at = 0; reader.next(); at = reader.position) {
    const entry = reader.message();
    entry.next();
    const next = readVersion(entry.data(), 0);
    if (run < times.length && next > times[run].version) {
      close(at);
      while (run < times.length && next > times[run].version) run++;
    }
    firstVersion ||= next;
    version = next;
  }
  close(entries.length);
  return rows;
}
