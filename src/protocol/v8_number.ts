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
import { MAX_SUM_BIGINT_BYTES } from "./limits.ts";

const HEADER = 0xff;
/** What we write: readable by every Deno that has KV. */
const WRITTEN_VERSION = 15;
const NEWEST_VERSION = 16;

const TAG_INT32 = 0x49;
const TAG_UINT32 = 0x55;
const TAG_DOUBLE = 0x4e;
const TAG_BIGINT = 0x5a;

/** How the messages of a sum name the kinds; a large bigint is none to sum. */
export type V8NumberKind = "Number" | "BigInt" | "LargeBigInt";

/**
 * What the bytes hold, found without making the number: so a bigint that no
 * sum takes costs no more than any other bytes. Undefined for anything else.
 */
export function v8NumberKind(bytes: Uint8Array): V8NumberKind | undefined {
  const at = tagAt(bytes);
  switch (bytes[at]) {
    case TAG_INT32:
    case TAG_UINT32: {
      const end = varintEnd(bytes, at + 1);
      return end > 0 && end === bytes.length ? "Number" : undefined;
    }
    case TAG_DOUBLE:
      return bytes.length === at + 9 ? "Number" : undefined;
    case TAG_BIGINT: {
      const start = varintEnd(bytes, at + 1);
      if (start < 0) return undefined;
      const length = varint(bytes, at + 1) >>> 1;
      if (bytes.length !== start + length) return undefined;
      return length > MAX_SUM_BIGINT_BYTES ? "LargeBigInt" : "BigInt";
    }
  }
  return undefined;
}

/** The number or bigint, or undefined where the bytes hold anything else. */
export function decodeV8Number(bytes: Uint8Array): number | bigint | undefined {
  if (v8NumberKind(bytes) === undefined) return undefined;
  const at = tagAt(bytes) + 1;
  switch (bytes[at - 1]) {
    case TAG_INT32: {
      const raw = varint(bytes, at);
      return (raw >>> 1) ^ -(raw & 1);
    }
    case TAG_UINT32:
      return varint(bytes, at);
    case TAG_DOUBLE:
      return new DataView(bytes.buffer, bytes.byteOffset + at).getFloat64(
        0,
        true,
      );
  }
  const digits = bytes.slice(varintEnd(bytes, at)).reverse();
  const magnitude = digits.length === 0 ? 0n : BigInt("0x" + digits.toHex());
  return bytes[at] & 1 ? -magnitude : magnitude;
}

/** Where the tag stands; past the end where there is none. */
function tagAt(bytes: Uint8Array): number {
  if (bytes[0] !== HEADER || !(bytes[1] <= NEWEST_VERSION)) return bytes.length;
  let at = 2;
  // Padding, which V8 writes before two-byte strings only, but allows anywhere.
  while (bytes[at] === 0) at++;
  return at;
}

/** Whether a bigint, as V8 writes it, is more than a sum takes. */
export function isLargeBigint(value: bigint): boolean {
  return value > MAX_SUM_BIGINT || value < -MAX_SUM_BIGINT;
}

const MAX_SUM_BIGINT = (1n << BigInt(8 * MAX_SUM_BIGINT_BYTES)) - 1n;

/** As V8 itself writes it: small whole numbers as `I`, other numbers as `N`. */
export function encodeV8Number(value: number | bigint): Bytes {
  if (typeof value === "bigint") return encodeBigint(value);
  const isSmall = Number.isInteger(value) && value >= -(2 ** 30) &&
    value < 2 ** 30 && !Object.is(value, -0);
  if (isSmall) {
    return tagged(TAG_INT32, varintBytes(((value << 1) ^ (value >> 31)) >>> 0));
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
  const head = tagged(
    TAG_BIGINT,
    varintBytes(length * 2 + (negative ? 1 : 0)),
  );
  if (length === 0) return head;
  const digits = Uint8Array.fromHex(hex.padStart(length * 2, "0")).reverse();
  const out = new Uint8Array(head.length + length);
  out.set(head);
  out.set(digits, head.length);
  return out;
}

function tagged(tag: number, rest: readonly number[]): Bytes {
  return new Uint8Array([HEADER, WRITTEN_VERSION, tag, ...rest]);
}

function varintBytes(value: number): number[] {
  const out: number[] = [];
  while (value >= 0x80) {
    out.push((value & 0x7f) | 0x80);
    value >>>= 7;
  }
  out.push(value);
  return out;
}

/** Where the varint ends, or -1 where it is cut or has more than five bytes. */
function varintEnd(bytes: Uint8Array, at: number): number {
  for (let i = at; i < at + 5 && i < bytes.length; i++) {
    if (bytes[i] < 0x80) return i + 1;
  }
  return -1;
}

/** Of a varint that `varintEnd` has seen whole: its low 32 bits. */
function varint(bytes: Uint8Array, at: number): number {
  let value = 0;
  for (let shift = 0;; shift += 7) {
    const byte = bytes[at++];
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return value >>> 0;
  }
}
