/**
 * What sums, minima and maxima make of a key's value. A counter is decoded
 * once and encoded once, however many mutations of a write change it: with the
 * 64 KiB that a value may have, a thousand sums in one write took seconds, and
 * each left a copy in the log.
 *
 * The first words of each message are those of the Rust server: programs and
 * Deno's own tests match them.
 */
import type { Bytes } from "../common/bytes.ts";
import { MAX_SUM_BIGINT_BYTES } from "../protocol/limits.ts";
import { Encoding, type Mutation, MutationType } from "../protocol/messages.ts";
import {
  decodeV8Number,
  encodeV8Number,
  isLargeBigint,
  type V8NumberKind,
  v8NumberKind,
} from "../protocol/v8_number.ts";

/** A value as it is stored or as it is to be. */
export interface StoredValue {
  value: Bytes;
  encoding: Encoding;
}

type Kind = "Absent" | "KvU64" | V8NumberKind | "Other";

const MAX_U64 = 2n ** 64n - 1n;

export class Counter {
  #kind: Kind = "Absent";
  #value: number | bigint = 0;

  /** @param stored undefined where the key is absent */
  constructor(stored: StoredValue | undefined) {
    if (stored === undefined) return;
    const { value, encoding } = stored;
    if (encoding === Encoding.LE64 && value.length === 8) {
      this.#kind = "KvU64";
      this.#value = readLe64(value);
      return;
    }
    const kind = encoding === Encoding.V8 ? v8NumberKind(value) : undefined;
    this.#kind = kind ?? "Other";
    if (kind === "Number" || kind === "BigInt") {
      this.#value = decodeV8Number(value)!;
    }
  }

  /** Applies a sum, min or max; a sentence where it cannot be. */
  apply(mutation: Mutation): string | undefined {
    return mutation.encoding === Encoding.LE64
      ? this.#applyU64(mutation)
      : this.#sum(mutation);
  }

  /** After at least one `apply`. */
  encode(): StoredValue {
    return this.#kind === "KvU64"
      ? { value: le64(this.#value as bigint), encoding: Encoding.LE64 }
      : { value: encodeV8Number(this.#value), encoding: Encoding.V8 };
  }

  #applyU64({ type, value }: Mutation): string | undefined {
    const operand = readLe64(value);
    if (this.#kind === "Absent") {
      this.#kind = "KvU64";
      this.#value = operand;
      return;
    }
    if (this.#kind !== "KvU64") {
      return `Failed to perform '${
        nameOf(type)
      }' mutation on a non-U64 value in the database: only a KvU64 takes a KvU64; ${NOT_APPLIED}`;
    }
    const current = this.#value as bigint;
    if (type === MutationType.SUM) {
      this.#value = BigInt.asUintN(64, current + operand);
    } else if (type === MutationType.MIN) {
      if (operand < current) this.#value = operand;
    } else if (operand > current) {
      this.#value = operand;
    }
  }

  #sum(mutation: Mutation): string | undefined {
    const { value, sumMin, sumMax } = mutation;
    const operand = decodeV8Number(value);
    if (operand === undefined) return UNSUPPORTED;
    const min = sumMin ? decodeV8Number(sumMin) : undefined;
    const max = sumMax ? decodeV8Number(sumMax) : undefined;
    const isBounded = sumMin !== null || sumMax !== null;
    if (
      isBounded &&
      (typeof (sumMin ? min : operand) !== typeof operand ||
        typeof (sumMax ? max : operand) !== typeof operand)
    ) return UNLIKE_BOUNDS;
    const kind = typeof operand === "bigint" ? "BigInt" : "Number";
    switch (this.#kind) {
      case "Other":
        return UNSUPPORTED;
      case "LargeBigInt":
        return TOO_LARGE;
      case "Absent":
        this.#kind = kind;
        this.#value = kind === "BigInt" ? 0n : 0;
        break;
      case "KvU64":
        if (
          typeof operand === "bigint" && operand >= 0n && operand <= MAX_U64 &&
          !isBounded
        ) {
          this.#value = BigInt.asUintN(64, this.#value as bigint + operand);
          return;
        }
        return unlike(this.#kind, kind);
    }
    if (this.#kind !== kind) return unlike(this.#kind, kind);
    let result = typeof operand === "bigint"
      ? (this.#value as bigint) + operand
      : (this.#value as number) + operand;
    if (min !== undefined && result < min) {
      if (!mutation.sumClamp) return OUT_OF_RANGE;
      result = min;
    }
    if (max !== undefined && result > max) {
      if (!mutation.sumClamp) return OUT_OF_RANGE;
      result = max;
    }
    if (typeof result === "bigint" && isLargeBigint(result)) return TOO_LARGE;
    this.#value = result;
  }
}

const NOT_APPLIED = "nothing of the write was applied.";
const UNSUPPORTED =
  `unsupported value type: a sum takes and leaves a KvU64, a number or a bigint, and the stored value or the operand is none; ${NOT_APPLIED}`;
const UNLIKE_BOUNDS =
  `Min/max parameters have different types than the operand: both are numbers or both are bigints; ${NOT_APPLIED}`;
const OUT_OF_RANGE =
  `The result of a Sum operation would exceed its range limit: it is outside the bounds that the sum names; ${NOT_APPLIED}`;
const TOO_LARGE =
  `The bigints of a sum and its result may have at most ${MAX_SUM_BIGINT_BYTES} bytes, and the stored value or the result has more; ${NOT_APPLIED}`;

function unlike(stored: string, operand: string): string {
  return `Cannot sum ${stored} with ${operand}: the stored value and the operand have to be of one kind; ${NOT_APPLIED}`;
}

function nameOf(type: MutationType): string {
  if (type === MutationType.SUM) return "sum";
  return type === MutationType.MIN ? "min" : "max";
}

function readLe64(bytes: Bytes): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
}

function le64(value: bigint): Bytes {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, value, true);
  return out;
}
