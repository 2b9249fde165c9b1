/**
 * What a backup asks of a database engine: its mutation log, a consistent
 * snapshot, and a place for a few values of its own. The engine knows nothing
 * of buckets, and the backup nothing of tables.
 *
 * Promises:
 * 1. Nothing is handed out that is not durable where the engine keeps it. It
 *    need not be confirmed by anyone else: a snapshot waits for no backup.
 * 2. Every commit after `logFloorVersion` is in the log, in order, whole. A
 *    floor above what a reader has seen is a gap: it needs a new snapshot.
 * 3. A snapshot is the state at one version, taken beside running writes.
 */
import type { Bytes } from "../common/bytes.ts";
import { UnavailableError } from "../common/errors.ts";

/** A row of the log: one or more whole commits. */
export interface LogRow {
  /** The versions of the first and last commit in the row. */
  firstVersion: number;
  version: number;
  /**
   * When the row was committed, milliseconds since the Unix epoch. Never before
   * the row that it follows: where the clock was put back, the time of that one.
   */
  timeMs: number;
  /** See log/entry.ts; empty for commits that changed nothing. */
  entries: Bytes;
}

/** A part of a snapshot, in the bytes of log/snapshot_range.ts. */
export interface SnapshotPart {
  /** Over a buffer of their own, which belongs to the receiver. */
  bytes: Bytes;
  entries: number;
  /** The key of its last entry. */
  endKey: Bytes;
  /** Of its bytes, in hexadecimal. */
  sha256: string;
}

/**
 * The snapshot held up more of the engine's own log than it may: it has let go
 * of it. Another one may be begun later.
 */
export class SnapshotGivenUpError extends UnavailableError {
  override name = "SnapshotGivenUpError";
}

export interface SnapshotOptions {
  /** About how large a part becomes; one entry may be larger. */
  partBytes: number;
  /**
   * Keys in order at which parts end, also smaller ones: those of an earlier
   * snapshot, so that a part in which nothing has changed has the same bytes.
   */
  splitKeys?: readonly Bytes[];
  /**
   * What the engine's own log may grow to while it is read; past it, it rejects
   * with a {@linkcode SnapshotGivenUpError}. Default: anything.
   */
  maxLogBytes?: number;
  /**
   * Asked before each part: for how long the reading rests after each 64 KiB,
   * so as to leave the processor to what is served. Default: not at all.
   */
  pauseMs?(): number;
  /** Called once, before the first part: the snapshot's version. */
  onBegin(version: number): void;
  /** Called with one part after the other, in key order; awaited. */
  onPart(part: SnapshotPart): Promise<void>;
  signal?: AbortSignal;
}

export interface SnapshotSummary {
  version: number;
  /** When its last commit was made, as the log has it. */
  timeMs: number;
  /** Entries of clients, and queue messages (keys under 0xFF), in all parts. */
  entries: number;
  queueMessages: number;
  sizeBytes: number;
}

/** What a whole database comes to: equal digests, equal contents. */
export interface DatabaseDigest {
  version: number;
  entries: number;
  queueMessages: number;
  /** SHA-256 over every row, in hexadecimal. */
  sha256: string;
}

export interface BackupSource {
  readonly databaseId: string;

  /** The newest version that is durable where the engine keeps it. */
  readonly syncedVersion: number;

  /** Every commit after it is in the log. */
  readonly logFloorVersion: number;

  /** About how many bytes the log holds after `version`. */
  logBytesAfter(version: number): number;

  /**
   * Whole rows after `version` and not beyond `syncedVersion`, oldest first,
   * about `maxBytes` of them, but at least one where there is one.
   */
  readLog(version: number, maxBytes: number): LogRow[];

  /**
   * Keeps every row after `version` until the next call, while the log takes
   * less than `maxBytes`; past it the floor moves on all the same.
   */
  retainAfter(version: number, maxBytes: number): void;

  /** Off the serving thread. Rejects with the signal's reason when ended. */
  snapshot(options: SnapshotOptions): Promise<SnapshotSummary>;

  /** Off the serving thread, at the version that it then tells. */
  digest(signal?: AbortSignal): Promise<DatabaseDigest>;

  /** Resolves when every commit up to `version` is durable and confirmed. */
  settled(version: number): Promise<void>;

  /** A small named value that lives in the database. */
  getState(name: string): string | undefined;

  /** All of them in one transaction; resolves when it is durable. */
  setState(values: Record<string, string>): Promise<void>;

  /**
   * Ends the commits that the engine makes by itself, and resolves when every
   * commit is durable and confirmed: nothing follows the log's end but what
   * clients write.
   */
  settle(): Promise<void>;
}
