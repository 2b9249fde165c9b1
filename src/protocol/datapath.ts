/**
 * The entrance of the KV Connect data path: protobuf bytes in, checked
 * requests out. What passes here is valid; every limit of the protocol is
 * applied here and nowhere else. Answers are in datapath_answers.ts.
 *
 * Messages and field numbers: the public schema `com.deno.kv.datapath`.
 */
import { type Bytes, EMPTY_BYTES } from "../common/bytes.ts";
import { InvalidRequestError, TooLargeError } from "../common/errors.ts";
import { isWellFormedKey, RESERVED_KEY_BYTE } from "./key.ts";
import * as limits from "./limits.ts";
import {
  type AtomicWrite,
  type Check,
  Encoding,
  type Enqueue,
  type Mutation,
  MutationType,
  NEVER_MS,
  type ReadRange,
} from "./messages.ts";
import { ProtoReader, WIRE_LENGTH, WIRE_VARINT } from "./protobuf.ts";
import { v8NumberKind } from "./v8_number.ts";
import {
  ABSENT_VERSION,
  readOrder,
  readVersion,
  VERSIONSTAMP_BYTES,
} from "./versionstamp.ts";

// ---------------------------------------------------------------- requests

function requestReader(body: Bytes): ProtoReader {
  return new ProtoReader(body, limits.MAX_MESSAGE_FIELDS);
}

/** @throws InvalidRequestError, TooLargeError: a 4xx with the sentence. */
export function decodeSnapshotRead(body: Bytes): ReadRange[] {
  const reader = requestReader(body);
  const ranges: ReadRange[] = [];
  let entries = 0;
  while (reader.next()) {
    if (reader.field !== 1) {
      reader.skip();
      continue;
    }
    reader.expect(WIRE_LENGTH);
    if (ranges.length === limits.MAX_RANGES_PER_READ) {
      throw new TooLargeError(
        `A read may ask for at most ${limits.MAX_RANGES_PER_READ} ranges.`,
      );
    }
    const range = decodeReadRange(reader.message());
    entries += range.limit;
    ranges.push(range);
  }
  if (entries > limits.MAX_ENTRIES_PER_READ) {
    throw new TooLargeError(
      `A read may ask for at most ${limits.MAX_ENTRIES_PER_READ} entries in all; this one asks for ${entries}.`,
    );
  }
  return ranges;
}

function decodeReadRange(reader: ProtoReader): ReadRange {
  let start: Bytes = EMPTY_BYTES;
  let end: Bytes = EMPTY_BYTES;
  let limit = 0;
  let reverse = false;
  while (reader.next()) {
    const field = reader.field;
    if (field === 1 || field === 2) {
      reader.expect(WIRE_LENGTH);
      if (field === 1) start = reader.data();
      else end = reader.data();
    } else if (field === 3 || field === 4) {
      reader.expect(WIRE_VARINT);
      if (field === 3) limit = reader.int32();
      else reverse = reader.bool();
    } else {
      reader.skip();
    }
  }
  return checkedRange(start, end, limit, reverse);
}

/** Applies the limits of a read to one range, whatever entrance it came by. */
export function checkedRange(
  start: Bytes,
  end: Bytes,
  limit: number,
  reverse: boolean,
): ReadRange {
  if (
    start.length > limits.MAX_READ_KEY_BYTES ||
    end.length > limits.MAX_READ_KEY_BYTES
  ) {
    throw new TooLargeError(
      `A key in a read may have at most ${limits.MAX_READ_KEY_BYTES} bytes.`,
    );
  }
  if (!(limit >= 1)) {
    throw new InvalidRequestError("The limit of a range must be at least 1.");
  }
  if (start[0] === RESERVED_KEY_BYTE) refuseReservedKey();
  // Keys under 0xFF are the server's own: no range reaches beyond the byte.
  if (end[0] === RESERVED_KEY_BYTE && end.length > 1) end = END_OF_KEYS;
  return { start, end, limit, reverse, isPoint: isSuccessor(start, end) };
}

const END_OF_KEYS: Bytes = new Uint8Array([RESERVED_KEY_BYTE]);

