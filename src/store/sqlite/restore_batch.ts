/**
 * What a restore reads, taken apart for the connection that writes it: as
 * numbers that say where keys and values lie, since handing over an object for
 * each row would cost as much as inserting it.
 */
import type { Bytes } from "../../common/bytes.ts";
import { decodeLogEntries, LogKind } from "../../log/entry.ts";
import { QUEUE_PREFIX } from "../../log/queue_message.ts";
import { locateSnapshotRange } from "../../log/snapshot_range.ts";
import { clearMessage, setMessage } from "./queue_rows.ts";
import {
  NO_VALUE,
  type RestoreBatch,
  type RestoreStatement,
  ROW_NUMBERS,
} from "./restore_table.ts";

const FIRST_ROWS = 512;

/** Numbers of rows, gathered in a place that is used again and again. */
class Rows {
  private numbers = new Float64Array(FIRST_ROWS * ROW_NUMBERS);
  private at = 0;

  clear(): void {
    this.at = 0;
  }

  push(
    keyAt: number,
    keyBytes: number,
    /** `NO_VALUE`: the row is deleted. */
    valueAt: number,
    valueBytes: number,
    encoding: number,
    version: number,
    order: number,
    expireAtMs: number,
  ): void {
    if (this.at === this.numbers.length) {
      const larger = new Float64Array(this.numbers.length * 2);
      larger.set(this.numbers);
      this.numbers = larger;
    }
    const { numbers, at } = this;
    numbers[at] = keyAt;
    numbers[at + 1] = keyBytes;
    numbers[at + 2] = valueAt;
    numbers[at + 3] = valueBytes;
    numbers[at + 4] = encoding;
    numbers[at + 5] = version;
    numbers[at + 6] = order;
    numbers[at + 7] = expireAtMs;
    this.at = at + ROW_NUMBERS;
  }

  taken(): Float64Array<ArrayBuffer> {
    return this.numbers.slice(0, this.at);
  }
}

export class BatchReader {
  private readonly rows = new Rows();

  /** A part of a snapshot; @throws InvalidRequestError where it is none */
  range(range: Bytes): { batch: RestoreBatch; count: number } {
    const { rows } = this;
    rows.clear();
    const others: RestoreStatement[] = [];
    // The rows say where they lie in the buffer, not in the view of it.
    const { byteOffset } = range;
    const count = locateSnapshotRange(
      range,
      (
        keyAt,
        keyBytes,
        valueAt,
        valueBytes,
        encoding,
        version,
        order,
        expireAtMs,
      ) => {
        if (keyBytes > 0 && range[keyAt] === QUEUE_PREFIX) {
          const key = range.subarray(keyAt, keyAt + keyBytes);
          const value = range.subarray(valueAt, valueAt + valueBytes);
          add(others, setMessage(key, value));
        } else {
          rows.push(
            byteOffset + keyAt,
            keyBytes,
            byteOffset + valueAt,
            valueBytes,
            encoding,
            version,
            order,
            expireAtMs,
          );
        }
      },
    );
    return { batch: batchOf(range, rows, others, true), count };
  }

  /**
   * Entries of the log of versions above `after` and up to `upTo`.
   * @throws InvalidRequestError where the bytes are no entries
   */
  entries(
    entries: Bytes,
    after: number,
    upTo: number,
  ): { batch: RestoreBatch; applied: number; lastVersion: number } {
    const { rows } = this;
    rows.clear();
    const others: RestoreStatement[] = [];
    let applied = 0;
    let lastVersion = after;
    for (const entry of decodeLogEntries(entries)) {
      const { key, value, encoding, version, order, expireAtMs } = entry;
      if (version <= after || version > upTo) continue;
      const isSet = entry.kind === LogKind.SET;
      if (key[0] === QUEUE_PREFIX) {
        add(others, isSet ? setMessage(key, value) : clearMessage(key));
      } else {
        rows.push(
          key.byteOffset,
          key.length,
          isSet ? value.byteOffset : NO_VALUE,
          value.length,
          encoding,
          version,
          order,
          expireAtMs,
        );
      }
      applied++;
      lastVersion = version;
    }
    const batch = batchOf(entries, rows, others, false);
    return { batch, applied, lastVersion };
  }
}

function add(
  statements: RestoreStatement[],
  statement: RestoreStatement | undefined,
): void {
  if (statement) statements.push(statement);
}

function batchOf(
  { buffer }: Bytes,
  rows: Rows,
  others: RestoreStatement[],
  isNew: boolean,
): RestoreBatch {
  const bytes = new Uint8Array(buffer);
  return { kind: "batch", bytes, rows: rows.taken(), isNew, others };
}
