/**
 * What an atomic write does to the data, worked out before a single row is
 * touched: so a write that fails (a check, a sum of unlike kinds) leaves
 * nothing behind even inside a group commit, without a savepoint.
 *
 * Engine-neutral and synchronous. An engine in the process reads rows as they
 * are asked for; one across a network fetches the keys of checks and sums
 * first and hands in what it got.
 */
import { type Bytes, byteString, EMPTY_BYTES, utf8 } from "../common/bytes.ts";
import {
  type AtomicWrite,
  Encoding,
  type Enqueue,
  type Mutation,
  MutationType,
  NEVER_MS,
} from "../protocol/messages.ts";
import { ABSENT_VERSION, versionstampHex } from "../protocol/versionstamp.ts";
import { Counter, type StoredValue } from "./counter.ts";

/** A live row as the engine has it: absent and expired rows are undefined. */
export interface Row {
  value: Bytes;
  encoding: Encoding;
  version: number;
  order: number;
  expireAtMs: number;
}

export type ReadRow = (key: Bytes) => Row | undefined;

/** What a check asks of a row: a value may be 64 KiB, and is not looked at. */
export type RowStamp = Pick<Row, "version" | "order" | "expireAtMs">;

export type ReadStamp = (key: Bytes) => RowStamp | undefined;

/**
 * One change of a key; `value` null is a deletion. Several sets of one key may
 * follow each other, the last one counts; what sums, minima and maxima do to a
 * key is one effect, with whatever the write did to that key around them.
 */
export interface Effect {
  key: Bytes;
  value: Bytes | null;
  encoding: Encoding;
  expireAtMs: number;
}

export type Evaluation =
  | {
    status: "ok";
    effects: Effect[];
    enqueues: Enqueue[];
    /**
     * Keys, values and payloads that the write adds to the rows, the queue and
     * the log: it may be many times what was sent.
     */
    producedBytes: number;
  }
  | { status: "checkFailed"; failedChecks: number[] }
  | { status: "refused"; message: string };

/**
 * @param version, order the versionstamp the write will have if it commits
 * @param nowMs what is past its expiry now is absent for what follows
 * @param readRow the rows as of the commit before this one
 * @param readStamp the same without their values, for checks
 */
export function evaluate(
  write: AtomicWrite,
  version: number,
  order: number,
  nowMs: number,
  readRow: ReadRow,
  readStamp: ReadStamp = readRow,
): Evaluation {
  const { checks, mutations } = write;
  let failedChecks: number[] | undefined;
  for (let i = 0; i < checks.length; i++) {
    const check = checks[i];
    const row = readStamp(check.key);
    const holds = row === undefined
      ? check.version === ABSENT_VERSION
      : row.version === check.version && row.order === check.order;
    if (!holds) (failedChecks ??= []).push(i);
  }
  if (failedChecks) return { status: "checkFailed", failedChecks };

  const effects: Effect[] = [];
  // What this very write has done to each key so far; made only when a sum,
  // min or max might have to see it.
  let changes: Map<string, Change> | undefined;
  for (let i = 0; i < mutations.length; i++) {
    const mutation = mutations[i];
    if (isArithmetic(mutation.type)) {
      changes ??= changesOf(effects);
      // A lonely mutation needs no name to be found by.
      const name = mutations.length === 1 ? "" : byteString(mutation.key);
      const message = count(mutation, name, effects, changes, nowMs, readRow);
      if (message !== undefined) return { status: "refused", message };
      continue;
    }
    const effect = plainEffect(mutation, version, order);
    if (changes === undefined) {
      effects.push(effect);
      continue;
    }
    const name = byteString(effect.key);
    const index = changes.get(name)?.index ?? effects.length;
    effects[index] = effect;
    changes.set(name, { index, counter: undefined });
  }
  if (changes !== undefined) encodeCounters(effects, changes);
  const { enqueues } = write;
  const producedBytes = bytesOf(effects, enqueues);
  return { status: "ok", effects, enqueues, producedBytes };
}

/** What a write has done to a key so far. */
interface Change {
  /** Of the key's last effect. */
  index: number;
  /** Holds the value as long as it is counted; the effect has none then. */
  counter: Counter | undefined;
}

function isArithmetic(type: MutationType): boolean {
  return type === MutationType.SUM || type === MutationType.MIN ||
    type === MutationType.MAX;
}

function changesOf(effects: readonly Effect[]): Map<string, Change> {
  const changes = new Map<string, Change>();
  for (let i = 0; i < effects.length; i++) {
    const name = byteString(effects[i].key);
    changes.set(name, { index: i, counter: undefined });
  }
  return changes;
}

/** The effect of a mutation that depends on nothing stored. */
function plainEffect(
  mutation: Mutation,
  version: number,
  order: number,
): Effect {
  const { type, key, value, encoding, expireAtMs } = mutation;
  switch (type) {
    case MutationType.DELETE:
      return {
        key,
        value: null,
        encoding: Encoding.BYTES,
        expireAtMs: NEVER_MS,
      };
    case MutationType.SET_SUFFIX_VERSIONSTAMPED_KEY: {
      const suffixed = suffixedKey(key, version, order);
      return { key: suffixed, value, encoding, expireAtMs };
    }
    default:
      return { key, value, encoding, expireAtMs };
  }
}

/** Does a sum, min or max; a sentence where it cannot be. */
function count(
  mutation: Mutation,
  name: string,
  effects: Effect[],
  changes: Map<string, Change>,
  nowMs: number,
  readRow: ReadRow,
): string | undefined {
  const { key } = mutation;
  let change = changes.get(name);
  let before: { expireAtMs: number } | undefined;
  let counter: Counter;
  if (change === undefined) {
    const row = readRow(key);
    before = row;
    counter = new Counter(row);
    change = { index: effects.length, counter };
    changes.set(name, change);
  } else {
    const effect = effects[change.index];
    const value = liveValue(effect, nowMs);
    before = value && effect;
    counter = value && change.counter || new Counter(value);
    change.counter = counter;
  }
  const message = counter.apply(mutation);
  if (message !== undefined) return message;
  effects[change.index] = {
    key,
    value: EMPTY_BYTES,
    encoding: Encoding.V8,
    // A counter keeps the expiry it was given, unless the write names one.
    expireAtMs: mutation.expireAtMs === NEVER_MS && before !== undefined
      ? before.expireAtMs
      : mutation.expireAtMs,
  };
}

/** Undefined where a later mutation of the write sees the key as absent. */
function liveValue(effect: Effect, nowMs: number): StoredValue | undefined {
  const { value, encoding, expireAtMs } = effect;
  const hasExpired = expireAtMs !== NEVER_MS && expireAtMs <= nowMs;
  return value === null || hasExpired ? undefined : { value, encoding };
}

function encodeCounters(
  effects: readonly Effect[],
  changes: Map<string, Change>,
): void {
  for (const { index, counter } of changes.values()) {
    if (counter === undefined) continue;
    const { value, encoding } = counter.encode();
    effects[index].value = value;
    effects[index].encoding = encoding;
  }
}

function bytesOf(
  effects: readonly Effect[],
  enqueues: readonly Enqueue[],
): number {
  let bytes = 0;
  for (let i = 0; i < effects.length; i++) {
    const { key, value } = effects[i];
    bytes += key.length + (value === null ? 0 : value.length);
  }
  for (let i = 0; i < enqueues.length; i++) {
    bytes += enqueues[i].payload.length;
    for (const key of enqueues[i].keysIfUndelivered) bytes += key.length;
  }
  return bytes;
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