/** Whether `end` is `start` and one zero byte: then one key lies between. */
function isSuccessor(start: Bytes, end: Bytes): boolean {
  const length = start.length;
  if (end.length !== length + 1 || end[length] !== 0) return false;
  // From the back: neighbouring keys differ there.
  for (let i = length - 1; i >= 0; i--) if (start[i] !== end[i]) return false;
  return true;
}

/**
 * @param nowMs the present, for the limit on a queue message's delay
 * @throws InvalidRequestError, TooLargeError: a 4xx with the sentence.
 */
export function decodeAtomicWrite(body: Bytes, nowMs: number): AtomicWrite {
  const reader = requestReader(body);
  const write: AtomicWrite = {
    checks: [],
    mutations: [],
    enqueues: [],
    heldBytes: body.buffer.byteLength,
  };
  let sizeBytes = 0;
  while (reader.next()) {
    const field = reader.field;
    if (field < 1 || field > 3) {
      reader.skip();
      continue;
    }
    reader.expect(WIRE_LENGTH);
    if (field === 1) {
      if (write.checks.length === limits.MAX_CHECKS) {
        throw new TooLargeError(
          `An atomic write may have at most ${limits.MAX_CHECKS} checks.`,
        );
      }
      const check = decodeCheck(reader.message());
      sizeBytes += check.key.length;
      if (sizeBytes > limits.MAX_ATOMIC_WRITE_BYTES) refuseWriteSize();
      write.checks.push(check);
      continue;
    }
    const count = write.mutations.length + write.enqueues.length;
    if (count === limits.MAX_MUTATIONS) {
      throw new TooLargeError(
        `An atomic write may have at most ${limits.MAX_MUTATIONS} mutations and enqueues in all.`,
      );
    }
    if (field === 2) {
      const mutation = decodeMutation(reader.message());
      sizeBytes += mutation.key.length + mutation.value.length;
      write.mutations.push(mutation);
    } else {
      const enqueue = decodeEnqueue(reader.message(), nowMs);
      sizeBytes += enqueue.payload.length;
      for (const key of enqueue.keysIfUndelivered) sizeBytes += key.length;
      write.enqueues.push(enqueue);
    }
    // At once: what follows would be checked in vain.
    if (sizeBytes > limits.MAX_ATOMIC_WRITE_BYTES) refuseWriteSize();
  }
  return body.buffer.byteLength > 2 * sizeBytes + MAX_IDLE_BODY_BYTES
    ? withoutBody(write)
    : write;
}

/**
 * A write waits with the body that its keys and values are views of. Past
 * twice what is kept of it and this, what is kept is copied out.
 */
const MAX_IDLE_BODY_BYTES = 16 * 1024;

function withoutBody(
  { checks, mutations, enqueues }: AtomicWrite,
): AtomicWrite {
  let heldBytes = 0;
  const copy = (bytes: Bytes): Bytes => {
    heldBytes += bytes.length;
    return bytes.slice();
  };
  for (const check of checks) check.key = copy(check.key);
  for (const mutation of mutations) {
    const { key, value, sumMin, sumMax } = mutation;
    mutation.key = copy(key);
    mutation.value = copy(value);
    mutation.sumMin = sumMin && copy(sumMin);
    mutation.sumMax = sumMax && copy(sumMax);
  }
  for (const enqueue of enqueues) {
    enqueue.payload = copy(enqueue.payload);
    enqueue.keysIfUndelivered = enqueue.keysIfUndelivered.map(copy);
  }
  return { checks, mutations, enqueues, heldBytes };
}

function refuseWriteSize(): never {
  throw new TooLargeError(
    `The keys, values and payloads of an atomic write may have at most ${limits.MAX_ATOMIC_WRITE_BYTES} bytes in all; this one has more.`,
  );
}

