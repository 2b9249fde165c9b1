/**
 * Values as JSON. What JSON holds is plain JSON; anything else makes the
 * whole document typed JSON, in which an object with one single member whose
 * name begins with `$` stands for a value of another kind:
 *
 * | value | notation |
 * | --- | --- |
 * | undefined | `{"$undefined":null}` |
 * | NaN, Infinity, -Infinity | `{"$number":"NaN"}` |
 * | bigint | `{"$bigint":"-123"}`; a long one is hexadecimal: `{"$bigint":"-0x1f…"}` |
 * | KvU64 (only as the whole value) | `{"$kvu64":"123"}` |
 * | Date | `{"$date":"2024-01-31T12:00:00.000Z"}`, invalid: `{"$date":null}` |
 * | RegExp | `{"$regexp":["a+","gi"]}`: source and flags, as text |
 * | Map | `{"$map":[[key,value],…]}` |
 * | Set | `{"$set":[value,…]}` |
 * | array with holes or named properties | `{"$array":{"length":3,"items":{"1":value}}}` |
 * | ArrayBuffer, DataView, typed arrays | `{"$arraybuffer":"<base64>"}`, `{"$uint8array":"<base64>"}`, …: the bytes, little-endian |
 * | Boolean, Number, BigInt, String objects | `{"$boxed":5}` |
 * | Error | `{"$error":{"name":"TypeError","message":"…","stack":"…","cause":value}}` |
 * | an object that the value is inside of | `{"$ref":"/a/0"}`: a JSON pointer (RFC 6901) into this document |
 * | an object that looks like a notation | one more `$`: `{"$date":1}` is written `{"$$date":1}` |
 *
 * -0 is the JSON number `-0` in both. An object that occurs twice without
 * being inside itself is written twice. A view is written without the rest of
 * its buffer, and a buffer that can grow as one that cannot.
 *
 * The reader of the notation is in typed_json_parse.ts.
 */
import { type Bytes, utf8 } from "../common/bytes.ts";
import { JsonPath } from "./json_path.ts";
import { MAX_VALUE_BYTES } from "./limits.ts";
import {
  Boxed,
  SparseArray,
  StoredBuffer,
  StoredError,
  StoredMap,
  StoredRegExp,
  StoredSet,
  StoredU64,
  UnreadableValueError,
} from "./stored_value.ts";
import { VIEW_KINDS, type ViewKind } from "./v8_format.ts";
import type { DecodedValue } from "./v8_value.ts";

/** The media type of typed JSON, in answers and requests. */
export const TYPED_JSON_TYPE = "application/vnd.denokv.typed+json";

/**
 * The longest JSON for one value, in UTF-8. No stored byte needs more than 20
 * bytes of it (`undefined` does), so only a value that holds one object very
 * often is longer: it was made to explode.
 */
export const MAX_JSON_BYTES = 32 * MAX_VALUE_BYTES;

/**
 * How many values one document shows, and holes, and bytes of bigints. Each
 * takes at least a stored byte, so only a value that holds one object very
 * often has more.
 */
export const MAX_JSON_NODES = MAX_VALUE_BYTES;

/**
 * Digits of a bigint that is written as decimal: making those of 64 KiB takes
 * 40 ms, hexadecimal ones are made at once.
 */
export const MAX_DECIMAL_BIGINT_BYTES = 4096;
const MAX_DECIMAL_BIGINT = 1n << BigInt(8 * MAX_DECIMAL_BIGINT_BYTES);

export interface JsonDocument {
  /** UTF-8. */
  body: Bytes;
  /** Whether it is typed JSON and not plain JSON. */
  isTyped: boolean;
}

/**
 * @param decoded as `decodeValue` gave it: its depth is limited
 * @param maxBytes what the JSON may take where it is not plain by itself
 * @throws UnreadableValueError when the JSON would be too long
 */
export function toJson(
  decoded: DecodedValue,
  maxBytes = MAX_JSON_BYTES,
): JsonDocument {
  const { value } = decoded;
  if (decoded.isPlain) {
    // At most six characters for each stored one: no limit is needed.
    return { body: utf8(JSON.stringify(value)), isTyped: false };
  }
  try {
    return {
      body: new Writer(false, maxBytes).document(value),
      isTyped: false,
    };
  } catch (error) {
    if (error !== NOT_PLAIN) throw error;
    return { body: new Writer(true, maxBytes).document(value), isTyped: true };
  }
}

