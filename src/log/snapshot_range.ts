/**
 * A part of a snapshot: the `BackupSnapshotRange` that the Rust server's S3
 * sync reads. Field 1 holds pairs of 'd' + key and value, field 2 as many pairs
 * of 'm' + key and metadata, in the same order; we write them alternately.
 * Metadata: versionstamp (10 bytes), encoding (1), expiry in milliseconds (8,
 * little-endian, -1 never).
 */
import type { Bytes } from "../common/bytes.ts";
import { InvalidRequestError } from "../common/errors.ts";
import { type Encoding, NEVER_MS } from "../protocol/messages.ts";
import { ProtoReader } from "../protocol/protobuf.ts";
import { readOrder, readVersion } from "../protocol/versionstamp.ts";

/** A row as SQLite hands it over: key, value, encoding, version, order, expiry. */
export type SnapshotRow = [
  Uint8Array,
  Uint8Array,
  number,
  number,
  number,
  number,
];

/**
 * Stands alone, nothing outside its own text is within its reach: a Worker
 * gets it as text.
 */
export function encodeSnapshotRange(
  rows: readonly SnapshotRow[],
): Uint8Array<ArrayBuffer> {
  const METADATA_BYTES = 19;
  const sizeOfLength = (length: number) =>
    length < 0x80 ? 1 : length < 0x4000 ? 2 : length < 0x200000 ? 3 : 4;
  const field = (length: number) => 1 + sizeOfLength(length) + length;
  let size = 0;
  for (const [key, value] of rows) {
    const name = field(key.length + 1);
    size += field(name + field(value.length)) +
      field(name + field(METADATA_BYTES));
  }
  const out = new Uint8Array(size);
  const view = new DataView(out.buffer);
  let at = 0;
  const begin = (tag: number, length: number) => {
    out[at++] = tag;
    let rest = length;
    while (rest >= 0x80) {
      out[at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    out[at++] = rest;
  };
  for (const [key, value, encoding, version, order, expireAtMs] of rows) {
    const name = field(key.length + 1);
    begin(0x0a, name + field(value.length));
    begin(0x0a, key.length + 1);
    out[at++] = 0x64;
    out.set(key, at);
    at += key.length;
    begin(0x12, value.length);
    out.set(value, at);
    at += value.length;
    begin(0x12, name + field(METADATA_BYTES));
    begin(0x0a, key.length + 1);
    out[at++] = 0x6d;
    out.set(key, at);
    at += key.length;
    begin(0x12, METADATA_BYTES);
    view.setUint32(at, Math.floor(version / 0x100000000));
    view.setUint32(at + 4, version >>> 0);
    view.setUint16(at + 8, order);
    out[at + 10] = encoding;
    const low = expireAtMs % 0x100000000;
    view.setUint32(at + 11, low >>> 0, true);
    view.setInt32(at + 15, Math.floor(expireAtMs / 0x100000000), true);
    at += METADATA_BYTES;
  }
  return out;
}

/** Hears of one entry after the other; the bytes are views of the part. */
export type SnapshotVisitor = (
  key: Bytes,
  value: Bytes,
  encoding: Encoding,
  version: number,
  order: number,
  expireAtMs: number,
) => void;

/** Hears where in the part key and value of one entry after the other lie. */
export type SnapshotLocator = (
  keyAt: number,
  keyBytes: number,
  valueAt: number,
  valueBytes: number,
  encoding: Encoding,
  version: number,
  order: number,
  expireAtMs: number,
) => void;

/**
 * Hands the entries of a part over, in order.
 * @returns how many there were
 * @throws InvalidRequestError where the bytes are no part of a snapshot; some
 *   entries may have been handed over before
 */
export function readSnapshotRange(
  bytes: Bytes,
  visit: SnapshotVisitor,
): number {
  return locateSnapshotRange(
    bytes,
    (keyAt, keyBytes, valueAt, valueBytes, ...rest) =>
      visit(
        bytes.subarray(keyAt, keyAt + keyBytes),
        bytes.subarray(valueAt, valueAt + valueBytes),
        ...rest,
      ),
  );
}

/** Numbers of `places`: the key's begin and length, the value's. */
const PLACE = 4;

/** The same without an object for each key and value: half the time. */
export function locateSnapshotRange(
  bytes: Bytes,
  visit: SnapshotLocator,
): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  // Those of other programs may hold all data first and all metadata after it.
  const places: number[] = [];
  let firstPlace = 0;
  let described = 0;
  const reader = new ProtoReader(bytes);
  while (reader.next()) {
    const { field } = reader;
    if (field !== 1 && field !== 2) {
      reader.skip();
      continue;
    }
    const pairEnd = reader.enter();
    if (!reader.next() || reader.field !== 1) throw malformed();
    const keyBytes = reader.pass();
    const keyAt = reader.position - keyBytes;
    if (!reader.next() || (reader.field as number) !== 2) throw malformed();
    const valueBytes = reader.pass();
    const valueAt = reader.position - valueBytes;
    reader.leave(pairEnd);
    if (field === 1) {
      // Its first byte is the letter.
      places.push(keyAt + 1, Math.max(0, keyBytes - 1), valueAt, valueBytes);
      continue;
    }
    const stored = (described - firstPlace) * PLACE;
    if (
      stored >= places.length || places[stored + 1] !== keyBytes - 1 ||
      valueBytes < 11
    ) throw malformed();
    const expireAtMs = valueBytes < 19
      ? NEVER_MS
      : view.getInt32(valueAt + 15, true) * 0x1_0000_0000 +
        view.getUint32(valueAt + 11, true);
    visit(
      places[stored],
      places[stored + 1],
      places[stored + 2],
      places[stored + 3],
      bytes[valueAt + 10] as Encoding,
      readVersion(bytes, valueAt),
      readOrder(bytes, valueAt),
      expireAtMs,
    );
    described++;
    if (stored + PLACE === places.length) {
      places.length = 0;
      firstPlace = described;
    }
  }
  if (places.length > 0) throw malformed();
  return described;
}

function malformed(): InvalidRequestError {
  return new InvalidRequestError("its bytes are not those of a snapshot");
}