function decodeCheck(reader: ProtoReader): Check {
  let key: Bytes = EMPTY_BYTES;
  let versionstamp: Bytes = EMPTY_BYTES;
  while (reader.next()) {
    const field = reader.field;
    if (field === 1 || field === 2) {
      reader.expect(WIRE_LENGTH);
      if (field === 1) key = reader.data();
      else versionstamp = reader.data();
    } else reader.skip();
  }
  checkKey(key, "checked");
  if (versionstamp.length === 0) {
    return { key, version: ABSENT_VERSION, order: 0 };
  }
  if (versionstamp.length !== VERSIONSTAMP_BYTES) {
    throw new InvalidRequestError(
      `The versionstamp of a check must have 0 or ${VERSIONSTAMP_BYTES} bytes; this one has ${versionstamp.length}.`,
    );
  }
  return {
    key,
    version: readVersion(versionstamp, 0),
    order: readOrder(versionstamp, 0),
  };
}

function decodeMutation(reader: ProtoReader): Mutation {
  let key: Bytes = EMPTY_BYTES;
  let value: Bytes | null = null;
  let encoding = 0;
  let type = 0;
  let expireAtMs = 0;
  let sumMin: Bytes | null = null;
  let sumMax: Bytes | null = null;
  let sumClamp = false;
  while (reader.next()) {
    switch (reader.field) {
      case 1:
        reader.expect(WIRE_LENGTH);
        key = reader.data();
        break;
      case 2: {
        reader.expect(WIRE_LENGTH);
        const inner = reader.message();
        value ??= EMPTY_BYTES;
        while (inner.next()) {
          if (inner.field === 1) {
            inner.expect(WIRE_LENGTH);
            value = inner.data();
          } else if (inner.field === 2) {
            inner.expect(WIRE_VARINT);
            encoding = inner.int32();
          } else inner.skip();
        }
        break;
      }
      case 3:
        reader.expect(WIRE_VARINT);
        type = reader.int32();
        break;
      case 4:
        reader.expect(WIRE_VARINT);
        expireAtMs = reader.int64();
        break;
      case 5:
        reader.expect(WIRE_LENGTH);
        sumMin = reader.data();
        break;
      case 6:
        reader.expect(WIRE_LENGTH);
        sumMax = reader.data();
        break;
      case 7:
        reader.expect(WIRE_VARINT);
        sumClamp = reader.bool();
        break;
      default:
        reader.skip();
    }
  }
  return checkedMutation({
    type,
    key,
    value,
    encoding,
    expireAtMs,
    // An empty bound is how some encoders write "none".
    sumMin: sumMin?.length ? sumMin : null,
    sumMax: sumMax?.length ? sumMax : null,
    sumClamp,
  });
}

/** What an entrance knows of a mutation before it is checked. */
export interface RawMutation {
  type: number;
  key: Bytes;
  /** null where the message carried no value at all. */
  value: Bytes | null;
  encoding: number;
  /** 0 and -1 both stand for never. */
  expireAtMs: number;
  sumMin: Bytes | null;
  sumMax: Bytes | null;
  sumClamp: boolean;
}

/** Applies every rule about a single mutation, whatever entrance it came by. */
export function checkedMutation(raw: RawMutation): Mutation {
  const { type, key } = raw;
  if (type === MutationType.SET_SUFFIX_VERSIONSTAMPED_KEY) {
    checkKeyPrefix(key);
  } else {
    checkKey(key, "written");
  }
  if (type === MutationType.DELETE) {
    return {
      type,
      key,
      value: EMPTY_BYTES,
      encoding: Encoding.BYTES,
      expireAtMs: NEVER_MS,
      sumMin: null,
      sumMax: null,
      sumClamp: false,
    };
  }
  if (!isKnownMutation(type)) {
    throw new InvalidRequestError(
      `The mutation type ${type} is not one this server knows; nothing was done.`,
    );
  }
  const { value, encoding } = raw;
  if (value === null) {
    throw new InvalidRequestError("A mutation that needs a value has none.");
  }
  checkValue(value, encoding);
  const isSum = type === MutationType.SUM;
  const isArithmetic = isSum || type === MutationType.MIN ||
    type === MutationType.MAX;
  if (isArithmetic) checkOperand(raw, value, isSum);
  return {
    type,
    key,
    value,
    encoding,
    expireAtMs: checkedExpiry(raw.expireAtMs),
    sumMin: isSum ? raw.sumMin : null,
    sumMax: isSum ? raw.sumMax : null,
    sumClamp: isSum && raw.sumClamp,
  };
}

