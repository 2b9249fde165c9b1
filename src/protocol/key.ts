/**
 * Keys: tuples of parts in an order-preserving encoding, the one that Deno's
 * clients use (bytes < string < bigint < number < boolean).
 */
import { type Bytes, concatBytes, fromUtf8, utf8 } from "../common/bytes.ts";
import { InvalidRequestError } from "../common/errors.ts";

export type KeyPart = Uint8Array | string | bigint | number | boolean;

const TAG_BYTES = 0x01;
const TAG_STRING = 0x02;
const TAG_BIGINT_NEGATIVE_LONG = 0x0b;
const TAG_BIGINT_ZERO = 0x14;
const TAG_BIGINT_POSITIVE_LONG = 0x1d;
const TAG_DOUBLE = 0x21;
const TAG_FALSE = 0x26;
const TAG_TRUE = 0x27;

/** Keys that begin with this byte are the server's own. */
export const RESERVED_KEY_BYTE = 0xff;

/** A bigint with more bytes than its length byte can say has no encoding. */
const MAX_BIGINT_BYTES = 255;

export function encodeKey(parts: readonly KeyPart[]): Bytes {
  return concatBytes(parts.map(encodePart));
}

function encodePart(part: KeyPart): Uint8Array {
  if (typeof part === "string") return encodeEscaped(TAG_STRING, utf8(part));
  if (part instanceof Uint8Array) return encodeEscaped(TAG_BYTES, part);
  if (typeof part === "boolean") {
    return Uint8Array.of(part ? TAG_TRUE : TAG_FALSE);
  }
  if (typeof part === "number") return encodeDouble(part);
  return encodeBigint(part);
}

function encodeEscaped(tag: number, data: Uint8Array): Uint8Array {
  let zeros = 0;
  for (const byte of data) if (byte === 0) zeros++;
  const out = new Uint8Array(data.length + zeros + 2);
  out[0] = tag;
  let at = 1;
  for (const byte of data) {
    out[at++] = byte;
    if (byte === 0) out[at++] = 0xff;
  }
  return out;
}

function encodeDouble(value: number): Uint8Array {
  const out = new Uint8Array(9);
  const view = new DataView(out.buffer);
  out[0] = TAG_DOUBLE;
  view.setFloat64(1, Number.isNaN(value) ? NaN : value);
  if (out[1] & 0x80) { for (let i = 1; i < 9; i++) out[i] ^= 0xff; }
  else out[1] ^= 0x80;
  return out;
}

function encodeBigint(value: bigint): Uint8Array {
  if (value === 0n) return Uint8Array.of(TAG_BIGINT_ZERO);
  const negative = value < 0n;
  let hex = (negative ? -value : value).toString(16);
  if (hex.length % 2 === 1) hex = "0" + hex;
  const magnitude = Uint8Array.fromHex(hex);
  const length = magnitude.length;
  if (length > MAX_BIGINT_BYTES) {
    throw new InvalidRequestError(
      `A bigint in a key takes ${length} bytes; at most ${MAX_BIGINT_BYTES} are possible.`,
    );
  }
  if (negative) { for (let i = 0; i < length; i++) magnitude[i] ^= 0xff; }
  if (length <= 8) {
    const tag = TAG_BIGINT_ZERO + (negative ? -length : length);
    return concatBytes([Uint8Array.of(tag), magnitude]);
  }
  return concatBytes([
    negative
      ? Uint8Array.of(TAG_BIGINT_NEGATIVE_LONG, length ^ 0xff)
      : Uint8Array.of(TAG_BIGINT_POSITIVE_LONG, length),
    magnitude,
  ]);
}

/** The parts of an encoded key, or undefined where it is no valid encoding. */
export function decodeKey(key: Uint8Array): KeyPart[] | undefined {
  const parts: KeyPart[] = [];
  let at = 0;
  while (at < key.length) {
    const end = endOfPart(key, at);
    if (end < 0) return undefined;
    const part = decodePart(key, at, end);
    if (part === undefined) return undefined;
    parts.push(part);
    at = end;
  }
  return parts;
}

