/**
 * Values to stored bytes: a writer of V8's serialization format, so that what
 * REST stores is read by `Deno.openKv` and `@deno/kv` as if they had written
 * it. (Node's own `v8.serialize` marks views in a way that Deno cannot read.)
 */
import type { Bytes } from "../common/bytes.ts";
import { InvalidRequestError, TooLargeError } from "../common/errors.ts";
import { Encoding } from "./messages.ts";
import {
  Boxed,
  SparseArray,
  StoredBuffer,
  StoredError,
  StoredMap,
  StoredRegExp,
  StoredSet,
  StoredU64,
} from "./stored_value.ts";
import {
  ERROR_KINDS,
  isIndex,
  MAX_VALUE_DEPTH,
  REGEXP_FLAGS,
  Tag,
  VIEW_KINDS,
  WRITTEN_VERSION,
} from "./v8_format.ts";

/**
 * What to store for a value of the kinds that `decodeValue` gives: bytes as
 * bytes, a KvU64 as LE64, anything else in V8's format.
 * @throws TooLargeError when it takes more than `maxBytes`
 * @throws InvalidRequestError when it cannot be stored
 */
export function encodeValue(
  value: unknown,
  maxBytes: number,
): { value: Bytes; encoding: Encoding } {
  if (value instanceof StoredU64) {
    const out = new Uint8Array(8);
    new DataView(out.buffer).setBigUint64(0, value.value, true);
    return { value: out, encoding: Encoding.LE64 };
  }
  if (value instanceof Uint8Array && value.buffer instanceof ArrayBuffer) {
    if (value.length > maxBytes) refuseSize(maxBytes);
    return { value: value as Bytes, encoding: Encoding.BYTES };
  }
  return { value: encodeV8(value, maxBytes), encoding: Encoding.V8 };
}

/**
 * V8's format for a value without holes in its arrays (a `SparseArray` has
 * them); objects that occur twice, also within themselves, stay one object.
 * @throws TooLargeError when it takes more than `maxBytes`
 * @throws InvalidRequestError when it cannot be stored
 */
export function encodeV8(value: unknown, maxBytes: number): Bytes {
  const encoder = new Encoder(maxBytes);
  encoder.value(value);
  return encoder.finish();
}

function refuseSize(maxBytes: number): never {
  throw new TooLargeError(
    `A value may take at most ${maxBytes} bytes where it is stored; this one takes more: a text takes a byte for each Latin letter or two for each character of any other, a number two to nine. Nothing was written.`,
  );
}

const INITIAL_BYTES = 256;

