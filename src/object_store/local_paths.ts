/**
 * Where an object lies in a folder: its key's segments are folders, and every
 * byte that some file system treats in its own way is percent-encoded, so
 * that ordinary keys keep their names and can be copied with ordinary tools.
 */

/** The longest name that common file systems take, in bytes. */
const MAX_NAME_BYTES = 255;

/** Our own folder in the root; no key's segment begins with a dot on disk. */
export const OWN_FOLDER = ".denokv";

const encoder = new TextEncoder();
const SAFE = /[A-Za-z0-9_\-.~=@+,]/;

/** The path below the root, with "/"; undefined where a name is too long. */
export function pathOfKey(key: string): string | undefined {
  const names = key.split("/").map(nameOfSegment);
  if (names.some((name) => name.length > MAX_NAME_BYTES)) return undefined;
  return names.join("/");
}

function nameOfSegment(segment: string): string {
  let name = "";
  for (const char of segment) {
    if (SAFE.test(char)) name += char;
    else for (const byte of encoder.encode(char)) name += percent(byte);
  }
  // A leading dot is ours, a trailing one is dropped by Windows.
  return name.replace(/^\./, "%2E").replace(/\.$/, "%2E");
}

function percent(byte: number): string {
  return "%" + byte.toString(16).toUpperCase().padStart(2, "0");
}

/** The segment that a file's name stands for, or undefined: not an object. */
export function segmentOfName(name: string): string | undefined {
  let segment: string;
  try {
    segment = decodeURIComponent(name);
  } catch {
    return undefined;
  }
  return nameOfSegment(segment) === name ? segment : undefined;
}
