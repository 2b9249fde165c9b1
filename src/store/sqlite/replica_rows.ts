/** What a replica's connection writes for each entry of the log. */
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
  /** Of the commit that wrote the value. */
  version: number;
  order: number;
  expireAtMs: number;
}

export interface ReplicaRowTools {
  readQueueLogKey: typeof readQueueLogKey;
  decodeQueueMessage: typeof decodeQueueMessage;
  encodeQueueMessage: typeof encodeQueueMessage;
  digestOf: typeof digestOf;
}

/**
 * Stands alone, nothing outside its own text is within its reach: a Worker
 * gets it as text.
 */
export class ReplicaRows {
  /** A trace of the queue tables (`QueueTables.contents`). */
  queueDigest = 0;
  private readonly upsert: StatementSync;
  private readonly remove: StatementSync;
  /** Into either log: what the row of a key is now. */
  private readonly inverse: Record<"undo" | "redo", StatementSync>;
  /** Into either log: a row as it is given. */
  private readonly insert: Record<"undo" | "redo", StatementSync>;
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
    this.upsert = db.prepare(
      `insert into ${table} (k, v, v_encoding, version, seq, expiration_ms) values (?, ?, ?, ?, ?, ?) on conflict (k) do update set v = excluded.v, v_encoding = excluded.v_encoding, version = excluded.version, seq = excluded.seq, expiration_ms = excluded.expiration_ms`,
    );
    this.remove = db.prepare(`delete from ${table} where k = ?`);
    const columns =
      "(versionstamp12, timestamp_ms, k, v, v_encoding, real_versionstamp, expiration_ms)";
    const inverse = (log: string) =>
      db.prepare(
        `insert or ignore into tt_${log}_log ${columns} select ?1, ?2, ?3, o.v, coalesce(o.v_encoding, 0), coalesce(unhex(format('%016x%04x', o.version, o.seq)), zeroblob(10)), o.expiration_ms from (select 1) left join ${table} o on o.k = ?3`,
      );
    this.inverse = { undo: inverse("undo"), redo: inverse("redo") };
    const insert = (log: string) =>
      db.prepare(
        `insert or ignore into tt_${log}_log ${columns} values (?, ?, ?, ?, ?, ?, ?)`,
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
   * Puts the row into the data.
   * @param inverse the log that gets what the row replaces; null: none
   */
  apply(row: ReplicaRow, inverse: "undo" | "redo" | null): void {
    if (this.queue !== undefined && row.key[0] === 0xff) {
      return this.applyMessage(row, inverse);
    }
    if (inverse !== null) {
      this.inverse[inverse].run(row.stamp, row.timeMs, row.key);
    }
    if (row.value === null) this.remove.run(row.key);
    else {
      this.upsert.run(
        row.key,
        row.value,
        row.encoding,
        row.version,
        row.order,
        row.expireAtMs,
      );
    }
  }

  /** Puts the row into the log, for later. */
  keep(row: ReplicaRow): void {
    this.log("redo", row, row.value, row.encoding, row.stamp.subarray(0, 10));
  }

  private log(
    log: "undo" | "redo",
    { stamp, timeMs, key, expireAtMs }: ReplicaRow,
    value: Bytes | null,
    encoding: number,
    realVersionstamp: Bytes,
  ): void {
    this.insert[log].run(
      stamp,
      timeMs,
      key,
      value,
      value === null ? 0 : encoding,
      realVersionstamp,
      value === null ? null : expireAtMs,
    );
  }

  private applyMessage(row: ReplicaRow, inverse: "undo" | "redo" | null) {
    const { tools } = this;
    const place = tools.readQueueLogKey(row.key);
    // Of a later version of the log: a restore passes over them too.
    if (place === undefined) return;
    const { table, timeMs, id } = place;
    const statements = this.queue![table];
    if (inverse !== null) {
      const old = statements.select.get(timeMs, id) as
        | Record<string, unknown>
        | undefined;
      const value = old === undefined ? null : this.encode(timeMs, old);
      const never = { ...row, expireAtMs: -1 };
      this.log(inverse, never, value, 3, new Uint8Array(10));
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
