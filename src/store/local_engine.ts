/**
 * An engine whose database is on this machine, as whoever decides at launch
 * what that database should hold sees it: before it is served.
 */
import type { BackupSource } from "./backup_source.ts";
import type { Durability } from "./durability.ts";
import type { LocalDatabase, RestoreTarget } from "./restore_target.ts";
import type { Store } from "./store.ts";

export interface LocalEngine {
  /**
   * Takes the database for this process alone.
   * @throws StartupError where another has it
   */
  lock(): EngineLock;

  /**
   * A look at the database, which has an id afterwards; undefined where there
   * is none. Only under the lock, as everything below.
   */
  inspect(): LocalDatabase | undefined;

  /**
   * A new database; it is there when the target is finished.
   * @param signal ends what the target does, at once
   */
  create(signal?: AbortSignal): Promise<RestoreTarget>;

  /** The database itself, to be brought up to date in one go. */
  catchUp(): Promise<RestoreTarget>;

  /** The database's versions go on after this one; its log is kept. */
  leap(toVersion: number): void;

  /** Keeps the database under another name, which is returned. */
  setAside(suffix: string): string;

  /** Opens it; the lock goes over to the store. */
  open(durability: Durability): Promise<Store & { backupSource: BackupSource }>;

  /** A scratch database beside it: for verification. */
  scratch(): ScratchDatabase;
}

export interface EngineLock {
  /**
   * Tells the lock from that of every other database of this machine, a copy
   * included; undefined where that cannot be told.
   */
  readonly identity?: string | undefined;
  release(): void;
}

export interface ScratchDatabase {
  /** Whoever is served beside it does not notice. */
  create(signal?: AbortSignal): Promise<RestoreTarget>;
  digest(signal?: AbortSignal): ReturnType<BackupSource["digest"]>;
  /** Of what is in it; nobody writes to it. */
  snapshot: BackupSource["snapshot"];
  /** Nothing of it is left. */
  remove(): Promise<void>;
}
