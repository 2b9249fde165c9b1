/**
 * A store that misbehaves on purpose, for tests: each fault is stated by its
 * type, drawn from a seed or written down by the test, and told to whoever
 * listens, so that a run can be replayed and read.
 *
 * It behaves as the worst real store may: a request whose caller has given up
 * is still carried out when its time comes. Time is the given clock's.
 */
import { type Clock, sleep } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import type { Random } from "../common/random.ts";
import {
  DEFAULT_REQUEST_TIMEOUT_MS,
  type HeadOptions,
  type ListOptions,
  type ObjectHead,
  type ObjectInfo,
  type ObjectStore,
  ObjectStoreRefusedError,
  type RequestOptions,
  type StoredObject,
  type VersionTag,
  type WriteResult,
} from "./object_store.ts";
import { closedError, type Limits, withinLimits } from "./time_limit.ts";

export type Operation =
  | "get"
  | "getRange"
  | "head"
  | "put"
  | "create"
  | "replace"
  | "list"
  | "delete";

export interface StoreRequest {
  operation: Operation;
  /** Of a delete the first key, of a list the prefix. */
  key: string;
  /** Counts all requests to this store, from 1. */
  number: number;
}

/** What goes wrong with one request. Times count from its beginning, in ms. */
export type Fault =
  /** Carried out late, and answered later still. */
  | { kind: "slow"; actAtMs: number; answerAtMs: number }
  /** An error, and it is never carried out. */
  | { kind: "lostRequest"; answerAtMs: number }
  /** Carried out, but the caller gets an error. */
  | { kind: "lostAnswer"; actAtMs: number; answerAtMs: number }
  /** No answer until the time limit; carried out at `actAtMs`, or never. */
  | { kind: "silence"; actAtMs?: number }
  /** Refused for good, as by a permission taken away. */
  | { kind: "refused" };

/** The fault of a request, or undefined: it goes well. */
export type FaultSource = (request: StoreRequest) => Fault | undefined;

export interface FaultyOptions {
  clock: Clock;
  faults: FaultSource;
  /** Hears of every fault. */
  onFault?: (request: StoreRequest, fault: Fault) => void;
  timeoutMs?: number;
}

export class FaultyObjectStore implements ObjectStore {
  readonly url: string;
  readonly #store: ObjectStore;
  readonly #options: FaultyOptions;
  readonly #limits: Limits;
  readonly #closing = new AbortController();
  #requests = 0;

