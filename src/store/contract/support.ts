/**
 * What the contract suite is written with: short ways to say a write and a
 * read, and parts of the store's surroundings that a test holds in its hand.
 */
import assert from "node:assert/strict";
import { type Bytes, concatBytes, fromUtf8, utf8 } from "../../common/bytes.ts";
import { systemClock } from "../../common/clock.ts";
import { ManualClock } from "../../common/manual_clock.ts";
import { type Random, seededRandom } from "../../common/random.ts";
import { encodeKey } from "../../protocol/key.ts";
import {
  type AtomicWrite,
  type Check,
  Encoding,
  type Enqueue,
  type Entry,
  type Mutation,
  MutationType,
  NEVER_MS,
  type ReadRange,
  type WriteOutcome,
} from "../../protocol/messages.ts";
import { encodeV8Number } from "../../protocol/v8_number.ts";
import { ABSENT_VERSION } from "../../protocol/versionstamp.ts";
import type { Durability } from "../durability.ts";
import type { Store, Watch, WatchState } from "../store.ts";

/** What a store is opened with; an engine takes more than the suite sets. */
export interface StoreSettings {
  clock: ManualClock;
  random: Random;
  durability?: Durability;
  readOnly?: boolean;
  /** Watches at a time, over all connections. */
  maxWatches?: number;
}

/** Where one database lives: opened, closed and opened again by the suite. */
export interface StorePlace {
  open(settings: StoreSettings): Promise<Store>;
  /** Removes the database and whatever else was made for it. */
  remove(): Promise<void>;
}

export type MakePlace = () => Promise<StorePlace>;

/** 2023-11-14, so that times look like times. */
export const START_MS = 1_700_000_000_000;

/** A place, a clock and the store that is open there now. */
export class Bench {
  readonly clock = new ManualClock(START_MS);
  store!: Store;
  private readonly random = seededRandom(1);

  constructor(private readonly place: StorePlace) {}

  async open(more: Partial<StoreSettings> = {}): Promise<Store> {
    const { clock, random } = this;
    this.store = await this.place.open({ clock, random, ...more });
    return this.store;
  }

  async reopen(more: Partial<StoreSettings> = {}): Promise<Store> {
    await this.store.close();
    return await this.open(more);
  }

  commit(...mutations: Mutation[]): Promise<number> {
    return commit(this.store, mutations);
  }

  read(...ranges: ReadRange[]): Promise<Entry[][]> {
    return Promise.resolve(this.store.read(ranges));
  }

  /** The entry of a key, or undefined. */
  async get(name: string): Promise<Entry | undefined> {
    return (await this.read(point(name)))[0][0];
  }

  /** The text of a key, or undefined. */
  async text(name: string): Promise<string | undefined> {
    const entry = await this.get(name);
    return entry && fromUtf8(entry.value);
  }

  async all(): Promise<Entry[]> {
    return (await this.read(everything()))[0];
  }
}

/** Runs a test with a fresh place, opened, and leaves nothing behind. */
export function withBench(
  makePlace: MakePlace,
  test: (bench: Bench) => void | Promise<void>,
  settings: Partial<StoreSettings> = {},
): () => Promise<void> {
  return async () => {
    const place = await makePlace();
    const bench = new Bench(place);
    try {
      await bench.open(settings);
      await test(bench);
    } finally {
      await bench.store?.close();
      await place.remove();
    }
  };
}

// ------------------------------------------------------- writes and reads

export const key = (name: string): Bytes => encodeKey([name]);

/** @param checks, enqueues whatever more the write carries */
export function atomic(
  mutations: Mutation[],
  checks: Check[] = [],
  enqueues: Enqueue[] = [],
): AtomicWrite {
  return { checks, mutations, enqueues };
}

/** Writes, and fails the test unless it was committed; its version. */
export async function commit(
  store: Store,
  mutations: Mutation[],
  checks: Check[] = [],
): Promise<number> {
  const outcome = await store.write(atomic(mutations, checks));
  return committed(outcome);
}

export function committed(outcome: WriteOutcome): number {
  assert.equal(outcome.status, "committed");
  return (outcome as { version: number }).version;
}

export function mutation(
  type: MutationType,
  name: string,
  more: Partial<Mutation> = {},
): Mutation {
  return {
    type,
    key: key(name),
    value: new Uint8Array(0),
    encoding: Encoding.BYTES,
    expireAtMs: NEVER_MS,
    sumMin: null,
    sumMax: null,
    sumClamp: false,
    ...more,
  };
}