class Encoder {
  #out = new Uint8Array(INITIAL_BYTES);
  #view = new DataView(this.#out.buffer);
  #at = 0;
  #depth = 0;
  #maxBytes: number;
  /** The number of each object, in the order in which they begin. */
  #numbers = new Map<object, number>();
  #nextNumber = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
    this.#byte(Tag.HEADER);
    this.#byte(WRITTEN_VERSION);
  }

  finish(): Bytes {
    if (this.#at > this.#maxBytes) refuseSize(this.#maxBytes);
    return this.#out.slice(0, this.#at);
  }

  value(value: unknown): void {
    switch (typeof value) {
      case "undefined":
        return this.#byte(Tag.UNDEFINED);
      case "boolean":
        return this.#byte(value ? Tag.TRUE : Tag.FALSE);
      case "number":
        return this.#number(value);
      case "bigint":
        this.#byte(Tag.BIGINT);
        return this.#bigint(value);
      case "string":
        return this.#string(value);
      case "object":
        if (value === null) return this.#byte(Tag.NULL);
        if (++this.#depth > MAX_VALUE_DEPTH) {
          throw new InvalidRequestError(
            `The value is nested more than ${MAX_VALUE_DEPTH} levels deep. Nothing was written.`,
          );
        }
        this.#object(value);
        this.#depth--;
        return;
      default:
        throw new InvalidRequestError(
          `A ${typeof value} cannot be stored. Nothing was written.`,
        );
    }
  }

  /** Room for `count` more bytes; refuses what will be too large early. */
  #reserve(count: number): void {
    const needed = this.#at + count;
    if (needed <= this.#out.length) return;
    if (needed > this.#maxBytes) refuseSize(this.#maxBytes);
    const grown = new Uint8Array(Math.max(needed, this.#out.length * 2));
    grown.set(this.#out);
    this.#out = grown;
    this.#view = new DataView(grown.buffer);
  }

  #byte(byte: number): void {
    this.#reserve(1);
    this.#out[this.#at++] = byte;
  }

  #varint(value: number): void {
    for (; value >= 0x80; value = Math.floor(value / 0x80)) {
      this.#byte((value % 0x80) | 0x80);
    }
    this.#byte(value);
  }

  #raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#out.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  #double(value: number): void {
    this.#reserve(8);
    this.#view.setFloat64(this.#at, value, true);
    this.#at += 8;
  }

  /** As V8 itself: small whole numbers as `I`, other numbers as `N`. */
  #number(value: number): void {
    const isSmall = value >= -(2 ** 30) && value < 2 ** 30 &&
      Number.isInteger(value) && !Object.is(value, -0);
    if (isSmall) {
      this.#byte(Tag.INT32);
      this.#varint(((value << 1) ^ (value >> 31)) >>> 0);
    } else {
      this.#byte(Tag.DOUBLE);
      this.#double(value);
    }
  }

  #bigint(value: bigint): void {
    const hex = (value < 0n ? -value : value).toString(16);
    // V8 writes whole digits of 64 bits, and none for zero.
    const length = value === 0n ? 0 : Math.ceil(hex.length / 16) * 8;
    this.#varint(length * 2 + (value < 0n ? 1 : 0));
    if (length > 0) {
      this.#raw(Uint8Array.fromHex(hex.padStart(length * 2, "0")).reverse());
    }
  }

  #string(text: string): void {
    const { length } = text;
    let isOneByte = true;
    for (let i = 0; isOneByte && i < length; i++) {
      isOneByte = text.charCodeAt(i) <= 0xff;
    }
    if (isOneByte) {
      this.#byte(Tag.ONE_BYTE_STRING);
      this.#varint(length);
      this.#reserve(length);
      for (let i = 0; i < length; i++) {
        this.#out[this.#at++] = text.charCodeAt(i);
      }
      return;
    }
    // V8 puts the characters at an even address.
    const lengthBytes = length * 2 < 0x80 ? 1 : length * 2 < 0x4000 ? 2 : 3;
    if ((this.#at + 1 + lengthBytes) % 2 !== 0) this.#byte(Tag.PADDING);
    this.#byte(Tag.TWO_BYTE_STRING);
    this.#varint(length * 2);
    this.#reserve(length * 2);
    for (let i = 0; i < length; i++, this.#at += 2) {
      this.#view.setUint16(this.#at, text.charCodeAt(i), true);
    }
  }

  #object(object: object): void {
    const number = this.#numbers.get(object);
    if (number !== undefined) {
      this.#byte(Tag.REFERENCE);
      return this.#varint(number);
    }
    // A view comes after its buffer, and so does its number.
    if (ArrayBuffer.isView(object)) return this.#bufferView(object);
    this.#numbers.set(object, this.#nextNumber++);
    if (Array.isArray(object)) {
      this.#byte(Tag.DENSE_ARRAY);
      this.#varint(object.length);
      for (let i = 0; i < object.length; i++) this.value(object[i]);
      this.#byte(Tag.DENSE_ARRAY_END);
      this.#varint(0);
      this.#varint(object.length);
    } else if (object instanceof SparseArray) {
      this.#byte(Tag.SPARSE_ARRAY);
      this.#varint(object.length);
      const items = Object.entries(object.items);
      for (const [name, value] of items) this.#property(name, value);
      this.#byte(Tag.SPARSE_ARRAY_END);
      this.#varint(items.length);
      this.#varint(object.length);
    } else if (object instanceof StoredMap) {
      this.#byte(Tag.MAP);
      for (const [key, value] of object.entries) {
        this.value(key);
        this.value(value);
      }
      this.#byte(Tag.MAP_END);
      this.#varint(object.entries.length * 2);
    } else if (object instanceof StoredSet) {
      this.#byte(Tag.SET);
      for (const value of object.values) this.value(value);
      this.#byte(Tag.SET_END);
      this.#varint(object.values.length);
    } else if (object instanceof Date) {
      this.#byte(Tag.DATE);
      this.#double(object.getTime());
    } else if (object instanceof StoredRegExp) {
      this.#byte(Tag.REGEXP);
      this.#string(object.source);
      let bits = 0;
      for (const flag of object.flags) bits |= 1 << REGEXP_FLAGS.indexOf(flag);
      this.#varint(bits);
    } else if (object instanceof StoredBuffer) {
      this.#buffer(object.bytes);
    } else if (object instanceof Boxed) {
      this.#boxed(object.value);
    } else if (object instanceof StoredError) {
      this.#error(object);
    } else if (object instanceof StoredU64) {
      throw new InvalidRequestError(
        "A KvU64 can only be a whole value, not a part of one. Nothing was written.",
      );
    } else {
      this.#byte(Tag.OBJECT);
      const properties = Object.entries(object);
      for (const [name, value] of properties) this.#property(name, value);
      this.#byte(Tag.OBJECT_END);
      this.#varint(properties.length);
    }
  }

  #property(name: string, value: unknown): void {
    if (isIndex(name)) this.#number(Number(name));
    else this.#string(name);
    this.value(value);
  }

  #buffer(bytes: Uint8Array): void {
    this.#byte(Tag.ARRAY_BUFFER);
    this.#varint(bytes.length);
    this.#raw(bytes);
  }

  /** With a buffer of its own that holds just what the view shows. */
  #bufferView(view: ArrayBufferView): void {
    const kind = VIEW_KINDS.find((kind) => view instanceof kind.make)!;
    this.#nextNumber++;
    this.#buffer(
      new Uint8Array(view.buffer, view.byteOffset, view.byteLength),
    );
    this.#numbers.set(view, this.#nextNumber++);
    this.#byte(Tag.VIEW);
    this.#varint(kind.tag);
    this.#varint(0);
    this.#varint(view.byteLength);
    this.#varint(0);
  }

  #boxed(value: Boxed["value"]): void {
    if (typeof value === "boolean") {
      this.#byte(value ? Tag.TRUE_OBJECT : Tag.FALSE_OBJECT);
    } else if (typeof value === "number") {
      this.#byte(Tag.NUMBER_OBJECT);
      this.#double(value);
    } else if (typeof value === "bigint") {
      this.#byte(Tag.BIGINT_OBJECT);
      this.#bigint(value);
    } else {
      this.#byte(Tag.STRING_OBJECT);
      this.#string(value);
    }
  }

  /** In V8's order: the reader of older versions insists on it. */
  #error(error: StoredError): void {
    this.#byte(Tag.ERROR);
    for (const [tag, name] of ERROR_KINDS) {
      if (error.name === name) this.#byte(tag);
    }
    if (error.message !== undefined) {
      this.#byte(Tag.ERROR_MESSAGE);
      this.#string(error.message);
    }
    if (error.stack !== undefined) {
      this.#byte(Tag.ERROR_STACK);
      this.#string(error.stack);
    }
    if (error.hasCause) {
      this.#byte(Tag.ERROR_CAUSE);
      this.value(error.cause);
    }
    this.#byte(Tag.ERROR_END);
  }
}
