/**
 * Stored strings to text and back, the short way: most of what REST reads and
 * writes is a string, and most strings are ASCII, whose bytes in V8's format
 * are their UTF-8.
 */
import { type Bytes, fromUtf8 } from "../common/bytes.ts";
import { encodeV8 } from "./v8_encode.ts";
import {
  NEWEST_VERSION,
  OLDEST_VERSION,
  Tag,
  WRITTEN_VERSION,
} from "./v8_format.ts";

/**
 * What the longest string takes in V8's format beside its characters: header,
 * version, tag and a length of three bytes.
 */
export const STRING_OVERHEAD_BYTES = 6;

/**
 * The UTF-8 text of a stored string that is all ASCII, without a copy, or
 * undefined: most strings that are served are just that.
 */
export function asciiText(v8: Bytes): Bytes | undefined {
  if (v8[0] !== Tag.HEADER || v8[2] !== Tag.ONE_BYTE_STRING) return undefined;
  if (v8[1] < OLDEST_VERSION || v8[1] > NEWEST_VERSION) return undefined;
  let length = 0;
  let start = 3;
  for (let shift = 0;; shift += 7) {
    // Four bytes of length are beyond any value; more would overflow.
    if (shift > 21 || start >= v8.length) return undefined;
    const byte = v8[start++];
    length |= (byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  const end = start + length;
  if (end > v8.length) return undefined;
  const text = v8.subarray(start, end);
  return isAscii(text) ? text : undefined;
}

/**
 * The stored form of a text, or undefined where the bytes are no valid UTF-8.
 * A byte order mark is kept.
 */
export function encodeText(utf8: Bytes): Bytes | undefined {
  if (!isAscii(utf8)) {
    const text = fromUtf8(utf8);
    return text === undefined ? undefined : encodeV8(text, Infinity);
  }
  const header = [Tag.HEADER, WRITTEN_VERSION, Tag.ONE_BYTE_STRING];
  let length = utf8.length;
  for (; length >= 0x80; length >>>= 7) header.push((length & 0x7f) | 0x80);
  header.push(length);
  const out = new Uint8Array(header.length + utf8.length);
  out.set(header);
  out.set(utf8, header.length);
  return out;
}

function isAscii(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] >= 0x80) return false;
  return true;
}

/** Characters handed to one call; the engine limits a call's arguments. */
const CHARS_PER_CALL = 4096;

/** The string of these char codes; surrogates may stand alone. */
export function stringOf(codes: Uint8Array | Uint16Array): string {
  let out = "";
  for (let i = 0; i < codes.length; i += CHARS_PER_CALL) {
    const part = codes.subarray(i, i + CHARS_PER_CALL);
    out += String.fromCharCode.apply(null, part as unknown as number[]);
  }
  return out;
}
