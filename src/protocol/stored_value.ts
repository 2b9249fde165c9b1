/**
 * The kinds of stored value for which JavaScript's own object would be lossy
 * or dangerous to make from a client's bytes. Every other kind is the object
 * itself: Date, views, plain objects, arrays.
 */
import type { Bytes } from "../common/bytes.ts";
import { REGEXP_FLAGS } from "./v8_format.ts";

/** The stored bytes are no value that can be shown; they stay as they are. */
export class UnreadableValueError extends Error {
  override name = "UnreadableValueError";
}

/** A KvU64, which is always a whole value and never part of one. */
export class StoredU64 {
  constructor(readonly value: bigint) {}
}

/** A boolean, number, bigint or string in its object form: `Object(5)`. */
export class Boxed {
  constructor(readonly value: boolean | number | bigint | string) {}
}

/**
 * A Map, as the list of its entries. A Map of JavaScript's own would be a hash
 * table, and numbers have hashes that anyone can work out: 16,000 keys made to
 * collide took a quarter of a second. A key that comes twice stays twice;
 * whoever reads the stored bytes keeps the last.
 */
export class StoredMap {
  readonly entries: [unknown, unknown][] = [];
}

/** A Set, as the list of its values, for the same reason. */
export class StoredSet {
  readonly values: unknown[] = [];
}

/**
 * An ArrayBuffer, as a view of its bytes: thousands of empty ones in a value
 * cost more than all the rest of it.
 */
export class StoredBuffer {
  constructor(readonly bytes: Bytes) {}
}

/**
 * An array with holes or named properties, as V8 writes it when its length
 * says little about what is in it. `items` holds elements by their decimal
 * index and properties by their name; it has no prototype, and unlike a Map
 * its hashes cannot be foretold.
 */
export class SparseArray {
  readonly items: Record<string, unknown> = Object.create(null);
  /** @param length 0 to 2^32 - 1 */
  constructor(readonly length: number) {}
}

/** An error, as far as it is stored. */
export class StoredError {
  message: string | undefined;
  stack: string | undefined;
  /** Absent and `undefined` are two things: see `hasCause`. */
  cause: unknown;
  hasCause = false;
  constructor(public name: string) {}
}

/**
 * A regular expression, as the text that is stored. It is never compiled: a
 * pattern of a few kilobytes can hold the thread for seconds and take
 * gigabytes, and nothing here needs to know what it matches. So the pattern
 * may be one that no engine takes.
 */
export class StoredRegExp {
  /** @param flags as `isRegExpFlags` has them */
  constructor(readonly source: string, readonly flags: string) {}
}

/** Known letters, none of them twice; `u` and `v` exclude each other. */
export function isRegExpFlags(flags: string): boolean {
  if (flags.length > REGEXP_FLAGS.length) return false;
  for (let i = 0; i < flags.length; i++) {
    if (!REGEXP_FLAGS.includes(flags[i])) return false;
    if (flags.includes(flags[i], i + 1)) return false;
  }
  return !(flags.includes("u") && flags.includes("v"));
}

/** Sets a property of the object's own, also one named `__proto__`. */
export function setOwn(object: object, name: string, value: unknown): void {
  if (name !== "__proto__") {
    (object as Record<string, unknown>)[name] = value;
    return;
  }
  Object.defineProperty(object, name, {
    value,
    configurable: true,
    enumerable: true,
    writable: true,
  });
}
