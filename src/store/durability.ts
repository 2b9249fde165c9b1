/**
 * The seam through which every acknowledgement passes. A commit is first made
 * durable where the engine keeps it (for SQLite: fsync of the write-ahead
 * log); then `confirm` decides when it counts as durable for clients. Until
 * then no client sees it: not its writer, no reader, no watcher.
 *
 * `local` confirms at once. A backup confirms when the commit is in the
 * object store and the instance has checked that it still owns the history.
 */
export interface Durability {
  /** As `--durability` names it. */
  readonly name: string;

  /**
   * Called with ever larger versions, each time every commit up to `version`
   * is durable locally. Returns nothing where that is enough, or a promise
   * that resolves when the version may be acknowledged. Calls may overlap;
   * the store acknowledges in order. A rejection fails every waiting request
   * and takes the store out of service with the error's sentence.
   */
  confirm(version: number): void | Promise<void>;
}

/** Acknowledged means: survives a power cut of this machine. */
export const localDurability: Durability = {
  name: "local",
  confirm() {},
};
