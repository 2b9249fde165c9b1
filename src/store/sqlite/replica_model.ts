/** For tests: histories out of a seed, and what a file should hold at each. */
import { DatabaseSync } from "node:sqlite";
import { type Bytes, utf8 } from "../../common/bytes.ts";
import type { Random } from "../../common/random.ts";
import type { CommitTime } from "../../log/commit_times.ts";
import { LAST_INDEX, LogEncoder } from "../../log/entry.ts";
import { encodeQueueMessage, queueLogKey } from "../../log/queue_message.ts";
import type { CommitPoint, ReplicaCommits } from "../replica_writer.ts";

export interface Change {
  key: Bytes;
  value: Bytes | null;
  encoding: number;
  expireAtMs: number;
}

export interface Commit extends CommitPoint {
  timeMs: number;
  changes: Change[];
}

/** A row of a file, as text that sorts. */
export type Contents = string[];

export interface HistoryState {
  point: CommitPoint;
  timeMs: number;
  contents: Contents;
}

const KEYS = 40;
const MESSAGES = 6;

export class HistoryModel {
  version: number;
  readonly states: HistoryState[];
  private readonly rows = new Map<string, string>();
  private timeMs = 1_700_000_000_000;

  constructor(private readonly random: Random, version: number) {
    this.version = version;
    const point = { version, order: 0 };
    this.states = [{ point, timeMs: this.timeMs, contents: [] }];
  }

  next(count: number): Commit[] {
    return Array.from({ length: count }, () => this.commit());
  }

  anyState(): HistoryState {
    return this.states[this.random.below(this.states.length)];
  }

  newest(): HistoryState {
    return this.states[this.states.length - 1];
  }

  private commit(): Commit {
    const { random } = this;
    this.version += 1 + random.below(9);
    this.timeMs += random.below(3);
    const changes: Change[] = [];
    for (let i = random.below(4); i >= 0; i--) {
      changes.push(
        random.below(6) === 0 ? this.messageChange() : this.rowChange(),
      );
    }
    const { version, timeMs } = this;
    const point = { version, order: 0 };
    const contents = [...this.rows.values()].sort();
    this.states.push({ point, timeMs, contents });
    return { ...point, timeMs, changes };
  }

  private rowChange(): Change {
    const { random } = this;
    const key = utf8(`key ${random.below(KEYS)}`);
    const hex = key.toHex();
    if (random.below(4) === 0) {
      this.rows.delete(hex);
      return { key, value: null, encoding: 0, expireAtMs: -1 };
    }
    const value = utf8(`${random.below(1000)}`.repeat(1 + random.below(9)));
    const encoding = 1 + random.below(3);
    const expireAtMs = random.below(3) === 0 ? 2e12 + random.below(9) : -1;
    this.rows.set(
      hex,
      rowText(key, value, encoding, this.version, 0, expireAtMs),
    );
    return { key, value, encoding, expireAtMs };
  }

  private messageChange(): Change {
    const { random } = this;
    const table = random.below(2) === 0 ? "ready" : "running";
    const timeMs = 2e12 + random.below(MESSAGES);
    const id = `message ${random.below(2)}`;
    const key = queueLogKey(table, timeMs, id);
    const hex = key.toHex();
    if (this.rows.has(hex) && random.below(4) > 0) {
      this.rows.delete(hex);
      return { key, value: null, encoding: 0, expireAtMs: -1 };
    }
    const payload = utf8(`payload ${random.below(100)}`);
    const value = encodeQueueMessage({
      payload,
      deadlineMs: timeMs,
      keysIfUndelivered: [utf8("undelivered")],
      backoffScheduleMs: [1, 2 ** 40],
    });
    this.rows.set(
      hex,
      messageText(table, timeMs, id, payload, "[1,1099511627776]", [
        ...utf8("undelivered"),
      ]),
    );
    return { key, value, encoding: 3, expireAtMs: -1 };
  }
}

function rowText(
  key: Bytes,
  value: Bytes,
  encoding: number,
  version: number,
  order: number,
  expireAtMs: number,
): string {
  return [
    "kv",
    key.toHex(),
    value.toHex(),
    encoding,
    version,
    order,
    expireAtMs,
  ].join(" ");
}

function messageText(
  table: string,
  timeMs: number,
  id: string,
  payload: Bytes,
  schedule: string,
  undelivered: number[],
): string {
  return [
    table,
    timeMs,
    id,
    payload.toHex(),
    schedule,
    JSON.stringify([undelivered]),
  ].join(" ");
}

/** What a file holds, through a connection of its own. */
export function contentsOf(path: string): Contents {
  const db = new DatabaseSync(path, { readOnly: true });
  try {
    const texts: string[] = [];
    for (const row of db.prepare("select * from kv").all()) {
      texts.push(
        rowText(
          row.k as Bytes,
          row.v as Bytes,
          Number(row.v_encoding),
          Number(row.version),
          Number(row.seq),
          Number(row.expiration_ms),
        ),
      );
    }
    const tables = [["ready", "queue", "ts"], [
      "running",
      "queue_running",
      "deadline",
    ]];
    for (const [table, name, time] of tables) {
      const has = db.prepare("select 1 from sqlite_schema where name = ?");
      if (!has.get(name)) continue;
      for (const row of db.prepare(`select * from ${name}`).all()) {
        const [undelivered] = JSON.parse(String(row.keys_if_undelivered));
        texts.push(
          messageText(
            table,
            Number(row[time]),
            String(row.id),
            row.data as Bytes,
            String(row.backoff_schedule),
            undelivered,
          ),
        );
      }
    }
    return texts.sort();
  } finally {
    db.close();
  }
}

export function entriesOf(path: string): number {
  return contentsOf(path).filter((text) => text.startsWith("kv")).length;
}

export function encodeCommits(commits: readonly Commit[]): Bytes {
  const encoder = new LogEncoder();
  for (const { version, order, changes } of commits) {
    changes.forEach(({ key, value, encoding, expireAtMs }, i) => {
      const index = i === changes.length - 1 ? LAST_INDEX : i;
      encoder.append(version, order, index, key, value, encoding, expireAtMs);
    });
  }
  return encoder.bytes.slice();
}

export function batchOf(
  commits: readonly Commit[],
  afterVersion: number,
  more: { version?: number; state?: Record<string, string> } = {},
): ReplicaCommits {
  const last = commits.at(-1);
  const times: CommitTime[] = commits.map(({ version, timeMs }) => ({
    version,
    timeMs,
  }));
  return {
    entries: encodeCommits(commits),
    afterVersion,
    version: last?.version ?? afterVersion,
    timeMs: last?.timeMs ?? 0,
    times,
    state: {},
    ...more,
  };
}
