/**
 * Where a replica gets a history from: a backup in a bucket, a folder of the
 * layout that the Rust server reads, or the primary itself. A source has no
 * state that matters: it is asked what comes after a position, and whoever
 * applies that keeps the position in the same transaction. So a replica that
 * was killed anywhere, or changes its source, asks again and goes on.
 *
 * Promise: a source hands out only what stays history. What it hands out after
 * a position follows it without a gap, a whole commit at a time; where that
 * cannot be shown it says `beginAnew`, or throws.
 */
import type { Bytes } from "../common/bytes.ts";
import type { CommitTime } from "../log/commit_times.ts";
import type { RestoreTarget } from "../store/restore_target.ts";

export interface Position {
  /** The history's version that the file has. */
  version: number;
  /** When its commit was made, milliseconds since 1970; 0: not known. */
  timeMs: number;
  /**
   * The owner's epoch that it was read in; 0 where there are none. Its primary
   * had the states in this order: by epoch, then by version.
   */
  epoch: number;
  /**
   * Where in its source it is, in that source's own words. Another source
   * finds its place by the version.
   */
  place: string;
}

/** Whole commits, and the position behind them. */
export interface Commits {
  kind: "commits";
  /** As in `ReplicaCommits`, which they become. */
  entries: Bytes;
  afterVersion: number;
  times: readonly CommitTime[];
  position: Position;
}

export type Next =
  | Commits
  /** The position is the end of all that there is, as of now. */
  | { kind: "end" }
  /** Nothing can be told at present; `why` is a sentence. It is asked again. */
  | { kind: "notYet"; why: string }
  /**
   * The history does not go on from this position: what comes next is a new
   * first snapshot.
   */
  | { kind: "beginAnew"; why: string };

/** A first state of a whole database. */
export interface Snapshot {
  kind: "snapshot";
  databaseId: string;
  /** Which state it is, where that is known before it is loaded. */
  state?: Pick<Position, "version" | "epoch">;
  sizeBytes: number;
  /**
   * Puts all of it into the target, which the caller finishes or discards.
   * @returns where its log goes on
   */
  load(
    target: Pick<RestoreTarget, "load" | "apply">,
    progress?: (doneBytes: number, totalBytes: number) => void,
  ): Promise<Position>;
  /** It is not loaded after all. */
  drop?(): void;
}

/**
 * Errors: `UnavailableError` and `ObjectStoreRefusedError` (asked again later),
 * `StartupError` (what is there is damaged: it says which object, and nothing
 * behind it is handed out).
 */
export interface Source {
  /** Names it, for messages and for the file; holds no credentials. */
  readonly url: string;
  /** What it is read over at present, for metrics: `bucket`, `stream`. */
  readonly via: string;
  /** Where writes are taken, where that is known. */
  readonly primaryUrl: string | undefined;
  /** The newest version that it is known to have; 0: not known. */
  readonly newestVersion: number;

  /**
   * A whole state that can be had in one go: the newest one, or the earliest
   * from which the log is there, as far as the source can choose.
   */
  snapshot(
    signal: AbortSignal,
    which?: "newest" | "earliest",
  ): Promise<Snapshot | Extract<Next, { kind: "notYet" }>>;

  /**
   * What comes after the position. Waits on its own between two looks at the
   * same end: a caller asks again at once. One call at a time.
   */
  next(position: Position, signal: AbortSignal): Promise<Next>;

  close(): Promise<void>;
}
