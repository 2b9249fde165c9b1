/**
 * What an atomic write does to the data, worked out before a single row is
 * touched: so a write that fails (a check, a sum of unlike kinds) leaves
 * nothing behind even inside a group commit, without a savepoint.
 *
 * Engine-neutral and synchronous. An engine in the process reads rows as they
 * are asked for; one across a network fetches the keys of checks and sums
 * first and hands in what it got.
 */
import { type Bytes, byteString, utf8 } from "../common/bytes.ts";
import {
  type AtomicWrite,
  Encoding,
  type Enqueue,
  type Mutation,
  MutationType,
  NEVER_MS,
} from "../protocol/messages.ts";
import { MAX_VALUE_BYTES } from "../protocol/limits.ts";
import { ABSENT_VERSION, versionstampHex } from "../protocol/versionstamp.ts";
import { decodeV8Number, encodeV8Number } from "../protocol/v8_number.ts";

/** A live row as the engine has it: absent and expired rows are undefined. */
export interface Row {
  value: Bytes;
  encoding: Encoding;
  version: number;
  order: number;
  expireAtMs: number;
}

export type ReadRow = (key: Bytes) => Row | undefined;

/** One change of a key; `value` null is a deletion. */
export interface Effect {
  key: Bytes;
  value: Bytes | null;
  encoding: Encoding;
  expireAtMs: number;
}

export type Evaluation =
  | { status: "ok"; effects: Effect[]; enqueues: Enqueue[] }
  | { status: "checkFailed"; failedChecks: number[] }
  | { status: "refused"; message: string };

/**
 * @param version, order the versionstamp the write will have if it commits
 * @param nowMs what is past its expiry now is absent for what follows
 * @param readRow the rows as of the commit before this one
 */
export function evaluate(
  write: AtomicWrite,
  version: number,
  order: number,
  nowMs: number,
  readRow: ReadRow,
): Evaluation {
  const { checks, mutations } = write;
  let failedChecks: number[] | undefined;
  for (let i = 0; i < checks.length; i++) {
    const check = checks[i];
    const row = readRow(check.key);
    const holds = row === undefined
      ? check.version === ABSENT_VERSION
      : row.version === check.version && row.order === check.order;
    if (!holds) (failedChecks ??= []).push(i);
  }
  if (failedChecks) return { status: "checkFailed", failedChecks };

  const effects: Effect[] = new Array(mutations.length);
  // What this very write has done to a key so far; made only when a sum, min
  // or max might have to see it.
  let earlier: Map<string, Effect> | undefined;
  for (let i = 0; i < mutations.length; i++) {
    const mutation = mutations[i];
    let effect: Effect;
    switch (mutation.type) {
      case MutationType.SET:
        effect = setTo(mutation, mutation.key, mutation.value);
        break;
      case MutationType.DELETE:
        effect = {
          key: mutation.key,
          value: null,
          encoding: Encoding.BYTES,
          expireAtMs: NEVER_MS,
        };
        break;
      case MutationType.SET_SUFFIX_VERSIONSTAMPED_KEY:
        effect = setTo(
          mutation,
          suffixedKey(mutation.key, version, order),
          mutation.value,
        );
        break;
      default: {
        if (earlier === undefined && i > 0) {
          earlier = new Map();
          for (let j = 0; j < i; j++) {
            earlier.set(byteString(effects[j].key), effects[j]);
          }
        }
        const before = earlier?.get(byteString(mutation.key));
        const stored = before === undefined
          ? readRow(mutation.key)
          : before.value === null || hasExpired(before, nowMs)
          ? undefined
          : before as StoredValue;
        const result = arithmetic(mutation, stored);
        if (typeof result === "string") {
          return { status: "refused", message: result };
        }
        effect = result;
      }
    }
    effects[i] = effect;
    earlier?.set(byteString(effect.key), effect);
  }
  return { status: "ok", effects, enqueues: write.enqueues };
}

function hasExpired({ expireAtMs }: Effect, nowMs: number): boolean {
  return expireAtMs !== NEVER_MS && expireAtMs <= nowMs;
}

interface StoredValue {
  value: Bytes;
  encoding: Encoding;
  expireAtMs: number;
}

function setTo(mutation: Mutation, key: Bytes, value: Bytes): Effect {
  const { encoding, expireAtMs } = mutation;
  return { key, value, encoding, expireAtMs };
}

