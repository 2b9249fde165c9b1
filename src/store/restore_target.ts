/**
 * Where a restore puts what it reads: an engine's database that nobody serves
 * yet. Nothing of it is seen under its name before `finish`.
 */
import type { Bytes } from "../common/bytes.ts";

export interface RestoreEnd {
  databaseId: string;
  /** The last version of the history that was put in. */
  version: number;
  /**
   * When that one was made, where it is known: no commit that follows is
   * noted as made before it.
   */
  timeMs?: number;
  /** The next commit comes after this one. */
  leapToVersion: number;
  /** Named values to keep in the database. */
  state: Record<string, string>;
}

/**
 * Bytes that are handed over belong to the target from then on, with the whole
 * buffer that they lie in. One call at a time; each resolves when there is room
 * for the next, so that what could not be written may be told by a later one.
 */
export interface RestoreTarget {
  /**
   * Adds a part of a snapshot; parts come in order.
   * @returns how many entries it held
   * @throws InvalidRequestError where it is no part of a snapshot
   */
  load(range: Bytes): Promise<number>;
  /**
   * Applies the log's entries of versions above `after` and up to `upTo`.
   * @returns how many entries were applied, and the last one's version
   * @throws InvalidRequestError where the bytes are no entries
   */
  apply(
    entries: Bytes,
    after: number,
    upTo: number,
  ): Promise<{ applied: number; lastVersion: number }>;
  /** Makes all of it durable, and moves it into place. */
  finish(end: RestoreEnd): Promise<void>;
  /** Leaves nothing behind. */
  discard(): Promise<void>;
}

/** What can be told of a database without serving it. */
export interface LocalDatabase {
  databaseId: string;
  /** Of its last commit. */
  version: number;
  /** Of the last commit that changed something, as far as the log knows. */
  contentVersion: number;
  /** Another program has written to it since our last commit. */
  hasForeignWrites?: boolean;
  state(name: string): string | undefined;
}
