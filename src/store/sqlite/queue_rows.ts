/** Queue messages out of their keys and values in the log (log/entry.ts). */
import type { Bytes } from "../../common/bytes.ts";
import { ProtoReader } from "../../protocol/protobuf.ts";
import type { RestoreStatement } from "./restore_table.ts";

/** The first byte of the keys that stand for messages. */
export const QUEUE_PREFIX = 0xff;

/** Undefined for keys under 0xFF that this version does not know. */
export function setMessage(
  key: Bytes,
  value: Bytes,
): RestoreStatement | undefined {
  const place = placeOf(key);
  if (place === undefined) return undefined;
  let payload: Bytes = new Uint8Array(0);
  const undelivered: number[][] = [];
  const schedule: number[] = [];
  const reader = new ProtoReader(value);
  while (reader.next()) {
    // Copied: what it lies in is handed over as a whole.
    if (reader.field === 1) payload = reader.data().slice();
    else if (reader.field === 3) undelivered.push([...reader.data()]);
    else if (reader.field === 4) schedule.push(reader.int64());
    else reader.skip();
  }
  return {
    sql:
      `insert or replace into ${place.table} (${place.column}, id, data, backoff_schedule, keys_if_undelivered) values (?, ?, ?, ?, ?)`,
    values: [
      place.timeMs,
      place.id,
      payload,
      JSON.stringify(schedule),
      JSON.stringify(undelivered),
    ],
  };
}

/** Undefined for keys under 0xFF that this version does not know. */
export function clearMessage(key: Bytes): RestoreStatement | undefined {
  const place = placeOf(key);
  return place && {
    sql: `delete from ${place.table} where ${place.column} = ? and id = ?`,
    values: [place.timeMs, place.id],
  };
}

function placeOf(key: Bytes) {
  if (key.length < 10) return undefined;
  const timeMs = Number(
    new DataView(key.buffer, key.byteOffset + 2, 8).getBigUint64(0),
  );
  const id = new TextDecoder().decode(key.subarray(10));
  if (key[1] === 0x71) return { table: "queue", column: "ts", timeMs, id };
  if (key[1] === 0x72) {
    return { table: "queue_running", column: "deadline", timeMs, id };
  }
  return undefined;
}
