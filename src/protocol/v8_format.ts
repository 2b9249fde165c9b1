/**
 * The bytes of V8's serialization format, for its reader and its writer.
 *
 * Source: V8's `value-serializer.cc`, and how Node's `v8.serialize` writes
 * views; checked in the tests against files that `Deno.openKv` wrote.
 */

/** The oldest format with the tags that are read here; Node 12 wrote it. */
export const OLDEST_VERSION = 13;
export const NEWEST_VERSION = 16;
/** What we write: readable by every Deno that has KV, and by Node 20. */
export const WRITTEN_VERSION = 15;
/** From this version on a view carries flags. */
export const VIEW_FLAGS_VERSION = 14;

/** The tags of V8's format. */
export const Tag = {
  HEADER: 0xff,
  PADDING: 0x00,
  OBJECT_COUNT: 0x3f, // ?
  UNDEFINED: 0x5f, // _
  NULL: 0x30, // 0
  TRUE: 0x54, // T
  FALSE: 0x46, // F
  INT32: 0x49, // I
  UINT32: 0x55, // U
  DOUBLE: 0x4e, // N
  BIGINT: 0x5a, // Z
  UTF8_STRING: 0x53, // S
  ONE_BYTE_STRING: 0x22, // "
  TWO_BYTE_STRING: 0x63, // c
  REFERENCE: 0x5e, // ^
  OBJECT: 0x6f, // o
  OBJECT_END: 0x7b, // {
  SPARSE_ARRAY: 0x61, // a
  SPARSE_ARRAY_END: 0x40, // @
  DENSE_ARRAY: 0x41, // A
  DENSE_ARRAY_END: 0x24, // $
  HOLE: 0x2d, // -
  DATE: 0x44, // D
  TRUE_OBJECT: 0x79, // y
  FALSE_OBJECT: 0x78, // x
  NUMBER_OBJECT: 0x6e, // n
  BIGINT_OBJECT: 0x7a, // z
  STRING_OBJECT: 0x73, // s
  REGEXP: 0x52, // R
  MAP: 0x3b, // ;
  MAP_END: 0x3a, // :
  SET: 0x27, // '
  SET_END: 0x2c, // ,
  ARRAY_BUFFER: 0x42, // B
  RESIZABLE_ARRAY_BUFFER: 0x7e, // ~
  IMMUTABLE_ARRAY_BUFFER: 0x43, // C, new in V8 15
  VIEW: 0x56, // V
  ERROR: 0x72, // r
  ERROR_MESSAGE: 0x6d, // m
  ERROR_STACK: 0x73, // s
  ERROR_CAUSE: 0x63, // c
  ERROR_END: 0x2e, // .
  HOST_OBJECT: 0x5c, // \
} as const;

/** The built-in kinds of error and the tags that stand for them. */
export const ERROR_KINDS: ReadonlyMap<number, string> = new Map([
  [0x45, "EvalError"],
  [0x52, "RangeError"],
  [0x46, "ReferenceError"],
  [0x53, "SyntaxError"],
  [0x54, "TypeError"],
  [0x55, "URIError"],
]);

/** The bits of a regular expression's flags, from the lowest; null: not ours. */
export const REGEXP_FLAGS: readonly (string | null)[] = //
  ["g", "i", "m", "y", "u", "s", null, "d", "v"];

export interface ViewKind {
  make: new (
    buffer: ArrayBuffer,
    at: number,
    length: number,
  ) => ArrayBufferView<ArrayBuffer>;
  /** The sub-tag after `Tag.VIEW`; NaN where there is none. */
  tag: number;
  /** How Node's `v8.serialize` numbers the kind in a host object. */
  nodeIndex: number;
  elementBytes: number;
}

function viewKind(
  make: ViewKind["make"],
  tag: string,
  nodeIndex: number,
  elementBytes: number,
): ViewKind {
  return { make, tag: tag.charCodeAt(0), nodeIndex, elementBytes };
}

export const VIEW_KINDS: readonly ViewKind[] = [
  viewKind(Uint8Array, "B", 1, 1),
  viewKind(Int8Array, "b", 0, 1),
  viewKind(Uint8ClampedArray, "C", 2, 1),
  viewKind(Int16Array, "w", 3, 2),
  viewKind(Uint16Array, "W", 4, 2),
  viewKind(Int32Array, "d", 5, 4),
  viewKind(Uint32Array, "D", 6, 4),
  viewKind(Float16Array, "h", 13, 2),
  viewKind(Float32Array, "f", 7, 4),
  viewKind(Float64Array, "F", 8, 8),
  viewKind(BigInt64Array, "q", 11, 8),
  viewKind(BigUint64Array, "Q", 12, 8),
  viewKind(DataView, "?", 9, 1),
  // Node's Buffer: it has no tag, being a Uint8Array to everybody else.
  viewKind(Uint8Array, "", 10, 1),
];

/**
 * Nesting beyond this is refused, both reading and writing: the stack holds
 * more than three times as many levels of the costliest kind, unoptimised.
 * (Deno's own client gives up at about 2,500.)
 */
export const MAX_VALUE_DEPTH = 300;

/** Whether a property name is an array index; 2^32 - 1 is none. */
export function isIndex(name: string): boolean {
  return /^(0|[1-9]\d{0,9})$/.test(name) && Number(name) < 0xffff_ffff;
}
