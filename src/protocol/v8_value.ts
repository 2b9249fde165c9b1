/**
 * Stored bytes to values: a reader of V8's serialization format, versions 13
 * to 16 (Deno KV writes 15 and 16, Node's `v8.serialize` writes 15).
 *
 * Why not the runtime's own reader: the bytes are a client's, and V8 gives an
 * array the length that the bytes claim. 20 sparse arrays of 11 bytes each end
 * the process ("Reached heap limit"), and with it every other request. Here
 * nothing is allocated that the bytes do not hold, nesting is limited, and
 * whatever is wrong ends in an {@linkcode UnreadableValueError}.
 *
 * Source of the format: V8's `value-serializer.cc`; checked in the tests
 * against files that `Deno.openKv` wrote.
 */
import type { Bytes } from "../common/bytes.ts";
import { Encoding, type Entry } from "./messages.ts";
import {
  Boxed,
  isRegExpFlags,
  setOwn,
  SparseArray,
  StoredBuffer,
  StoredError,
  StoredMap,
  StoredRegExp,
  StoredSet,
  StoredU64,
  UnreadableValueError,
} from "./stored_value.ts";
import {
  ERROR_KINDS,
  isIndex,
  MAX_VALUE_DEPTH,
  NEWEST_VERSION,
  OLDEST_VERSION,
  REGEXP_FLAGS,
  Tag,
  VIEW_FLAGS_VERSION,
  VIEW_KINDS,
  type ViewKind,
} from "./v8_format.ts";
import { stringOf } from "./v8_string.ts";

export interface DecodedValue {
  /**
   * A JSON kind, undefined, bigint, Date, a view, or one of the classes of stored_value.ts. An array may have holes.
   */
  value: unknown;
  /**
   * True where JSON holds the value without loss and without growing: only
   * null, booleans, finite numbers, strings, arrays without holes, objects.
   */
  isPlain: boolean;
}

/** @throws UnreadableValueError */
export function decodeValue(
  entry: Pick<Entry, "value" | "encoding">,
): DecodedValue {
  const { value, encoding } = entry;
  if (encoding === Encoding.BYTES) return { value, isPlain: false };
  if (encoding === Encoding.V8) return decodeV8(value);
  if (value.length !== 8) {
    throw new UnreadableValueError(
      `The stored value is said to be a KvU64 but has ${value.length} bytes in place of 8.`,
    );
  }
  const view = new DataView(value.buffer, value.byteOffset, 8);
  return {
    value: new StoredU64(view.getBigUint64(0, true)),
    isPlain: false,
  };
}

/** @throws UnreadableValueError */
export function decodeV8(bytes: Bytes): DecodedValue {
  const decoder = new Decoder(bytes);
  return { value: decoder.value(), isPlain: decoder.isPlain };
}

const utf8Decoder = new TextDecoder("utf-8", { ignoreBOM: true });

function unreadable(): never {
  throw new UnreadableValueError(
    "The stored bytes are not a value in V8's format: they were cut or changed before they were stored.",
  );
}

class Decoder {
  isPlain = true;
  #at = 0;
  #depth = 0;
  #version: number;
  /** Objects in the order in which they began; references name them. */
  #objects: object[] = [];
  #bytes: Bytes;
  #view: DataView;

