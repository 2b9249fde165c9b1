/**
 * Telling a metadata exchange from an ordinary body. A client that was given
 * a URL with a path posts its exchange there: stored as a value, it would
 * overwrite the key of that name.
 */
import { type Bytes, fromUtf8 } from "../common/bytes.ts";

/** `{"supportedVersions":[1,2,3]}` and some space. */
const MAX_EXCHANGE_BYTES = 256;

/**
 * Whether the body of a POST is what a client of KV Connect sends to open a
 * database: an object with `supportedVersions` alone, whatever its content
 * type says; or, from clients of version 1, nothing at all and no type.
 */
export function isMetadataExchange(request: Request, body: Bytes): boolean {
  const { headers } = request;
  if (body.length === 0) return !headers.has("content-type");
  if (body.length > MAX_EXCHANGE_BYTES) return false;
  const text = fromUtf8(body)?.trimStart();
  if (!text?.startsWith("{") || !text.includes("supportedVersions")) {
    return false;
  }
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(text);
  } catch {
    return false;
  }
  const versions = value.supportedVersions;
  return Object.keys(value).length === 1 && Array.isArray(versions) &&
    versions.every((version) => Number.isInteger(version));
}