export function set(
  name: string,
  text: string,
  expireAtMs = NEVER_MS,
): Mutation {
  return mutation(MutationType.SET, name, { value: utf8(text), expireAtMs });
}

export const del = (name: string): Mutation =>
  mutation(MutationType.DELETE, name);

/** A V8 sum of a number or a bigint. */
export function sum(
  name: string,
  by: number | bigint,
  more: Partial<Mutation> = {},
): Mutation {
  const value = encodeV8Number(by);
  const encoding = Encoding.V8;
  return mutation(MutationType.SUM, name, { value, encoding, ...more });
}

export function le64(value: bigint): Bytes {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
  return out;
}

/** A sum, min or max of a KvU64, or a set of one. */
export function u64(type: MutationType, name: string, by: bigint): Mutation {
  return mutation(type, name, { value: le64(by), encoding: Encoding.LE64 });
}

export function check(name: string, version: number | null): Check {
  return { key: key(name), version: version ?? ABSENT_VERSION, order: 0 };
}

export function point(name: string): ReadRange {
  const start = key(name);
  const end = concatBytes([start, new Uint8Array(1)]);
  return { start, end, limit: 1, reverse: false, isPoint: true };
}

/** From `start` to before `end`; names, or bytes as they are. */
export function range(
  start: string | Bytes,
  end: string | Bytes,
  more: { limit?: number; reverse?: boolean } = {},
): ReadRange {
  return {
    start: typeof start === "string" ? key(start) : start,
    end: typeof end === "string" ? key(end) : end,
    limit: more.limit ?? 1000,
    reverse: more.reverse ?? false,
    isPoint: false,
  };
}

/** Every key a client can reach. */
export function everything(
  more: { limit?: number; reverse?: boolean } = {},
): ReadRange {
  return range(new Uint8Array(1), new Uint8Array([0xff]), more);
}

export const texts = (entries: readonly (Entry | null)[]) =>
  entries.map((entry) => entry && fromUtf8(entry.value));

/** The next state of a watch, as texts, with what changed. */
export async function nextTexts(
  watch: Watch,
): Promise<[texts: unknown[], changed: boolean[]]> {
  const state = await watch.next();
  assert.ok(state);
  return [texts(state.entries), state.changed];
}

// ----------------------------------------------------- turns of the loop

/** Lets everything that has already happened be handled. */
export async function turns(count = 20): Promise<void> {
  for (let i = 0; i < count; i++) {
    await new Promise<void>((resolve) => systemClock.endOfTurn(resolve));
  }
}

/** Whether a promise has been settled by now; gives it some turns. */
export async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  promise.then(() => settled = true, () => settled = true);
  await turns();
  return settled;
}

/** Waits for something that only shows in numbers. */
export async function eventually(
  what: string,
  holds: () => boolean | Promise<boolean>,
  withinMs = 10_000,
): Promise<void> {
  const untilMs = systemClock.monotonicMs() + withinMs;
  while (!(await holds())) {
    assert.ok(systemClock.monotonicMs() < untilMs, `never came: ${what}`);
    await turns(1);
  }
}

/** A durability that confirms only when the test lets it. */
export class HeldDurability implements Durability {
  readonly name = "held";
  /** The versions it was asked to confirm. */
  readonly asked: number[] = [];
  private isHeld = false;
  private waiting: PromiseWithResolvers<void>[] = [];
  private failure: Error | undefined;

  confirm(version: number): void | Promise<void> {
    this.asked.push(version);
    if (this.failure) return Promise.reject(this.failure);
    if (!this.isHeld) return;
    const waiting = Promise.withResolvers<void>();
    this.waiting.push(waiting);
    return waiting.promise;
  }

  hold(): void {
    this.isHeld = true;
  }

  release(): void {
    this.isHeld = false;
    for (const waiting of this.waiting.splice(0)) waiting.resolve();
  }

  fail(error: Error): void {
    this.failure = error;
    for (const waiting of this.waiting.splice(0)) waiting.reject(error);
  }

  /** Waits until a confirmation is being held back. */
  async isAsked(): Promise<void> {
    await eventually("a confirmation", () => this.waiting.length > 0);
  }
}

export type { Store, Watch, WatchState };
