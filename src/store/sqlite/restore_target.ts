/**
 * A SQLite file built from a backup: loaded in large statements, without a
 * journal and without syncs, its index made afterwards, then synced once and
 * moved into place. All that takes longer with a larger file happens in other
 * threads: somebody may be served in this one. Or a file that is behind,
 * brought up to date in one transaction, before it is served.
 */
import type { DatabaseSync } from "node:sqlite";
import { dirname } from "node:path";
import type { Bytes } from "../../common/bytes.ts";
import {
  InvalidRequestError,
  LocalFileError,
  messageOf,
  StartupError,
} from "../../common/errors.ts";
import { exists } from "../../common/files.ts";
import { systemRandom } from "../../common/random.ts";
import type { RestoreEnd, RestoreTarget } from "../restore_target.ts";
import { notOpened, openConnection, useWal } from "./connection.ts";
import { MutationLog } from "./mutation_log.ts";
import { QueueTables } from "./queue.ts";
import { BatchReader } from "./restore_batch.ts";
import { RestoreTable } from "./restore_table.ts";
import { RestoreThread, type RestoreThreadOptions } from "./restore_thread.ts";
import type { RestoreTask } from "./restore_worker.ts";
import { migrate } from "./schema.ts";
import { StateTable } from "./state.ts";
import { removeDatabase } from "./unserved_file.ts";

/** Page cache of the connection that loads: rows come in the order of keys. */
const CACHE_KIB = 4 * 1024;
const INDEX = "kv_expiration_ms_idx";
/** Without a journal: what is not finished is thrown away. */
const UNSAFE = "pragma journal_mode = off; pragma synchronous = off";

/**
 * A new file. What an interrupted restore left under its working name is
 * begun anew.
 * @throws StartupError where `path` is taken, or cannot be written
 */
export async function createRestoreTarget(
  path: string,
  options: RestoreThreadOptions,
): Promise<RestoreTarget> {
  options.signal?.throwIfAborted();
  if (exists(path)) {
    throw new StartupError(
      `${path} is there already and was not changed; restore to another name, or move it away.`,
    );
  }
  const working = workingName(path);
  await removeDatabase(working);
  try {
    const db = openConnection(working, false);
    try {
      db.exec(UNSAFE);
      migrate(db, working);
      db.exec(`drop index ${INDEX}`);
    } finally {
      db.close();
    }
    const task = {
      path: working,
      begin:
        `${UNSAFE}; pragma cache_size = -${CACHE_KIB}; pragma mmap_size = 0; begin`,
      end: `create index ${INDEX} on kv (expiration_ms); commit`,
    };
    return new NewFileTarget(path, working, task, options);
  } catch (error) {
    await removeDatabase(working);
    throw notOpened(working, error);
  }
}

class NewFileTarget implements RestoreTarget {
  private readonly reader = new BatchReader();
  private readonly thread: RestoreThread;

  constructor(
    private readonly path: string,
    private readonly working: string,
    task: RestoreTask,
    private readonly options: RestoreThreadOptions,
  ) {
    this.thread = new RestoreThread(task, options);
  }

  async load(range: Bytes): Promise<number> {
    const { batch, count } = this.reader.range(range);
    await this.writing(() => this.thread.put(batch));
    return count;
  }

  async apply(entries: Bytes, after: number, upTo: number) {
    const { batch, ...told } = this.reader.entries(entries, after, upTo);
    await this.writing(() => this.thread.put(batch));
    return told;
  }

  /** Whatever the disk says, as a sentence. */
  private async writing<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (this.options.signal?.aborted) throw error;
      throw notRestored(this.path, error);
    }
  }

  finish(end: RestoreEnd): Promise<void> {
    return this.writing(async () => {
      const { working, path } = this;
      // What is loaded goes to the disk while its index is made.
      const [queueContents] = await Promise.all([
        this.thread.finish(),
        sync(working),
      ]);
      this.thread.end();
      // What is left to write is the same for a file of any size.
      const db = openConnection(working, false);
      try {
        db.exec(`${UNSAFE}; begin`);
        writeEnd(db, end, queueContents);
        db.exec("commit");
        useWal(db, working);
      } finally {
        db.close();
      }
      await sync(working);
      this.options.signal?.throwIfAborted();
      await Deno.rename(working, path);
      await sync(dirname(path));
    });
  }

  async discard(): Promise<void> {
    this.thread.end();
    await removeDatabase(this.working);
  }
}

function notRestored(path: string, error: unknown): StartupError {
  return error instanceof StartupError ? error : new LocalFileError(
    `${path} could not be restored: ${
      messageOf(error)
    }. What was written so far is removed and the backup is unchanged; make room, or choose another place.`,
  );
}

/**
 * A file that holds an earlier state of the history. It stays as it is until
 * `finish`. Only under the instance lock, and while nobody is served: it is
 * written in this thread.
 * @throws StartupError where it cannot be opened
 */
export function catchUpTarget(path: string): RestoreTarget {
  const db = openConnection(path, false);
  try {
    useWal(db, path);
    migrate(db, path);
    db.exec("pragma synchronous = full; begin immediate");
    return new CatchUpTarget(db, path);
  } catch (error) {
    db.close();
    throw notOpened(path, error);
  }
}

class CatchUpTarget implements RestoreTarget {
  private readonly reader = new BatchReader();
  private readonly table: RestoreTable;

  constructor(
    private readonly db: DatabaseSync,
    private readonly path: string,
  ) {
    this.table = new RestoreTable(db);
  }

  load(range: Bytes): Promise<number> {
    return this.writing(() => {
      const { batch, count } = this.reader.range(range);
      this.table.put(batch);
      return count;
    });
  }

  apply(entries: Bytes, after: number, upTo: number) {
    return this.writing(() => {
      const { batch, ...told } = this.reader.entries(entries, after, upTo);
      this.table.put(batch);
      return told;
    });
  }

  finish(end: RestoreEnd): Promise<void> {
    return this.writing(() => {
      const { db } = this;
      writeEnd(db, end, new QueueTables(db, systemRandom).contents);
      db.exec("commit");
      db.close();
    });
  }

  discard(): Promise<void> {
    const { db } = this;
    if (db.isOpen) {
      // A full disk may have rolled it back already.
      if (db.isTransaction) db.exec("rollback");
      db.close();
    }
    return Promise.resolve();
  }

  /** Whatever the disk says, as a sentence. */
  private async writing<T>(work: () => T): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof InvalidRequestError) throw error;
      throw notRestored(this.path, error);
    }
  }
}

/** Within a transaction: what says of a restored file whose and what it is. */
function writeEnd(
  db: DatabaseSync,
  { databaseId, version, timeMs = 0, leapToVersion, state }: RestoreEnd,
  queueContents: string,
): void {
  const table = new StateTable(db);
  table.set("database_id", databaseId);
  for (const [name, value] of Object.entries(state)) table.set(name, value);
  db.prepare("update data_version set version = ?, seq = 0 where k = 0")
    .run(leapToVersion);
  new MutationLog(db, table).leap(version, leapToVersion, timeMs);
  table.set("queue_contents", queueContents);
}

/** What an interrupted restore to `path` left. */
export function removeRestoring(path: string): Promise<void> {
  return removeDatabase(workingName(path));
}

function workingName(path: string): string {
  return `${path}.restoring`;
}

async function sync(path: string): Promise<void> {
  using file = await Deno.open(path, { read: true });
  await file.sync();
}
