/**
 * Objects in memory, for tests. Each call acts at once, in the order of the
 * calls, so that a simulation over it can be repeated exactly; faults and
 * delays are `faulty.ts`. Its tags are content hashes, the weakest that a
 * real store has: a guarded object without a nonce shows here.
 */
// Methods are async, without a wait, so that a refusal rejects and never throws.
// deno-lint-ignore-file require-await
import { createHash } from "node:crypto";
import type { Bytes } from "../common/bytes.ts";
import type { Clock } from "../common/clock.ts";
import { checkKey, checkRange, compareKeys } from "./keys.ts";
import type {
  ListOptions,
  ObjectHead,
  ObjectInfo,
  ObjectStore,
  RequestOptions,
  StoredObject,
  VersionTag,
  WriteResult,
} from "./object_store.ts";
import { closedError } from "./time_limit.ts";

interface Version {
  data: Bytes;
  tag: VersionTag;
  modifiedMs: number;
}

interface Contents {
  objects: Map<string, Version>;
  /** The keys in order, made anew when a list finds them changed. */
  sorted: string[] | undefined;
}

export class MemoryObjectStore implements ObjectStore {
  readonly url: string;
  readonly #clock: Clock;
  readonly #contents: Contents;
  #isClosed = false;

  /** @param options.sharing a store whose objects this one has too */
  constructor(
    options: { clock: Clock; url?: string; sharing?: MemoryObjectStore },
  ) {
    this.#clock = options.clock;
    this.url = options.url ?? "memory://";
    this.#contents = options.sharing === undefined
      ? { objects: new Map(), sorted: [] }
      : options.sharing.#contents;
  }

  async get(
    key: string,
    options?: RequestOptions,
  ): Promise<StoredObject | undefined> {
    const version = this.#find(key, options);
    return version && { data: version.data.slice(), tag: version.tag };
  }

  async getRange(
    key: string,
    offsetBytes: number,
    sizeBytes: number,
    options?: RequestOptions,
  ): Promise<Bytes | undefined> {
    checkRange(offsetBytes, sizeBytes);
    const version = this.#find(key, options);
    return version?.data.slice(offsetBytes, offsetBytes + sizeBytes);
  }

  async head(
    key: string,
    options?: RequestOptions,
  ): Promise<ObjectHead | undefined> {
    const version = this.#find(key, options);
    const nowMs = this.#clock.nowMs();
    return version && { ...infoOf(key, version), tag: version.tag, nowMs };
  }

  async put(
    key: string,
    data: Uint8Array,
    options?: RequestOptions,
  ): Promise<VersionTag> {
    this.#find(key, options);
    return this.#write(key, data);
  }

  async create(
    key: string,
    data: Uint8Array,
    options?: RequestOptions,
  ): Promise<WriteResult> {
    if (this.#find(key, options) !== undefined) return { written: false };
    return { written: true, tag: this.#write(key, data) };
  }

  async replace(
    key: string,
    data: Uint8Array,
    tag: VersionTag,
    options?: RequestOptions,
  ): Promise<WriteResult> {
    if (this.#find(key, options)?.tag !== tag) return { written: false };
    return { written: true, tag: this.#write(key, data) };
  }

  async *list(
    prefix: string,
    options?: ListOptions,
  ): AsyncGenerator<ObjectInfo> {
    this.#enter(options);
    const contents = this.#contents;
    contents.sorted ??= [...contents.objects.keys()].sort(compareKeys);
    const startAfter = options?.startAfter;
    for (const key of contents.sorted) {
      if (!key.startsWith(prefix)) continue;
      if (startAfter !== undefined && compareKeys(key, startAfter) <= 0) {
        continue;
      }
      const version = contents.objects.get(key);
      if (version === undefined) continue;
      yield infoOf(key, version);
      this.#enter(options);
    }
  }

  async delete(
    keys: readonly string[],
    options?: RequestOptions,
  ): Promise<void> {
    this.#enter(options);
    keys.forEach(checkKey);
    for (const key of keys) {
      if (this.#contents.objects.delete(key)) this.#contents.sorted = undefined;
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
  }

  #enter(options: RequestOptions | undefined): void {
    if (this.#isClosed) throw closedError(this.url);
    options?.signal?.throwIfAborted();
  }

  #find(key: string, options: RequestOptions | undefined): Version | undefined {
    this.#enter(options);
    checkKey(key);
    return this.#contents.objects.get(key);
  }

  #write(key: string, data: Uint8Array): VersionTag {
    const { objects } = this.#contents;
    if (!objects.has(key)) this.#contents.sorted = undefined;
    const tag = createHash("md5").update(data).digest("hex");
    objects.set(key, {
      data: data.slice() as Bytes,
      tag,
      modifiedMs: this.#clock.nowMs(),
    });
    return tag;
  }
}

const named = new Map<string, MemoryObjectStore>();

/** A store over the objects of this name within this process. */
export function namedMemoryStore(url: string, clock: Clock): MemoryObjectStore {
  const sharing = named.get(url);
  const store = new MemoryObjectStore({ clock, url, sharing });
  if (sharing === undefined) named.set(url, store);
  return store;
}

function infoOf(key: string, version: Version): ObjectInfo {
  return {
    key,
    sizeBytes: version.data.length,
    modifiedMs: version.modifiedMs,
  };
}
