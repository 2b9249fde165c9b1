/**
 * What runs in a snapshot's thread: a read-only connection of its own, and one
 * read transaction over everything. While it runs, the write-ahead log cannot
 * begin anew and grows by what is written meanwhile.
 *
 * Handed to the Worker as text, as the checkpointer's program is and for the
 * same reason.
 */
import type { createHash } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import {
  encodeQueueMessage,
  queueLogKey,
  type QueueTable,
} from "../../log/queue_message.ts";
import {
  encodeSnapshotRange,
  type SnapshotRow,
} from "../../log/snapshot_range.ts";
import {
  SELECT_DATA_VERSION,
  SELECT_LOG_HEAD,
  SNAPSHOT_ROWS,
} from "./foreign_rows.ts";

export type SnapshotRequest =
  /** Parts end at these keys too, which come in order. */
  | { kind: "begin"; splitKeys: readonly Uint8Array[] }
  /** The last part is dealt with; the next one is read with such pauses. */
  | { kind: "more"; pauseMs: number };

export type SnapshotReply =
  | {
    kind: "begun";
    version: number;
    /** Of the log's newest row, zeros where there is none. */
    head: { version: number; timeMs: number };
  }
  | {
    kind: "part";
    bytes: Uint8Array<ArrayBuffer>;
    entries: number;
    endKey: Uint8Array<ArrayBuffer>;
    sha256: string;
  }
  | {
    kind: "end";
    entries: number;
    queueMessages: number;
    sizeBytes: number;
    /** Of everything; empty where the parts are handed out. */
    sha256: string;
    /** Rows of other programs that cannot be read, and are left out. */
    unreadable: number;
  }
  | { kind: "failed"; message: string };

export interface SnapshotTask {
  path: string;
  partBytes: number;
  /** Hand the parts out; without it, only their sum is told. */
  handsOut: boolean;
}

/** The statements, which the Worker cannot import. */
const SQL = {
  rows: SNAPSHOT_ROWS,
  version: SELECT_DATA_VERSION,
  head: SELECT_LOG_HEAD,
};

interface Scope {
  onmessage: (event: { data: SnapshotRequest }) => void;
  postMessage(reply: SnapshotReply, transfer?: Transferable[]): void;
}

interface Tools {
  Database: typeof DatabaseSync;
  createHash: typeof createHash;
  encode: typeof encodeSnapshotRange;
  encodeMessage: typeof encodeQueueMessage;
  messageKey: typeof queueLogKey;
  sql: typeof SQL;
}

