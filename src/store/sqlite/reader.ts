/**
 * Reads of the serving connection. It is the writer's own connection, so its
 * page cache survives commits; a second, pinned connection drops its cache at
 * every commit of the first (docs/decisions/readers.md).
 *
 * A read transaction stays open over the reads of a few milliseconds: taking
 * and leaving SQLite's locks at every statement costs as much as the read
 * itself (3.2 µs against 1.5 µs for a point read).
 */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Bytes } from "../../common/bytes.ts";
import type { Clock, Timer } from "../../common/clock.ts";
import {
  type Encoding,
  type Entry,
  NEVER_MS,
  type ReadRange,
} from "../../protocol/messages.ts";
import type { Row, RowStamp } from "../evaluate.ts";
import { prepareRows } from "./connection.ts";
import { FOREIGN_COLUMNS, MAX_NUMBER } from "./foreign_rows.ts";

/**
 * How long a read transaction may stay open. It is always ended before a
 * commit, so it shows nothing old; the bound is for other programs, whose
 * checkpoints wait for readers.
 */
const READ_TURN_MS = 5;

const COLUMNS = "v, v_encoding, version, expiration_ms";
// The unary plus keeps the planner on the primary key.
const LIVE = "(+expiration_ms < 0 or +expiration_ms > ?)";

type PointRow = [Bytes, Encoding, number, number];
type StampRow = [Encoding, number, number, number];
type RangeRow = [Bytes, Bytes, Encoding, number];
/** Nulls where it cannot be handed out. */
type ForeignRow = [Bytes, ...PointRow] | [Bytes, null, null, null, null];
/** Keys and values one behind the other; four numbers for each entry. */
type PackedRow = [Bytes | null, string | null];

/**
 * Up to so many entries of a range leave SQLite packed into one row: handing
 * over a blob costs about 0.3 µs, whatever its size, so that 100 entries took
 * 80 µs one by one and take 49 µs packed. More than this would hold a copy of
 * too much data for a while.
 */
const MAX_PACKED_ENTRIES = 512;
/** Below it a packed row is no cheaper. */
const MIN_PACKED_ENTRIES = 4;

export class Reader {
  private readonly beginStatement: StatementSync;
  private readonly commitStatement: StatementSync;
  private readonly pointStatement: StatementSync;
  private readonly stampStatement: StatementSync;
  private readonly sizeStatement: StatementSync;
  private readonly forward: StatementSync;
  private readonly backward: StatementSync;
  private readonly packedForward: StatementSync;
  private readonly packedBackward: StatementSync;
  /** Rows met so far that cannot be handed out; they count as absent. */
  unreadableRows = 0;
  private isInTurn = false;
  private timer: Timer | undefined;

  constructor(
    private readonly db: DatabaseSync,
    private readonly clock: Clock,
    private readonly onUnreadable: () => void = () => {},
  ) {
    this.beginStatement = db.prepare("begin");
    this.commitStatement = db.prepare("commit");
    this.pointStatement = prepareRows(
      db,
      `select ${COLUMNS} from kv where k = ?`,
    );
    this.stampStatement = prepareRows(
      db,
      "select v_encoding, version, expiration_ms, typeof(v) = 'blob' from kv where k = ?",
    );
    this.sizeStatement = prepareRows(
      db,
      "select octet_length(v) from kv where k = ?",
    );
    const range = (order: string) =>
      `select k, v, v_encoding, version from kv where k >= ? and k < ? and ${LIVE} order by k ${order} limit ?`;
    // Concatenation makes a text of the blobs without touching their bytes,
    // and the cast hands them back as they were.
    const packed = (order: string) =>
      `select cast(group_concat(k || v, '') as blob), group_concat(format('%d,%d,%d,%d', length(k), octet_length(v), v_encoding, version)) from (${
        range(order)
      })`;
    this.forward = prepareRows(db, range("asc"));
    this.backward = prepareRows(db, range("desc"));
    this.packedForward = prepareRows(db, packed("asc"));
    this.packedBackward = prepareRows(db, packed("desc"));
  }

  /** Opens the read transaction that the following reads share. */
  beginTurn(): void {
    if (this.isInTurn) return;
    if (!this.db.isTransaction) this.beginStatement.run();
    this.isInTurn = true;
    this.timer ??= this.clock.after(READ_TURN_MS, this.onTimer);
  }

  private readonly onTimer = () => {
    this.timer = undefined;
    try {
      this.endTurn();
    } catch {
      // Another program's lock, or the disk: whoever reads next is told.
      this.timer = this.clock.after(READ_TURN_MS, this.onTimer);
      this.isInTurn = true;
    }
  };

  /** No read follows. */
  close(): void {
    this.timer?.stop();
    this.endTurn();
  }

  /** Before a commit, and before the connection is closed. */
  endTurn(): void {
    if (!this.isInTurn) return;
    this.isInTurn = false;
    // Should it fail, the next turn goes on with the transaction that is open.
    if (this.db.isOpen && this.db.isTransaction) this.commitStatement.run();
  }

  /** What the value of a key takes, without reading it; 0 where it is absent. */
  valueBytes(key: Bytes): number {
    const row = this.sizeStatement.get(key) as [number | null] | undefined;
    return row?.[0] ?? 0;
  }

