/** The SQLite file before it is served. */
import type { BackupSource } from "../backup_source.ts";
import type { Durability } from "../durability.ts";
import type { LocalEngine, ScratchDatabase } from "../local_engine.ts";
import type { LocalDatabase, RestoreTarget } from "../restore_target.ts";
import type { Store } from "../store.ts";
import { databaseFile } from "./database_file.ts";
import { type InstanceLock, lockInstance } from "./instance_lock.ts";
import {
  catchUpTarget,
  createRestoreTarget,
  inspectFile,
  removeDatabase,
  removeRestoring,
  setAside,
} from "./restore_target.ts";
import { openWriteSession, type SessionOptions } from "./session.ts";
import { digestFile, snapshotFile } from "./snapshot.ts";
import { openSqliteStore, type SqliteStoreOptions } from "./store.ts";

export class SqliteLocalEngine implements LocalEngine {
  private readonly path: string;
  private held: InstanceLock | undefined;

  /** @throws StartupError where a link to the file leads nowhere */
  constructor(
    private readonly options: SessionOptions & SqliteStoreOptions,
  ) {
    this.path = databaseFile(options.path);
  }

  lock(): InstanceLock {
    return this.held = lockInstance(this.path);
  }

  inspect(): LocalDatabase | undefined {
    const local = inspectFile(this.path);
    if (local?.databaseId !== "") return local;
    // A file of another program gets an id by being opened.
    const { clock, random, logger } = this.options;
    openWriteSession({ path: this.path, clock, random, logger }).close();
    return inspectFile(this.path);
  }

  create(): RestoreTarget {
    return createRestoreTarget(this.path);
  }

  catchUp(): RestoreTarget {
    return catchUpTarget(this.path);
  }

  setAside(suffix: string): string {
    return setAside(this.path, suffix);
  }

  /** Also removes what a verification left that was killed. */
  async open(
    durability: Durability,
  ): Promise<Store & { backupSource: BackupSource }> {
    const { path, options, held } = this;
    this.scratch().remove();
    const store = await openSqliteStore({
      ...options,
      path,
      durability,
      lock: held,
    });
    // Only a store that is opened for reading has none.
    return store as Store & { backupSource: BackupSource };
  }

  scratch(): ScratchDatabase {
    return sqliteScratch(`${this.path}.verify`);
  }
}

/** A scratch file of this name; whatever had it before is removed. */
export function sqliteScratch(path: string): ScratchDatabase {
  return {
    create() {
      removeDatabase(path);
      return createRestoreTarget(path);
    },
    digest: (signal) => digestFile(path, signal),
    snapshot: (options) =>
      snapshotFile(path, {
        ...options,
        settled: () => Promise.resolve(),
        // A restore leaves no such row.
        onLeftOut() {},
      }),
    remove() {
      removeDatabase(path);
      removeRestoring(path);
    },
  };
}
