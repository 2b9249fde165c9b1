/**
 * The log's table. A row holds the entries of one or more whole commits of one
 * group commit; its key is the version of the last of them. The newest row
 * also tells which commit of ours was the last: a larger `data_version` is the
 * trace of another program (docs/formats/log.md).
 */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Bytes } from "../../common/bytes.ts";
import { LogEncoder } from "../../log/entry.ts";
import type { LogRow } from "../backup_source.ts";
import type { Retention } from "../log_readers.ts";
import { prepareRows } from "./connection.ts";
import { isCount } from "./foreign_rows.ts";
import type { StateTable } from "./state.ts";

/** While nobody reads the log, it keeps about the last so many bytes. */
const MAX_LOG_BYTES = 64 * 1024 * 1024;
/** A row is closed at the first commit past this. */
const ROW_BYTES = 512 * 1024;
/** Rows trimmed in one commit: the work has to stay small beside the commit. */
const TRIM_ROWS = 64;
/** Trimming starts this far past the limit, so that it comes in batches. */
const TRIM_SLACK_BYTES = 1024 * 1024;
/** Rows whose sizes are looked at together, before any is read. */
const ROWS_AT_ONCE = 64;
/** What a row costs beside its entries, counted so that empty rows count. */
const ROW_OVERHEAD_BYTES = 32;

export class MutationLog {
  /** Of those who follow the log. */
  retentions: Iterable<Retention> = [];
  /** Whether the file's log was as this program leaves it. */
  isSound = true;
  /** Entries of the commits of the present row. */
  readonly encoder = new LogEncoder();
  private firstVersion = 0;
  private lastVersion = 0;
  /** Cumulative bytes ever logged, up to the head and up to the floor. */
  private endBytes = 0;
  private floorBytes = 0;
  private floor = 0;
  private head = 0;
  /** Of the newest row. */
  private timeMs = 0;
  private uncommitted: ReturnType<MutationLog["position"]>;
  private readonly insert: StatementSync;
  private readonly oldest: StatementSync;
  private readonly deleteUpTo: StatementSync;
  private readonly readAfter: StatementSync;
  private readonly sizesAfter: StatementSync;
  private readonly endOf: StatementSync;
  private readonly nextTime: StatementSync;
  private readonly rowOf: StatementSync;

  constructor(
    private readonly db: DatabaseSync,
    private readonly state: StateTable,
    private readonly maxBytes = MAX_LOG_BYTES,
  ) {
    this.insert = db.prepare(
      "insert into denokv_log (version, first_version, time_ms, end_bytes, entries) values (?, ?, ?, ?, ?)",
    );
    this.oldest = prepareRows(
      db,
      `select version, case when ${
        isCount("end_bytes")
      } then end_bytes else 0 end from denokv_log order by version limit ${TRIM_ROWS}`,
    );
    this.deleteUpTo = db.prepare("delete from denokv_log where version <= ?");
    this.readAfter = prepareRows(
      db,
      "select first_version, version, time_ms, entries from denokv_log where version > ? order by version limit ?",
    );
    // The length of a blob is in its row's head: none of it is read.
    this.sizesAfter = prepareRows(
      db,
      "select version, length(entries) from denokv_log where version > ? order by version limit ?",
    );
    this.endOf = prepareRows(
      db,
      "select end_bytes from denokv_log where version <= ? order by version desc limit 1",
    );
    this.nextTime = prepareRows(
      db,
      "select time_ms from denokv_log where version > ? order by version limit 1",
    );
    this.rowOf = prepareRows(
      db,
      "select first_version, time_ms from denokv_log where version >= ? order by version limit 1",
    );
    this.load();
    this.uncommitted = this.position();
  }

  /** Every commit after this version is in the log. */
  get floorVersion(): number {
    return this.floor;
  }

  /** The version of the newest commit in the log. */
  get headVersion(): number {
    return this.head;
  }

  get sizeBytes(): number {
    return this.endBytes - this.floorBytes;
  }

  /** When the newest commit in the log was made. */
  get headTimeMs(): number {
    return this.timeMs;
  }

  /** Whether the file's newest row is the one that this has written. */
  isAsLeft(): boolean {
    const [head, endBytes] = this.newest() ??
      [this.floor, this.floorBytes, this.timeMs];
    return head === this.head && endBytes === this.endBytes;
  }

  /** Its version, end and time; undefined: the log is empty. */
  private newest(): (number | null)[] | undefined {
    const columns = ["version", "end_bytes", "time_ms"].map((column) =>
      `case when ${isCount(column)} then ${column} end`
    );
    return prepareRows(
      this.db,
      `select ${
        columns.join(", ")
      } from denokv_log order by version desc limit 1`,
    ).get() as (number | null)[] | undefined;
  }

  private load(): void {
    const { state } = this;
    const floor = state.getNumber("log_floor");
    const floorBytes = state.getNumber("log_floor_bytes");
    const newest = this.newest();
    this.isSound = (newest === undefined || !newest.includes(null)) &&
      (floor ?? 0) >= 0 && (floorBytes ?? 0) >= 0 &&
      (floor !== undefined) === (state.getText("log_floor") !== undefined);
    this.floor = floor ?? 0;
    this.floorBytes = floorBytes ?? 0;
    this.head = newest?.[0] ?? this.floor;
    this.endBytes = newest?.[1] ?? this.floorBytes;
    this.timeMs = newest?.[2] ?? 0;
  }

  private position() {
    const { endBytes, floorBytes, floor, head, timeMs } = this;
    return { endBytes, floorBytes, floor, head, timeMs };
  }

