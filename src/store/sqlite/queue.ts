/**
 * The file's queue tables. Messages that arrive over KV Connect are put where
 * Deno's embedded KV finds them; delivery to remote consumers is not built
 * yet, so this server only ever adds.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { encodeQueueMessage, queueLogKey } from "../../log/queue_message.ts";
import type { Bytes } from "../../common/bytes.ts";
import { type Random, randomUuid } from "../../common/random.ts";
import type { Enqueue } from "../../protocol/messages.ts";
import { prepareRows } from "./connection.ts";

/** What Deno's embedded KV writes where a message names no schedule. */
const DEFAULT_BACKOFF_MS = [100, 1000, 5000, 30_000, 60_000];

export class QueueTables {
  private readonly insert: StatementSync;
  private digest: number;
  private committedDigest: number;

  constructor(
    private readonly db: DatabaseSync,
    private readonly random: Random,
  ) {
    this.insert = db.prepare(
      "insert into queue (ts, id, data, backoff_schedule, keys_if_undelivered) values (?, ?, ?, ?, ?)",
    );
    this.digest = this.committedDigest = this.digestOfTables();
  }

  /**
   * What the tables hold, in one text: consuming a message advances no
   * version, so this is how another program's work on them is noticed.
   */
  get contents(): string {
    return this.digest.toString(16);
  }

  /** Adds a message; returns what the log says of it. */
  add(message: Enqueue): { key: Bytes; value: Bytes } {
    const id = randomUuid(this.random);
    const backoffScheduleMs = message.backoffScheduleMs ?? DEFAULT_BACKOFF_MS;
    this.insert.run(
      message.deadlineMs,
      id,
      message.payload,
      JSON.stringify(backoffScheduleMs),
      JSON.stringify(message.keysIfUndelivered.map((key) => [...key])),
    );
    this.digest += digestOf("ready", message.deadlineMs, id);
    return {
      key: queueLogKey("ready", message.deadlineMs, id),
      value: encodeQueueMessage({ ...message, backoffScheduleMs }),
    };
  }

  /** The transaction's messages are in the file. */
  committed(): void {
    this.committedDigest = this.digest;
  }

  /** The transaction was rolled back. */
  rolledBack(): void {
    this.digest = this.committedDigest;
  }

  /** Another program may have used the tables: reads them anew. */
  reload(): void {
    this.digest = this.digestOfTables();
  }

  private digestOfTables(): number {
    return digestOfQueue((sql) => prepareRows(this.db, sql).iterate());
  }
}

/**
 * What the tables hold, as a number.
 *
 * Needs `digestOf` and nothing else of this file: a Worker gets both as text.
 */
export function digestOfQueue(
  rows: (sql: string) => Iterable<unknown>,
): number {
  let digest = 0;
  const tables = [
    // As text: another program may have put any number there.
    ["ready", "select cast(ts as text), id from queue"],
    ["running", "select cast(deadline as text), id from queue_running"],
  ] as const;
  for (const [table, sql] of tables) {
    for (const row of rows(sql)) {
      const [timeMs, id] = row as [string, string];
      digest += digestOf(table, timeMs, id);
    }
  }
  return digest;
}

/**
 * A hash of one message's place (FNV-1a, 32 bits). Sums of them do not depend
 * on the order and stay exact up to two million messages; ids are random, so
 * different contents have different sums for all that matters here.
 */
export function digestOf(
  table: string,
  timeMs: number | string,
  id: string,
): number {
  let hash = 0x811c9dc5;
  const text = `${table} ${timeMs} ${id}`;
  for (let i = 0; i < text.length; i++) {
    hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  }
  return hash >>> 0;
}
