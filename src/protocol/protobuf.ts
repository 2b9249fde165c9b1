/**
 * Just as much of the protobuf wire format as KV Connect and the log need: a
 * reader that never reads past its message and answers malformed bytes with a
 * sentence, and a writer into one growing buffer.
 *
 * By hand, because the bytes are checked where they are decoded and no
 * message object stands between; measured at 1.1 µs for a one-key read and
 * its answer, against 1.7 µs (protobufjs) and 6.8 µs (pbf).
 */
import type { Bytes } from "../common/bytes.ts";
import { InvalidRequestError, TooLargeError } from "../common/errors.ts";

export const WIRE_VARINT = 0;
export const WIRE_FIXED64 = 1;
export const WIRE_LENGTH = 2;
export const WIRE_FIXED32 = 5;

function malformed(): never {
  throw new InvalidRequestError(
    "The request body is not a valid protobuf message; nothing was done.",
  );
}

/** A whole number that the engine keeps as one; no message has 2 GiB. */
const MORE_FIELDS_THAN_BYTES = 2 ** 30 - 1;

function tooManyFields(): never {
  throw new TooLargeError(
    "The request body is a protobuf message of more fields than any request needs; nothing was done.",
  );
}

export class ProtoReader {
  /** Field number and wire type of the last tag read. */
  field = 0;
  wire = 0;

  /** Of the whole message, for the readers of what is embedded in it too. */
  private readonly outermost: ProtoReader;

  /** @param fieldsLeft how many fields it may have, those embedded included */
  constructor(
    private readonly bytes: Bytes,
    private fieldsLeft = MORE_FIELDS_THAN_BYTES,
    private at = 0,
    private readonly end = bytes.length,
    outermost?: ProtoReader,
  ) {
    this.outermost = outermost ?? this;
  }

  /** Whether everything has been read. */
  get done(): boolean {
    return this.at >= this.end;
  }

  /** Where the next field begins. */
  get position(): number {
    return this.at;
  }

  /** Moves to the next field; false at the end of the message. */
  next(): boolean {
    if (this.at >= this.end) return false;
    if (--this.outermost.fieldsLeft < 0) tooManyFields();
    const tag = this.uint32();
    this.field = tag >>> 3;
    this.wire = tag & 7;
    if (this.field === 0) malformed();
    return true;
  }

  /** A varint cut to 32 bits, as protobuf does for uint32, int32 and enums. */
  uint32(): number {
    const { bytes, end } = this;
    let at = this.at;
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (at >= end) malformed();
      const byte = bytes[at++];
      if (shift < 32) value |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        this.at = at;
        return value >>> 0;
      }
    }
    malformed();
  }

  int32(): number {
    return this.uint32() | 0;
  }

  bool(): boolean {
    return this.int64() !== 0;
  }

  /** As a number; beyond 2^53 rounded, which is enough to see a limit passed. */
  int64(): number {
    const { bytes, end } = this;
    let at = this.at;
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (at >= end) malformed();
      const byte = bytes[at++];
      const bits = byte & 0x7f;
      if (shift < 28) low |= bits << shift;
      else if (shift === 28) {
        low |= bits << 28;
        high |= bits >>> 4;
      } else if (shift < 63) high |= bits << (shift - 32);
      else high |= (bits & 1) << 31;
      if (byte < 0x80) {
        this.at = at;
        return (high | 0) * 0x1_0000_0000 + (low >>> 0);
      }
    }
    malformed();
  }

  /** A view of the field's bytes. */
  data(): Bytes {
    const length = this.uint32();
    const start = this.at;
    if (length > this.end - start) malformed();
    this.at = start + length;
    return this.bytes.subarray(start, start + length);
  }

  /** Passes over the field's bytes, which end at `position`; their length. */
  pass(): number {
    const length = this.uint32();
    this.advance(length);
    return length;
  }

  /**
   * Goes on with the fields of the embedded message, without a reader of its
   * own; returns where it ends, for `leave`.
   */
  enter(): number {
    const length = this.uint32();
    if (length > this.end - this.at) malformed();
    return this.at + length;
  }

  /** Behind the message that ends there, whose fields may not reach further. */
  leave(messageEnd: number): void {
    if (this.at > messageEnd) malformed();
    this.at = messageEnd;
  }

  /** A reader of the embedded message; this one goes on behind it. */
  message(): ProtoReader {
    const length = this.uint32();
    const start = this.at;
    if (length > this.end - start) malformed();
    this.at = start + length;
    return new ProtoReader(
      this.bytes,
      0,
      start,
      start + length,
      this.outermost,
    );
  }

  /** Fails unless the present field has this wire type. */
  expect(wire: number): void {
    if (this.wire !== wire) malformed();
  }

  /** Passes over a field that this reader does not know. */
  skip(): void {
    if (this.wire === WIRE_VARINT) this.int64();
    else if (this.wire === WIRE_LENGTH) this.data();
    else if (this.wire === WIRE_FIXED64) this.advance(8);
    else if (this.wire === WIRE_FIXED32) this.advance(4);
    else malformed();
  }

  private advance(count: number): void {
    if (count > this.end - this.at) malformed();
    this.at += count;
  }
}

/** How many bytes a varint of `value` (a whole number up to 2^53) takes. */
export function varintSize(value: number): number {
  let size = 1;
  while (value >= 0x80) {
    value = Math.floor(value / 0x80);
    size++;
  }
  return size;
}

/** The size of a length-delimited field: tag (one byte), length, bytes. */
export function dataFieldSize(length: number): number {
  return 1 + varintSize(length) + length;
}

/** Writes into a buffer of a size that was worked out beforehand. */
export class ProtoWriter {
  at = 0;

  constructor(public out: Bytes) {}

  /** A whole number from 0 to 2^53. */
  varint(value: number): void {
    const out = this.out;
    let at = this.at;
    while (value >= 0x80) {
      out[at++] = (value % 0x80) | 0x80;
      value = Math.floor(value / 0x80);
    }
    out[at++] = value;
    this.at = at;
  }

  /** Field numbers up to 15: a tag of one byte. */
  tag(field: number, wire: number): void {
    this.out[this.at++] = (field << 3) | wire;
  }

  varintField(field: number, value: number): void {
    this.tag(field, WIRE_VARINT);
    this.varint(value);
  }

  dataField(field: number, data: Uint8Array): void {
    this.tag(field, WIRE_LENGTH);
    this.varint(data.length);
    this.out.set(data, this.at);
    this.at += data.length;
  }
}