  /** A commit of this version is complete in `encoder`, or changed nothing. */
  endCommit(version: number, timeMs: number): void {
    if (this.firstVersion === 0) this.firstVersion = version;
    this.lastVersion = version;
    if (this.encoder.sizeBytes >= ROW_BYTES) this.writeRow(timeMs);
  }

  /** Within the transaction, before its commit: the last row, and trimming. */
  writeAll(timeMs: number): void {
    if (this.firstVersion !== 0) this.writeRow(timeMs);
    if (this.sizeBytes > this.maxBytes + TRIM_SLACK_BYTES) this.trim();
  }

  /**
   * Versions go on after this one, and nothing lies in between. Within a
   * transaction; nothing is trimmed, because all of it may still be needed.
   */
  skipTo(version: number): void {
    this.endCommit(version, this.timeMs);
    this.writeRow(this.timeMs);
  }

  private writeRow(timeMs: number): void {
    this.endBytes += this.encoder.sizeBytes + ROW_OVERHEAD_BYTES;
    // A clock that was put back: the order of times is that of versions.
    this.timeMs = Math.max(this.timeMs, timeMs);
    this.insert.run(
      this.lastVersion,
      this.firstVersion,
      this.timeMs,
      this.endBytes,
      this.encoder.bytes,
    );
    this.head = this.lastVersion;
    this.firstVersion = 0;
    this.encoder.clear();
  }

  private trim(): void {
    if (this.isNeeded(this.floor + 1, this.floorBytes)) return;
    const rows = this.oldest.all() as unknown as [number, number][];
    let last: [number, number] | undefined;
    for (const row of rows) {
      // The newest row always stays: it names our last commit.
      if (row[0] === this.head || this.endBytes - row[1] < this.maxBytes) break;
      if (this.isNeeded(...row)) break;
      last = row;
    }
    if (last === undefined) return;
    this.deleteUpTo.run(last[0]);
    [this.floor, this.floorBytes] = last;
    this.saveFloor();
  }

  /** Whether anyone needs the row that has this version and this end. */
  private isNeeded(version: number, endBytes: number): boolean {
    for (const { afterVersion, maxBytes } of this.retentions) {
      if (version > afterVersion && this.endBytes - endBytes < maxBytes) {
        return true;
      }
    }
    return false;
  }

  private saveFloor(): void {
    this.state.set("log_floor", this.floor);
    this.state.set("log_floor_bytes", this.floorBytes);
  }

  /**
   * Forgets everything up to `version`: another program wrote in between, so
   * whoever follows the log has to start from a new snapshot. Within a
   * transaction.
   */
  restartAt(version: number, timeMs: number): void {
    this.db.prepare("delete from denokv_log").run();
    this.encoder.clear();
    this.firstVersion = 0;
    this.floor = version;
    this.floorBytes = this.endBytes;
    this.head = version;
    this.endBytes += ROW_OVERHEAD_BYTES;
    this.timeMs = Math.max(this.timeMs, timeMs);
    this.insert.run(
      version,
      version,
      this.timeMs,
      this.endBytes,
      this.encoder.bytes,
    );
    this.saveFloor();
  }

  /**
   * After a restore: nothing lies between the history's last version and the
   * one that commits go on after. Within a transaction.
   */
  leap(version: number, toVersion: number, timeMs: number): void {
    this.restartAt(toVersion, timeMs);
    this.floor = version;
    this.saveFloor();
  }

  /** The transaction's log is in the file. */
  committed(): void {
    this.uncommitted = this.position();
  }

  /** The transaction was rolled back: back to what the file has. */
  rolledBack(): void {
    this.encoder.clear();
    this.firstVersion = 0;
    Object.assign(this, this.uncommitted);
  }

  /** About how much the log holds after `version`. */
  bytesAfter(version: number): number {
    const row = this.endOf.get(version) as unknown as [number] | undefined;
    return this.endBytes - Math.max(row?.[0] ?? 0, this.floorBytes);
  }

  /**
   * Whether a row has the version, from its first commit to its last.
   * @param timeMs the row's, where that is known
   */
  isInRow(version: number, timeMs?: number): boolean {
    const row = this.rowOf.get(version) as unknown as
      | [firstVersion: number, timeMs: number]
      | undefined;
    return row !== undefined && row[0] <= version &&
      (timeMs === undefined || row[1] === timeMs);
  }

  /** When the first row after `version` was committed. */
  timeAfter(version: number): number | undefined {
    const row = this.nextTime.get(version) as unknown as [number] | undefined;
    return row?.[0];
  }

  /**
   * Rows after `version` and not beyond `upTo`, oldest first, about `maxBytes`
   * of them, but at least one where there is one.
   */
  readUpTo(version: number, upTo: number, maxBytes: number): LogRow[] {
    const rows: LogRow[] = [];
    let leftBytes = maxBytes;
    for (;;) {
      const sizes = this.sizesAfter.all(version, ROWS_AT_ONCE) as unknown as [
        number,
        number,
      ][];
      let count = 0;
      for (const [rowVersion, sizeBytes] of sizes) {
        if (rowVersion > upTo) break;
        if (rows.length + count > 0 && sizeBytes > leftBytes) break;
        leftBytes -= sizeBytes;
        count++;
      }
      if (count > 0) rows.push(...this.read(version, count));
      if (count < ROWS_AT_ONCE || leftBytes <= 0) return rows;
      version = rows[rows.length - 1].version;
    }
  }

  /** Rows after `version`, oldest first. */
  read(version: number, limit: number): LogRow[] {
    const rows = this.readAfter.all(version, limit) as unknown as [
      number,
      number,
      number,
      Bytes,
    ][];
    return rows.map((row) => ({
      firstVersion: row[0],
      version: row[1],
      timeMs: row[2],
      entries: row[3],
    }));
  }
}
