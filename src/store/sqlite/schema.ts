/**
 * The file: what Deno's embedded KV and the Rust server keep in it, and the
 * two tables of ours beside them (docs/formats/sqlite-file.md).
 */
import type { DatabaseSync } from "node:sqlite";
import { StartupError } from "../../common/errors.ts";

/** The newest schema that Deno's embedded KV and the Rust server know. */
const SCHEMA_VERSION = 3;

/** What leads from schema version N to N + 1; a new file starts at 0. */
const MIGRATIONS: readonly string[] = [
  `create table data_version (
     k integer primary key,
     version integer not null
   );
   insert into data_version (k, version) values (0, 0);
   create table kv (
     k blob primary key,
     v blob not null,
     v_encoding integer not null,
     version integer not null
   ) without rowid;`,
  `create table queue (
     ts integer not null,
     id text not null,
     data blob not null,
     backoff_schedule text not null,
     keys_if_undelivered blob not null,
     primary key (ts, id)
   );
   create table queue_running (
     deadline integer not null,
     id text not null,
     data blob not null,
     backoff_schedule text not null,
     keys_if_undelivered blob not null,
     primary key (deadline, id)
   );`,
  `alter table kv add column seq integer not null default 0;
   alter table data_version add column seq integer not null default 0;
   alter table kv add column expiration_ms integer not null default -1;
   create index kv_expiration_ms_idx on kv (expiration_ms);`,
];

/**
 * A value of the state has no type: with one, SQLite would take a text that
 * looks like a number (1e5) for it.
 */
const OWN_TABLES = `
  create table if not exists denokv_state (
    k text primary key,
    v not null
  ) without rowid;
  create table if not exists denokv_log (
    version integer primary key,
    first_version integer not null,
    time_ms integer not null,
    end_bytes integer not null,
    entries blob not null
  );`;

/**
 * Versions before it can corrupt a database when one connection checkpoints
 * while another commits, which is how this engine works (sqlite.org/wal.html,
 * "The WAL-Reset Bug").
 */
const OLDEST_SQLITE = [3, 51, 3];

/** @throws StartupError where the SQLite library is too old to be safe */
export function checkSqliteVersion(version: string): void {
  const parts = version.split(".").map(Number);
  for (let i = 0; i < OLDEST_SQLITE.length; i++) {
    if (parts[i] > OLDEST_SQLITE[i]) return;
    if (!(parts[i] >= OLDEST_SQLITE[i])) {
      throw new StartupError(
        `This runtime carries SQLite ${version}; before ${
          OLDEST_SQLITE.join(".")
        } a database can be corrupted when it is checkpointed beside a writer. Nothing was opened. Use Deno 2.9.6 or newer.`,
      );
    }
  }
}

/**
 * Brings the file to the present schema, in one transaction.
 * @throws StartupError where the file is something else or newer
 */
export function migrate(db: DatabaseSync, path: string): void {
  db.exec("begin immediate");
  try {
    bringUpToDate(db, path);
    db.exec("commit");
  } catch (error) {
    if (db.isTransaction) db.exec("rollback");
    throw error;
  }
}

/**
 * The same within a transaction.
 * @throws StartupError where the file is something else or newer
 */
export function bringUpToDate(db: DatabaseSync, path: string): void {
  let version = schemaVersion(db, path);
  if (version < 0) {
    db.exec(
      "create table migration_state (k integer not null primary key, version integer not null)",
    );
    version = 0;
  }
  for (const step of MIGRATIONS.slice(version)) db.exec(step);
  // A file that is up to date is opened without a write, so also on a full
  // disk.
  if (version < SCHEMA_VERSION) {
    db.prepare(
      "insert into migration_state (k, version) values (0, ?) on conflict (k) do update set version = excluded.version",
    ).run(SCHEMA_VERSION);
  }
  makeOwnTables(db);
}

/** Those that only this program knows, where they are missing. */
export function makeOwnTables(db: DatabaseSync): void {
  db.exec(OWN_TABLES);
}

/**
 * The schema version of the file; -1 where it is empty.
 * @param options `takesViews`: also a file that the Rust server's S3 sync made
 * @throws StartupError where it is no Deno KV file, or one from the future
 */
export function schemaVersion(
  db: DatabaseSync,
  path: string,
  { takesViews = false } = {},
): number {
  const objects = new Map(
    db.prepare("select name, type from sqlite_schema").all()
      .map((row) => [String(row.name), String(row.type)]),
  );
  if (objects.get("kv") === "view" || objects.has("kv_snapshot")) {
    const isWhole = ["kv_snapshot", "tt_config", "data_version"].every((name) =>
      objects.has(name)
    );
    if (takesViews && isWhole) return SCHEMA_VERSION;
    throw new StartupError(
      `${path} was made by the Rust server's S3 sync: its data are views over that program's own tables, which take no writes. It was not changed. Serve it with --read-only; \`denokv pitr\` goes back and forth in it.`,
    );
  }
  if (!objects.has("migration_state")) {
    if (objects.has("kv") || objects.has("data_version")) {
      throw new StartupError(
        `${path} has tables of the names that Deno KV uses, but no migration_state: it is not a Deno KV database. It was not changed.`,
      );
    }
    return -1;
  }
  const row = db.prepare(
    "select typeof(version) as type, cast(version as text) as version from migration_state where k = 0",
  ).get();
  const stated = Number(row?.version);
  const version = row?.type === "integer" && stated >= 0
    ? stated
    : versionByTables(db, objects);
  if (version > SCHEMA_VERSION) {
    throw new StartupError(
      `${path} has schema version ${row?.version}; this server knows ${SCHEMA_VERSION}. It was written by a newer program and was not changed.`,
    );
  }
  return version;
}

/** What the tables say where `migration_state` says nothing that makes sense. */
function versionByTables(
  db: DatabaseSync,
  objects: ReadonlyMap<string, string>,
): number {
  if (!objects.has("kv")) return 0;
  if (!objects.has("queue")) return 1;
  const columns = db.prepare("select name from pragma_table_info('kv')").all();
  return columns.some(({ name }) => name === "expiration_ms") ? 3 : 2;
}
