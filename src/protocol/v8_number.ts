/**
 * The numbers and bigints of V8's serialization format: what `sum` adds. Only
 * these are read here, so that the write path never runs a deserializer over
 * a client's bytes.
 *
 * Format: 0xFF, a version (13 to 16 seen), then a tag: `I` zigzag varint,
 * `U` varint, `N` little-endian double, `Z` bigint (varint of sign bit and
 * byte length × 2, then little-endian digits).
 */
import type { Bytes } from "../common/bytes.ts";

const HEADER = 0xff;
/** What we write: readable by every Deno that has KV. */
const WRITTEN_VERSION = 15;
const NEWEST_VERSION = 16;

const TAG_INT32 = 0x49;
const TAG_UINT32 = 0x55;
const TAG_DOUBLE = 0x4e;
const TAG_BIGINT = 0x5a;

/** The number or bigint, or undefined where the bytes hold anything else. */
export function decodeV8Number(bytes: Uint8Array): number | bigint | undefined {
  if (bytes[0] !== HEADER || !(bytes[1] <= NEWEST_VERSION)) return undefined;
  let at = 2;
  // Padding, which V8 writes before two-byte strings only, but allows anywhere.
  while (bytes[at] === 0) at++;
  const tag = bytes[at++];
  if (tag === TAG_INT32 || tag === TAG_UINT32) {
    const raw = readVarint(bytes, at);
    if (raw === undefined || raw.next !== bytes.length) return undefined;
    if (tag === TAG_UINT32) return raw.value;
    return (raw.value >>> 1) ^ -(raw.value & 1);
  }
  if (tag === TAG_DOUBLE) {
    if (bytes.length !== at + 8) return undefined;
    return new DataView(bytes.buffer, bytes.byteOffset + at).getFloat64(
      0,
      true,
    );
  }
  if (tag !== TAG_BIGINT) return undefined;
  const field = readVarint(bytes, at);
  if (field === undefined) return undefined;
  const length = field.value >>> 1;
  if (bytes.length !== field.next + length) return undefined;
  const digits = bytes.slice(field.next).reverse();
  const magnitude = length === 0 ? 0n : BigInt("0x" + digits.toHex());
  return field.value & 1 ? -magnitude : magnitude;
}

export function isSumOperand(bytes: Uint8Array): boolean {
  return decodeV8Number(bytes) !== undefined;
}

/** As V8 itself writes it: small whole numbers as `I`, other numbers as `N`. */
export function encodeV8Number(value: number | bigint): Bytes {
  if (typeof value === "bigint") return encodeBigint(value);
  const isSmall = Number.isInteger(value) && value >= -(2 ** 30) &&
    value < 2 ** 30 && !Object.is(value, -0);
  if (isSmall) {
    return tagged(TAG_INT32, varint(((value << 1) ^ (value >> 31)) >>> 0));
  }
  const out = tagged(TAG_DOUBLE, new Array(8).fill(0));
  new DataView(out.buffer).setFloat64(3, value, true);
  return out;
}

function encodeBigint(value: bigint): Bytes {
  const negative = value < 0n;
  const hex = (negative ? -value : value).toString(16);
  // V8 writes whole 64-bit digits.
  const length = value === 0n ? 0 : Math.ceil(hex.length / 16) * 8;
  const digits = Uint8Array.fromHex(
    length === 0 ? "" : hex.padStart(length * 2, "0"),
  );
  return tagged(TAG_BIGINT, [
    ...varint(length * 2 + (negative ? 1 : 0)),
    ...digits.reverse(),
  ]);
}

function tagged(tag: number, rest: readonly number[]): Bytes {
  return new Uint8Array([HEADER, WRITTEN_VERSION, tag, ...rest]);
}

function varint(value: number): number[] {
  const out: number[] = [];
  while (value >= 0x80) {
    out.push((value & 0x7f) | 0x80);
    value >>>= 7;
  }
  out.push(value);
  return out;
}

function readVarint(
  bytes: Uint8Array,
  at: number,
): { value: number; next: number } | undefined {
  let value = 0;
  for (let shift = 0; shift < 35; shift += 7) {
    if (at >= bytes.length) return undefined;
    const byte = bytes[at++];
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return { value: value >>> 0, next: at };
  }
  return undefined;
}
