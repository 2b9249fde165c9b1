/**
 * A SQLite file built from a backup: loaded in large statements, without a
 * journal and without syncs, its index made afterwards, then synced once and
 * moved into place. Or a file that is behind, brought up to date in one
 * transaction.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { dirname } from "node:path";
import type { Bytes } from "../../common/bytes.ts";
import {
  InvalidRequestError,
  messageOf,
  StartupError,
} from "../../common/errors.ts";
import { exists } from "../../common/files.ts";
import { systemRandom } from "../../common/random.ts";
import { decodeLogEntries, type LogEntry, LogKind } from "../../log/entry.ts";
import { readSnapshotRange } from "../../log/snapshot_range.ts";
import { NEVER_MS } from "../../protocol/messages.ts";
import { ProtoReader } from "../../protocol/protobuf.ts";
import type {
  LocalDatabase,
  RestoreEnd,
  RestoreTarget,
} from "../restore_target.ts";
import {
  notOpened,
  openConnection,
  prepareRows,
  useWal,
} from "./connection.ts";
import { isCount, SELECT_DATA_VERSION } from "./foreign_rows.ts";
import { MutationLog } from "./mutation_log.ts";
import { QueueTables } from "./queue.ts";
import { migrate } from "./schema.ts";
import { StateTable } from "./state.ts";

/** Rows of one statement: 0.48 million rows/s alone, 1.0 million with 50. */
const ROWS_PER_INSERT = 50;
const COLUMNS = 6;
const PLAIN_COLUMNS = 4;
type Parameter = Bytes | number;
const INDEX = "kv_expiration_ms_idx";
const QUEUE_PREFIX = 0xff;

/**
 * A new file. What an interrupted restore left under its working name is
 * begun anew.
 * @throws StartupError where `path` is taken, or cannot be written
 */
export function createRestoreTarget(path: string): RestoreTarget {
  if (exists(path)) {
    throw new StartupError(
      `${path} is there already and was not changed; restore to another name, or move it away.`,
    );
  }
  const working = workingName(path);
  removeDatabase(working);
  try {
    const db = openConnection(working, false);
    db.exec("pragma journal_mode = off; pragma synchronous = off");
    migrate(db, working);
    db.exec(`drop index ${INDEX}; begin`);
    return new SqliteRestoreTarget(db, path, {
      finish() {
        db.exec(
          `create index ${INDEX} on kv (expiration_ms); commit`,
        );
        useWal(db, working);
        db.close();
        sync(working);
        Deno.renameSync(working, path);
        sync(dirname(path));
      },
      discard() {
        if (db.isOpen) db.close();
        removeDatabase(working);
      },
    });
  } catch (error) {
    removeDatabase(working);
    throw notOpened(working, error);
  }
}

/**
 * A file that holds an earlier state of the history. It stays as it is until
 * `finish`. Only under the instance lock.
 * @throws StartupError where it cannot be opened
 */
export function catchUpTarget(path: string): RestoreTarget {
  const db = openConnection(path, false);
  useWal(db, path);
  migrate(db, path);
  db.exec("pragma synchronous = full; begin immediate");
  return new SqliteRestoreTarget(db, path, {
    finish() {
      db.exec("commit");
      db.close();
    },
    discard() {
      if (!db.isOpen) return;
      // A full disk may have rolled it back already.
      if (db.isTransaction) db.exec("rollback");
      db.close();
    },
  });
}

class SqliteRestoreTarget implements RestoreTarget {
  private readonly insertMany: StatementSync;
  private readonly insertManyPlain: StatementSync;
  private readonly insertOne: StatementSync;
  private readonly deleteOne: StatementSync;
  private readonly queue: QueueRows;
  private rest: Parameter[] = [];

  constructor(
    private readonly db: DatabaseSync,
    private readonly path: string,
    private readonly end: { finish(): void; discard(): void },
  ) {
    const insert = (row: string, count: number) =>
      db.prepare(
        `insert into kv (k, v, v_encoding, version, seq, expiration_ms) values ${
          new Array(count).fill(row).join(", ")
        }`,
      );
    this.insertMany = insert("(?, ?, ?, ?, ?, ?)", ROWS_PER_INSERT);
    this.insertManyPlain = insert("(?, ?, ?, ?, 0, -1)", ROWS_PER_INSERT);
    this.insertOne = db.prepare(
      "insert or replace into kv (k, v, v_encoding, version, seq, expiration_ms) values (?, ?, ?, ?, ?, ?)",
    );
    this.deleteOne = db.prepare("delete from kv where k = ?");
    this.queue = new QueueRows(db);
  }

  load(range: Bytes): number {
    return this.writing(() => this.loadRange(range));
  }

