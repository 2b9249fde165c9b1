/**
 * The engine's log, for as long as this instance owns the history: what is
 * handed out was acknowledged while it did, and nothing is after that.
 */
import type { Timer } from "../common/clock.ts";
import type { UnavailableError } from "../common/errors.ts";
import type { LogRow } from "../store/backup_source.ts";
import type {
  LogReader,
  LogReaderOptions,
  LogReaderReport,
  LogSource,
} from "../store/log_source.ts";

export interface OwnedLogGate {
  /** @throws UnavailableError where this instance does not own the history */
  ready(): Promise<void>;
  /** Looks who owns it, now and then, also where nobody asks. */
  watch(): Timer;
}

export class OwnedLog implements LogSource {
  private readonly open = new Set<LogReader>();
  private refusal: UnavailableError | undefined;

  constructor(
    private readonly inner: LogSource,
    private readonly gate: OwnedLogGate,
  ) {}

  get logFloorVersion(): number {
    return this.inner.logFloorVersion;
  }

  get durableVersion(): number {
    return this.inner.durableVersion;
  }

  hasBeenAt(version: number, timeMs?: number): boolean {
    return this.inner.hasBeenAt(version, timeMs);
  }

  openLogReader(options: LogReaderOptions): LogReader {
    if (this.refusal) throw this.refusal;
    const inner = this.inner.openLogReader(options);
    const looks = this.gate.watch();
    const next = async (signal?: AbortSignal): Promise<LogRow[] | null> => {
      const rows = await inner.next(signal);
      if (this.refusal) throw this.refusal;
      if (rows !== null) await this.gate.ready();
      return rows;
    };
    const close = () => {
      looks.stop();
      this.open.delete(reader);
      inner.close();
    };
    const reader: LogReader = {
      get version() {
        return inner.version;
      },
      next,
      close,
      async *[Symbol.asyncIterator]() {
        try {
          for (let rows; (rows = await next()) !== null;) yield rows;
        } finally {
          close();
        }
      },
    };
    this.open.add(reader);
    return reader;
  }

  logReaders(): LogReaderReport[] {
    return this.inner.logReaders();
  }

  /** All of them end with this error, and no more are taken. */
  refuse(error: UnavailableError): void {
    this.refusal ??= error;
    for (const reader of this.open) reader.close();
  }
}
