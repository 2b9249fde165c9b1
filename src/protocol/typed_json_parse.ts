/**
 * JSON and typed JSON to values; the notation is in typed_json.ts. What comes
 * out is what `encodeValue` takes.
 */
import { InvalidRequestError, TooLargeError } from "../common/errors.ts";
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
} from "./stored_value.ts";
import { JsonPath } from "./json_path.ts";
import { checkJsonText } from "./json_text.ts";
import { VIEW_KINDS_BY_NAME } from "./typed_json.ts";
import { ERROR_KINDS, isIndex, MAX_VALUE_DEPTH } from "./v8_format.ts";

/** @throws InvalidRequestError, TooLargeError */
export function parseJson(text: string): unknown {
  checkJsonText(text, false);
  const value = parse(text);
  checkPlain(value, 0);
  return value;
}

/** @throws InvalidRequestError, TooLargeError */
export function parseTypedJson(text: string): unknown {
  checkJsonText(text, true);
  const node = parse(text);
  const content = contentOf(node, "kvu64");
  if (content !== undefined) return kvU64(content);
  return new Reader().value(node);
}

function parse(text: string): unknown {
  try {
    // A byte order mark is how some editors begin a file; it is no JSON.
    return JSON.parse(text.charCodeAt(0) === 0xfeff ? text.slice(1) : text);
  } catch {
    throw new InvalidRequestError(
      "The body is said to be JSON but is not. Nothing was written.",
    );
  }
}

function refuse(sentence: string): never {
  throw new InvalidRequestError(`${sentence} Nothing was written.`);
}

function refuseDepth(): never {
  refuse(`The value is nested more than ${MAX_VALUE_DEPTH} levels deep.`);
}

/** JSON can write numbers that a double cannot hold: they became infinite. */
function checkNumber(number: number): number {
  if (Number.isFinite(number)) return number;
  return refuse("The JSON has a number beyond what a 64-bit float can hold.");
}

function checkPlain(node: unknown, depth: number): void {
  if (typeof node === "number") checkNumber(node);
  if (typeof node !== "object" || node === null) return;
  if (depth >= MAX_VALUE_DEPTH) refuseDepth();
  for (const child of Object.values(node)) checkPlain(child, depth + 1);
}

/** The content of the notation `$name`, or undefined where it is another. */
function contentOf(node: unknown, name: string): unknown {
  if (typeof node !== "object" || node === null) return undefined;
  const names = Object.keys(node);
  if (names.length !== 1 || names[0] !== "$" + name) return undefined;
  return (node as Record<string, unknown>)[names[0]];
}

function kvU64(content: unknown): StoredU64 {
  const value = bigint(content, "kvu64");
  if (value < 0n || value >= 2n ** 64n) {
    refuse("A $kvu64 is a whole number from 0 to 18446744073709551615.");
  }
  return new StoredU64(value);
}

/**
 * Digits of all bigints of a document: a few more than a value has room for,
 * whether they are decimal or hexadecimal.
 */
const MAX_BIGINT_DIGITS = 160_000;

function bigint(content: unknown, name: string): bigint {
  if (
    typeof content !== "string" || content.length > MAX_BIGINT_DIGITS ||
    !/^-?(?:\d+|0x[\da-fA-F]+)$/.test(content)
  ) {
    return refuse(
      `$${name} takes a string of decimal digits, or of hexadecimal ones after 0x.`,
    );
  }
  return content.startsWith("-0x")
    ? -BigInt(content.slice(1))
    : BigInt(content);
}

const NUMBERS = new Map<unknown, number>([
  ["NaN", NaN],
  ["Infinity", Infinity],
  ["-Infinity", -Infinity],
]);

type JsonObject = Record<string, unknown>;

function isObject(node: unknown): node is JsonObject {
  return typeof node === "object" && node !== null && !Array.isArray(node);
}

class Reader {
  #path = new JsonPath();
  /** The objects that are being read, from the outermost to the innermost. */
  #open: object[] = [];
  /** How long the path to each of them is. */
  #openAt: number[] = [];
  #depth = 0;
  #bigintDigits = 0;

