/**
 * The ObjectStore contract: what the backup asks of a bucket or a folder, and
 * what each implementation promises. One suite (`contract.ts`) holds all of
 * them to it.
 *
 * Promises:
 * 1. An object is there whole or not at all; a reader sees one version of it.
 * 2. What was written before a request began, that request sees: `get`,
 *    `getRange`, `head` and `list` are never behind. (S3, Google Cloud Storage
 *    and MinIO promise it; stores that do not are no fit for a backup.)
 * 3. Of all `create` calls for an absent key, and of all `replace` calls with
 *    the same tag, at most one is carried out, whichever machines they are on.
 * 4. A conflict is an answer (`written: false`), not an error. It means that
 *    this very request was not carried out.
 *
 * The version tag says nothing but "the same version". Some stores derive it
 * from the content (an S3 ETag is often the MD5), so that the same bytes
 * written again have the same tag: **every version of an object that is
 * guarded by `replace` has to carry something unique**, such as a nonce.
 *
 * Errors, by what the caller does about them:
 * - `UnavailableError` (network, time limit, 429, 5xx): send it again later.
 *   The request may have been carried out, and **may still be, even seconds
 *   later**. After a `create` or `replace`, read the object and look for the
 *   nonce; this holds for a conflict too where an earlier try of the same
 *   write got no answer. Implementations never send a request twice by
 *   themselves, unless the store said that it did not carry it out (a token
 *   that was revoked), so a conflict never comes from a hidden second try.
 * - `ObjectStoreRefusedError` (denied, no such bucket, no credentials): it
 *   stays wrong until a person changes something. It was not carried out.
 * - the reason of the caller's own `AbortSignal`: as for `UnavailableError`.
 *
 * Keys: see `keys.ts`. Data handed to a write must not change until the
 * promise has settled; data handed out belongs to the caller.
 */
import type { Bytes } from "../common/bytes.ts";

/** Names one version of one object; compare for equality only. */
export type VersionTag = string;

export interface RequestOptions {
  /** Ends the request early; the promise then rejects with its reason. */
  signal?: AbortSignal;
  /**
   * The time limit of each request to the store, in ms; default: the store's
   * own. A call that takes several requests (a list of many pages, a large
   * object sent in parts, a delete of many keys) has it for each of them.
   */
  timeoutMs?: number;
}

export interface PutOptions extends RequestOptions {
  /** The SHA-256 of the data, in hexadecimal, where it is known already. */
  sha256?: string;
  /**
   * Not in one go: the thread is left to others for so long after each piece
   * of 64 KiB. A wish: S3 heeds it, a folder has no need to.
   */
  pauseMs?: number;
}

export interface ListOptions extends RequestOptions {
  /** Only keys that come after this one, which need not exist. */
  startAfter?: string;
  /** How many keys to ask for at once, 1 to 1000; default 1000. */
  pageSize?: number;
}

export interface ObjectInfo {
  key: string;
  sizeBytes: number;
  /** When this version was written, by the store's clock, in ms since 1970. */
  modifiedMs: number;
}

export interface HeadOptions extends RequestOptions {
  /** Asks for `nowMs` also where it costs something: a small file, say. */
  now?: boolean;
}

export interface ObjectHead extends ObjectInfo {
  tag: VersionTag;
  /**
   * The time of the answer by the clock that `modifiedMs` is of, perhaps cut
   * to a whole second as that one; absent where the store does not say.
   */
  nowMs?: number;
}

/** What `modifiedMs` and `nowMs` may be cut by: HTTP has whole seconds. */
export const STORE_CLOCK_STEP_MS = 1000;

/** How much later than a store's word a moment may have been. */
export function cutOf(storeMs: number): number {
  return storeMs % STORE_CLOCK_STEP_MS === 0 ? STORE_CLOCK_STEP_MS : 0;
}

export interface StoredObject {
  data: Bytes;
  tag: VersionTag;
}

/** `written: false` is a conflict: this request was not carried out. */
export type WriteResult =
  | { written: true; tag: VersionTag }
  | { written: false };

export interface ObjectStore {
  /** What is opened, for messages; holds no credentials. */
  readonly url: string;

  /**
   * Tells this place from others of the same URL, such as the folder below the
   * mount point of a share; undefined where nothing was ever written to it, or
   * where its URL says it all.
   */
  readonly placeId?: string | undefined;

  /** The whole object, or undefined where it is missing. */
  get(key: string, options?: RequestOptions): Promise<StoredObject | undefined>;

  /**
   * Up to `sizeBytes` (at least 1) from `offsetBytes` on, fewer where the
   * object ends before, none at or past its end; undefined where it is
   * missing. Many may run at once.
   */
  getRange(
    key: string,
    offsetBytes: number,
    sizeBytes: number,
    options?: RequestOptions,
  ): Promise<Bytes | undefined>;

  head(key: string, options?: HeadOptions): Promise<ObjectHead | undefined>;

  /** Writes whatever was there before. Large objects may go in parts. */
  put(
    key: string,
    data: Uint8Array,
    options?: PutOptions,
  ): Promise<VersionTag>;

  /** Writes only where the key is absent. Meant for small objects. */
  create(
    key: string,
    data: Uint8Array,
    options?: RequestOptions,
  ): Promise<WriteResult>;

  /**
   * Writes only where the object's version is still `tag` (compare-and-swap);
   * a missing object is a conflict. Meant for small objects.
   */
  replace(
    key: string,
    data: Uint8Array,
    tag: VersionTag,
    options?: RequestOptions,
  ): Promise<WriteResult>;

  /**
   * Every object whose key begins with `prefix` (which may end anywhere),
   * in the byte order of their UTF-8 keys. An object written or deleted
   * meanwhile may be shown or not. One page is held at a time.
   */
  list(prefix: string, options?: ListOptions): AsyncIterable<ObjectInfo>;

  /**
   * Deletes the objects; a missing one is no error. After an error some may
   * be gone and some not: call again.
   */
  delete(keys: readonly string[], options?: RequestOptions): Promise<void>;

  /**
   * Gives up connections and ends requests under way with
   * `UnavailableError`. Safe to call twice; nothing may be called after it.
   */
  close(): Promise<void>;
}

/**
 * The store will not do it until a person changes something: permissions,
 * credentials, the bucket's name, a setting. It was not carried out.
 */
export class ObjectStoreRefusedError extends Error {
  override name = "ObjectStoreRefusedError";
}

/** The time limit of a request where the caller names none, in ms. */
export const DEFAULT_REQUEST_TIMEOUT_MS = 10_000;

/** The most keys in one page of a list, as S3 has it. */
export const MAX_PAGE_SIZE = 1000;
