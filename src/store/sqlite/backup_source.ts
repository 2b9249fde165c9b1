/** The SQLite engine as a backup sees it. */
import {
  type BackupSource,
  type DatabaseDigest,
  type LogRow,
  SnapshotGivenUpError,
  type SnapshotOptions,
  type SnapshotSummary,
} from "../backup_source.ts";
import type { Clock } from "../../common/clock.ts";
import { UnavailableError } from "../../common/errors.ts";
import type { Retention } from "../log_readers.ts";
import { digestFile, snapshotFile } from "./snapshot.ts";
import type { Writing } from "./writing.ts";

/** The write-ahead log reaches half of this without any reader. */
const MIN_LOG_LIMIT_BYTES = 32 * 1024 * 1024;
/** How often its length is looked at while a snapshot reads. */
const LOG_LOOK_MS = 50;

export class SqliteBackupSource implements BackupSource {
  private retention: Retention | undefined;

  constructor(
    private readonly writing: Writing,
    private readonly path: string,
    private readonly clock: Clock,
  ) {}

  get databaseId(): string {
    return this.writing.databaseId;
  }

  get syncedVersion(): number {
    return this.writing.current().horizon.syncedVersion;
  }

  get logFloorVersion(): number {
    return this.writing.current().session.log.floorVersion;
  }

  logBytesAfter(version: number): number {
    return this.writing.current().session.log.bytesAfter(version);
  }

  readLog(version: number, maxBytes: number): LogRow[] {
    const { session, horizon } = this.writing.current();
    return session.log.readUpTo(version, horizon.syncedVersion, maxBytes);
  }

  retainAfter(version: number, maxBytes: number): void {
    const { retentions } = this.writing.logReaders;
    this.retention ??= { name: "backup", afterVersion: version, maxBytes };
    this.retention.afterVersion = version;
    this.retention.maxBytes = maxBytes;
    retentions.add(this.retention);
  }

  async snapshot(options: SnapshotOptions): Promise<SnapshotSummary> {
    const { writing } = this;
    const before = writing.current();
    const { syncedVersion } = before.horizon;
    const limit = await this.logLimit(options.maxLogBytes ?? Infinity);
    try {
      return await snapshotFile(this.path, {
        ...options,
        signal: options.signal
          ? AbortSignal.any([options.signal, limit.signal])
          : limit.signal,
        nowMs: () => this.clock.nowMs(),
        onLeftOut: (rows) => writing.noteLeftOut(rows),
        settled: async (version) => {
          if (version < syncedVersion) {
            // A commit of ours notes it, and the log begins anew behind it. Not
            // waited for: its confirmation may need the backup to go on.
            before.writer.sweep().catch(() => {});
            throw new UnavailableError(
              "Another program put older contents into the database; it is read anew.",
            );
          }
          await before.horizon.whenSynced();
          // After a failed sync the log is cut: what was seen may be gone.
          if (writing.current() !== before) throw writing.unavailable();
        },
      });
    } finally {
      limit.stop();
    }
  }

  /**
   * The write-ahead log cannot begin anew while a snapshot reads. Past the
   * limit the snapshot lets it, and none begins before it has.
   * @throws SnapshotGivenUpError where it is too long to begin
   */
  private async logLimit(
    maxBytes: number,
  ): Promise<{ signal: AbortSignal; stop(): void }> {
    const { writing } = this;
    const limitBytes = Math.max(maxBytes, MIN_LOG_LIMIT_BYTES);
    if (writing.walBytes > limitBytes / 2 && !await writing.checkpoint()) {
      throw givenUp(writing.walBytes, limitBytes);
    }
    const beginBytes = writing.walBytes;
    const controller = new AbortController();
    const timer = this.clock.every(LOG_LOOK_MS, () => {
      if (writing.walBytes <= Math.max(limitBytes, beginBytes)) return;
      timer.stop();
      controller.abort(givenUp(writing.walBytes, limitBytes));
    });
    return { signal: controller.signal, stop: () => timer.stop() };
  }

  digest(signal?: AbortSignal): Promise<DatabaseDigest> {
    return digestFile(this.path, signal);
  }

  async settled(version: number): Promise<void> {
    const { horizon } = this.writing.current();
    if (horizon.durableVersion < version) await horizon.whenSettled();
  }

  getState(name: string): string | undefined {
    return this.writing.current().session.state.getText(name);
  }

  setState(values: Record<string, string>): Promise<void> {
    return this.writing.putState(values);
  }

  settle(): Promise<void> {
    return this.writing.settle();
  }
}

function givenUp(walBytes: number, limitBytes: number): SnapshotGivenUpError {
  return new SnapshotGivenUpError(
    `the write-ahead log has ${walBytes} bytes, and ${limitBytes} at the most are kept for a snapshot`,
  );
}