/** Thrown by the writer of plain JSON when a notation would be needed. */
const NOT_PLAIN = new Error("not plain JSON");

/** By the name after the `$`: `uint8array`, `dataview`, … */
export const VIEW_KINDS_BY_NAME: ReadonlyMap<string, ViewKind> = new Map(
  VIEW_KINDS.filter((kind) => !Number.isNaN(kind.tag))
    .map((kind) => [kind.make.name.toLowerCase(), kind]),
);

/** Text is encoded in pieces of about this many characters. */
const PIECE_CHARS = 4096;
const BYTES_PER_CHAR = 3;

const encoder = new TextEncoder();

class Writer {
  #isTyped: boolean;
  #piece = "";
  #out: Bytes = new Uint8Array(PIECE_CHARS);
  #at = 0;
  #path = new JsonPath();
  /** The objects that are being written, and how long the path to each is. */
  #open = new Map<object, number>();
  #nodes = 0;
  #maxBytes: number;

  constructor(isTyped: boolean, maxBytes: number) {
    this.#isTyped = isTyped;
    this.#maxBytes = maxBytes;
  }

  document(value: unknown): Bytes {
    this.#value(value);
    this.#flush();
    return this.#out.subarray(0, this.#at);
  }

  #text(text: string): void {
    this.#piece += text;
    if (this.#piece.length >= PIECE_CHARS) this.#flush();
  }

  #flush(): void {
    const needed = this.#at + this.#piece.length * BYTES_PER_CHAR;
    if (needed > this.#out.length) {
      const grown = new Uint8Array(Math.max(needed, this.#out.length * 2));
      grown.set(this.#out);
      this.#out = grown;
    }
    const rest = this.#out.subarray(this.#at);
    this.#at += encoder.encodeInto(this.#piece, rest).written;
    this.#piece = "";
    if (this.#at > this.#maxBytes) {
      throw new UnreadableValueError(
        `The stored value would take more than ${this.#maxBytes} bytes of JSON.`,
      );
    }
  }

  /** Counts so many nodes more, before the work that they are. */
  #count(nodes: number): void {
    this.#nodes += nodes;
    if (this.#nodes > MAX_JSON_NODES) {
      throw new UnreadableValueError(
        `The stored value holds some objects so often that it would be shown as more than ${MAX_JSON_NODES} values.`,
      );
    }
  }

  #value(value: unknown): void {
    this.#count(1);
    switch (typeof value) {
      case "boolean":
        return this.#text(value ? "true" : "false");
      case "string":
        return this.#text(JSON.stringify(value));
      case "number":
        if (Object.is(value, -0)) return this.#text("-0");
        if (Number.isFinite(value)) return this.#text(String(value));
        return this.#plainNotation("number", String(value));
      case "bigint":
        return this.#bigint(value);
      case "object":
        if (value === null) return this.#text("null");
        return this.#object(value);
      default:
        this.#begin("undefined");
        return this.#text("null}");
    }
  }

  #bigint(value: bigint): void {
    if (!this.#isTyped) throw NOT_PLAIN;
    if (value < MAX_DECIMAL_BIGINT && value > -MAX_DECIMAL_BIGINT) {
      const digits = String(value);
      // A decimal digit is less than half a byte.
      this.#count(digits.length >>> 2);
      return this.#plainNotation("bigint", digits);
    }
    const digits = (value < 0n ? -value : value).toString(16);
    this.#count(digits.length >>> 1);
    this.#plainNotation("bigint", (value < 0n ? "-0x" : "0x") + digits);
  }

