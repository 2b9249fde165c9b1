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
  encodeSnapshotRange,
  type SnapshotRow,
} from "../../log/snapshot_range.ts";

export type SnapshotRequest =
  | { kind: "begin" }
  /** The last part is dealt with. */
  | { kind: "more" };

export type SnapshotReply =
  | { kind: "begun"; version: number }
  | { kind: "part"; bytes: Uint8Array<ArrayBuffer>; entries: number }
  | {
    kind: "end";
    entries: number;
    queueMessages: number;
    sizeBytes: number;
    sha256: string;
  }
  | { kind: "failed"; message: string };

export interface SnapshotTask {
  path: string;
  partBytes: number;
  /** Hand the parts out; without it, only their sum is told. */
  handsOut: boolean;
}

interface Scope {
  onmessage: (event: { data: SnapshotRequest }) => void;
  postMessage(reply: SnapshotReply, transfer?: Transferable[]): void;
}

interface Tools {
  Database: typeof DatabaseSync;
  createHash: typeof createHash;
  encode: typeof encodeSnapshotRange;
}

/** Stands alone: nothing outside its own text is within its reach. */
function work(tools: Tools, task: SnapshotTask, scope: Scope) {
  /** A queue message as the value of its log entry (log/entry.ts). */
  function queueRow(
    table: number,
    row: [number, string, Uint8Array, string, string],
  ): SnapshotRow {
    const [timeMs, id, payload, schedule, undelivered] = row;
    const name = new TextEncoder().encode(id);
    const key = new Uint8Array(10 + name.length);
    key[0] = 0xff;
    key[1] = table;
    new DataView(key.buffer).setBigUint64(2, BigInt(timeMs));
    key.set(name, 10);
    const out: number[] = [];
    const varint = (value: number) => {
      while (value >= 0x80) {
        out.push((value % 0x80) | 0x80);
        value = Math.floor(value / 0x80);
      }
      out.push(value);
    };
    const data = (tag: number, bytes: ArrayLike<number>) => {
      out.push(tag);
      varint(bytes.length);
      for (let i = 0; i < bytes.length; i++) out.push(bytes[i]);
    };
    data(0x0a, payload);
    out.push(0x10);
    varint(timeMs);
    for (const key of JSON.parse(undelivered) as number[][]) data(0x1a, key);
    for (const interval of (JSON.parse(schedule) ?? []) as number[]) {
      out.push(0x20);
      varint(interval);
    }
    return [key, new Uint8Array(out), 3, 0, 0, -1];
  }

  function* rows(db: DatabaseSync): Generator<SnapshotRow> {
    const all = (sql: string) => {
      const statement = db.prepare(sql);
      (statement as unknown as { setReturnArrays(on: boolean): void })
        .setReturnArrays(true);
      return statement.iterate() as Iterable<unknown>;
    };
    yield* all(
      "select k, v, v_encoding, version, seq, expiration_ms from kv order by k",
    ) as Iterable<SnapshotRow>;
    const columns = "id, data, backoff_schedule, keys_if_undelivered";
    for (
      const [letter, sql] of [
        [0x71, `select ts, ${columns} from queue order by ts, id`],
        [
          0x72,
          `select deadline, ${columns} from queue_running order by deadline, id`,
        ],
      ] as const
    ) {
      for (const row of all(sql)) {
        yield queueRow(
          letter,
          row as [number, string, Uint8Array, string, string],
        );
      }
    }
  }

  function* parts(db: DatabaseSync): Generator<SnapshotReply> {
    let part: SnapshotRow[] = [];
    let partBytes = 0;
    let entries = 0;
    let queueMessages = 0;
    let sizeBytes = 0;
    const hash = tools.createHash("sha256");
    const encoded = () => {
      const bytes = tools.encode(part);
      hash.update(bytes);
      const count = part.length;
      sizeBytes += bytes.length;
      part = [];
      partBytes = 0;
      return { kind: "part", bytes, entries: count } as const;
    };
    for (const row of rows(db)) {
      part.push(row);
      partBytes += 2 * row[0].length + row[1].length + 40;
      if (row[0][0] === 0xff) queueMessages++;
      else entries++;
      if (partBytes >= task.partBytes) yield encoded();
    }
    if (part.length > 0) yield encoded();
    const sha256 = hash.digest("hex");
    yield { kind: "end", entries, queueMessages, sizeBytes, sha256 };
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
        const row = db.prepare("select version from data_version where k = 0")
          .get();
        running = parts(db);
        scope.postMessage({ kind: "begun", version: Number(row?.version) });
        return;
      }
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
(${work.toString()})({ Database: DatabaseSync, createHash, encode }, ${
    JSON.stringify(task)
  }, self);`;
  return "data:application/javascript," + encodeURIComponent(source);
}
