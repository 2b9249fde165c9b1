/**
 * The path of a REST request as a key: every segment is a string part,
 * percent-decoded after the path was split, so that `%2F` is part of a name.
 */
import type { Bytes } from "../common/bytes.ts";
import { InvalidRequestError } from "../common/errors.ts";
import { checkKey } from "../protocol/datapath.ts";
import { encodeKey } from "../protocol/key.ts";

const SLASH = 0x2f;
const PERCENT = 0x25;
const TAG_STRING = 0x02;

/**
 * The encoded key that a path names: `/a/b` is `["a", "b"]`, `/a/` is
 * `["a", ""]`. Neither `.` nor `..` means anything but itself.
 * @param rawPath as it came in the request line, without the query
 * @throws InvalidRequestError, TooLargeError
 */
export function keyOfPath(rawPath: string): Bytes {
  if (rawPath.length < 2 || rawPath.charCodeAt(0) !== SLASH) {
    throw new InvalidRequestError(
      "The path is the key, as in /users/alice; this one names none.",
    );
  }
  const key = keyOfPlainPath(rawPath) ??
    encodeKey(rawPath.slice(1).split("/").map(percentDecode));
  checkKey(key, "named");
  return key;
}

/**
 * The short way for a path of plain ASCII, which is its own encoding but for
 * the ends of its parts. Undefined where there is anything to decode.
 */
function keyOfPlainPath(rawPath: string): Bytes | undefined {
  let parts = 0;
  for (let i = 0; i < rawPath.length; i++) {
    const code = rawPath.charCodeAt(i);
    if (code === SLASH) parts++;
    else if (code === PERCENT || code >= 0x80 || code === 0) return undefined;
  }
  // Each slash becomes the tag of a part; each part gets a 0x00 at its end.
  const key = new Uint8Array(rawPath.length + parts);
  let at = 0;
  for (let i = 0; i < rawPath.length; i++) {
    const code = rawPath.charCodeAt(i);
    if (code !== SLASH) {
      key[at++] = code;
      continue;
    }
    if (i > 0) at++;
    key[at++] = TAG_STRING;
  }
  return key;
}

function percentDecode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new InvalidRequestError(
      "The path is not valid: each % is followed by two hex digits, and what they say is UTF-8.",
    );
  }
}