  /** Whatever the disk says, as a sentence. */
  private writing<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (error instanceof InvalidRequestError) throw error;
      throw new StartupError(
        `${this.path} could not be restored: ${
          messageOf(error)
        }. What was written so far is removed and the backup is unchanged; make room, or choose another place.`,
      );
    }
  }

  private loadRange(range: Bytes): number {
    // Most rows have no order and no expiry: then they need not be handed over.
    let plain: Parameter[] = [];
    const count = readSnapshotRange(
      range,
      (key, value, encoding, version, order, expireAtMs) => {
        if (key[0] === QUEUE_PREFIX) {
          this.queue.set(key, value);
        } else if (order === 0 && expireAtMs === NEVER_MS) {
          plain.push(key, value, encoding, version);
          if (plain.length < PLAIN_COLUMNS * ROWS_PER_INSERT) return;
          this.insertManyPlain.run(...plain);
          plain = [];
        } else {
          this.rest.push(key, value, encoding, version, order, expireAtMs);
          if (this.rest.length < COLUMNS * ROWS_PER_INSERT) return;
          this.insertMany.run(...this.rest);
          this.rest = [];
        }
      },
    );
    for (let i = 0; i < plain.length; i += PLAIN_COLUMNS) {
      this.insertOne.run(...plain.slice(i, i + PLAIN_COLUMNS), 0, NEVER_MS);
    }
    for (let i = 0; i < this.rest.length; i += COLUMNS) {
      this.insertOne.run(...this.rest.slice(i, i + COLUMNS));
    }
    this.rest = [];
    return count;
  }

  apply(
    entries: Bytes,
    after: number,
    upTo: number,
  ): { applied: number; lastVersion: number } {
    return this.writing(() => this.applyEntries(entries, after, upTo));
  }

  private applyEntries(entries: Bytes, after: number, upTo: number) {
    let applied = 0;
    let lastVersion = after;
    for (const entry of decodeLogEntries(entries)) {
      if (entry.version <= after || entry.version > upTo) continue;
      this.applyEntry(entry);
      applied++;
      lastVersion = entry.version;
    }
    return { applied, lastVersion };
  }

  private applyEntry(entry: LogEntry): void {
    const isSet = entry.kind === LogKind.SET;
    if (entry.key[0] === QUEUE_PREFIX) {
      if (isSet) this.queue.set(entry.key, entry.value);
      else this.queue.clear(entry.key);
    } else if (isSet) this.insertOne.run(...valuesOf(entry));
    else this.deleteOne.run(entry.key);
  }

  finish(end: RestoreEnd): void {
    this.writing(() => this.writeEnd(end));
  }

  private writeEnd(
    { databaseId, version, leapToVersion, state }: RestoreEnd,
  ): void {
    const { db } = this;
    const table = new StateTable(db);
    table.set("database_id", databaseId);
    for (const [name, value] of Object.entries(state)) table.set(name, value);
    db.prepare("update data_version set version = ?, seq = 0 where k = 0")
      .run(leapToVersion);
    new MutationLog(db, table).leap(version, leapToVersion, lastTimeMs(db));
    table.set("queue_contents", new QueueTables(db, systemRandom).contents);
    this.end.finish();
  }

  discard(): void {
    this.end.discard();
  }
}

function valuesOf(entry: LogEntry): Parameter[] {
  const { key, value, encoding, version, order, expireAtMs } = entry;
  return [key, value, encoding, version, order, expireAtMs];
}

/** The leap's row has no time of its own; it is as old as what it follows. */
function lastTimeMs(db: DatabaseSync): number {
  const row = prepareRows(db, "select max(time_ms) from denokv_log").get() as
    | unknown
    | undefined as [number | null] | undefined;
  return row?.[0] ?? 0;
}

/** Queue messages from their keys and values in the log (log/entry.ts). */
class QueueRows {
  private readonly statements = new Map<string, StatementSync>();

  constructor(private readonly db: DatabaseSync) {}

  set(key: Bytes, value: Bytes): void {
    const place = placeOf(key);
    if (place === undefined) return;
    let payload: Bytes = new Uint8Array(0);
    const undelivered: number[][] = [];
    const schedule: number[] = [];
    const reader = new ProtoReader(value);
    while (reader.next()) {
      if (reader.field === 1) payload = reader.data();
      else if (reader.field === 3) undelivered.push([...reader.data()]);
      else if (reader.field === 4) schedule.push(reader.int64());
      else reader.skip();
    }
    this.statement(
      `insert or replace into ${place.table} (${place.column}, id, data, backoff_schedule, keys_if_undelivered) values (?, ?, ?, ?, ?)`,
    ).run(
      place.timeMs,
      place.id,
      payload,
      JSON.stringify(schedule),
      JSON.stringify(undelivered),
    );
  }

  clear(key: Bytes): void {
    const place = placeOf(key);
    if (place === undefined) return;
    this.statement(
      `delete from ${place.table} where ${place.column} = ? and id = ?`,
    ).run(place.timeMs, place.id);
  }

  private statement(sql: string): StatementSync {
    let statement = this.statements.get(sql);
    if (statement === undefined) {
      statement = this.db.prepare(sql);
      this.statements.set(sql, statement);
    }
    return statement;
  }
}

/** Undefined for keys under 0xFF that this version does not know. */
function placeOf(key: Bytes) {
  if (key.length < 10) return undefined;
  const timeMs = Number(
    new DataView(key.buffer, key.byteOffset + 2, 8).getBigUint64(0),
  );
  const id = new TextDecoder().decode(key.subarray(10));
  if (key[1] === 0x71) return { table: "queue", column: "ts", timeMs, id };
  if (key[1] === 0x72) {
    return { table: "queue_running", column: "deadline", timeMs, id };
  }
  return undefined;
}

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
    const values = new Map<string, string>();
    for (
      const row of db.prepare(
        "select k, cast(v as text) as v from denokv_state where typeof(v) <> 'blob'",
      ).all()
    ) {
      values.set(String(row.k), String(row.v));
    }
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
  sync(dirname(path));
  return name;
}

/** Also what belongs to it; a missing one is no error. */
export function removeDatabase(path: string): void {
  for (const end of ["", "-wal", "-shm", "-journal"]) {
    try {
      Deno.removeSync(path + end);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

/** What an interrupted restore to `path` left. */
export function removeRestoring(path: string): void {
  removeDatabase(workingName(path));
}

function workingName(path: string): string {
  return `${path}.restoring`;
}

function sync(path: string): void {
  using file = Deno.openSync(path, { read: true });
  file.syncSync();
}