/**
 * Whether the bytes are a key of one or more whole parts. A key that is not
 * would make every client's `list` over it fail, so none is ever stored.
 */
export function isWellFormedKey(key: Uint8Array): boolean {
  let at = 0;
  while (at < key.length) {
    const end = endOfPart(key, at);
    if (end < 0) return false;
    if (key[at] === TAG_STRING && !isUtf8(key, at + 1, end - 1)) return false;
    at = end;
  }
  return key.length > 0;
}

/**
 * Whether the bytes are UTF-8, the escapes of zero bytes among them apart. By
 * hand: a call of the runtime's decoder for each of the hundreds of parts that
 * a key may have took 0.4 s for the keys of one write.
 */
function isUtf8(key: Uint8Array, from: number, to: number): boolean {
  for (let at = from; at < to;) {
    const first = key[at++];
    if (first === 0) at++;
    if (first < 0x80) continue;
    if (first < 0xc2 || first > 0xf4) return false;
    // The second byte of some rules out overlong forms, surrogates and what
    // is beyond U+10FFFF.
    const low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
    const high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
    const more = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    if (at + more > to || key[at] < low || key[at] > high) return false;
    for (let i = 1; i < more; i++) {
      if ((key[at + i] & 0xc0) !== 0x80) return false;
    }
    at += more;
  }
  return true;
}

/** Where the part at `at` ends, or -1 where it is none. */
function endOfPart(key: Uint8Array, at: number): number {
  const tag = key[at];
  let end: number;
  if (tag === TAG_STRING || tag === TAG_BYTES) {
    for (let i = at + 1; i < key.length; i++) {
      if (key[i] !== 0) continue;
      if (key[i + 1] !== 0xff) return i + 1;
      i++;
    }
    return -1;
  } else if (tag === TAG_TRUE || tag === TAG_FALSE) {
    end = at + 1;
  } else if (tag === TAG_DOUBLE) {
    end = at + 9;
  } else if (tag === TAG_BIGINT_POSITIVE_LONG) {
    end = at + 2 + key[at + 1];
  } else if (tag === TAG_BIGINT_NEGATIVE_LONG) {
    end = at + 2 + (key[at + 1] ^ 0xff);
  } else if (tag > TAG_BIGINT_NEGATIVE_LONG && tag < TAG_BIGINT_POSITIVE_LONG) {
    end = at + 1 + Math.abs(tag - TAG_BIGINT_ZERO);
  } else {
    return -1;
  }
  return end <= key.length ? end : -1;
}

function unescape(key: Uint8Array, from: number, to: number): Uint8Array {
  const out = new Uint8Array(to - from);
  let length = 0;
  for (let i = from; i < to; i++) {
    out[length++] = key[i];
    if (key[i] === 0) i++;
  }
  return out.subarray(0, length);
}

function decodePart(
  key: Uint8Array,
  at: number,
  end: number,
): KeyPart | undefined {
  const tag = key[at];
  if (tag === TAG_STRING) return fromUtf8(unescape(key, at + 1, end - 1));
  if (tag === TAG_BYTES) return unescape(key, at + 1, end - 1).slice();
  if (tag === TAG_TRUE) return true;
  if (tag === TAG_FALSE) return false;
  if (tag === TAG_DOUBLE) {
    const raw = key.slice(at + 1, end);
    if (raw[0] & 0x80) raw[0] ^= 0x80;
    else for (let i = 0; i < 8; i++) raw[i] ^= 0xff;
    return new DataView(raw.buffer).getFloat64(0);
  }
  const isLong = tag === TAG_BIGINT_POSITIVE_LONG ||
    tag === TAG_BIGINT_NEGATIVE_LONG;
  const magnitude = key.slice(at + (isLong ? 2 : 1), end);
  const negative = tag < TAG_BIGINT_ZERO;
  if (negative) {
    for (let i = 0; i < magnitude.length; i++) magnitude[i] ^= 0xff;
  }
  const value = magnitude.length === 0 ? 0n : BigInt("0x" + magnitude.toHex());
  return negative ? -value : value;
}