  value(node: unknown): unknown {
    if (typeof node === "number") return checkNumber(node);
    if (typeof node !== "object" || node === null) return node;
    if (++this.#depth > MAX_VALUE_DEPTH) refuseDepth();
    const { length } = this.#open;
    const value = this.#object(node);
    if (this.#open.length > length) {
      this.#open.pop();
      this.#openAt.pop();
    }
    this.#depth--;
    return value;
  }

  #object(node: object): unknown {
    if (Array.isArray(node)) {
      const array: unknown[] = this.#begin([]);
      for (let i = 0; i < node.length; i++) {
        array.push(this.#member(i, node[i]));
      }
      return array;
    }
    const entries = Object.entries(node);
    if (entries.length === 1 && entries[0][0].startsWith("$")) {
      const [name, content] = entries[0];
      if (!name.startsWith("$$")) return this.#notation(name.slice(1), content);
      const object = this.#begin({});
      setOwn(object, name.slice(1), this.#member(name, content));
      return object;
    }
    const object = this.#begin({});
    for (const [name, child] of entries) {
      setOwn(object, name, this.#member(name, child));
    }
    return object;
  }

  /** At most once for each node. */
  #begin<T extends object>(object: T): T {
    this.#open.push(object);
    this.#openAt.push(this.#path.length);
    return object;
  }

  /** What is at this name or index of the node being read. */
  #member(token: string | number, node: unknown): unknown {
    this.#path.push(token);
    const value = this.value(node);
    this.#path.pop();
    return value;
  }

  #notation(name: string, content: unknown): unknown {
    switch (name) {
      case "undefined":
        return content === null ? undefined : refuse("$undefined takes null.");
      case "number":
        return NUMBERS.get(content) ??
          refuse(`$number takes "NaN", "Infinity" or "-Infinity".`);
      case "bigint":
        return this.#bigint(content);
      case "date":
        return date(content);
      case "regexp":
        return regexp(content);
      case "map":
        return this.#map(content);
      case "set":
        return this.#set(content);
      case "array":
        return this.#sparseArray(content);
      case "boxed":
        return this.#boxed(content);
      case "error":
        return this.#error(content);
      case "ref":
        return this.#reference(content);
      case "arraybuffer":
        return new StoredBuffer(fromBase64(content, name));
      case "kvu64":
        return refuse("A $kvu64 can only be the whole value.");
    }
    const kind = VIEW_KINDS_BY_NAME.get(name);
    if (kind === undefined) {
      return refuse(
        `"$${name}" is no notation of typed JSON; an object with that member is written with "$$${name}".`,
      );
    }
    const bytes = fromBase64(content, name);
    if (bytes.length % kind.elementBytes !== 0) {
      refuse(`The bytes of a $${name} come in ${kind.elementBytes}s.`);
    }
    return new kind.make(bytes.buffer, 0, bytes.length / kind.elementBytes);
  }

