/**
 * The requests and answers of a Deno KV database, already checked: whoever
 * holds one of these types need not check it again. Made by the decoders in
 * `datapath.ts` and by the REST entrance.
 */
import type { Bytes } from "../common/bytes.ts";

/** How the bytes of a value are to be read. The numbers are the protocol's. */
export const Encoding = { V8: 1, LE64: 2, BYTES: 3 } as const;
export type Encoding = (typeof Encoding)[keyof typeof Encoding];

/** What a mutation does. The numbers are the protocol's. */
export const MutationType = {
  SET: 1,
  DELETE: 2,
  SUM: 3,
  MAX: 4,
  MIN: 5,
  SET_SUFFIX_VERSIONSTAMPED_KEY: 9,
} as const;
export type MutationType = (typeof MutationType)[keyof typeof MutationType];

/** `expireAtMs` of an entry that stays for ever. */
export const NEVER_MS = -1;

export interface ReadRange {
  /** Inclusive. */
  start: Bytes;
  /** Exclusive. */
  end: Bytes;
  /** At least 1. */
  limit: number;
  /** Order only: the bounds keep their meaning. */
  reverse: boolean;
  /** True where exactly the key `start` is asked for. */
  isPoint: boolean;
}

export interface Entry {
  key: Bytes;
  value: Bytes;
  encoding: Encoding;
  /** First 8 bytes of the versionstamp; see versionstamp.ts. */
  version: number;
  /** Last 2 bytes of the versionstamp. */
  order: number;
}

export interface Check {
  key: Bytes;
  /** `ABSENT_VERSION` where the key must not exist. */
  version: number;
  order: number;
}

export interface Mutation {
  type: MutationType;
  key: Bytes;
  /** Empty for a delete. */
  value: Bytes;
  encoding: Encoding;
  /** Milliseconds since the Unix epoch, or `NEVER_MS`. */
  expireAtMs: number;
  /** Bounds of a V8 sum, V8-serialized; null where there is none. */
  sumMin: Bytes | null;
  sumMax: Bytes | null;
  /** Go to the bound instead of failing. */
  sumClamp: boolean;
}

export interface Enqueue {
  /** V8-serialized. */
  payload: Bytes;
  /** Milliseconds since the Unix epoch from which on it may be delivered. */
  deadlineMs: number;
  keysIfUndelivered: Bytes[];
  /** Milliseconds; null: the consumer's default. */
  backoffScheduleMs: number[] | null;
}

export interface AtomicWrite {
  checks: Check[];
  mutations: Mutation[];
  enqueues: Enqueue[];
  /**
   * What its keys and values keep in memory where they are views into a
   * request's body: the whole of that. Absent: no more than they are long.
   */
  heldBytes?: number;
}

/**
 * What became of an atomic write:
 * - `committed`: applied as a whole, durable, under this versionstamp.
 * - `checkFailed`: nothing applied; which checks (their indexes) failed.
 * - `refused`: nothing applied; it can never be (a sum of unlike kinds).
 * - `writeDisabled`: nothing applied; this server takes no writes.
 */
export type WriteOutcome =
  | { status: "committed"; version: number; order: number }
  | { status: "checkFailed"; failedChecks: number[] }
  | { status: "refused"; message: string }
  | { status: "writeDisabled" };
