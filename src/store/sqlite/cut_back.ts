/**
 * Closing a file whose log is in doubt. After a failed sync nobody knows which
 * pages of the write-ahead log reached the disk, and asking again can answer
 * "all" wrongly: the system tells of a failure once and then takes the pages
 * for written. So the file is closed without copying the log into the
 * database, and the log is cut back to what an earlier sync made certain.
 *
 * The worst outcome of a mistake here: an acknowledged write is cut off, or
 * the database keeps pages of a commit whose others are gone.
 */
import { DatabaseSync } from "node:sqlite";
import { UnavailableError } from "../../common/errors.ts";
import { isBusy } from "./connection.ts";
import type { WriteSession } from "./session.ts";
import { walBytes } from "./wal.ts";

/** Where a log has to end. */
export interface Cut {
  walPath: string;
  frames: number;
  lengthBytes: number;
}

/**
 * Others would go on with the log's old length in their shared memory: what is
 * committed after a cut would stand behind a hole, and be lost with the next
 * recovery.
 * @throws UnavailableError where another connection has the file open
 */
export function requireAlone({ db, reader }: WriteSession): void {
  reader.endTurn();
  db.exec("pragma locking_mode = exclusive");
  try {
    db.exec("begin immediate; rollback");
  } catch (error) {
    if (!isBusy(error)) throw error;
    throw new UnavailableError(
      "The disk did not make the last writes durable, and they cannot be taken back while another program has the database open. Everything acknowledged is kept and can be read; close that program.",
    );
  } finally {
    db.exec("pragma locking_mode = normal");
    // The lock is given back with the next access.
    db.prepare("select version from data_version").all();
  }
}

/**
 * Closes the session and says where to cut; after `requireAlone`.
 * @param certainFrames of the log that a sync has made certain
 */
export function closeInDoubt(
  session: WriteSession,
  path: string,
  certainFrames: number,
): Cut {
  // What a checkpoint has copied back, it has synced in the log first.
  const frames = Math.max(certainFrames, session.walFrames().checkpointed);
  closeUncopied(session, path);
  const lengthBytes = walBytes(frames, session.pageBytes);
  return { walPath: session.wal.path, frames, lengthBytes };
}

/** Closes the session, and leaves the log as it is, not copied back. */
export function closeUncopied(session: WriteSession, path: string): void {
  session.reader.endTurn();
  // A read-only connection that is closed last neither checkpoints nor
  // deletes the log.
  const guard = new DatabaseSync(path, { readOnly: true });
  try {
    guard.prepare("select version from data_version").all();
    session.close();
  } finally {
    guard.close();
  }
}
