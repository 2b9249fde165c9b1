/** Opening SQLite the way this engine needs it. */
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { messageOf, StartupError } from "../../common/errors.ts";
import { checkSqliteVersion } from "./schema.ts";

/**
 * Page cache of the serving connection. Larger ones gained nothing in point
 * reads over 10^6 keys: the system's own cache is behind it.
 */
const CACHE_KIB = 16 * 1024;

/** @throws StartupError where the file cannot be opened as a database */
export function openConnection(path: string, readOnly: boolean): DatabaseSync {
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(path, { readOnly });
    // Waiting for another program's lock would stall every request: the
    // writer retries by itself.
    db.exec("pragma busy_timeout = 0");
    checkSqliteVersion(
      String(db.prepare("select sqlite_version() as v").get()?.v),
    );
    if (!readOnly) useWal(db, path);
    // A commit does not sync: the write-ahead log is synced off this thread,
    // before anything is acknowledged. Checkpoints still sync.
    db.exec("pragma synchronous = normal");
    db.exec("pragma wal_autocheckpoint = 0");
    db.exec(`pragma cache_size = -${CACHE_KIB}`);
    // With several connections, mapped pages make a torn file worse.
    db.exec("pragma mmap_size = 0");
    return db;
  } catch (error) {
    db?.close();
    if (error instanceof StartupError) throw error;
    throw new StartupError(
      `The database ${path} cannot be opened: ${messageOf(error)}.`,
    );
  }
}

function useWal(db: DatabaseSync, path: string): void {
  const mode = db.prepare("pragma journal_mode = wal").get()?.journal_mode;
  if (mode !== "wal") {
    throw new StartupError(
      `The database ${path} cannot be put into write-ahead-log mode (it says "${mode}"); use a local disk.`,
    );
  }
}

/** A statement whose rows come as arrays: half the cost of objects. */
export function prepareRows(db: DatabaseSync, sql: string): StatementSync {
  const statement = db.prepare(sql);
  // The runtime has it; its type declarations do not yet.
  (statement as StatementSync & { setReturnArrays(on: boolean): void })
    .setReturnArrays(true);
  return statement;
}

/** Another connection holds a lock; the statement may be tried again. */
export function isBusy(error: unknown): boolean {
  return /database (table )?is locked/.test(messageOf(error));
}
