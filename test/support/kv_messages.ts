/**
 * The messages of KV Connect as a client sees them: encoded and decoded apart
 * from src/protocol, so that a mistake there is not repeated in its tests.
 */
import type {
  AtomicWrite,
  Entry,
  ReadRange,
} from "../../src/protocol/messages.ts";

export type Bytes = Uint8Array<ArrayBuffer>;
type Field = [number: number, value: number | bigint | Uint8Array];

function varint(value: bigint): number[] {
  const out: number[] = [];
  let rest = BigInt.asUintN(64, value);
  while (rest >= 0x80n) {
    out.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  out.push(Number(rest));
  return out;
}

/** A message of varints and length-delimited fields. */
export function message(...fields: Field[]): Bytes {
  const parts = fields.map(([number, value]) => {
    if (!(value instanceof Uint8Array)) {
      return new Uint8Array([number * 8, ...varint(BigInt(value))]);
    }
    const head = [number * 8 + 2, ...varint(BigInt(value.length))];
    const part = new Uint8Array(head.length + value.length);
    part.set(head);
    part.set(value, head.length);
    return part;
  });
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export function encodeRead(ranges: readonly ReadRange[]): Bytes {
  return message(...ranges.map((range): Field => [
    1,
    message(
      [1, range.start],
      [2, range.end],
      [3, range.limit],
      [4, range.reverse ? 1 : 0],
    ),
  ]));
}

export function encodeWrite(write: AtomicWrite): Bytes {
  return message(
    ...write.checks.map(({ key, version, order }): Field => [
      1,
      message([1, key], [2, stampBytes(version, order)]),
    ]),
    ...write.mutations.map((mutation): Field => [
      2,
      message(
        [1, mutation.key],
        [2, message([1, mutation.value], [2, mutation.encoding])],
        [3, mutation.type],
        [4, mutation.expireAtMs],
        ...(mutation.sumMin ? [[5, mutation.sumMin] as Field] : []),
        ...(mutation.sumMax ? [[6, mutation.sumMax] as Field] : []),
        [7, mutation.sumClamp ? 1 : 0],
      ),
    ]),
    ...write.enqueues.map((enqueue): Field => [
      3,
      message(
        [1, enqueue.payload],
        [2, enqueue.deadlineMs],
        ...enqueue.keysIfUndelivered.map((key): Field => [3, key]),
        ...(enqueue.backoffScheduleMs ?? []).map((ms): Field => [4, ms]),
      ),
    ]),
  );
}

export function encodeWatch(keys: readonly Uint8Array[]): Bytes {
  return message(...keys.map((key): Field => [1, message([1, key])]));
}

function stampBytes(version: number, order: number): Bytes {
  if (version < 0) return new Uint8Array(0);
  const out = new Uint8Array(10);
  const view = new DataView(out.buffer);
  view.setBigUint64(0, BigInt(version));
  view.setUint16(8, order);
  return out;
}

// ------------------------------------------------------------------ answers

export interface WriteAnswer {
  /** 1 success, 2 check failure, 5 write disabled. */
  status: number;
  version: number;
  failedChecks: number[];
}

export interface WatchFrame {
  entries: (Entry | null)[];
  changed: boolean[];
}

/** The fields of a message in their order. */
function fieldsOf(bytes: Uint8Array): { number: number; value: Value }[] {
  const fields = [];
  let at = 0;
  const readVarint = () => {
    let value = 0n;
    for (let shift = 0n;; shift += 7n) {
      if (at >= bytes.length) throw new Error("an answer ends in a number");
      const byte = bytes[at++];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return Number(value);
    }
  };
  while (at < bytes.length) {
    const tag = readVarint();
    const wire = tag % 8;
    if (wire === 0) fields.push({ number: tag >> 3, value: readVarint() });
    else if (wire === 2) {
      const length = readVarint();
      if (at + length > bytes.length) throw new Error("an answer is cut short");
      const value = bytes.slice(at, at + length) as Bytes;
      fields.push({ number: tag >> 3, value });
      at += length;
    } else throw new Error(`an answer has wire type ${wire}`);
  }
  return fields;
}

type Value = number | Bytes;

function entryOf(bytes: Uint8Array): Entry {
  const entry: Partial<Record<number, Value>> = {};
  for (const { number, value } of fieldsOf(bytes)) entry[number] = value;
  const stamp = entry[4] as Bytes;
  if (stamp.length !== 10) throw new Error("a versionstamp is not 10 bytes");
  const view = new DataView(stamp.buffer);
  return {
    key: entry[1] as Bytes,
    value: entry[2] as Bytes,
    encoding: entry[3] as Entry["encoding"],
    version: Number(view.getBigUint64(0)),
    order: view.getUint16(8),
  };
}

export function decodeReadAnswer(bytes: Uint8Array): Entry[][] {
  const lists: Entry[][] = [];
  let isStrong = false;
  let status = 0;
  for (const { number, value } of fieldsOf(bytes)) {
    if (number === 1) {
      lists.push(
        fieldsOf(value as Bytes).map((field) => entryOf(field.value as Bytes)),
      );
    } else if (number === 2 && value) throw new Error("reads are disabled");
    else if (number === 4) isStrong = value === 1;
    else if (number === 8) status = value as number;
  }
  if (!isStrong || status !== 1) throw new Error("a read is not strong");
  return lists;
}

export function decodeWriteAnswer(bytes: Uint8Array): WriteAnswer {
  const answer: WriteAnswer = { status: 0, version: -1, failedChecks: [] };
  for (const { number, value } of fieldsOf(bytes)) {
    if (number === 1) answer.status = value as number;
    else if (number === 2) {
      const view = new DataView((value as Bytes).buffer);
      answer.version = Number(view.getBigUint64(0));
    } else if (number === 4) {
      if (typeof value === "number") answer.failedChecks.push(value);
      // Indexes below 128 are a byte each.
      else answer.failedChecks.push(...value);
    }
  }
  return answer;
}

export function decodeWatchFrame(bytes: Uint8Array): WatchFrame {
  const frame: WatchFrame = { entries: [], changed: [] };
  for (const { number, value } of fieldsOf(bytes)) {
    if (number === 1) {
      if (value !== 1) throw new Error(`a watch has status ${value}`);
      continue;
    }
    let changed = false;
    let entry: Entry | null = null;
    for (const inner of fieldsOf(value as Bytes)) {
      if (inner.number === 1) changed = inner.value === 1;
      else entry = entryOf(inner.value as Bytes);
    }
    frame.entries.push(entry);
    frame.changed.push(changed);
  }
  return frame;
}