/** Stands alone: nothing outside its own text is within its reach. */
function work(tools: Tools, task: SnapshotTask, scope: Scope) {
  const PIECE_BYTES = 64 * 1024;
  let pauseMs = 0;
  const nobody = new Int32Array(new SharedArrayBuffer(4));

  /** Leaves the processor to other threads. */
  function pause(): void {
    if (pauseMs > 0) Atomics.wait(nobody, 0, 0, pauseMs);
  }

  /** Whether JSON is a list of whole numbers up to `max`. */
  function isList(value: unknown, max: number): value is number[] {
    return Array.isArray(value) &&
      value.every((item) => Number.isInteger(item) && item >= 0 && item <= max);
  }

  function parsed(text: string): unknown {
    try {
      return JSON.parse(text);
    } catch {
      return undefined;
    }
  }

  /**
   * A queue message as its log entry (log/queue_message.ts); undefined
   * where another program has put something else there.
   */
  function queueRow(
    table: QueueTable,
    row: [number, string, Uint8Array, string, string],
  ): SnapshotRow | undefined {
    const [timeMs, id, payload] = row;
    const stated = parsed(row[3]);
    const schedule = stated === null ? [] : stated;
    const undelivered = parsed(row[4]);
    if (
      !isList(schedule, Number.MAX_SAFE_INTEGER) ||
      !Array.isArray(undelivered) ||
      !undelivered.every((key) => isList(key, 255))
    ) return undefined;
    const value = tools.encodeMessage({
      payload,
      deadlineMs: timeMs,
      keysIfUndelivered: undelivered,
      backoffScheduleMs: schedule,
    });
    return [tools.messageKey(table, timeMs, id), value, 3, 0, 0, -1];
  }

  function* rows(db: DatabaseSync): Generator<SnapshotRow> {
    const all = (sql: string) => {
      const statement = db.prepare(sql);
      (statement as unknown as { setReturnArrays(on: boolean): void })
        .setReturnArrays(true);
      return statement.iterate() as Iterable<unknown>;
    };
    yield* all(tools.sql.rows) as Iterable<SnapshotRow>;
    for (
      const [state, table, time] of [
        ["ready", "queue", "ts"],
        ["running", "queue_running", "deadline"],
      ] as const
    ) {
      const sql =
        `select ${time}, id, cast(data as blob), cast(backoff_schedule as text), cast(keys_if_undelivered as text) from ${table} where typeof(${time}) = 'integer' and ${time} between 0 and ${Number.MAX_SAFE_INTEGER} and typeof(id) = 'text' order by ${time}, id`;
      for (const row of all(sql)) {
        const encoded = queueRow(
          state,
          row as [number, string, Uint8Array, string, string],
        );
        if (encoded) yield encoded;
      }
    }
  }

  function countAll(db: DatabaseSync): number {
    const row = db.prepare(
      "select (select count(*) from kv) + (select count(*) from queue) + (select count(*) from queue_running) as n",
    ).get();
    return Number(row!.n);
  }

  function isAfter(a: Uint8Array, b: Uint8Array): boolean {
    const length = Math.min(a.length, b.length);
    for (let i = 0; i < length; i++) {
      if (a[i] !== b[i]) return a[i] > b[i];
    }
    return a.length > b.length;
  }

  function* parts(
    db: DatabaseSync,
    splitKeys: readonly Uint8Array[],
  ): Generator<SnapshotReply> {
    let part: SnapshotRow[] = [];
    let partBytes = 0;
    let pieceBytes = 0;
    let splits = 0;
    let entries = 0;
    let queueMessages = 0;
    let sizeBytes = 0;
    const hash = tools.createHash("sha256");
    const encoded = () => {
      const bytes = tools.encode(part);
      pause();
      const entries = part.length;
      const endKey = part[entries - 1][0].slice();
      if (!task.handsOut) hash.update(bytes);
      const sha256 = task.handsOut
        ? tools.createHash("sha256").update(bytes).digest("hex")
        : "";
      sizeBytes += bytes.length;
      part = [];
      partBytes = 0;
      return { kind: "part", bytes, entries, endKey, sha256 } as const;
    };
    for (const row of rows(db)) {
      let isSplit = false;
      while (splits < splitKeys.length && isAfter(row[0], splitKeys[splits])) {
        isSplit = true;
        splits++;
      }
      if (isSplit && part.length > 0) yield encoded();
      part.push(row);
      const rowBytes = 2 * row[0].length + row[1].length + 40;
      partBytes += rowBytes;
      pieceBytes += rowBytes;
      if (pieceBytes >= PIECE_BYTES) {
        pieceBytes = 0;
        pause();
      }
      if (row[0][0] === 0xff) queueMessages++;
      else entries++;
      // One that has an end of its own may have grown meanwhile.
      const isOpen = splits === splitKeys.length;
      if (partBytes >= task.partBytes * (isOpen ? 1 : 2)) yield encoded();
    }
    if (part.length > 0) yield encoded();
    const sha256 = task.handsOut ? "" : hash.digest("hex");
    const unreadable = countAll(db) - entries - queueMessages;
    yield {
      kind: "end",
      entries,
      queueMessages,
      sizeBytes,
      sha256,
      unreadable,
    };
  }

  let db: DatabaseSync | undefined;
  let running: Generator<SnapshotReply> | undefined;
  scope.onmessage = (event) => {
    try {
      if (event.data.kind === "begin") {
        db = new tools.Database(task.path, { readOnly: true });
        db.exec(
          "pragma busy_timeout = 5000; pragma cache_size = -2048; pragma mmap_size = 0; begin",
        );
        const row = db.prepare(tools.sql.version).get();
        const newest = db.prepare(tools.sql.head).get();
        running = parts(db, event.data.splitKeys);
        const version = Number(row?.version ?? 0);
        const head = {
          version: Number(newest?.version ?? 0),
          timeMs: Number(newest?.time_ms ?? 0),
        };
        scope.postMessage({ kind: "begun", version, head });
        return;
      }
      pauseMs = event.data.pauseMs;
      for (;;) {
        const reply = running!.next().value as SnapshotReply;
        if (reply.kind === "part" && !task.handsOut) continue;
        if (reply.kind === "end") db!.close();
        if (reply.kind === "part") {
          scope.postMessage(reply, [reply.bytes.buffer]);
        } else scope.postMessage(reply);
        return;
      }
    } catch (error) {
      db?.close();
      const message = error instanceof Error ? error.message : String(error);
      scope.postMessage({ kind: "failed", message });
    }
  };
}

/** The URL of a Worker that carries the task out. */
export function snapshotWorkerUrl(task: SnapshotTask): string {
  const source = `import { DatabaseSync } from "node:sqlite";
import { createHash } from "node:crypto";
const encode = ${encodeSnapshotRange.toString()};
const encodeMessage = ${encodeQueueMessage.toString()};
const messageKey = ${queueLogKey.toString()};
const sql = ${JSON.stringify(SQL)};
(${work.toString()})({ Database: DatabaseSync, createHash, encode, encodeMessage, messageKey, sql }, ${
    JSON.stringify(task)
  }, self);`;
  return "data:application/javascript," + encodeURIComponent(source);
}
