/**
 * The Store contract: what the server asks of a database engine, and what any
 * engine promises. One suite (`store_contract.ts`) holds every engine to
 * it.
 *
 * Promises:
 * 1. Acknowledged means durable. `write` resolves only when its commit has
 *    passed the store's `Durability`; `read` and `watch` never hand out what a
 *    power cut could still take back. A read that met such an entry is
 *    answered when the entry is durable, not before.
 * 2. All or nothing, per atomic write, however many share one commit.
 * 3. Versionstamps strictly increase over commits and none is issued twice.
 * 4. An entry is gone for reads, checks and watches from the very millisecond
 *    of its `expireAtMs`, whenever its row is physically deleted. Deletion is
 *    a commit of its own.
 * 5. Every commit is in the mutation log, in the same transaction.
 * 6. Everything is bounded: past the limit of waiting writes `write` rejects
 *    with `UnavailableError`, past the limit of watches `watch` throws
 *    `TooManyError`.
 *
 * Engines differ in where the data is. One in the process (SQLite) answers
 * reads at once, without a promise: the short cut that most requests take.
 * One across a network answers with promises, and its commits issue the
 * versionstamp. Callers handle both.
 *
 * Errors: `UnavailableError` (not now: nothing of the request was
 * acknowledged, it may or may not have been applied and may be sent again).
 * Requests are already checked; a store trusts their types and limits.
 */
import type { Bytes } from "../common/bytes.ts";
import type {
  AtomicWrite,
  Entry,
  ReadRange,
  WriteOutcome,
} from "../protocol/messages.ts";
import type { BackupSource } from "./backup_source.ts";
import type { LogSource } from "./log_source.ts";

export interface Store {
  /** A lowercase UUID that lives in the database and travels with it. */
  readonly databaseId: string;
  readonly isReadOnly: boolean;
  /** Where writes are taken, where this store takes none and that is known. */
  readonly primaryUrl?: string | undefined;

  /**
   * All ranges from one snapshot; one list of entries for each, in order.
   * @param maxBytes where keys and values take more than about this, the read
   *   is given up: for callers that then ask `readLarge`
   * @throws LargeReadError past `maxBytes`, at once or as a rejection
   */
  read(
    ranges: readonly ReadRange[],
    maxBytes?: number,
  ): Entry[][] | Promise<Entry[][]>;

  /**
   * The same for an answer of any size, in slices of a millisecond or so with
   * other requests in between; one such read at a time, the others wait.
   */
  readLarge(ranges: readonly ReadRange[]): Promise<Entry[][]>;

  write(write: AtomicWrite): Promise<WriteOutcome>;

  /**
   * Resolves when reads show this version; undefined where they do at once.
   * Absent where they show whatever was acknowledged.
   * @param signal ends the wait
   */
  reached?(version: number, signal: AbortSignal): Promise<void> | undefined;

  /**
   * Begins a watch over the keys (already checked, at most 10).
   * @throws TooManyError past the limit of watches
   */
  watch(keys: readonly Bytes[]): Watch;

  /** Numbers for metrics, gathered when asked. */
  stats(): StoreStats;

  /** Whether writes are taken at present, and if not, why in a sentence. */
  health(): StoreHealth;

  /** What a backup reads; undefined where the store only reads. */
  readonly backupSource?: BackupSource;

  /** What replicas and change feeds read; undefined where there is no log. */
  readonly log?: LogSource;

  /**
   * Refuses new writes, finishes the ones it has, and gives the file up in a
   * state that opens without recovery. Safe to call twice.
   */
  close(): Promise<void>;
}

/** A watch over some keys of a store; end it with `cancel`. */
export interface Watch {
  /**
   * The next state that differs from the last one handed out; the first call
   * resolves with the present state, every key `changed`. Changes in between
   * fold into the latest state, and each state is one snapshot. One call at a
   * time. Resolves with null after `cancel`.
   * @param admission where the consumer limits what it holds in memory
   * @throws UnavailableError when the store closes or fails
   */
  next(admission?: Admission): Promise<WatchState | null>;
  cancel(): void;
}

/**
 * Asked before a state is handed out whether there is room for it. Where the
 * answer is a promise, the state is dropped, and the keys are read anew when
 * it resolves: so whoever waits holds a flag and no values. Where the keys are
 * then as they were shown last, it is asked with null: no room is needed.
 */
export type Admission = (
  entries: readonly (Entry | null)[] | null,
) => void | Promise<void>;

export interface WatchState {
  /** One for each watched key; null where it is absent. */
  entries: (Entry | null)[];
  /** One for each watched key: whether it differs from the last state. */
  changed: boolean[];
}

/** A read that takes more than it may in one turn; see `Store.read`. */
export class LargeReadError extends Error {
  override name = "LargeReadError";
}

/**
 * Why no writes are taken, in one word, which may be shown to anyone:
 * - `stopping`: the server ends
 * - `disk`: the disk does not take what is written, or does not answer
 * - `full`: there is no room on the disk; deletions are taken
 * - `lock`: another program holds the database locked
 * - `backup`: the backup does not confirm
 * - `ownership`: another instance has the database, or may have it
 * - `starting`: the database is not open yet
 * - `standby`: another instance serves the database; this one follows it
 */