/** The given key, and the versionstamp's 20 digits as one more string part. */
function suffixedKey(prefix: Bytes, version: number, order: number): Bytes {
  const digits = utf8(versionstampHex(version, order));
  const key = new Uint8Array(prefix.length + digits.length + 2);
  key.set(prefix);
  key[prefix.length] = 0x02;
  key.set(digits, prefix.length + 1);
  return key;
}

/** The effect of a sum, min or max, or a sentence why it cannot be. */
function arithmetic(
  mutation: Mutation,
  stored: StoredValue | undefined,
): Effect | string {
  const isLe64 = mutation.encoding === Encoding.LE64;
  const result = isLe64
    ? arithmeticLe64(mutation, stored)
    : sumV8(mutation, stored);
  if (typeof result === "string") return result;
  return {
    key: mutation.key,
    value: result.value,
    encoding: result.encoding,
    // A counter keeps the expiry it was given, unless the write names one.
    expireAtMs: mutation.expireAtMs === NEVER_MS && stored !== undefined
      ? stored.expireAtMs
      : mutation.expireAtMs,
  };
}

type NewValue = { value: Bytes; encoding: Encoding };

function arithmeticLe64(
  mutation: Mutation,
  stored: StoredValue | undefined,
): NewValue | string {
  if (stored === undefined) {
    return { value: mutation.value, encoding: Encoding.LE64 };
  }
  if (stored.encoding !== Encoding.LE64 || stored.value.length !== 8) {
    return "The stored value is not a KvU64, so a KvU64 cannot be added to or compared with it; nothing of the write was applied.";
  }
  const a = readLe64(stored.value);
  const b = readLe64(mutation.value);
  const result = mutation.type === MutationType.SUM
    ? a + b
    : mutation.type === MutationType.MIN
    ? (a < b ? a : b)
    : (a > b ? a : b);
  return { value: le64(result), encoding: Encoding.LE64 };
}

function sumV8(
  mutation: Mutation,
  stored: StoredValue | undefined,
): NewValue | string {
  const operand = decodeV8Number(mutation.value);
  if (operand === undefined) return UNLIKE_KINDS;
  const min = mutation.sumMin && decodeV8Number(mutation.sumMin);
  const max = mutation.sumMax && decodeV8Number(mutation.sumMax);
  const isBounded = min !== null || max !== null;
  let current: number | bigint | undefined;
  if (stored !== undefined) {
    if (
      stored.encoding === Encoding.LE64 && stored.value.length === 8 &&
      typeof operand === "bigint" && operand >= 0n && operand < 2n ** 64n &&
      !isBounded
    ) {
      return {
        value: le64(readLe64(stored.value) + operand),
        encoding: Encoding.LE64,
      };
    }
    current = stored.encoding === Encoding.V8
      ? decodeV8Number(stored.value)
      : undefined;
    if (current === undefined) return UNLIKE_KINDS;
  } else {
    current = typeof operand === "bigint" ? 0n : 0;
  }
  const kinds = [current, min ?? operand, max ?? operand];
  if (kinds.some((value) => typeof value !== typeof operand)) {
    return UNLIKE_KINDS;
  }
  let result = typeof operand === "bigint"
    ? (current as bigint) + operand
    : (current as number) + operand;
  if (min !== null && min !== undefined && result < min) {
    if (!mutation.sumClamp) return OUT_OF_RANGE;
    result = min;
  }
  if (max !== null && max !== undefined && result > max) {
    if (!mutation.sumClamp) return OUT_OF_RANGE;
    result = max;
  }
  const value = encodeV8Number(result);
  if (value.length > MAX_VALUE_BYTES) {
    return `The sum would take ${value.length} bytes, more than the ${MAX_VALUE_BYTES} that a value may have; nothing of the write was applied.`;
  }
  return { value, encoding: Encoding.V8 };
}

const UNLIKE_KINDS =
  "A sum needs a stored value, an operand and bounds of one kind (all numbers, or all bigints); nothing of the write was applied.";
const OUT_OF_RANGE =
  "The sum is outside its bounds; nothing of the write was applied.";

function readLe64(bytes: Bytes): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
}

/** Wraps at 2^64. */
function le64(value: bigint): Bytes {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
  return out;
}