  /** A notation whose content is a text that needs no escapes. */
  #plainNotation(name: string, content: string): void {
    this.#begin(name);
    this.#text(`"${content}"}`);
  }

  /** A notation whose content is plain JSON. */
  #notation(name: string, content: unknown): void {
    this.#begin(name);
    this.#text(JSON.stringify(content) + "}");
  }

  /** A notation up to its content. */
  #begin(name: string): void {
    if (!this.#isTyped) throw NOT_PLAIN;
    this.#text(`{"$${name}":`);
  }

  #object(object: object): void {
    if (object instanceof Date) {
      const isValid = !Number.isNaN(object.getTime());
      return this.#notation("date", isValid ? object.toISOString() : null);
    }
    if (object instanceof StoredRegExp) {
      return this.#notation("regexp", [object.source, object.flags]);
    }
    if (object instanceof StoredU64) {
      return this.#plainNotation("kvu64", String(object.value));
    }
    if (object instanceof StoredBuffer) {
      return this.#plainNotation("arraybuffer", object.bytes.toBase64());
    }
    if (ArrayBuffer.isView(object)) {
      const { buffer, byteOffset, byteLength } = object;
      const bytes = new Uint8Array(buffer, byteOffset, byteLength);
      const name = object.constructor.name.toLowerCase();
      return this.#plainNotation(name, bytes.toBase64());
    }
    const openAt = this.#open.get(object);
    if (openAt !== undefined) {
      return this.#notation("ref", this.#path.pointer(openAt));
    }
    this.#open.set(object, this.#path.length);
    if (Array.isArray(object)) this.#array(object);
    else if (object instanceof SparseArray) this.#sparseArray(object);
    else if (object instanceof StoredMap) this.#map(object);
    else if (object instanceof StoredSet) {
      this.#begin("set");
      this.#path.push("$set");
      this.#elements(object.values);
      this.#path.pop();
      this.#text("}");
    } else if (object instanceof Boxed) {
      this.#begin("boxed");
      this.#value(object.value);
      this.#text("}");
    } else if (object instanceof StoredError) this.#error(object);
    else this.#properties(Object.entries(object));
    this.#open.delete(object);
  }

  #elements(elements: readonly unknown[]): void {
    this.#text("[");
    for (let i = 0; i < elements.length; i++) {
      if (i > 0) this.#text(",");
      this.#path.push(i);
      this.#value(elements[i]);
      this.#path.pop();
    }
    this.#text("]");
  }

  #array(array: unknown[]): void {
    const names = Object.keys(array);
    // Indexes come first and ascend: the last one tells of all before it.
    const { length } = array;
    const isWhole = names.length === length &&
      (length === 0 || names[length - 1] === String(length - 1));
    if (isWhole) return this.#elements(array);
    // Nothing is written for a hole, but it was looked at; and what would pass
    // the limit within this array is refused before it is listed.
    this.#count(Math.max(length, names.length));
    this.#nodes -= names.length;
    const items = names.map((name) =>
      [name, (array as unknown as Record<string, unknown>)[name]] as const
    );
    this.#items(length, items);
  }

  #sparseArray(array: SparseArray): void {
    const items = Object.entries(array.items);
    const isWhole = items.length === array.length &&
      items.every(([name], i) => name === String(i));
    if (isWhole) this.#elements(items.map(([, value]) => value));
    else this.#items(array.length, items);
  }

  #items(length: number, items: readonly (readonly [string, unknown])[]): void {
    this.#begin("array");
    this.#text(`{"length":${length},"items":`);
    this.#path.push("$array");
    this.#path.push("items");
    this.#members(items);
    this.#path.pop();
    this.#path.pop();
    this.#text("}}");
  }

  #map(map: StoredMap): void {
    this.#begin("map");
    this.#path.push("$map");
    this.#text("[");
    for (let i = 0; i < map.entries.length; i++) {
      if (i > 0) this.#text(",");
      this.#path.push(i);
      this.#elements(map.entries[i]);
      this.#path.pop();
    }
    this.#path.pop();
    this.#text("]}");
  }

  #error(error: StoredError): void {
    const { name, message, stack } = error;
    this.#begin("error");
    this.#text(`{"name":${JSON.stringify(name)}`);
    if (message !== undefined) {
      this.#text(`,"message":${JSON.stringify(message)}`);
    }
    if (stack !== undefined) this.#text(`,"stack":${JSON.stringify(stack)}`);
    if (error.hasCause) {
      this.#text(`,"cause":`);
      this.#path.push("$error");
      this.#path.push("cause");
      this.#value(error.cause);
      this.#path.pop();
      this.#path.pop();
    }
    this.#text("}}");
  }

  #properties(properties: [string, unknown][]): void {
    if (
      this.#isTyped && properties.length === 1 &&
      properties[0][0].startsWith("$")
    ) {
      properties = [["$" + properties[0][0], properties[0][1]]];
    }
    this.#members(properties);
  }

  #members(members: readonly (readonly [string, unknown])[]): void {
    this.#text("{");
    for (let i = 0; i < members.length; i++) {
      const [name, value] = members[i];
      this.#text(`${i > 0 ? "," : ""}${JSON.stringify(name)}:`);
      this.#path.push(name);
      this.#value(value);
      this.#path.pop();
    }
    this.#text("}");
  }
}
