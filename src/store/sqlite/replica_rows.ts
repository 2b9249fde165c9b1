/** What a replica's connection writes for the entries of the log. */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Bytes } from "../../common/bytes.ts";
import type {
  decodeQueueMessage,
  encodeQueueMessage,
  QueueTable,
  readQueueLogKey,
} from "../../log/queue_message.ts";
import type { digestOf } from "./queue.ts";

/** An entry of the log, or what undoes one. */
export interface ReplicaRow {
  /** 12 bytes: the commit's versionstamp, and the entry's index. */
  stamp: Bytes;
  timeMs: number;
  key: Bytes;
  /** Null: the key is absent. */
  value: Bytes | null;
  encoding: number;
  /** Of the commit that wrote the value: 10 bytes, and as numbers. */
  versionstamp: Bytes;
  version: number;
  order: number;
  expireAtMs: number;
}

/** `undo` leads back from the present state, `redo` forward. */
export type HistoryLog = "undo" | "redo";

export interface ReplicaRowTools {
  readQueueLogKey: typeof readQueueLogKey;
  decodeQueueMessage: typeof decodeQueueMessage;
  encodeQueueMessage: typeof encodeQueueMessage;
  digestOf: typeof digestOf;
  BulkStatement: typeof BulkStatement;
}

type Value = Bytes | number | string | null;

/**
 * Rows of parameters, put into one statement 50 at a time: a statement for
 * each costs as much again as what it does.
 *
 * Stands alone, nothing outside its own text is within its reach: a Worker
 * gets it as text.
 */
export class BulkStatement {
  private readonly rowsPerRun = 50;
  private readonly one: StatementSync;
  private readonly many: StatementSync;
  private parameters: Value[] = [];

  /** @param sql of so many rows, each a piece of text like `(?, ?)` */
  constructor(
    db: DatabaseSync,
    private readonly columns: number,
    sql: (rows: string) => string,
    row = `(${new Array(columns).fill("?").join(", ")})`,
  ) {
    this.one = db.prepare(sql(row));
    this.many = db.prepare(
      sql(new Array(this.rowsPerRun).fill(row).join(", ")),
    );
  }

  add(...row: Value[]): void {
    const { parameters } = this;
    for (const value of row) parameters.push(value);
    if (parameters.length < this.columns * this.rowsPerRun) return;
    this.parameters = [];
    this.many.run(...parameters);
  }

  flush(): void {
    const { parameters, columns } = this;
    this.parameters = [];
    for (let i = 0; i < parameters.length; i += columns) {
      this.one.run(...parameters.slice(i, i + columns));
    }
  }

  /** What was not run is not. */
  clear(): void {
    this.parameters = [];
  }
}

/**
 * Stands alone, nothing outside its own text is within its reach: a Worker
 * gets it as text.
 */
export class ReplicaRows {
  /** A trace of the queue tables (`QueueTables.contents`). */
  queueDigest = 0;
  /** A row may have an expiry, which a plain write has to take away. */
  private hasExpiry: boolean;
  private readonly setPlain: BulkStatement;
  private readonly setFull: BulkStatement;
  private readonly clearExpiry: BulkStatement;
  private readonly remove: BulkStatement;
  /** Into either log: what the row of a key is now. */
  private readonly inverse: Record<HistoryLog, BulkStatement>;
  /** Into either log: a row as it is given. */
  private readonly insert: Record<HistoryLog, BulkStatement>;
  private readonly queue:
    | Record<
      QueueTable,
      { select: StatementSync; insert: StatementSync; remove: StatementSync }
    >
    | undefined;

  constructor(
    db: DatabaseSync,
    private readonly tools: ReplicaRowTools,
    table: "kv" | "kv_snapshot",
    hasQueue: boolean,
  ) {
    const { BulkStatement } = tools;
    const set = (columns: number, row: string | undefined, more: string) =>
      new BulkStatement(
        db,
        columns,
        (rows) =>
          `insert into ${table} (k, v, v_encoding, version, seq, expiration_ms) values ${rows} on conflict (k) do update set v = excluded.v, v_encoding = excluded.v_encoding, version = excluded.version, seq = excluded.seq${more}`,
        row,
      );
    // A write that names the expiry touches its index: twice the work.
    this.setPlain = set(5, "(?, ?, ?, ?, ?, -1)", "");
    this.setFull = set(
      6,
      undefined,
      ", expiration_ms = excluded.expiration_ms",
    );
    const keys = (sql: string) =>
      new BulkStatement(db, 1, (rows) => sql.replace("$", rows), "?");
    this.clearExpiry = keys(
      `update ${table} set expiration_ms = -1 where k in ($) and expiration_ms <> -1`,
    );
    this.remove = keys(`delete from ${table} where k in ($)`);
    this.hasExpiry = db.prepare(
      `select 1 from ${table} where expiration_ms <> -1 limit 1`,
    ).get() !== undefined;
    const columns =
      "(versionstamp12, timestamp_ms, k, v, v_encoding, real_versionstamp, expiration_ms)";
    const inverse = (log: string) =>
      new BulkStatement(
        db,
        3,
        (rows) =>
          `insert or ignore into tt_${log}_log ${columns} select e.column1, e.column2, e.column3, o.v, coalesce(o.v_encoding, 0), coalesce(unhex(format('%016x%04x', o.version, o.seq)), zeroblob(10)), o.expiration_ms from (values ${rows}) e left join ${table} o on o.k = e.column3`,
      );
    this.inverse = { undo: inverse("undo"), redo: inverse("redo") };
    const insert = (log: string) =>
      new BulkStatement(
        db,
        7,
        (rows) =>
          `insert or ignore into tt_${log}_log ${columns} values ${rows}`,
      );
    this.insert = { undo: insert("undo"), redo: insert("redo") };
    if (!hasQueue) return;
    const queue = (name: string, time: string) => ({
      select: db.prepare(
        `select data, backoff_schedule, keys_if_undelivered from ${name} where ${time} = ? and id = ?`,
      ),
      insert: db.prepare(
        `insert into ${name} (${time}, id, data, backoff_schedule, keys_if_undelivered) values (?, ?, ?, ?, ?)`,
      ),
      remove: db.prepare(`delete from ${name} where ${time} = ? and id = ?`),
    });
    this.queue = {
      ready: queue("queue", "ts"),
      running: queue("queue_running", "deadline"),
    };
  }

