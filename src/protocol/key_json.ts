/**
 * Keys as JSON: an array of their parts, in the notation of typed JSON
 * (typed_json.ts): `["users", 7, true, {"$bigint":"1"}, {"$uint8array":"AQ=="}]`.
 */
import { decodeKey, type KeyPart } from "./key.ts";
import { stringOf } from "./v8_string.ts";

/** Undefined where the bytes are no key, as another program may leave them. */
export function keyJson(key: Uint8Array): string | undefined {
  return plainKeyJson(key) ?? anyKeyJson(key);
}

const TAG_STRING = 0x02;
const SPACE = 0x20;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const DELETE = 0x7f;

/**
 * The short way for the most usual keys: strings of printable ASCII, which are
 * their own JSON. Undefined where there is anything else.
 */
function plainKeyJson(key: Uint8Array): string | undefined {
  let text = "";
  for (let at = 0; at < key.length;) {
    if (key[at] !== TAG_STRING) return undefined;
    const start = at + 1;
    let end = start;
    while (key[end] !== 0) {
      const byte = key[end++];
      // Also where the key has ended: its byte is then undefined.
      if (!(byte >= SPACE && byte < DELETE)) return undefined;
      if (byte === QUOTE || byte === BACKSLASH) return undefined;
    }
    at = end + 1;
    // A zero byte that is part of the string.
    if (key[at] === 0xff) return undefined;
    text += text === "" ? '["' : '","';
    text += stringOf(key.subarray(start, end));
  }
  return text === "" ? undefined : `${text}"]`;
}

function anyKeyJson(key: Uint8Array): string | undefined {
  const parts = decodeKey(key);
  if (parts === undefined) return undefined;
  let text = "[";
  for (let i = 0; i < parts.length; i++) {
    if (i > 0) text += ",";
    text += partJson(parts[i]);
  }
  return text + "]";
}

function partJson(part: KeyPart): string {
  switch (typeof part) {
    case "string":
      return JSON.stringify(part);
    case "boolean":
      return part ? "true" : "false";
    case "bigint":
      return `{"$bigint":"${part}"}`;
    case "number":
      if (Object.is(part, -0)) return "-0";
      return Number.isFinite(part) ? String(part) : `{"$number":"${part}"}`;
    default:
      return `{"$uint8array":"${part.toBase64()}"}`;
  }
}