  constructor(store: ObjectStore, options: FaultyOptions) {
    this.#store = store;
    this.#options = options;
    this.url = store.url;
    this.#limits = {
      clock: options.clock,
      timeoutMs: options.timeoutMs ?? DEFAULT_REQUEST_TIMEOUT_MS,
      closed: this.#closing.signal,
    };
  }

  get placeId(): string | undefined {
    return this.#store.placeId;
  }

  /** How many requests have been made, those that failed included. */
  get requests(): number {
    return this.#requests;
  }

  get(
    key: string,
    options?: RequestOptions,
  ): Promise<StoredObject | undefined> {
    return this.#run("get", key, options, () => this.#store.get(key));
  }

  getRange(
    key: string,
    offsetBytes: number,
    sizeBytes: number,
    options?: RequestOptions,
  ): ReturnType<ObjectStore["getRange"]> {
    return this.#run(
      "getRange",
      key,
      options,
      () => this.#store.getRange(key, offsetBytes, sizeBytes),
    );
  }

  head(key: string, options?: HeadOptions): Promise<ObjectHead | undefined> {
    const { now = false } = options ?? {};
    return this.#run(
      "head",
      key,
      options,
      () => this.#store.head(key, { now }),
    );
  }

  put(
    key: string,
    data: Uint8Array,
    options?: RequestOptions,
  ): Promise<VersionTag> {
    // The request may act after its caller took the buffer back.
    const copy = data.slice();
    return this.#run("put", key, options, () => this.#store.put(key, copy));
  }

  create(
    key: string,
    data: Uint8Array,
    options?: RequestOptions,
  ): Promise<WriteResult> {
    const copy = data.slice();
    return this.#run(
      "create",
      key,
      options,
      () => this.#store.create(key, copy),
    );
  }

  replace(
    key: string,
    data: Uint8Array,
    tag: VersionTag,
    options?: RequestOptions,
  ): Promise<WriteResult> {
    const copy = data.slice();
    return this.#run(
      "replace",
      key,
      options,
      () => this.#store.replace(key, copy, tag),
    );
  }

  /** One fault for the whole list, which is read at once. */
  async *list(
    prefix: string,
    options?: ListOptions,
  ): AsyncGenerator<ObjectInfo> {
    const { startAfter } = options ?? {};
    yield* await this.#run("list", prefix, options, async () => {
      const found: ObjectInfo[] = [];
      const all = this.#store.list(
        prefix,
        startAfter === undefined ? {} : { startAfter },
      );
      for await (const info of all) found.push(info);
      return found;
    });
  }

  delete(keys: readonly string[], options?: RequestOptions): Promise<void> {
    const copy = [...keys];
    return this.#run(
      "delete",
      keys[0] ?? "",
      options,
      () => this.#store.delete(copy),
    );
  }

  /** Ends the requests made here; the store below stays open. */
  close(): Promise<void> {
    this.#closing.abort(closedError(this.url));
    return Promise.resolve();
  }

  #run<T>(
    operation: Operation,
    key: string,
    options: RequestOptions | undefined,
    act: () => Promise<T>,
  ): Promise<T> {
    const request = { operation, key, number: ++this.#requests };
    const what = `${operation} ${key} in ${this.url}`;
    return withinLimits(this.#limits, options, what, () => {
      const fault = this.#options.faults(request);
      if (fault === undefined) return act();
      this.#options.onFault?.(request, fault);
      return this.#suffer(fault, what, act);
    });
  }

  async #suffer<T>(
    fault: Fault,
    what: string,
    act: () => Promise<T>,
  ): Promise<T> {
    const { clock } = this.#options;
    const unheard = () =>
      new UnavailableError(`${what} got no answer (a fault of the test).`);
    switch (fault.kind) {
      case "refused":
        throw new ObjectStoreRefusedError(
          `${what} was refused (a fault of the test).`,
        );
      case "lostRequest":
        await sleep(clock, fault.answerAtMs);
        throw unheard();
      case "slow": {
        const acted = sleep(clock, fault.actAtMs).then(act);
        // Heard of below, unless the caller gives up first.
        acted.catch(() => {});
        await sleep(clock, fault.answerAtMs);
        return await acted;
      }
      case "lostAnswer":
        sleep(clock, fault.actAtMs).then(act).catch(() => {});
        await sleep(clock, fault.answerAtMs);
        throw unheard();
      case "silence":
        if (fault.actAtMs !== undefined) {
          sleep(clock, fault.actAtMs).then(act).catch(() => {});
        }
        return await new Promise<never>(() => {});
    }
  }
}

export interface FaultRates {
  /** How many of 1000 requests suffer the fault. */
  slow?: number;
  lostRequest?: number;
  lostAnswer?: number;
  silence?: number;
  refused?: number;
  /** The latest that a slow, lost or silent request acts or is answered. */
  maxDelayMs: number;
}

/**
 * Faults out of a seed. A lost answer may come before the act, so that a
 * request acts after its caller was told that it failed.
 */
export function seededFaults(random: Random, rates: FaultRates): FaultSource {
  const delayMs = () => random.below(rates.maxDelayMs + 1);
  return () => {
    let draw = random.below(1000);
    const hits = (rate = 0) => (draw -= rate) < 0;
    if (hits(rates.slow)) {
      return { kind: "slow", actAtMs: delayMs(), answerAtMs: delayMs() };
    }
    if (hits(rates.lostRequest)) {
      return { kind: "lostRequest", answerAtMs: delayMs() };
    }
    if (hits(rates.lostAnswer)) {
      return { kind: "lostAnswer", actAtMs: delayMs(), answerAtMs: delayMs() };
    }
    if (hits(rates.silence)) {
      return random.below(2) === 0
        ? { kind: "silence" }
        : { kind: "silence", actAtMs: delayMs() };
    }
    return hits(rates.refused) ? { kind: "refused" } : undefined;
  };
}