  /**
   * Puts the rows into the data, one after the other as seen from outside: of
   * several for one key only the last one is written, and in key order.
   * @param log gets what each row replaces; null: none
   */
  apply(rows: readonly ReplicaRow[], log: HistoryLog | null): void {
    const last = new Map<string, ReplicaRow>();
    for (const row of rows) {
      if (this.queue !== undefined && row.key[0] === 0xff) {
        this.applyMessage(row, log);
        continue;
      }
      // Sorts as the bytes do.
      const name = row.key.toHex();
      if (log !== null) {
        const before = last.get(name);
        if (before === undefined) {
          this.inverse[log].add(row.stamp, row.timeMs, row.key);
        } else this.addTo(log, row, before);
      }
      last.set(name, row);
    }
    if (log !== null) this.flush(this.inverse[log], this.insert[log]);
    this.write(last);
  }

  /** Puts the rows into the log, for later. */
  keep(rows: readonly ReplicaRow[]): void {
    for (const row of rows) this.addTo("redo", row, row);
    this.flush(this.insert.redo);
  }

  /** After a transaction that failed. */
  clear(): void {
    const { setPlain, setFull, clearExpiry, remove, inverse, insert } = this;
    for (
      const each of [
        setPlain,
        setFull,
        clearExpiry,
        remove,
        inverse.undo,
        inverse.redo,
        insert.undo,
        insert.redo,
      ]
    ) each.clear();
  }

  private write(last: Map<string, ReplicaRow>): void {
    const { setPlain, setFull, clearExpiry, remove } = this;
    for (const name of [...last.keys()].sort()) {
      const { key, value, encoding, version, order, expireAtMs } = last.get(
        name,
      )!;
      if (value === null) remove.add(key);
      else if (expireAtMs === -1) {
        setPlain.add(key, value, encoding, version, order);
        if (this.hasExpiry) clearExpiry.add(key);
      } else {
        setFull.add(key, value, encoding, version, order, expireAtMs);
        this.hasExpiry = true;
      }
    }
    // Keys with an expiry of this call are no part of what is cleared.
    this.flush(remove, clearExpiry, setPlain, setFull);
  }

  private flush(...statements: BulkStatement[]): void {
    for (const statement of statements) statement.flush();
  }

  /** An entry's place in a log, with what stood or stands in its row. */
  private addTo(
    log: HistoryLog,
    { stamp, timeMs, key }: ReplicaRow,
    { value, encoding, versionstamp, expireAtMs }: Pick<
      ReplicaRow,
      "value" | "encoding" | "versionstamp" | "expireAtMs"
    >,
  ): void {
    const isAbsent = value === null;
    this.insert[log].add(
      stamp,
      timeMs,
      key,
      value,
      isAbsent ? 0 : encoding,
      versionstamp,
      isAbsent ? null : expireAtMs,
    );
  }

  private applyMessage(row: ReplicaRow, log: HistoryLog | null): void {
    const { tools } = this;
    const place = tools.readQueueLogKey(row.key);
    // Of a later version of the log: a restore passes over them too.
    if (place === undefined) return;
    const { table, timeMs, id } = place;
    const statements = this.queue![table];
    if (log !== null) {
      const old = statements.select.get(timeMs, id) as
        | Record<string, unknown>
        | undefined;
      this.addTo(log, row, {
        value: old === undefined ? null : this.encode(timeMs, old),
        encoding: 3,
        versionstamp: new Uint8Array(10),
        expireAtMs: -1,
      });
    }
    const digest = tools.digestOf(table, timeMs, id);
    const { changes } = statements.remove.run(timeMs, id);
    if (changes !== 0) this.queueDigest -= digest;
    if (row.value === null) return;
    const message = tools.decodeQueueMessage(row.value);
    statements.insert.run(
      timeMs,
      id,
      message.payload,
      JSON.stringify(message.backoffScheduleMs),
      JSON.stringify(message.keysIfUndelivered.map((key) => [...key])),
    );
    this.queueDigest += digest;
  }

  /** Null where another program has put something else there. */
  private encode(
    deadlineMs: number,
    row: Record<string, unknown>,
  ): Bytes | null {
    try {
      return this.tools.encodeQueueMessage({
        payload: row.data as Bytes,
        deadlineMs,
        keysIfUndelivered: JSON.parse(String(row.keys_if_undelivered)),
        backoffScheduleMs: JSON.parse(String(row.backoff_schedule)),
      });
    } catch {
      return null;
    }
  }
}
