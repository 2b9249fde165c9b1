/**
 * A database file that follows a history which another server writes. It may
 * be read meanwhile, by this process and others: what is applied is seen a
 * whole commit at a time, and each state is one that its writer had.
 */
import type { Bytes } from "../common/bytes.ts";
import type { CommitTime } from "../log/commit_times.ts";

export interface ReplicaCommits {
  /**
   * Entries of whole commits (log/entry.ts). They belong to the writer from
   * then on, with the whole buffer that they lie in.
   */
  entries: Bytes;
  /** Entries up to here are there already, and passed over. */
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

/** Off the serving thread. One call at a time. */
export interface ReplicaWriter {
  readonly databaseId: string;
  /** What the file is at; also what readers see. */
  readonly version: number;
  state(name: string): string | undefined;

  /**
   * One transaction, all or nothing. It need not survive a power cut: the file
   * is then at an earlier state of the history, and its position says which.
   * @throws InvalidRequestError where the bytes are no entries, or out of order
   * @throws StartupError what the disk says, as a sentence; nothing was applied
   */
  apply(commits: ReplicaCommits): Promise<{ entries: number }>;

  /** Everything applied is durable then. */
  close(): Promise<void>;
}