function isKnownMutation(type: number): type is MutationType {
  return (type >= MutationType.SET && type <= MutationType.MIN) ||
    type === MutationType.SET_SUFFIX_VERSIONSTAMPED_KEY;
}

function checkValue(
  value: Bytes,
  encoding: number,
): asserts encoding is Encoding {
  if (value.length > limits.MAX_VALUE_BYTES) {
    throw new TooLargeError(
      `A value may have at most ${limits.MAX_VALUE_BYTES} bytes; this one has ${value.length}.`,
    );
  }
  if (
    encoding !== Encoding.V8 && encoding !== Encoding.BYTES &&
    encoding !== Encoding.LE64
  ) {
    throw new InvalidRequestError(
      `The value encoding ${encoding} is not one this server knows; nothing was done.`,
    );
  }
  if (encoding === Encoding.LE64 && value.length !== 8) {
    throw new InvalidRequestError(
      `A value of encoding LE64 must have 8 bytes; this one has ${value.length}.`,
    );
  }
}

/**
 * The first words are those that the Rust server says; no bigint is made here,
 * so one that is too large costs nothing.
 */
function checkOperand(raw: RawMutation, value: Bytes, isSum: boolean): void {
  if (raw.encoding === Encoding.LE64) {
    if (isSum && (raw.sumMin || raw.sumMax || raw.sumClamp)) {
      throw new InvalidRequestError(
        "Cannot use min/max parameters with KvU64 operands: a sum of KvU64 values wraps at 2^64 and takes no bounds. Nothing was done.",
      );
    }
    return;
  }
  if (!isSum) {
    const name = raw.type === MutationType.MIN ? "min" : "max";
    throw new InvalidRequestError(
      `Failed to perform '${name}' mutation on a non-U64 operand: min and max take a KvU64. Nothing was done.`,
    );
  }
  if (raw.encoding !== Encoding.V8) refuseParameters();
  checkParameter(value);
  if (raw.sumMin) checkParameter(raw.sumMin);
  if (raw.sumMax) checkParameter(raw.sumMax);
}

function checkParameter(value: Bytes): void {
  const kind = v8NumberKind(value);
  if (kind === undefined) refuseParameters();
  if (kind === "LargeBigInt") {
    throw new TooLargeError(
      `The bigints of a sum and its result may have at most ${limits.MAX_SUM_BIGINT_BYTES} bytes; the operand or a bound has more. Nothing was done.`,
    );
  }
}

function refuseParameters(): never {
  throw new InvalidRequestError(
    "Some of the parameters are not valid V8 values: sum takes a KvU64, a number or a bigint, and bounds of the same kind. Nothing was done.",
  );
}

/**
 * 0 and -1 are never. A time beyond what a file can hold exactly is further
 * away than any clock: the largest exact one stands for it.
 */
function checkedExpiry(expireAtMs: number): number {
  if (expireAtMs === 0 || expireAtMs === -1) return NEVER_MS;
  if (expireAtMs < 0) {
    throw new InvalidRequestError(
      "An expiry time must be -1 or 0 (never) or milliseconds since 1970.",
    );
  }
  return Math.min(expireAtMs, Number.MAX_SAFE_INTEGER);
}

