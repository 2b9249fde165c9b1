/**
 * What a Deno KV database does, as plainly as it can be said: a map in memory
 * and no bytes but those of keys. Written apart from src/store/evaluate.ts, so
 * that a mistake there is not made here too.
 */
import type { Bytes } from "../../src/common/bytes.ts";
import { utf8 } from "../../src/common/bytes.ts";
import {
  type AtomicWrite,
  Encoding,
  type Enqueue,
  type Entry,
  type Mutation,
  MutationType,
  NEVER_MS,
  type ReadRange,
} from "../../src/protocol/messages.ts";
import {
  decodeV8Number,
  encodeV8Number,
} from "../../src/protocol/v8_number.ts";
import { versionstampHex } from "../../src/protocol/versionstamp.ts";

export type Value =
  | { kind: "u64" | "bigint"; n: bigint }
  | { kind: "number"; n: number }
  | { kind: "v8" | "bytes"; hex: string };

export interface Change {
  do: "set" | "delete" | "sum" | "min" | "max" | "suffix";
  key: string;
  value?: Value;
  expireAtMs?: number;
  min?: Value;
  max?: Value;
  clamp?: boolean;
}

export interface Write {
  /** A version, null for absent; keys are hex. */
  checks: { key: string; version: number | null }[];
  changes: Change[];
  enqueues: Enqueue[];
}

export interface Row {
  value: Value;
  version: number;
  expireAtMs: number;
}

/** The rows of one moment by key in hex, which sorts as the bytes do. */
export type Snapshot = ReadonlyMap<string, Row>;

export type Plan =
  | { status: "committed"; commit: (version: number) => void }
  | { status: "checkFailed"; failedChecks: number[] }
  | { status: "refused" };

const U64 = 2n ** 64n;

export class Model {
  rows = new Map<string, Row>();
  nowMs: number;

  constructor(nowMs: number) {
    this.nowMs = nowMs;
  }

  snapshot(): Snapshot {
    return new Map(this.rows);
  }

  /** Drops what has expired; nobody can tell whether it was done. */
  setTime(nowMs: number): void {
    this.nowMs = nowMs;
    for (const [key, row] of this.rows) {
      if (isExpired(row, nowMs)) this.rows.delete(key);
    }
  }

  /** The moments up to `untilMs` at which something expires, in order. */
  expiriesUpTo(untilMs: number): number[] {
    const times = new Set<number>();
    for (const { expireAtMs } of this.rows.values()) {
      if (expireAtMs > this.nowMs && expireAtMs <= untilMs) {
        times.add(expireAtMs);
      }
    }
    return [...times].sort((a, b) => a - b);
  }

  /** What becomes of a write now; `commit` applies it. */
  plan(write: Write): Plan {
    const failedChecks: number[] = [];
    write.checks.forEach(({ key, version }, i) => {
      const current = this.rows.get(key)?.version ?? null;
      if (current !== version) failedChecks.push(i);
    });
    if (failedChecks.length > 0) return { status: "checkFailed", failedChecks };
    // The version is not known yet, and no result but a suffixed key needs it.
    const touched = new Map<string, Omit<Row, "version"> | null>();
    for (const change of write.changes) {
      const row = touched.has(change.key)
        ? touched.get(change.key)!
        : this.rows.get(change.key) ?? null;
      const after = this.apply(change, row);
      if (after === "refused") return { status: "refused" };
      touched.set(suffixMark(change), after);
    }
    return {
      status: "committed",
      commit: (version) => {
        for (const [marked, row] of touched) {
          const key = marked.startsWith("+")
            ? marked.slice(1) + suffixHex(version)
            : marked;
          if (row === null || isExpired(row, this.nowMs)) this.rows.delete(key);
          else this.rows.set(key, { ...row, version });
        }
      },
    };
  }

  private apply(
    change: Change,
    row: Omit<Row, "version"> | null,
  ): Omit<Row, "version"> | null | "refused" {
    const expireAtMs = change.expireAtMs ?? NEVER_MS;
    if (change.do === "delete") return null;
    if (change.do === "set" || change.do === "suffix") {
      return { value: change.value!, expireAtMs };
    }
    const value = combined(change, row?.value);
    if (value === "refused") return value;
    const keeps = expireAtMs === NEVER_MS && row !== null;
    return { value, expireAtMs: keeps ? row.expireAtMs : expireAtMs };
  }
}

function isExpired(row: { expireAtMs: number }, nowMs: number): boolean {
  return row.expireAtMs !== NEVER_MS && row.expireAtMs <= nowMs;
}

/** Suffixed keys get their name at the commit; the last one of a prefix stays. */
const suffixMark = (change: Change) =>
  change.do === "suffix" ? "+" + change.key : change.key;

const suffixHex = (version: number) =>
  "02" + utf8(versionstampHex(version, 0)).toHex() + "00";