  /** The row of a key, expired or not. */
  row(key: Bytes): Row | undefined {
    let row: PointRow | undefined;
    try {
      row = this.pointStatement.get(key) as PointRow | undefined;
    } catch (error) {
      return this.foreignRow(key, error);
    }
    if (row === undefined) return undefined;
    const expireAtMs = row[3];
    if (
      !isUsual(row[0], row[1], row[2]) || !Number.isSafeInteger(expireAtMs)
    ) return this.foreignRow(key);
    return {
      value: row[0],
      encoding: row[1],
      version: row[2],
      order: 0,
      expireAtMs: expireAtMs < 0 ? NEVER_MS : expireAtMs,
    };
  }

  /**
   * The version and expiry of a key's row, without its value: a write may have
   * 100 checks, whose values would be 6 MB.
   */
  stamp(key: Bytes): RowStamp | undefined {
    let row: StampRow | undefined;
    try {
      row = this.stampStatement.get(key) as StampRow | undefined;
    } catch {
      return this.row(key);
    }
    if (row === undefined) return undefined;
    const [encoding, version, expireAtMs, hasBlob] = row;
    const isOurs = hasBlob === 1 && Number.isInteger(encoding) &&
      Number.isInteger(version) && areInRange(encoding, version) &&
      Number.isSafeInteger(expireAtMs);
    if (!isOurs) return this.row(key);
    return {
      version,
      order: 0,
      expireAtMs: expireAtMs < 0 ? NEVER_MS : expireAtMs,
    };
  }

  /** The live entries of a range. */
  range(range: ReadRange, nowMs: number): Entry[] {
    const { limit } = range;
    if (limit >= MIN_PACKED_ENTRIES && limit <= MAX_PACKED_ENTRIES) {
      return this.packedRange(range, nowMs);
    }
    const statement = range.reverse ? this.backward : this.forward;
    let rows: RangeRow[];
    try {
      rows = statement.all(
        range.start,
        range.end,
        nowMs,
        range.limit,
      ) as unknown as RangeRow[];
    } catch (error) {
      return this.foreignRange(range, nowMs, error);
    }
    const entries: Entry[] = new Array(rows.length);
    for (let i = 0; i < rows.length; i++) {
      const row = rows[i];
      if (!isUsual(row[1], row[2], row[3])) {
        return this.foreignRange(range, nowMs);
      }
      entries[i] = {
        key: row[0],
        value: row[1],
        encoding: row[2],
        version: row[3],
        order: 0,
      };
    }
    return entries;
  }

  private packedRange(range: ReadRange, nowMs: number): Entry[] {
    const statement = range.reverse ? this.packedBackward : this.packedForward;
    const [bytes, numbers] = statement.get(
      range.start,
      range.end,
      nowMs,
      range.limit,
    ) as unknown as PackedRow;
    if (numbers === null) return [];
    const parts = JSON.parse(`[${numbers}]`) as number[];
    const entries: Entry[] = new Array(parts.length / 4);
    let at = 0;
    for (let i = 0, j = 0; i < entries.length; i++, j += 4) {
      const valueAt = at + parts[j];
      const endAt = valueAt + parts[j + 1];
      const encoding = parts[j + 2] as Encoding;
      const version = parts[j + 3];
      if (!areInRange(encoding, version)) {
        return this.foreignRange(range, nowMs);
      }
      entries[i] = {
        key: bytes!.subarray(at, valueAt),
        value: bytes!.subarray(valueAt, endAt),
        encoding,
        version,
        order: 0,
      };
      at = endAt;
    }
    // A row without a value is missing in the bytes.
    return at === bytes?.length ? entries : this.foreignRange(range, nowMs);
  }

  // ------------------------------------------- rows that others have written

  /** @param cause why the usual way failed; a lock, say, is no such row */
  private foreignRow(key: Bytes, cause?: unknown): Row | undefined {
    if (cause !== undefined && !(cause instanceof RangeError)) throw cause;
    const row = prepareRows(
      this.db,
      `select k, ${FOREIGN_COLUMNS} from kv where k = ?`,
    ).get(key) as ForeignRow | undefined;
    if (row === undefined) return undefined;
    if (row[1] === null) {
      this.noteUnreadable();
      return undefined;
    }
    const [, value, encoding, version, expireAtMs] = row;
    return { value, encoding, version, order: 0, expireAtMs };
  }

  /** As many entries as asked for, where there are so many that can be read. */
  private foreignRange(
    { start, end, reverse, limit }: ReadRange,
    nowMs: number,
    cause?: unknown,
  ): Entry[] {
    if (cause !== undefined && !(cause instanceof RangeError)) throw cause;
    const entries: Entry[] = [];
    const rows = prepareRows(
      this.db,
      `select k, ${FOREIGN_COLUMNS} from kv where k >= ? and k < ? and ${LIVE} order by k ${
        reverse ? "desc" : "asc"
      }`,
    ).iterate(start, end, nowMs) as Iterable<unknown> as Iterable<ForeignRow>;
    for (const row of rows) {
      if (row[1] === null) {
        this.noteUnreadable();
        continue;
      }
      const [key, value, encoding, version] = row;
      entries.push({ key, value, encoding, version, order: 0 });
      if (entries.length >= limit) break;
    }
    return entries;
  }

  private noteUnreadable(): void {
    this.unreadableRows++;
    this.onUnreadable();
  }
}

/** Whether a row is as Deno KV writes it, as far as this language can tell. */
function isUsual(value: unknown, encoding: number, version: number): boolean {
  return typeof value === "object" && value !== null &&
    Number.isInteger(encoding) && Number.isInteger(version) &&
    areInRange(encoding, version);
}

function areInRange(encoding: number, version: number): boolean {
  return encoding >= 1 && encoding <= 3 && version >= 0 &&
    version <= MAX_NUMBER;
}
