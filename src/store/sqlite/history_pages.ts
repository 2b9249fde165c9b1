/** Rows of a replica's history, many at a time. */
import type { DatabaseSync } from "node:sqlite";
import type { Bytes } from "../../common/bytes.ts";
import type { HistoryLog } from "./replica_rows.ts";

export interface HistoryRow {
  stamp: Bytes;
  timeMs: number;
  key: Bytes;
  value: Bytes | null;
  encoding: number;
  versionstamp: Bytes;
  expireAtMs: number;
}

/**
 * The rows above `after` and up to `upTo`, which are 12 bytes each. They leave
 * SQLite packed, as ranges do (reader.ts): 1.3 µs for a row instead of 5.7.
 *
 * Stands alone, nothing outside its own text is within its reach: a Worker
 * gets it as text.
 */
export function* historyRows(
  db: DatabaseSync,
  log: HistoryLog,
  direction: "asc" | "desc",
  after: Bytes,
  upTo: Bytes,
): Generator<HistoryRow> {
  const PAGE_ROWS = 200;
  const STAMP_BYTES = 12;
  const VERSIONSTAMP_BYTES = 10;
  const NUMBERS = 6;
  // The Rust server's own rows say nothing of an expiry.
  const select = db.prepare(
    `select cast(group_concat(bytes, '') as blob), group_concat(numbers) from (select versionstamp12 || real_versionstamp || k || coalesce(v, x'') as bytes, format('%d,%d,%d,%d,%d,%d', timestamp_ms, length(k), coalesce(length(v), 0), v is null, v_encoding, coalesce(expiration_ms, -1)) as numbers from tt_${log}_log where versionstamp12 > ? and versionstamp12 < ? order by versionstamp12 ${direction} limit ${PAGE_ROWS})`,
  );
  (select as unknown as { setReturnArrays(on: boolean): void })
    .setReturnArrays(true);
  let from = after;
  // What it is the beginning of comes right behind it.
  let to: Bytes = new Uint8Array(STAMP_BYTES + 1);
  to.set(upTo);
  for (;;) {
    const [bytes, text] = select.get(from, to) as unknown as [
      Bytes,
      string | null,
    ];
    if (text === null) return;
    const numbers = JSON.parse(`[${text}]`) as number[];
    let at = 0;
    let stamp = from;
    for (let i = 0; i < numbers.length; i += NUMBERS) {
      const versionstampAt = at + STAMP_BYTES;
      const keyAt = versionstampAt + VERSIONSTAMP_BYTES;
      const valueAt = keyAt + numbers[i + 1];
      const endAt = valueAt + numbers[i + 2];
      stamp = bytes.subarray(at, versionstampAt);
      yield {
        stamp,
        timeMs: numbers[i],
        key: bytes.subarray(keyAt, valueAt),
        value: numbers[i + 3] === 1 ? null : bytes.subarray(valueAt, endAt),
        encoding: numbers[i + 4],
        versionstamp: bytes.subarray(versionstampAt, keyAt),
        expireAtMs: numbers[i + 5],
      };
      at = endAt;
    }
    if (at !== bytes.length) {
      throw new Error("a row of its history is none that this program reads");
    }
    if (direction === "asc") from = stamp;
    else to = stamp;
  }
}
