/**
 * A database file that follows a history which another server writes. It may
 * be read meanwhile, by this process and others: what is applied is seen a
 * whole commit at a time, and each state is one that its writer had.
 *
 * With its history kept it goes back in time, and forward again. It then shows
 * an earlier state than the newest one that it has; what lies between is kept
 * until it goes there.
 */
import type { Bytes } from "../common/bytes.ts";
import type { CommitTime } from "../log/commit_times.ts";

export interface ReplicaCommits {
  /**
   * Entries of whole commits (log/entry.ts). They belong to the writer from
   * then on, with the whole buffer that they lie in.
   */
  entries: Bytes;
  /**
   * The commits come after this version, which the file has; those that it has
   * beyond it are passed over.
   */
  afterVersion: number;
  /**
   * The version that the file has then. May lie beyond the last entry, where
   * commits changed nothing or the history leapt.
   */
  version: number;
  /** When the last of them was made, milliseconds since 1970. */
  timeMs: number;
  /** When each was made, where they differ. */
  times: readonly CommitTime[];
  /** Named values, in the same transaction: the follower's position. */
  state: Record<string, string>;
}

export interface ReplicaWriterOptions {
  /** Whether what is replaced is kept, so that the file can go back in time. */
  keepsHistory: boolean;
}

/** A commit; several may have one version in what other programs wrote. */
export interface CommitPoint {
  version: number;
  order: number;
}

/** Off the serving thread. One call at a time. */
export interface ReplicaWriter {
  readonly databaseId: string;
  /** What readers see. */
  readonly version: number;
  /** The commit that readers see: the last one that changed something. */
  readonly point: CommitPoint;
  /**
   * The newest version that the file has. Above `version`, the file shows an
   * earlier state, by `goTo` or because commits were only kept.
   */
  readonly newestVersion: number;
  state(name: string): string | undefined;

  /**
   * One transaction, all or nothing. It need not survive a power cut: the file
   * is then at an earlier state of the history, and its position says which.
   * Only while the file shows the newest version that it has.
   * @throws InvalidRequestError where the bytes are no entries, or out of
   * order, or begin after a gap; nothing was applied
   * @throws StartupError what the disk says, as a sentence; nothing was applied
   */
  apply(commits: ReplicaCommits): Promise<{ entries: number }>;

  /** As `apply`, but readers go on seeing what they see, until `goTo`. */
  keep(commits: ReplicaCommits): Promise<{ entries: number }>;

  /**
   * Shows the state of the last commit at or before this point, in one
   * transaction; without a point, of the newest one that the file has.
   * @throws InvalidRequestError where the history does not reach back so far
   * @throws StartupError what the disk says, as a sentence; nothing was changed
   */
  goTo(
    point?: CommitPoint,
    progress?: (done: number, total: number) => void,
  ): Promise<void>;

  /** Everything applied is durable then. */
  close(): Promise<void>;
}