export type NotWritableCause =
  | "stopping"
  | "disk"
  | "full"
  | "lock"
  | "backup"
  | "ownership"
  | "starting"
  | "standby";

export type StoreHealth =
  | { writable: true }
  | { writable: false; cause: NotWritableCause; reason: string };

/**
 * Cumulative counts since the store was opened, unless said otherwise.
 * Histograms count values by upper bound (`HistogramSnapshot`).
 */
export interface StoreStats {
  /** The versionstamp of the last durable commit, its first 8 bytes. */
  durableVersion: number;
  commits: number;
  atomicWrites: { committed: number; checkFailed: number; refused: number };
  groupSizes: HistogramSnapshot;
  syncSeconds: HistogramSnapshot;
  syncFailures: number;
  /** How long the oldest fsync that runs has been running; 0 where none does. */
  syncPendingSeconds: number;
  commitFailures: number;
  checkpoints: number;
  /** Writes without an answer yet, what they hold, and how many were too many. */
  waitingWrites: number;
  waitingBytes: number;
  refusedWrites: number;
  watches: number;
  databaseBytes: number;
  /** Room kept on the disk for deletions when it is full. */
  reserveBytes: number;
  walBytes: number;
  /** Entries past their expiry whose rows are still there, up to a bound. */
  expiryBacklog: number;
  expiredDeleted: number;
  /** Rows that other programs wrote and that cannot be read, as often as met. */
  unreadableRows: number;
  log: { floorVersion: number; headVersion: number; sizeBytes: number };
}

/**
 * Why a backup does not go through, in one word. It may be shown to anyone;
 * the sentence beside it may name the provider, the bucket and its keys.
 *
 * - `unreachable`: no answer, or one that passes (a time limit, 429, 5xx)
 * - `denied`: the store refuses until a person changes something, such as
 *   credentials, rights or the bucket's name
 * - `conflict`: another instance has the database now
 * - `damaged`: what is in the backup is not what was written
 * - `disk`: this machine's own disk does not take the file: it is full, say
 */
export const BACKUP_ERROR_KINDS = [
  "unreachable",
  "denied",
  "conflict",
  "damaged",
  "disk",
  "other",
] as const;

export type BackupErrorKind = (typeof BACKUP_ERROR_KINDS)[number];

/** Requests to the object store, as providers bill them. */
export interface BackupRequests {
  put: number;
  list: number;
  get: number;
  head: number;
  delete: number;
  /** Since the start of the server. */
  forMs: number;
}

/** How a backup stands, for metrics and readiness. Times in milliseconds. */
export interface BackupReport {
  durability: string;
  /**
   * `Active`: it has everything, or is within its interval. `Starting` and
   * `Standby`: this instance does not serve, and ships nothing.
   */
  state:
    | "Active"
    | "Behind"
    | "Unreachable"
    | "Stopped"
    | "Starting"
    | "Standby";
  epoch: number;
  generation: string | null;
  /** The newest versions that are durable on this disk and in the bucket. */
  localVersion: number;
  bucketVersion: number;
  lagMs: number;
  maxLagMs: number;
  lagBytes: number;
  segments: number;
  shippedBytes: number;
  failures: number;
  /**
   * This machine's clock less the object store's, at least; 0 where they may
   * agree, undefined where the store does not say.
   */
  clockSkewMs: number | undefined;
  /** What fails at present: the shipping, the lease, or the ownership is lost. */
  lastError: string | undefined;
  lastErrorKind: BackupErrorKind | undefined;
  /** Since the last verification by this launch. */
  verifiedAgeMs: number | undefined;
  verifyFailure: string | undefined;
  verifyFailureKind: BackupErrorKind | undefined;
  /** Since a standby last had all that the bucket showed. */
  followedAgeMs?: number;
  /** Absent where nobody counts them. */
  requests?: BackupRequests;
}

/** How a replica stands, for metrics and readiness. Times in milliseconds. */
export interface ReplicaReport {
  /** What it follows; holds no credentials. */
  source: string;
  /** What that is read over at present: `bucket`, `stream`. */
  via: string;
  /**
   * `Starting`: it serves nothing yet. `Following`: all is well. `Waiting`:
   * another instance is becoming the owner. `Unreachable`: the source does not
   * answer. `Stopped`: what it says cannot be followed.
   */
  state: "Starting" | "Following" | "Waiting" | "Unreachable" | "Stopped";
  /** The history's version that is served. */
  version: number;
  /** When its commit was made, by the primary's clock; 0: not known. */
  timeMs: number;
  /** Since it last had all that its source showed. */
  lagMs: number;
  /** How far its version is behind the newest one that the source showed. */
  lagVersions: number;
  /** Where writes are taken, where that is known. */
  primaryUrl: string | undefined;
  /** Entries of the log that were applied since the start. */
  entries: number;
  failures: number;
  lastError: string | undefined;
  lastErrorKind: BackupErrorKind | undefined;
  /** Absent where nobody counts them. */
  requests?: BackupRequests;
}

export interface HistogramSnapshot {
  /** Upper bounds, ascending; one more bucket without a bound follows. */
  bounds: readonly number[];
  /** Values in each bucket, not cumulative; one longer than `bounds`. */
  counts: readonly number[];
  sum: number;
}
