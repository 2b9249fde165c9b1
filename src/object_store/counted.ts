/**
 * A store that counts its requests, which cost money, and knows since when
 * none has been answered: an endpoint that hangs says nothing by itself.
 */
import type { Bytes } from "../common/bytes.ts";
import type { Clock } from "../common/clock.ts";
import { messageOf, UnavailableError } from "../common/errors.ts";
import {
  type HeadOptions,
  type ListOptions,
  MAX_PAGE_SIZE,
  type ObjectHead,
  type ObjectInfo,
  type ObjectStore,
  type PutOptions,
  type RequestOptions,
  type StoredObject,
  type VersionTag,
  type WriteResult,
} from "./object_store.ts";

/**
 * As providers bill them. A list counts once for each page; an object that is
 * sent in parts counts once.
 */
export interface RequestCounts {
  put: number;
  list: number;
  get: number;
  head: number;
  delete: number;
}

/** Requests, and no answer to any of them. */
export interface Silence {
  /** The one that has waited longest, or failed last: "reading x". */
  waitingFor: string;
  forMs: number;
  /** Of a request since the last answer; none where they only hang. */
  lastError: string | undefined;
}

/** After a failure, and no further try for so long, nobody waits any more. */
const GIVEN_UP_MS = 60_000;

export class CountedObjectStore implements ObjectStore {
  readonly url: string;
  readonly counts: RequestCounts = {
    put: 0,
    list: 0,
    get: 0,
    head: 0,
    delete: 0,
  };
  private readonly pending = new Set<{ what: string }>();
  private unansweredSinceMs: number | undefined;
  private lastFailure:
    | { what: string; error: string; atMs: number }
    | undefined;

  constructor(
    private readonly inner: ObjectStore,
    private readonly clock: Clock,
  ) {
    this.url = inner.url;
  }

  /** Looked up each time: a place gets it with its first write. */
  get placeId(): string | undefined {
    return this.inner.placeId;
  }

  /** Undefined where nothing was asked since the last answer, or is now. */
  silence(): Silence | undefined {
    const { unansweredSinceMs, lastFailure } = this;
    const [oldest] = this.pending;
    const waitingFor = oldest?.what ?? lastFailure?.what;
    if (unansweredSinceMs === undefined || waitingFor === undefined) {
      return undefined;
    }
    const nowMs = this.clock.monotonicMs();
    if (
      oldest === undefined && nowMs - lastFailure!.atMs > GIVEN_UP_MS
    ) return undefined;
    return {
      waitingFor,
      forMs: nowMs - unansweredSinceMs,
      lastError: lastFailure?.error,
    };
  }

  get(
    key: string,
    options?: RequestOptions,
  ): Promise<StoredObject | undefined> {
    return this.watch(
      "get",
      `reading ${key}`,
      () => this.inner.get(key, options),
    );
  }

  getRange(
    key: string,
    offsetBytes: number,
    sizeBytes: number,
    options?: RequestOptions,
  ): Promise<Bytes | undefined> {
    return this.watch(
      "get",
      `reading ${key}`,
      () => this.inner.getRange(key, offsetBytes, sizeBytes, options),
    );
  }

  head(key: string, options?: HeadOptions): Promise<ObjectHead | undefined> {
    return this.watch(
      "head",
      `looking at ${key}`,
      () => this.inner.head(key, options),
    );
  }

  put(
    key: string,
    data: Uint8Array,
    options?: PutOptions,
  ): Promise<VersionTag> {
    return this.watch(
      "put",
      `writing ${key}`,
      () => this.inner.put(key, data, options),
    );
  }

  create(
    key: string,
    data: Uint8Array,
    options?: RequestOptions,
  ): Promise<WriteResult> {
    return this.watch(
      "put",
      `writing ${key}`,
      () => this.inner.create(key, data, options),
    );
  }

  replace(
    key: string,
    data: Uint8Array,
    tag: VersionTag,
    options?: RequestOptions,
  ): Promise<WriteResult> {
    return this.watch(
      "put",
      `writing ${key}`,
      () => this.inner.replace(key, data, tag, options),
    );
  }

  async *list(
    prefix: string,
    options?: ListOptions,
  ): AsyncIterable<ObjectInfo> {
    const pageSize = options?.pageSize ?? MAX_PAGE_SIZE;
    const items = this.inner.list(prefix, options)[Symbol.asyncIterator]();
    try {
      for (let index = 0;; index++) {
        const next = () => items.next();
        const { done, value } = index % pageSize === 0
          ? await this.watch("list", `listing ${prefix}`, next)
          : await next();
        if (done) return;
        yield value;
      }
    } finally {
      await items.return?.();
    }
  }

  delete(keys: readonly string[], options?: RequestOptions): Promise<void> {
    return this.watch(
      "delete",
      keys.length === 1
        ? `deleting ${keys[0]}`
        : `deleting ${keys.length} objects`,
      () => this.inner.delete(keys, options),
    );
  }

  close(): Promise<void> {
    return this.inner.close();
  }

  private async watch<T>(
    kind: keyof RequestCounts,
    what: string,
    work: () => Promise<T>,
  ): Promise<T> {
    this.counts[kind]++;
    this.unansweredSinceMs ??= this.clock.monotonicMs();
    const request = { what };
    this.pending.add(request);
    try {
      const answer = await work();
      this.answered();
      return answer;
    } catch (error) {
      if (error instanceof UnavailableError) {
        const atMs = this.clock.monotonicMs();
        this.lastFailure = { what, error: messageOf(error), atMs };
      } else this.answered();
      throw error;
    } finally {
      this.pending.delete(request);
      // What else waits has waited since now, as far as we know.
      if (this.unansweredSinceMs === undefined && this.pending.size > 0) {
        this.unansweredSinceMs = this.clock.monotonicMs();
      }
    }
  }

  /** A refusal is an answer too. */
  private answered(): void {
    this.unansweredSinceMs = undefined;
    this.lastFailure = undefined;
  }
}