function decodeEnqueue(reader: ProtoReader, nowMs: number): Enqueue {
  let payload: Bytes = EMPTY_BYTES;
  let deadlineMs = 0;
  const keysIfUndelivered: Bytes[] = [];
  const backoff: number[] = [];
  while (reader.next()) {
    switch (reader.field) {
      case 1:
        reader.expect(WIRE_LENGTH);
        payload = reader.data();
        break;
      case 2:
        reader.expect(WIRE_VARINT);
        deadlineMs = reader.int64();
        break;
      case 3: {
        reader.expect(WIRE_LENGTH);
        const key = reader.data();
        checkKey(key, "undelivered");
        keysIfUndelivered.push(key);
        break;
      }
      case 4:
        // Packed or not: both are legal for a repeated number.
        if (reader.wire === WIRE_VARINT) backoff.push(reader.uint32());
        else {
          reader.expect(WIRE_LENGTH);
          const packed = reader.message();
          while (
            !packed.done && backoff.length <= limits.MAX_BACKOFF_INTERVALS
          ) backoff.push(packed.uint32());
        }
        break;
      default:
        reader.skip();
    }
    if (keysIfUndelivered.length > limits.MAX_UNDELIVERED_KEYS) {
      throw new TooLargeError(
        `A queue message may name at most ${limits.MAX_UNDELIVERED_KEYS} keys for when it is undelivered.`,
      );
    }
    if (backoff.length > limits.MAX_BACKOFF_INTERVALS) {
      throw new TooLargeError(
        `A backoff schedule may have at most ${limits.MAX_BACKOFF_INTERVALS} intervals.`,
      );
    }
  }
  if (payload.length > limits.MAX_VALUE_BYTES) {
    throw new TooLargeError(
      `The payload of a queue message may have at most ${limits.MAX_VALUE_BYTES} bytes; this one has ${payload.length}.`,
    );
  }
  if (backoff.some((interval) => interval > limits.MAX_BACKOFF_INTERVAL_MS)) {
    throw new InvalidRequestError(
      `A backoff interval may be at most ${limits.MAX_BACKOFF_INTERVAL_MS} ms.`,
    );
  }
  if (deadlineMs < 0 || deadlineMs > nowMs + limits.MAX_QUEUE_DELAY_MS) {
    throw new InvalidRequestError(
      "A queue message may be delayed by at most 30 days.",
    );
  }
  return {
    payload,
    deadlineMs,
    keysIfUndelivered,
    backoffScheduleMs: backoff.length > 0 ? backoff : null,
  };
}

/** @throws InvalidRequestError, TooLargeError: a 4xx with the sentence. */
export function decodeWatch(body: Bytes): Bytes[] {
  const reader = requestReader(body);
  const keys: Bytes[] = [];
  while (reader.next()) {
    if (reader.field !== 1) {
      reader.skip();
      continue;
    }
    reader.expect(WIRE_LENGTH);
    if (keys.length === limits.MAX_WATCHED_KEYS) {
      throw new TooLargeError(
        `A watch may name at most ${limits.MAX_WATCHED_KEYS} keys.`,
      );
    }
    const inner = reader.message();
    let key: Bytes = EMPTY_BYTES;
    while (inner.next()) {
      if (inner.field === 1) {
        inner.expect(WIRE_LENGTH);
        key = inner.data();
      } else inner.skip();
    }
    checkKey(key, "watched");
    keys.push(key);
  }
  return keys;
}

/** A whole key that may be stored. */
export function checkKey(key: Bytes, what: string): void {
  if (key.length === 0) {
    throw new InvalidRequestError(`A ${what} key must not be empty.`);
  }
  if (key.length > limits.MAX_WRITE_KEY_BYTES) {
    throw new TooLargeError(
      `A ${what} key may have at most ${limits.MAX_WRITE_KEY_BYTES} bytes; this one has ${key.length}.`,
    );
  }
  if (key[0] === RESERVED_KEY_BYTE) refuseReservedKey();
  if (!isWellFormedKey(key)) {
    throw new InvalidRequestError(
      `A ${what} key is not a valid encoding of key parts.`,
    );
  }
}

/** The part of a key that a versionstamp is appended to; it may be empty. */
function checkKeyPrefix(prefix: Bytes): void {
  if (prefix.length === 0) return;
  const longest = limits.MAX_WRITE_KEY_BYTES - limits.VERSIONSTAMP_SUFFIX_BYTES;
  if (prefix.length > longest) {
    throw new TooLargeError(
      `A key that a versionstamp is appended to may have at most ${longest} bytes; this one has ${prefix.length}.`,
    );
  }
  checkKey(prefix, "written");
}

function refuseReservedKey(): never {
  throw new InvalidRequestError(
    "Keys that begin with the byte 0xFF belong to the server.",
  );
}
