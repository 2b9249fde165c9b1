/**
 * Keys as JSON: an array of their parts, in the notation of typed JSON
 * (typed_json.ts): `["users", 7, true, {"$bigint":"1"}, {"$uint8array":"AQ=="}]`.
 */
import { decodeKey, type KeyPart } from "./key.ts";

/** Undefined where the bytes are no key, as another program may leave them. */
export function keyJson(key: Uint8Array): string | undefined {
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
