/**
 * Which keys objects may have, and their order. The rules are what every
 * implementation can keep: S3 and Google allow more, a folder less.
 */

/** S3 and Google allow 1024 bytes, of which the prefix takes its part. */
export const MAX_KEY_BYTES = 512;

const encoder = new TextEncoder();

/**
 * Throws `RangeError` on a key that some store could not hold: these are
 * faults of the program, not of the store.
 *
 * A key is one or more segments joined by "/", at most 512 bytes of UTF-8,
 * without control characters or lone surrogates; no segment is empty, "." or
 * "..". On top of that, callers never use a key that is another key's folder
 * ("a" and "a/b"), nor two that differ only in case: a folder on disk cannot
 * hold both.
 */
export function checkKey(key: string): void {
  const problem = keyProblem(key);
  if (problem !== undefined) {
    throw new RangeError(
      `No object can have the key ${quote(key)}: ${problem}.`,
    );
  }
}

/** Why a string is no key, as the end of a sentence; undefined if it is one. */
export function keyProblem(key: string): string | undefined {
  if (key === "") return "it is empty";
  if (!key.isWellFormed()) return "it is not well-formed Unicode";
  // The last two are no characters in XML, in which S3 lists keys.
  if (/[\p{Cc}\ufffe\uffff]/u.test(key)) return "it has control characters";
  if (encoder.encode(key).length > MAX_KEY_BYTES) {
    return `it is longer than ${MAX_KEY_BYTES} bytes`;
  }
  for (const segment of key.split("/")) {
    if (segment === "" || segment === "." || segment === "..") {
      return `it has ${
        segment === "" ? "an empty part" : `a part "${segment}"`
      }`;
    }
  }
  return undefined;
}

/** Throws `RangeError` on a range that no store takes. */
export function checkRange(offsetBytes: number, sizeBytes: number): void {
  if (
    !Number.isSafeInteger(offsetBytes) || offsetBytes < 0 ||
    !Number.isSafeInteger(sizeBytes) || sizeBytes < 1
  ) {
    throw new RangeError(
      `No range has the offset ${offsetBytes} and the size ${sizeBytes}.`,
    );
  }
}

/** Below 0, 0 or above 0: the order of the keys' UTF-8 bytes, as stores list. */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    // UTF-16 puts surrogates before U+E000 to U+FFFF, UTF-8 after them.
    if (x !== y) return rank(x) - rank(y);
  }
  return a.length - b.length;
}

function rank(codeUnit: number): number {
  if (codeUnit < 0xd800) return codeUnit;
  return codeUnit < 0xe000 ? codeUnit + 0x2000 : codeUnit - 0x800;
}

/** A key as it stands in a sentence, short enough for one. */
export function quote(key: string): string {
  return JSON.stringify(key.length > 200 ? `${key.slice(0, 200)}…` : key);
}
