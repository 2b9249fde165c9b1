/** Opening SQLite the way this engine needs it. */
import { DatabaseSync, type StatementSync } from "node:sqlite";
import {
  LocalFileError,
  messageOf,
  StartupError,
  UnavailableError,
} from "../../common/errors.ts";
import { createPrivateFile } from "../../common/files.ts";
import { missingPermission } from "../../common/permissions.ts";
import { checkSqliteVersion } from "./schema.ts";
import { placeProblem } from "./unopened.ts";

/**
 * Page cache of the serving connection. Larger ones gained nothing in point
 * reads over 10^6 keys: the system's own cache is behind it.
 */
const CACHE_KIB = 4 * 1024;
/**
 * What the write-ahead log keeps of its file when it begins anew. It grows
 * past this only where another program's reader keeps it from that.
 */
const MAX_IDLE_WAL_BYTES = 64 * 1024 * 1024;
/** How long opening waits for another program's lock. */
const OPENING_BUSY_MS = 5000;

/**
 * A connection that waits for locks; {@linkcode waitNoMore} ends that.
 * @throws StartupError where the file cannot be opened as a database
 */
export function openConnection(path: string, readOnly: boolean): DatabaseSync {
  let db: DatabaseSync | undefined;
  try {
    // SQLite gives the files beside it the mode of the database.
    if (!readOnly) createPrivateFile(path);
    db = new DatabaseSync(path, { readOnly });
    db.exec(`pragma busy_timeout = ${OPENING_BUSY_MS}`);
    checkSqliteVersion(
      String(db.prepare("select sqlite_version() as v").get()?.v),
    );
    // A commit does not sync: the write-ahead log is synced off this thread,
    // before anything is acknowledged. Checkpoints still sync.
    db.exec("pragma synchronous = normal");
    db.exec("pragma wal_autocheckpoint = 0");
    db.exec(`pragma journal_size_limit = ${MAX_IDLE_WAL_BYTES}`);
    db.exec(`pragma cache_size = -${CACHE_KIB}`);
    // With several connections, mapped pages make a torn file worse.
    db.exec("pragma mmap_size = 0");
    return db;
  } catch (error) {
    db?.close();
    throw notOpened(path, error, readOnly);
  }
}

/** Whatever kept a file from being opened, as a sentence. */
export function notOpened(
  path: string,
  error: unknown,
  readOnly = false,
): StartupError {
  if (error instanceof StartupError) return error;
  const missing = missingPermission(error);
  if (missing) return new StartupError(`${missing} Nothing was opened.`);
  if (isBusy(error)) {
    return new LocalFileError(
      `Another program holds ${path} locked. Nothing of it was changed; try again when that program has let go.`,
    );
  }
  const problem = /unable to open database file/.test(messageOf(error)) ||
      error instanceof Deno.errors.NotFound
    ? placeProblem(path, readOnly)
    : undefined;
  // Where the index of the log finds no room, SQLite says no more than that.
  const isUnclear = /disk I\/O error/.test(messageOf(error));
  return new LocalFileError(
    problem === undefined
      ? `The database ${path} cannot be opened: ${messageOf(error)}${
        isUnclear ? ", as where the disk is full" : ""
      }.`
      : `The database ${path} cannot be opened. ${problem}`,
  );
}

/**
 * From now on a lock is reported at once: waiting for one would stall every
 * request, and the writer tries again by itself.
 */
export function waitNoMore(db: DatabaseSync): void {
  db.exec("pragma busy_timeout = 0");
}

export function useWal(db: DatabaseSync, path: string): void {
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

/** A lock of another program's is no fault of the request: it may be repeated. */
export function unlessBusy(error: unknown): unknown {
  return isBusy(error)
    ? new UnavailableError(
      "Another program holds the database locked. Nothing was changed; try again when it has let go.",
    )
    : error;
}
