/** Queue messages of the log (log/queue_message.ts) as rows of their tables. */
import type { Bytes } from "../../common/bytes.ts";
import {
  decodeQueueMessage,
  readQueueLogKey,
} from "../../log/queue_message.ts";
import type { RestoreStatement } from "./restore_table.ts";

const TABLES = {
  ready: { name: "queue", time: "ts" },
  running: { name: "queue_running", time: "deadline" },
} as const;

/** Undefined for keys under 0xFF that this version does not know. */
export function setMessage(
  key: Bytes,
  value: Bytes,
): RestoreStatement | undefined {
  const place = readQueueLogKey(key);
  if (place === undefined) return undefined;
  const { payload, keysIfUndelivered, backoffScheduleMs } = decodeQueueMessage(
    value,
  );
  const { name, time } = TABLES[place.table];
  return {
    sql:
      `insert or replace into ${name} (${time}, id, data, backoff_schedule, keys_if_undelivered) values (?, ?, ?, ?, ?)`,
    values: [
      place.timeMs,
      place.id,
      // Copied: what it lies in is handed over as a whole.
      payload.slice(),
      JSON.stringify(backoffScheduleMs),
      JSON.stringify(keysIfUndelivered.map((each) => [...each])),
    ],
  };
}

/** Undefined for keys under 0xFF that this version does not know. */
export function clearMessage(key: Bytes): RestoreStatement | undefined {
  const place = readQueueLogKey(key);
  if (place === undefined) return undefined;
  const { name, time } = TABLES[place.table];
  return {
    sql: `delete from ${name} where ${time} = ? and id = ?`,
    values: [place.timeMs, place.id],
  };
}