  constructor(bytes: Bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (bytes[this.#at++] !== Tag.HEADER) unreadable();
    this.#version = this.#varint();
    if (this.#version < OLDEST_VERSION || this.#version > NEWEST_VERSION) {
      throw new UnreadableValueError(
        `The stored value is in version ${this.#version} of V8's format; ${OLDEST_VERSION} to ${NEWEST_VERSION} can be read.`,
      );
    }
  }

  value(): unknown {
    if (++this.#depth > MAX_VALUE_DEPTH) {
      throw new UnreadableValueError(
        `The stored value is nested more than ${MAX_VALUE_DEPTH} levels deep.`,
      );
    }
    let value = this.#withoutView();
    // A view follows its buffer, or a reference to it.
    if (value instanceof StoredBuffer && this.#peek() === Tag.VIEW) {
      this.#at++;
      value = this.#bufferView(value.bytes);
    }
    this.#depth--;
    return value;
  }

  #withoutView(): unknown {
    let tag = this.#tag();
    while (tag === Tag.OBJECT_COUNT) {
      this.#varint();
      tag = this.#tag();
    }
    switch (tag) {
      case Tag.NULL:
        return null;
      case Tag.TRUE:
        return true;
      case Tag.FALSE:
        return false;
      case Tag.INT32: {
        const raw = this.#varint();
        return (raw >>> 1) ^ -(raw & 1);
      }
      case Tag.UINT32:
        return this.#varint() >>> 0;
      case Tag.DOUBLE: {
        const number = this.#double();
        if (!Number.isFinite(number) || Object.is(number, -0)) {
          this.isPlain = false;
        }
        return number;
      }
      case Tag.ONE_BYTE_STRING:
        return stringOf(this.#raw(this.#varint()));
      case Tag.TWO_BYTE_STRING:
        return this.#twoByteString();
      case Tag.UTF8_STRING:
        return utf8Decoder.decode(this.#raw(this.#varint()));
      case Tag.OBJECT: {
        const object = this.#begin({});
        this.#properties(object, Tag.OBJECT_END);
        return object;
      }
      case Tag.DENSE_ARRAY:
        return this.#denseArray();
    }
    // What follows is more than JSON can hold, or may be.
    this.isPlain = false;
    switch (tag) {
      case Tag.UNDEFINED:
        return undefined;
      case Tag.BIGINT:
        return this.#bigint();
      case Tag.REFERENCE:
        return this.#objects[this.#varint()] ?? unreadable();
      case Tag.SPARSE_ARRAY:
        return this.#sparseArray();
      case Tag.DATE:
        return this.#begin(new Date(this.#double()));
      case Tag.TRUE_OBJECT:
        return this.#begin(new Boxed(true));
      case Tag.FALSE_OBJECT:
        return this.#begin(new Boxed(false));
      case Tag.NUMBER_OBJECT:
        return this.#begin(new Boxed(this.#double()));
      case Tag.BIGINT_OBJECT:
        return this.#begin(new Boxed(this.#bigint()));
      case Tag.STRING_OBJECT:
        return this.#begin(new Boxed(this.#string()));
      case Tag.REGEXP:
        return this.#regexp();
      case Tag.MAP:
        return this.#map();
      case Tag.SET:
        return this.#set();
      case Tag.ARRAY_BUFFER:
      case Tag.IMMUTABLE_ARRAY_BUFFER:
        return this.#begin(new StoredBuffer(this.#raw(this.#varint())));
      case Tag.RESIZABLE_ARRAY_BUFFER: {
        const length = this.#varint();
        // How far it might grow is not kept: it would be memory set aside.
        this.#varint();
        return this.#begin(new StoredBuffer(this.#raw(length)));
      }
      case Tag.ERROR:
        return this.#error();
      case Tag.HOST_OBJECT:
        return this.#nodeView();
    }
    return unreadable();
  }

  #begin<T extends object>(object: T): T {
    this.#objects.push(object);
    return object;
  }

  #tag(): number {
    const tag = this.#peek() ?? unreadable();
    this.#at++;
    return tag;
  }

  /** The next tag, past padding; undefined at the end. */
  #peek(): number | undefined {
    while (this.#bytes[this.#at] === Tag.PADDING) this.#at++;
    return this.#bytes[this.#at];
  }

  /** An unsigned number below 2^53: lengths of version 16 have 64 bits. */
  #varint(): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 8; i++) {
      const byte = this.#bytes[this.#at++] ?? unreadable();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        return value <= Number.MAX_SAFE_INTEGER ? value : unreadable();
      }
      scale *= 0x80;
    }
    return unreadable();
  }

  #double(): number {
    const at = this.#at;
    this.#raw(8);
    return this.#view.getFloat64(at, true);
  }

  #raw(length: number): Bytes {
    const end = this.#at + length;
    if (end > this.#bytes.length) unreadable();
    const raw = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return raw;
  }

  #twoByteString(): string {
    const length = this.#varint();
    if (length % 2 !== 0) unreadable();
    // A copy: the bytes may stand at an odd address.
    return stringOf(new Uint16Array(this.#raw(length).slice().buffer));
  }

  #string(): string {
    const value = this.value();
    return typeof value === "string" ? value : unreadable();
  }

  #bigint(): bigint {
    const field = this.#varint();
    if (field > 0xffff_ffff) unreadable();
    const digits = this.#raw(field >>> 1).slice().reverse();
    const magnitude = digits.length === 0 ? 0n : BigInt("0x" + digits.toHex());
    return field & 1 ? -magnitude : magnitude;
  }

  /** Properties up to the end tag, and their count after it. */
  #properties(object: object, end: number): number {
    let count = 0;
    while (this.#peek() !== end) {
      const key = this.value();
      if (typeof key !== "string" && typeof key !== "number") unreadable();
      this.#setProperty(object, String(key), this.value());
      count++;
    }
    this.#at++;
    if (this.#varint() !== count) unreadable();
    return count;
  }

  #setProperty(object: object, key: string, value: unknown): void {
    if (object instanceof SparseArray) {
      if (key === "length" || key in object.items) unreadable();
      if (isIndex(key) && Number(key) >= object.length) unreadable();
      object.items[key] = value;
      return;
    }
    if (Object.hasOwn(object, key)) unreadable();
    // An index beyond the elements would make a vast array of a small one.
    if (Array.isArray(object) && isIndex(key)) unreadable();
    setOwn(object, key, value);
  }

  #denseArray(): unknown[] {
    const length = this.#varint();
    const array: unknown[] = this.#begin([]);
    // Grown as the elements come: a claimed length alone allocates nothing.
    for (let i = 0; i < length; i++) {
      if (this.#peek() === Tag.HOLE) {
        this.#at++;
        array.length++;
        this.isPlain = false;
      } else {
        array.push(this.value());
      }
    }
    if (this.#properties(array, Tag.DENSE_ARRAY_END) > 0) this.isPlain = false;
    if (this.#varint() !== length) unreadable();
    return array;
  }

  #sparseArray(): SparseArray {
    const length = this.#varint();
    if (length > 0xffff_ffff) unreadable();
    const array = this.#begin(new SparseArray(length));
    this.#properties(array, Tag.SPARSE_ARRAY_END);
    if (this.#varint() !== length) unreadable();
    return array;
  }

  #regexp(): StoredRegExp {
    // The pattern is a string, so that it can take no object's number.
    const source = this.#string();
    const bits = this.#varint();
    if (bits >= 1 << REGEXP_FLAGS.length) unreadable();
    const letters: string[] = [];
    for (let i = 0; i < REGEXP_FLAGS.length; i++) {
      if (bits & (1 << i)) letters.push(REGEXP_FLAGS[i] ?? unreadable());
    }
    // As JavaScript shows them: in the order of the alphabet.
    const flags = letters.sort().join("");
    if (!isRegExpFlags(flags)) unreadable();
    return this.#begin(new StoredRegExp(source, flags));
  }

  #map(): StoredMap {
    const map = this.#begin(new StoredMap());
    let count = 0;
    while (this.#peek() !== Tag.MAP_END) {
      const key = this.value();
      map.entries.push([key, this.value()]);
      count += 2;
    }
    this.#at++;
    return this.#varint() === count ? map : unreadable();
  }

  #set(): StoredSet {
    const set = this.#begin(new StoredSet());
    let count = 0;
    while (this.#peek() !== Tag.SET_END) {
      set.values.push(this.value());
      count++;
    }
    this.#at++;
    return this.#varint() === count ? set : unreadable();
  }

  #bufferView(bytes: Bytes): ArrayBufferView {
    const tag = this.#varint();
    const kind = VIEW_KINDS.find((kind) => kind.tag === tag) ?? unreadable();
    const offset = this.#varint();
    let length = this.#varint();
    const flags = this.#version >= VIEW_FLAGS_VERSION ? this.#varint() : 0;
    if (offset > bytes.length) unreadable();
    // A view that follows a growing buffer to its end carries no length.
    if (flags & 1) {
      length = bytes.length - offset;
      length -= length % kind.elementBytes;
    }
    if (offset + length > bytes.length) unreadable();
    return this.#makeView(kind, bytes, offset, length);
  }

  /** How Node writes a view that `v8.serialize` meets. */
  #nodeView(): ArrayBufferView {
    const index = this.#varint();
    const kind = VIEW_KINDS.find((kind) => kind.nodeIndex === index) ??
      unreadable();
    const raw = this.#raw(this.#varint());
    return this.#makeView(kind, raw, 0, raw.length);
  }

  #makeView(
    kind: ViewKind,
    bytes: Bytes,
    offset: number,
    length: number,
  ): ArrayBufferView {
    const { elementBytes } = kind;
    if (offset % elementBytes !== 0 || length % elementBytes !== 0) {
      unreadable();
    }
    // Elements of several bytes have to stand where their size divides.
    const { buffer, byteOffset } = elementBytes === 1
      ? bytes.subarray(offset)
      : bytes.slice(offset, offset + length);
    return this.#begin(
      new kind.make(buffer, byteOffset, length / elementBytes),
    );
  }

  #error(): StoredError {
    const error = this.#begin(new StoredError("Error"));
    for (;;) {
      const tag = this.#varint();
      if (tag === Tag.ERROR_END) return error;
      if (tag === Tag.ERROR_MESSAGE) error.message = this.#string();
      else if (tag === Tag.ERROR_STACK) error.stack = this.#string();
      else if (tag === Tag.ERROR_CAUSE) {
        error.cause = this.value();
        error.hasCause = true;
      } else error.name = ERROR_KINDS.get(tag) ?? unreadable();
    }
  }
}
