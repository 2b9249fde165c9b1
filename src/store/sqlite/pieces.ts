/**
 * Ranges in pieces. SQLite hands over a piece in one go, and how large it is
 * shows only then: so the number of rows in a piece follows the size of the
 * entries that were read lately, and what a turn of the serving thread reads
 * stays small whatever is stored.
 */
import { LargeReadError } from "../store.ts";
import type { Bytes } from "../../common/bytes.ts";
import type { Entry, ReadRange } from "../../protocol/messages.ts";
import type { Reader } from "./reader.ts";

/** What one piece should be at most, about. */
const PIECE_BYTES = 256 * 1024;
const MIN_PIECE_ROWS = 4;
/**
 * Whatever the entries were so far, the next ones may be the largest there
 * are: then this many are 8 MiB, and some milliseconds.
 */
const MAX_PIECE_ROWS = 128;
/** A list of small entries goes in one piece until larger ones are seen. */
const USUAL_ENTRY_BYTES = 256;

export class Pieces {
  private entryBytes = USUAL_ENTRY_BYTES;

  /**
   * The live entries of a range, and their size.
   * @throws LargeReadError once they take more than `maxBytes`
   */
  range(
    reader: Reader,
    range: ReadRange,
    nowMs: number,
    maxBytes: number,
  ): Piece {
    const whole = this.next(reader, range, nowMs, range.limit);
    const { entries } = whole;
    let last = whole;
    let rest = range;
    while (true) {
      if (whole.sizeBytes > maxBytes) throw new LargeReadError();
      // Most ranges end here, with the first piece.
      if (last.isLast) return whole;
      rest = restOf(rest, last.entries);
      last = this.next(reader, rest, nowMs, range.limit - entries.length);
      for (const entry of last.entries) entries.push(entry);
      whole.sizeBytes += last.sizeBytes;
    }
  }

  /** The first entries of a range, and whether it has no more. */
  next(reader: Reader, range: ReadRange, nowMs: number, limit: number): Piece {
    const rows = Math.min(limit, this.rows());
    const entries = reader.range(
      rows === range.limit ? range : { ...range, limit: rows },
      nowMs,
    );
    const isLast = entries.length < rows || rows === limit;
    let sizeBytes = 0;
    for (let i = 0; i < entries.length; i++) {
      const { key, value } = entries[i];
      sizeBytes += key.length + value.length;
    }
    if (entries.length > 0) {
      const now = sizeBytes / entries.length;
      // Quick to shrink a piece, slow to let it grow again.
      this.entryBytes = now > this.entryBytes
        ? now
        : this.entryBytes + (now - this.entryBytes) / 16;
    }
    return { entries, isLast, sizeBytes };
  }

  private rows(): number {
    const rows = Math.floor(PIECE_BYTES / this.entryBytes);
    return Math.min(Math.max(rows, MIN_PIECE_ROWS), MAX_PIECE_ROWS);
  }
}

export interface Piece {
  entries: Entry[];
  isLast: boolean;
  /** Of keys and values. */
  sizeBytes: number;
}

/** What is left of a range behind these entries. */
export function restOf(range: ReadRange, entries: readonly Entry[]): ReadRange {
  const last = entries[entries.length - 1].key;
  return range.reverse
    ? { ...range, end: last, isPoint: false }
    : { ...range, start: successor(last), isPoint: false };
}

/** The first key behind this one. */
function successor(key: Bytes): Bytes {
  const next = new Uint8Array(key.length + 1);
  next.set(key);
  return next;
}
