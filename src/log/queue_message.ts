/**
 * Queue messages as the log and the snapshots hold them, and the only code that
 * writes or reads those bytes (docs/formats/log.md). A message is an entry
 * under a key that begins with 0xFF: no client sees it, and a reader that knows
 * nothing of queues passes it through. Its value is the protocol's `Enqueue`.
 */
import type { Bytes } from "../common/bytes.ts";
import { ProtoReader } from "../protocol/protobuf.ts";

/** The first byte of the keys that stand for messages. */
export const QUEUE_PREFIX = 0xff;

/** `ready` waits in the queue, `running` is being delivered. */
export type QueueTable = "ready" | "running";

export interface QueueMessage {
  payload: Bytes;
  deadlineMs: number;
  keysIfUndelivered: Bytes[];
  backoffScheduleMs: number[];
}

/** Which message, in which of the tables. */
export interface QueuePlace {
  table: QueueTable;
  /** When it is due, or its delivery's deadline. */
  timeMs: number;
  id: string;
}

/**
 * The key under which a message is logged.
 *
 * Stands alone, nothing outside its own text is within its reach: a Worker
 * gets it as text.
 */
export function queueLogKey(
  table: QueueTable,
  timeMs: number,
  id: string,
): Bytes {
  const name = new TextEncoder().encode(id);
  const key = new Uint8Array(10 + name.length);
  key[0] = 0xff;
  key[1] = table === "ready" ? 0x71 : 0x72;
  new DataView(key.buffer).setBigUint64(2, BigInt(timeMs));
  key.set(name, 10);
  return key;
}

/** Undefined for keys under 0xFF that this version does not know. */
export function readQueueLogKey(key: Bytes): QueuePlace | undefined {
  if (key.length < 10 || key[0] !== QUEUE_PREFIX) return undefined;
  const table = key[1] === 0x71
    ? "ready"
    : key[1] === 0x72
    ? "running"
    : undefined;
  if (table === undefined) return undefined;
  const timeMs = Number(
    new DataView(key.buffer, key.byteOffset + 2, 8).getBigUint64(0),
  );
  return { table, timeMs, id: new TextDecoder().decode(key.subarray(10)) };
}

/**
 * A message as the value of its entry.
 *
 * Stands alone, nothing outside its own text is within its reach: a Worker
 * gets it as text.
 */
export function encodeQueueMessage(message: {
  payload: ArrayLike<number>;
  deadlineMs: number;
  keysIfUndelivered: readonly ArrayLike<number>[];
  backoffScheduleMs: readonly number[];
}): Bytes {
  const { payload, deadlineMs, keysIfUndelivered, backoffScheduleMs } = message;
  const varintSize = (value: number) => {
    let size = 1;
    for (; value >= 0x80; size++) value = Math.floor(value / 0x80);
    return size;
  };
  const dataSize = (length: number) => 1 + varintSize(length) + length;
  let size = dataSize(payload.length) + 1 + varintSize(deadlineMs);
  for (const key of keysIfUndelivered) size += dataSize(key.length);
  for (const interval of backoffScheduleMs) size += 1 + varintSize(interval);
  const out = new Uint8Array(size);
  let at = 0;
  const varint = (tag: number, value: number) => {
    out[at++] = tag;
    while (value >= 0x80) {
      out[at++] = (value % 0x80) | 0x80;
      value = Math.floor(value / 0x80);
    }
    out[at++] = value;
  };
  const data = (tag: number, bytes: ArrayLike<number>) => {
    varint(tag, bytes.length);
    out.set(bytes, at);
    at += bytes.length;
  };
  data(0x0a, payload);
  varint(0x10, deadlineMs);
  for (const key of keysIfUndelivered) data(0x1a, key);
  for (const interval of backoffScheduleMs) varint(0x20, interval);
  return out;
}

/**
 * What it returns lies in `value`.
 * @throws InvalidRequestError where the bytes are no message
 */
export function decodeQueueMessage(value: Bytes): QueueMessage {
  const message: QueueMessage = {
    payload: new Uint8Array(0),
    deadlineMs: 0,
    keysIfUndelivered: [],
    backoffScheduleMs: [],
  };
  const reader = new ProtoReader(value);
  while (reader.next()) {
    if (reader.field === 1) message.payload = reader.data();
    else if (reader.field === 2) message.deadlineMs = reader.int64();
    else if (reader.field === 3) message.keysIfUndelivered.push(reader.data());
    else if (reader.field === 4) {
      message.backoffScheduleMs.push(reader.int64());
    } else reader.skip();
  }
  return message;
}