  #bigint(content: unknown): bigint {
    if (typeof content === "string") this.#bigintDigits += content.length;
    if (this.#bigintDigits > MAX_BIGINT_DIGITS) {
      throw new TooLargeError(
        `The bigints of a value may have at most ${MAX_BIGINT_DIGITS} digits in all. Nothing was written.`,
      );
    }
    return bigint(content, "bigint");
  }

  #map(content: unknown): StoredMap {
    const map = this.#begin(new StoredMap());
    if (!Array.isArray(content)) return refuse("$map takes a list.");
    this.#path.push("$map");
    for (let i = 0; i < content.length; i++) {
      const entry: unknown = content[i];
      if (!Array.isArray(entry) || entry.length !== 2) {
        return refuse("$map takes a list of [key, value].");
      }
      this.#path.push(i);
      const key = this.#member(0, entry[0]);
      map.entries.push([key, this.#member(1, entry[1])]);
      this.#path.pop();
    }
    this.#path.pop();
    return map;
  }

  #set(content: unknown): StoredSet {
    const set = this.#begin(new StoredSet());
    if (!Array.isArray(content)) return refuse("$set takes a list.");
    this.#path.push("$set");
    for (let i = 0; i < content.length; i++) {
      set.values.push(this.#member(i, content[i]));
    }
    this.#path.pop();
    return set;
  }

  #sparseArray(content: unknown): SparseArray {
    if (!isObject(content)) return refuse(ARRAY_CONTENT);
    const { length, items } = content;
    if (
      typeof length !== "number" || length !== length >>> 0 ||
      !isObject(items) || Object.keys(content).length !== 2
    ) {
      return refuse(ARRAY_CONTENT);
    }
    const array = this.#begin(new SparseArray(length));
    this.#path.push("$array");
    this.#path.push("items");
    for (const [name, node] of Object.entries(items)) {
      if (name === "length" || (isIndex(name) && Number(name) >= length)) {
        refuse(`The $array has no place for an item "${name}".`);
      }
      array.items[name] = this.#member(name, node);
    }
    this.#path.pop();
    this.#path.pop();
    return array;
  }

  #boxed(content: unknown): Boxed {
    const value = this.#member("$boxed", content);
    switch (typeof value) {
      case "boolean":
      case "number":
      case "bigint":
      case "string":
        return new Boxed(value);
    }
    return refuse("$boxed takes a boolean, number, bigint or string.");
  }

  #error(content: unknown): StoredError {
    if (!isObject(content)) return refuse(ERROR_CONTENT);
    const { name, message, stack } = content;
    const isKnown = name === "Error" ||
      ERROR_KINDS.values().some((kind) => kind === name);
    if (
      !isKnown || !isText(message) || !isText(stack) ||
      Object.keys(content).some((member) => !ERROR_MEMBERS.has(member))
    ) {
      return refuse(ERROR_CONTENT);
    }
    const error = this.#begin(new StoredError(name as string));
    error.message = message;
    error.stack = stack;
    if (Object.hasOwn(content, "cause")) {
      this.#path.push("$error");
      error.cause = this.#member("cause", content.cause);
      error.hasCause = true;
      this.#path.pop();
    }
    return error;
  }

  #reference(content: unknown): object {
    const sentence = "$ref takes a JSON pointer to a value that it is in.";
    if (typeof content !== "string") return refuse(sentence);
    // What is further inside has a longer pointer: only one can be it.
    let low = 0;
    let high = this.#open.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#pointerTo(middle).length < content.length) low = middle + 1;
      else high = middle;
    }
    return low < this.#open.length && this.#pointerTo(low) === content
      ? this.#open[low]
      : refuse(sentence);
  }

  #pointerTo(open: number): string {
    return this.#path.pointer(this.#openAt[open]);
  }
}

const ARRAY_CONTENT =
  `$array takes {"length":<0 to 4294967295>,"items":{<index or name>:value}}.`;
const ERROR_MEMBERS = new Set(["name", "message", "stack", "cause"]);
const ERROR_CONTENT =
  `$error takes {"name","message","stack","cause"}, the name of a built-in error first.`;

function isText(node: unknown): node is string | undefined {
  return node === undefined || typeof node === "string";
}

function date(content: unknown): Date {
  if (content === null) return new Date(NaN);
  // As JSON writes a Date: other forms mean different things to different
  // readers.
  const isForm = typeof content === "string" &&
    /^(\d{4}|[+-]\d{6})-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(content);
  const value = new Date(isForm ? content as string : NaN);
  if (Number.isNaN(value.getTime())) {
    refuse(`$date takes a time as in "2024-01-31T12:00:00.000Z", or null.`);
  }
  return value;
}

function regexp(content: unknown): StoredRegExp {
  if (
    Array.isArray(content) && content.length === 2 &&
    typeof content[0] === "string" && typeof content[1] === "string" &&
    isRegExpFlags(content[1])
  ) return new StoredRegExp(content[0], content[1]);
  return refuse(
    "$regexp takes [pattern, flags]: flags are letters out of dgimsuvy, none of them twice, and not u and v together.",
  );
}

function fromBase64(content: unknown, name: string): Uint8Array<ArrayBuffer> {
  if (typeof content === "string") {
    try {
      return Uint8Array.fromBase64(content);
    } catch {
      // Said below, without the engine's words.
    }
  }
  return refuse(`$${name} takes its bytes in base64.`);
}