function combined(
  change: Change,
  stored: Value | undefined,
): Value | "refused" {
  const by = change.value!;
  if (by.kind === "u64") {
    if (stored === undefined) return by;
    if (stored.kind !== "u64") return "refused";
    const [a, b] = [stored.n, by.n];
    if (change.do === "sum") return { kind: "u64", n: (a + b) % U64 };
    const takesOld = change.do === "min" ? a < b : a > b;
    return takesOld ? stored : by;
  }
  if (by.kind !== "number" && by.kind !== "bigint") return "refused";
  const { min, max } = change;
  if (stored?.kind === "u64") {
    const fits = by.kind === "bigint" && by.n >= 0n && by.n < U64;
    if (!fits || min || max) return "refused";
    return { kind: "u64", n: (stored.n + by.n) % U64 };
  }
  for (const other of [stored, min, max]) {
    if (other !== undefined && other.kind !== by.kind) return "refused";
  }
  const start = by.kind === "number" ? 0 : 0n;
  let sum = plus(stored === undefined ? start : numberOf(stored), by.n);
  const isBelow = min !== undefined && sum < numberOf(min);
  if (isBelow) sum = numberOf(min);
  const isAbove = max !== undefined && sum > numberOf(max);
  if (isAbove) sum = numberOf(max);
  if ((isBelow || isAbove) && !change.clamp) return "refused";
  return typeof sum === "number"
    ? { kind: "number", n: sum }
    : { kind: "bigint", n: sum };
}

function numberOf(value: Value): number | bigint {
  if ("n" in value) return value.n;
  throw new TypeError("not a number");
}

/** Of one kind, both of them. */
function plus(a: number | bigint, b: number | bigint): number | bigint {
  return typeof a === "bigint" ? a + (b as bigint) : a + (b as number);
}

// ------------------------------------------------ to and from the protocol

export function toAtomicWrite(write: Write): AtomicWrite {
  return {
    checks: write.checks.map(({ key, version }) => ({
      key: Uint8Array.fromHex(key),
      version: version ?? -1,
      order: 0,
    })),
    mutations: write.changes.map(toMutation),
    enqueues: write.enqueues,
  };
}

const TYPES = {
  set: MutationType.SET,
  delete: MutationType.DELETE,
  sum: MutationType.SUM,
  min: MutationType.MIN,
  max: MutationType.MAX,
  suffix: MutationType.SET_SUFFIX_VERSIONSTAMPED_KEY,
} as const;

function toMutation(change: Change): Mutation {
  const [value, encoding] = change.value
    ? toBytes(change.value)
    : [new Uint8Array(0), Encoding.BYTES];
  return {
    type: TYPES[change.do],
    key: Uint8Array.fromHex(change.key),
    value,
    encoding,
    expireAtMs: change.expireAtMs ?? NEVER_MS,
    sumMin: change.min ? toBytes(change.min)[0] : null,
    sumMax: change.max ? toBytes(change.max)[0] : null,
    sumClamp: change.clamp ?? false,
  };
}

function toBytes(value: Value): [Bytes, Encoding] {
  switch (value.kind) {
    case "u64": {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, value.n, true);
      return [bytes, Encoding.LE64];
    }
    case "number":
    case "bigint":
      return [encodeV8Number(value.n), Encoding.V8];
    case "v8":
      return [Uint8Array.fromHex(value.hex), Encoding.V8];
    case "bytes":
      return [Uint8Array.fromHex(value.hex), Encoding.BYTES];
  }
}

/** An entry as text, the same for what the model and what the store says. */
export function describeRow(key: string, row: Row): string {
  const { value } = row;
  const text = "hex" in value
    ? value.hex
    : Object.is(value.n, -0)
    ? "-0"
    : String(value.n);
  return `${key}=${value.kind}:${text}@${row.version}`;
}

export function describeEntry(entry: Entry): string {
  const { key, version, order, encoding, value } = entry;
  let seen: Value;
  if (encoding === Encoding.LE64) {
    const view = new DataView(value.buffer, value.byteOffset, 8);
    seen = { kind: "u64", n: view.getBigUint64(0, true) };
  } else if (encoding === Encoding.BYTES) {
    seen = { kind: "bytes", hex: value.toHex() };
  } else {
    const n = decodeV8Number(value);
    seen = n === undefined
      ? { kind: "v8", hex: value.toHex() }
      : typeof n === "bigint"
      ? { kind: "bigint", n }
      : { kind: "number", n };
  }
  const row = { value: seen, version, expireAtMs: NEVER_MS };
  return describeRow(key.toHex(), row) + (order === 0 ? "" : `+${order}`);
}

/** What a range of a snapshot holds. */
export function describeRange(snapshot: Snapshot, range: ReadRange): string {
  const [start, end] = [range.start.toHex(), range.end.toHex()];
  const keys = [...snapshot.keys()].filter((key) => key >= start && key < end);
  keys.sort();
  if (range.reverse) keys.reverse();
  return keys.slice(0, range.limit)
    .map((key) => describeRow(key, snapshot.get(key)!)).join(" ");
}
