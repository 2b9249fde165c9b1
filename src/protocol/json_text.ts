/**
 * A look over JSON that was sent, before anything is made of it. The half
 * megabyte that a body may have is 175,000 objects or 260,000 levels, which
 * took up to 0.15 s and 50 MB, to be refused in the end: what is stored has
 * 64 KiB.
 */
import { InvalidRequestError, TooLargeError } from "../common/errors.ts";
import { MAX_VALUE_BYTES } from "./limits.ts";
import { MAX_VALUE_DEPTH } from "./v8_format.ts";

/** A level of a value takes up to three of typed JSON: `{"$map":[[…]]}`. */
const MAX_JSON_DEPTH = 3 * MAX_VALUE_DEPTH + 1;

const QUOTE = 0x22;
const DOLLAR = 0x24;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_LIST = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_LIST = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const SPACE = 0x20;

/**
 * The least that each part of a document takes in V8's format. In typed JSON a
 * name that begins with `$` may be a notation, which takes nothing beside its
 * content; `empty` is for an object without a name.
 */
const PLAIN = { list: 5, object: 3, empty: 0, name: 2, text: 2, other: 1 };
const TYPED = { list: 1, object: 0, empty: 1, name: 1, text: 1, other: 1 };

/**
 * Refuses what would be too large or too deep; whether it is JSON at all is
 * for the parser to say.
 * @throws TooLargeError where it cannot fit into a value
 * @throws InvalidRequestError where it is nested too deeply
 */
export function checkJsonText(text: string, isTyped: boolean): void {
  // So short a text can be neither.
  if (text.length <= MAX_JSON_DEPTH) return;
  const least = isTyped ? TYPED : PLAIN;
  let bytes = 0;
  let depth = 0;
  let textAt = 0;
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case QUOTE:
        bytes += least.text;
        textAt = i;
        i = endOfText(text, i);
        break;
      case COLON:
        // The text before it was a name.
        bytes -= least.text;
        if (!isTyped || !mayBeNotation(text, textAt)) bytes += least.name;
        break;
      case OPEN_OBJECT:
        bytes += least.object;
        if (text.charCodeAt(i + 1) === CLOSE_OBJECT) bytes += least.empty;
        depth++;
        break;
      case OPEN_LIST:
        bytes += least.list;
        depth++;
        break;
      case CLOSE_OBJECT:
      case CLOSE_LIST:
        depth--;
        break;
      default:
        if (isBetween(text.charCodeAt(i))) break;
        bytes += least.other;
        while (i + 1 < text.length && !isBetween(text.charCodeAt(i + 1))) i++;
    }
    if (bytes > MAX_VALUE_BYTES) {
      throw new TooLargeError(
        `A value may take at most ${MAX_VALUE_BYTES} bytes where it is stored; the parts of this JSON take more. Nothing was written.`,
      );
    }
    if (depth > MAX_JSON_DEPTH) {
      throw new InvalidRequestError(
        `The value is nested more than ${MAX_VALUE_DEPTH} levels deep. Nothing was written.`,
      );
    }
  }
}

/** Where the text that begins at `start` has its closing quote. */
function endOfText(text: string, start: number): number {
  for (let i = start + 1; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === QUOTE) return i;
    if (code === BACKSLASH) i++;
  }
  return text.length;
}

/** Whether the text that begins here may begin with a `$`. */
function mayBeNotation(text: string, quoteAt: number): boolean {
  const first = text.charCodeAt(quoteAt + 1);
  return first === DOLLAR || first === BACKSLASH;
}

/** Whether the character ends a number or a word. */
function isBetween(code: number): boolean {
  return code <= SPACE || code === COMMA || code === CLOSE_LIST ||
    code === CLOSE_OBJECT || code === COLON;
}
