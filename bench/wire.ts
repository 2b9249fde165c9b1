/**
 * The KV Connect messages of the benchmark, written on their own: a server is
 * not measured with the code that it would share with its client.
 *
 * Message and field numbers: the public schema `com.deno.kv.datapath`.
 */

const ENCODING_BYTES = 3;
const MUTATION_SET = 1;

export interface Range {
  start: Uint8Array;
  end: Uint8Array;
  limit: number;
}

/** A key of one string part without zero bytes. */
export function stringKey(part: string): Uint8Array {
  return Uint8Array.of(0x02, ...new TextEncoder().encode(part), 0x00);
}

/** The range of exactly one key. */
export function pointOf(key: Uint8Array): Range {
  return { start: key, end: Uint8Array.of(...key, 0x00), limit: 1 };
}

export function snapshotRead(ranges: readonly Range[]): Uint8Array {
  return message(...ranges.map((range) =>
    data(
      1,
      message(data(1, range.start), data(2, range.end), number(3, range.limit)),
    )
  ));
}

export interface Check {
  key: Uint8Array;
  /** 10 bytes, or none: the key must not exist. */
  versionstamp: Uint8Array;
}

/** Sets each key to the value, as bytes. */
export function atomicWrite(
  checks: readonly Check[],
  keys: readonly Uint8Array[],
  value: Uint8Array,
): Uint8Array {
  const kvValue = message(data(1, value), number(2, ENCODING_BYTES));
  return message(
    ...checks.map((check) =>
      data(1, message(data(1, check.key), data(2, check.versionstamp)))
    ),
    ...keys.map((key) =>
      data(2, message(data(1, key), data(2, kvValue), number(3, MUTATION_SET)))
    ),
  );
}

/** Sizes of all values in a SnapshotReadOutput. */
export function valueSizes(output: Uint8Array): number[] {
  return fields(output, 1).flatMap((range) =>
    fields(range, 1).map((entry) => fields(entry, 2)[0].length)
  );
}

/** The versionstamp of a committed write; throws where it is none. */
export function committedVersionstamp(output: Uint8Array): Uint8Array {
  const [versionstamp] = fields(output, 2);
  if (output[0] !== 8 || output[1] !== 1 || versionstamp?.length !== 10) {
    throw new Error(`The write was not committed: ${output.toHex()}`);
  }
  return versionstamp;
}

/** The data version in a versionstamp: its first 8 bytes. */
export function versionOf(versionstamp: Uint8Array): number {
  return parseInt(versionstamp.subarray(0, 8).toHex(), 16);
}

function varint(value: number): number[] {
  const out: number[] = [];
  while (value >= 0x80) {
    out.push((value % 0x80) | 0x80);
    value = Math.floor(value / 0x80);
  }
  return [...out, value];
}

function number(field: number, value: number): Uint8Array {
  return Uint8Array.of(field << 3, ...varint(value));
}

function data(field: number, bytes: Uint8Array): Uint8Array {
  return message(
    Uint8Array.of((field << 3) | 2, ...varint(bytes.length)),
    bytes,
  );
}

function message(...parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** All length-delimited fields of that number in a message. */
function fields(bytes: Uint8Array, wanted: number): Uint8Array[] {
  const out: Uint8Array[] = [];
  let at = 0;
  const next = (): number => {
    let value = 0;
    for (let factor = 1;; factor *= 0x80) {
      const byte = bytes[at++];
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
      if (byte === undefined) throw new Error("The answer is cut off.");
    }
  };
  while (at < bytes.length) {
    const tag = next();
    const value = next();
    if ((tag & 7) !== 2) continue;
    if (tag >>> 3 === wanted) out.push(bytes.subarray(at, at + value));
    at += value;
  }
  return out;
}
