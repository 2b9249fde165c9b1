/** A database file that nobody serves: looked at, set aside, removed, leapt. */
import { dirname } from "node:path";
import { exists } from "../../common/files.ts";
import type { LocalDatabase } from "../restore_target.ts";
import {
  notOpened,
  openConnection,
  prepareRows,
  useWal,
} from "./connection.ts";
import { isCount, SELECT_DATA_VERSION } from "./foreign_rows.ts";
import { MutationLog } from "./mutation_log.ts";
import { migrate } from "./schema.ts";
import { StateTable } from "./state.ts";

/**
 * A look at a file; undefined where there is none. Only under the instance
 * lock: a log that a killed server left is taken in.
 * @throws StartupError where it is no database of ours to open
 */
export function inspectFile(path: string): LocalDatabase | undefined {
  if (!exists(path)) return undefined;
  const db = openConnection(path, false);
  try {
    const has = (table: string) =>
      db.prepare("select 1 from sqlite_schema where name = ?").get(table) !==
        undefined;
    if (!has("data_version")) {
      return {
        databaseId: "",
        version: 0,
        contentVersion: 0,
        state: () => undefined,
      };
    }
    const number = (sql: string) =>
      (prepareRows(db, sql).get() as unknown as [number | null] | undefined)
        ?.[0] ?? 0;
    const version = number(SELECT_DATA_VERSION);
    if (!has("denokv_state") || !has("denokv_log")) {
      return {
        databaseId: "",
        version,
        contentVersion: version,
        state: () => undefined,
      };
    }
    const table = new StateTable(db);
    const logHead = number(
      `select max(version) from denokv_log where ${isCount("version")}`,
    );
    const floor = table.getNumber("log_floor") ?? 0;
    const values = table.all();
    // Another program's commits have no place in the log.
    const contentVersion = version === logHead
      ? Math.max(
        floor,
        number(
          `select version from denokv_log where length(entries) > 0 and ${
            isCount("version")
          } order by version desc limit 1`,
        ),
      )
      : version;
    return {
      databaseId: values.get("database_id") ?? "",
      version,
      contentVersion,
      hasForeignWrites: version !== logHead,
      state: (name) => values.get(name),
    };
  } catch (error) {
    throw notOpened(path, error);
  } finally {
    db.close();
  }
}

/**
 * Gives a file another name, with all that is in its log; never deletes it.
 * Only under the instance lock.
 * @returns the new name
 */
export function setAside(path: string, suffix: string): string {
  const db = openConnection(path, false);
  try {
    db.exec("pragma wal_checkpoint(truncate)");
  } catch (error) {
    throw notOpened(path, error);
  } finally {
    db.close();
  }
  let name = `${path}.${suffix}`;
  for (let i = 2; exists(name); i++) name = `${path}.${suffix}-${i}`;
  Deno.renameSync(path, name);
  // Closing removes them; what another program keeps open goes along.
  for (const end of ["-wal", "-shm"]) {
    if (exists(path + end)) Deno.renameSync(path + end, name + end);
  }
  {
    using folder = Deno.openSync(dirname(path), { read: true });
    folder.syncSync();
  }
  return name;
}

/**
 * Also what belongs to it; a missing one is no error. Not in this thread: to
 * remove 600 MB takes a while.
 */
export async function removeDatabase(path: string): Promise<void> {
  for (const end of ["", "-wal", "-shm", "-journal"]) {
    try {
      await Deno.remove(path + end);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

/**
 * The versions of a file go on after this one; what its log has is kept, where
 * it is the log of all commits. Only under the instance lock.
 */
export function leapFile(path: string, toVersion: number): void {
  const db = openConnection(path, false);
  try {
    useWal(db, path);
    migrate(db, path);
    db.exec("pragma synchronous = full; begin immediate");
    const log = new MutationLog(db, new StateTable(db));
    const version =
      (prepareRows(db, SELECT_DATA_VERSION).get() as unknown as [number])[0];
    if (version === log.headVersion) log.skipTo(toVersion);
    // Another program wrote: whoever follows the log needs a new snapshot.
    else log.restartAt(toVersion, log.headTimeMs);
    db.prepare("update data_version set version = ?, seq = 0 where k = 0")
      .run(toVersion);
    db.exec("commit");
  } catch (error) {
    throw notOpened(path, error);
  } finally {
    db.close();
  }
}
