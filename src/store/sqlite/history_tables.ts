/**
 * The tables in which a replica keeps its history: those of the Rust server's
 * S3 sync, beside our plain tables (docs/formats/sqlite-file.md). In a file
 * that the Rust server made, the rows are in `kv_snapshot`, `kv` is a view of
 * it, and there are no queue tables.
 */
import type { DatabaseSync } from "node:sqlite";
import {
  readOrder,
  readVersion,
  versionstampHex,
} from "../../protocol/versionstamp.ts";
import type { CommitPoint } from "../replica_writer.ts";
import { prepareRows } from "./connection.ts";
import { SELECT_DATA_VERSION } from "./foreign_rows.ts";
import type { StateTable } from "./state.ts";

const LOG_COLUMNS = `versionstamp12 blob not null primary key,
    timestamp_ms integer not null,
    k blob not null,
    v blob,
    v_encoding integer not null,
    real_versionstamp blob not null,
    expiration_ms integer`;

const TABLES = `
  create table if not exists tt_migration_state (
    k integer not null primary key,
    version integer not null
  );
  insert or ignore into tt_migration_state (k, version) values (0, 1);
  create table if not exists tt_redo_log (${LOG_COLUMNS}) without rowid;
  create table if not exists tt_undo_log (${LOG_COLUMNS}) without rowid;
  create table if not exists tt_redo_cursor (
    zero integer not null primary key,
    format_version integer not null,
    monoseq integer not null,
    first_versionstamp12 blob not null,
    last_versionstamp12 blob not null
  );
  create table if not exists tt_initial_snapshot_ranges (
    format_version integer not null,
    monoseq integer not null,
    seq integer not null,
    pulled integer not null,
    primary key (format_version, monoseq, seq)
  ) without rowid;
  create table if not exists tt_config (
    k text not null primary key,
    v text not null
  ) without rowid;`;

export const CURRENT = "current_snapshot_versionstamp12";
export const COMPLETED = "initial_snapshot_completed";

/** Ends the versionstamp of every commit's last entry. */
export const LAST_OF_COMMIT = "ffff";

export interface ReplicaPosition {
  /** The version of the state that readers see. */
  version: number;
  /** Its last commit that changed something. */
  point: CommitPoint;
  /** The newest version that the file has. */
  newestVersion: number;
  /** Commits up to this one are there; beyond `last` none changed anything. */
  newest: CommitPoint;
  /** The last commit that it has. */
  last: CommitPoint;
  /** The earliest state that it can go back to; undefined: none. */
  floor: CommitPoint | undefined;
  /** When that one was made, where it is known. */
  floorMs: number | undefined;
}

export function hasTable(db: DatabaseSync, name: string): boolean {
  return db.prepare(
    "select 1 from sqlite_schema where name = ? and type = 'table'",
  ).get(name) !== undefined;
}

/** Whether its rows are in the Rust server's own table. */
export function isMadeByRustServer(db: DatabaseSync): boolean {
  return hasTable(db, "kv_snapshot");
}

/** Within a transaction. */
export function makeHistoryTables(db: DatabaseSync): void {
  db.exec(TABLES);
  for (const table of ["tt_redo_log", "tt_undo_log"]) {
    const columns = db.prepare("select name from pragma_table_info(?)")
      .all(table);
    if (columns.some(({ name }) => name === "expiration_ms")) continue;
    db.exec(`alter table ${table} add column expiration_ms integer`);
  }
}

export function getConfig(
  db: DatabaseSync,
  name: string,
): string | undefined {
  const row = db.prepare(
    "select cast(v as text) as v from tt_config where k = ?",
  ).get(name);
  return row?.v as string | undefined;
}

export function setConfig(
  db: DatabaseSync,
  name: string,
  value: string,
): void {
  db.prepare("insert or replace into tt_config (k, v) values (?, ?)")
    .run(name, value);
}

/** 24 digits: a commit and the index of its last entry. */
export function commitStamp({ version, order }: CommitPoint): string {
  return versionstampHex(version, order) + LAST_OF_COMMIT;
}

/** Undefined where the text is none. */
export function pointOf(stamp: string | undefined): CommitPoint | undefined {
  if (stamp === undefined || !/^[0-9a-f]{24}$/i.test(stamp)) return undefined;
  const bytes = Uint8Array.fromHex(stamp);
  return { version: readVersion(bytes, 0), order: readOrder(bytes, 0) };
}

/**
 * Where a file with these tables stands; undefined where its first snapshot is
 * not complete.
 * @param state undefined in a file that we never wrote to
 */
export function replicaPosition(
  db: DatabaseSync,
  state: StateTable | undefined,
): ReplicaPosition | undefined {
  if (getConfig(db, COMPLETED) !== "1") return undefined;
  const point = pointOf(getConfig(db, CURRENT));
  if (point === undefined) return undefined;
  const isRust = isMadeByRustServer(db);
  // The Rust server leaves the number in this table as it is.
  const row = prepareRows(db, SELECT_DATA_VERSION).get() as unknown as
    | [number | null]
    | undefined;
  const version = isRust ? point.version : row?.[0] ?? point.version;
  const redo = stampIn(db, "tt_redo_log", "desc");
  const last = redo !== undefined && isAfter(redo, point) ? redo : point;
  const newestVersion = Math.max(
    version,
    last.version,
    state?.getNumber("replica_newest") ?? 0,
  );
  const floorText = state?.getText("history_floor");
  return {
    version,
    point,
    newestVersion,
    last,
    newest: newestVersion > last.version
      ? { version: newestVersion, order: 0xffff }
      : last,
    floor: floorText === undefined
      ? stampIn(db, "tt_undo_log", "asc") ?? point
      : pointOf(floorText),
    floorMs: state?.getNumber("history_floor_ms") || undefined,
  };
}

/** Of the first or last commit in the table. */
function stampIn(
  db: DatabaseSync,
  table: string,
  direction: "asc" | "desc",
): CommitPoint | undefined {
  const row = db.prepare(
    `select hex(versionstamp12) as stamp from ${table} where substr(versionstamp12, 11) = x'ffff' order by versionstamp12 ${direction} limit 1`,
  ).get();
  return pointOf(row?.stamp as string | undefined);
}

export function isAfter(a: CommitPoint, b: CommitPoint): boolean {
  return a.version > b.version ||
    (a.version === b.version && a.order > b.order);
}
