/**
 * Versionstamps. On the wire one is 10 bytes: an 8-byte big-endian commit
 * version and a 2-byte order within it. In memory the two are plain numbers:
 * comparing them is what every read and check does. Engines with one commit
 * per version (SQLite) always have order 0.
 */

/** The length of a versionstamp on the wire. */
export const VERSIONSTAMP_BYTES = 10;

/** No commit has this version: stands for "must not exist" in a check. */
export const ABSENT_VERSION = -1;

/** Writes the 10 bytes of a versionstamp into `out` at `at`. */
export function writeVersionstamp(
  out: Uint8Array,
  at: number,
  version: number,
  order: number,
): void {
  const high = Math.floor(version / 0x1_0000_0000);
  const low = version >>> 0;
  out[at] = high >>> 24;
  out[at + 1] = high >>> 16;
  out[at + 2] = high >>> 8;
  out[at + 3] = high;
  out[at + 4] = low >>> 24;
  out[at + 5] = low >>> 16;
  out[at + 6] = low >>> 8;
  out[at + 7] = low;
  out[at + 8] = order >>> 8;
  out[at + 9] = order;
}

/**
 * The version in the 8 bytes at `at`. Beyond 2^53 the number is rounded to
 * one that no commit of ours can have, so that it equals none.
 */
export function readVersion(bytes: Uint8Array, at: number): number {
  const high = (bytes[at] * 0x100_0000) +
    ((bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]);
  const low = (bytes[at + 4] * 0x100_0000) +
    ((bytes[at + 5] << 16) | (bytes[at + 6] << 8) | bytes[at + 7]);
  return high * 0x1_0000_0000 + low;
}

/** The 2-byte order after the version at `at`. */
export function readOrder(bytes: Uint8Array, at: number): number {
  return (bytes[at + 8] << 8) | bytes[at + 9];
}

export function versionstampBytes(
  version: number,
  order: number,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(VERSIONSTAMP_BYTES);
  writeVersionstamp(out, 0, version, order);
  return out;
}

/** 20 lowercase hex digits, as the clients show it. */
export function versionstampHex(version: number, order: number): string {
  return version.toString(16).padStart(16, "0") +
    order.toString(16).padStart(4, "0");
}

/** Reads 20 hex digits; undefined where they are none. */
export function parseVersionstampHex(
  text: string,
): { version: number; order: number } | undefined {
  if (!/^[0-9a-f]{20}$/.test(text)) return undefined;
  const version = parseInt(text.slice(0, 16), 16);
  if (!Number.isSafeInteger(version)) return undefined;
  return { version, order: parseInt(text.slice(16), 16) };
}
