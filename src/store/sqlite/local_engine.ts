/** The SQLite file before it is served. */
import type { Clock } from "../../common/clock.ts";
import type { BackupSource } from "../backup_source.ts";
import type { Durability } from "../durability.ts";
import type { LocalEngine, ScratchDatabase } from "../local_engine.ts";
import type { LocalDatabase, RestoreTarget } from "../restore_target.ts";
import type { Store } from "../store.ts";
import { databaseFile } from "./database_file.ts";
import {
  type InstanceLock,
  type LentLock,
  lockInstance,
} from "./instance_lock.ts";
import {
  catchUpTarget,
  createRestoreTarget,
  removeRestoring,
} from "./restore_target.ts";
import { openWriteSession, type SessionOptions } from "./session.ts";
import { digestFile, snapshotFile } from "./snapshot.ts";
import { openSqliteStore, type SqliteStoreOptions } from "./store.ts";
import {
  inspectFile,
  leapFile,
  removeDatabase,
  setAside,
} from "./unserved_file.ts";

export class SqliteLocalEngine implements LocalEngine {
  private readonly path: string;
  private held: InstanceLock | undefined;

  /** @throws StartupError where a link to the file leads nowhere */
  constructor(
    private readonly options: SessionOptions & SqliteStoreOptions & {
      /** Of a replica in this process that has the file at present. */
      lentLock?: LentLock;
    },
  ) {
    this.path = databaseFile(options.path);
  }

  lock(): InstanceLock {
    const { lentLock } = this.options;
    const isLent = lentLock !== undefined && !lentLock.isReleased;
    return this.held = isLent ? lentLock : lockInstance(this.path);
  }

  inspect(): LocalDatabase | undefined {
    const local = inspectFile(this.path);
    if (local?.databaseId !== "") return local;
    // A file of another program gets an id by being opened.
    const { clock, random, logger } = this.options;
    openWriteSession({ path: this.path, clock, random, logger }).close();
    return inspectFile(this.path);
  }

  create(signal?: AbortSignal): Promise<RestoreTarget> {
    const { clock } = this.options;
    return createRestoreTarget(this.path, { clock, signal });
  }

  // deno-lint-ignore require-await -- what it throws is the promise's
  async catchUp(): Promise<RestoreTarget> {
    return catchUpTarget(this.path);
  }

  leap(toVersion: number): void {
    leapFile(this.path, toVersion);
  }

  setAside(suffix: string): string {
    return setAside(this.path, suffix);
  }

  /** Also removes what a verification left that was killed. */
  async open(
    durability: Durability,
  ): Promise<Store & { backupSource: BackupSource }> {
    const { path, options, held } = this;
    await this.scratch().remove();
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
    return sqliteScratch(`${this.path}.verify`, this.options.clock);
  }
}

/** A scratch file of this name; whatever had it before is removed. */
export function sqliteScratch(path: string, clock: Clock): ScratchDatabase {
  return {
    async create(signal) {
      await removeDatabase(path);
      return await createRestoreTarget(path, { clock, signal });
    },
    digest: (signal) => digestFile(path, signal),
    snapshot: (options) =>
      snapshotFile(path, {
        ...options,
        settled: () => Promise.resolve(),
        nowMs: () => clock.nowMs(),
        // A restore leaves no such row.
        onLeftOut() {},
      }),
    async remove() {
      await removeDatabase(path);
      await removeRestoring(path);
    },
  };
}
