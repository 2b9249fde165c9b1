/**
 * `gs://`: a bucket of Google Cloud Storage, over its JSON API. The version
 * tag is the object's generation number, and conditions are
 * `ifGenerationMatch`: Google's S3-compatible API has no such conditions on
 * ETags, so an S3 client could not fence there.
 *
 * Writes to the same object keep to what Google takes (`gcs_pace.ts`); where
 * other instances write it too it answers 429, which is `UnavailableError`.
 */
import { type Bytes, concatBytes, utf8 } from "../common/bytes.ts";
import type { Clock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import {
  type Description,
  descriptionOf,
  FIELDS,
  md5,
  type Page,
  pageOf,
  writtenGeneration,
} from "./gcs_answers.ts";
import { nowIn } from "./answer_time.ts";
import { type GcsAnswer, GcsHttp, isMissing } from "./gcs_http.ts";
import { WRITE_INTERVAL_MS, WritePace } from "./gcs_pace.ts";
import { uploadInParts } from "./gcs_parts.ts";
import { checkKey, checkRange, quote } from "./keys.ts";
import {
  DEFAULT_REQUEST_TIMEOUT_MS,
  type ListOptions,
  MAX_PAGE_SIZE,
  type ObjectHead,
  type ObjectInfo,
  type ObjectStore,
  type RequestOptions,
  type StoredObject,
  type VersionTag,
  type WriteResult,
} from "./object_store.ts";
import {
  closedError,
  inParallel,
  type Limits,
  withinLimits,
} from "./time_limit.ts";

export interface GcsOptions {
  bucket: string;
  /** Before every key; empty, or without a slash at its ends. */
  prefix: string;
  clock: Clock;
  /**
   * Default: Google's. One that begins with `http:` is taken for an emulator:
   * it is used without credentials, which never travel in the clear.
   */
  endpoint?: string;
  timeoutMs?: number;
  /** An object larger than one part goes in parts; a multiple of 256 KiB. */
  partSizeBytes?: number;
  /** Between two writes to the same object; default: what Google takes. */
  writeIntervalMs?: number;
}

const DEFAULT_PART_SIZE_BYTES = 16 * 1024 * 1024;

const DELETE_WIDTH = 16;

/** How long a write waits for other writes to the same object. */
const MAX_PACE_WAIT_MS = 60_000;

export class GcsObjectStore implements ObjectStore {
  readonly url: string;
  readonly #objects: string;
  /** Empty, or ends in a slash. */
  readonly #prefix: string;
  readonly #partSizeBytes: number;
  readonly #http: GcsHttp;
  readonly #pace: WritePace;
  readonly #limits: Limits;
  readonly #closing = new AbortController();

  constructor(options: GcsOptions) {
    this.#objects = `/b/${encodeURIComponent(options.bucket)}/o`;
    this.#prefix = options.prefix === "" ? "" : `${options.prefix}/`;
    this.#partSizeBytes = options.partSizeBytes ?? DEFAULT_PART_SIZE_BYTES;
    this.url = `gs://${options.bucket}/${options.prefix}`.replace(/\/$/, "");
    this.#limits = {
      clock: options.clock,
      timeoutMs: options.timeoutMs ?? DEFAULT_REQUEST_TIMEOUT_MS,
      closed: this.#closing.signal,
    };
    this.#pace = new WritePace({
      clock: options.clock,
      intervalMs: options.writeIntervalMs ?? WRITE_INTERVAL_MS,
    });
    this.#http = new GcsHttp({
      ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
      isAnonymous: options.endpoint?.startsWith("http:") ?? false,
    });
  }

  get(
    key: string,
    options?: RequestOptions,
  ): Promise<StoredObject | undefined> {
    return this.#run(options, "Reading", key, async (what, signal) => {
      const answer = await this.#download(key, {}, [200, 404], what, signal);
      if (isMissing(answer, what)) return undefined;
      const tag = answer.headers.get("x-goog-generation");
      if (tag !== null) return { data: answer.body, tag };
      throw new UnavailableError(
        `${what}: the answer did not say which generation it was.`,
      );
    });
  }

  getRange(
    key: string,
    offsetBytes: number,
    sizeBytes: number,
    options?: RequestOptions,
  ): Promise<Bytes | undefined> {
    return this.#run(options, "Reading", key, async (what, signal) => {
      checkRange(offsetBytes, sizeBytes);
      const range = `bytes=${offsetBytes}-${offsetBytes + sizeBytes - 1}`;
      const expect = [200, 206, 404, 416];
      const answer = await this.#download(key, { range }, expect, what, signal);
      if (isMissing(answer, what)) return undefined;
      if (answer.status === 416) return new Uint8Array(0);
      if (answer.status === 200 && answer.body.length > 0) {
        throw new UnavailableError(
          `${what}: a range was asked for and the whole object came; ` +
            "something between here and the store ignores ranges.",
        );
      }
      return answer.body;
    });
  }

  head(key: string, options?: RequestOptions): Promise<ObjectHead | undefined> {
    return this.#run(options, "Looking at", key, async (what, signal) => {
      const answer = await this.#http.send({
        method: "GET",
        path: this.#pathOf(key),
        query: { fields: FIELDS },
        expect: [200, 404],
        what,
        signal,
      });
      if (isMissing(answer, what)) return undefined;
      const description = descriptionOf(answer, what);
      return {
        ...this.#infoOf(description),
        tag: description.generation,
        ...nowIn(answer.headers.get("date")),
      };
    });
  }

  put(
    key: string,
    data: Uint8Array,
    options?: RequestOptions,
  ): Promise<VersionTag> {
    if (data.length > this.#partSizeBytes) {
      return this.#paced(options, "Writing", key, () =>
        uploadInParts({
          http: this.#http,
          path: `/upload/storage/v1${this.#objects}`,
          name: this.#prefix + key,
          metadata: metadataOf(data),
          data,
          partSizeBytes: this.#partSizeBytes,
          // Each step is a request with a limit of its own.
          step: (doing, work) => this.#run(options, doing, key, work),
        }));
    }
    return this.#runPaced(options, "Writing", key, async (what, signal) => {
      const answer = await this.#upload(key, data, undefined, what, signal);
      return writtenGeneration(answer, data, what);
    });
  }

  create(
    key: string,
    data: Uint8Array,
    options?: RequestOptions,
  ): Promise<WriteResult> {
    return this.#putIf(key, data, "0", options);
  }

  replace(
    key: string,
    data: Uint8Array,
    tag: VersionTag,
    options?: RequestOptions,
  ): Promise<WriteResult> {
    return this.#putIf(key, data, tag, options);
  }

  async *list(
    prefix: string,
    options?: ListOptions,
  ): AsyncGenerator<ObjectInfo> {
    const startAfter = options?.startAfter;
    let pageToken: string | undefined;
    do {
      const page = await this.#page(prefix, pageToken, options);
      for (const description of page.items) {
        const info = this.#infoOf(description);
        // Google's offset includes the key itself.
        if (info.key !== startAfter) yield info;
      }
      pageToken = page.nextPageToken;
    } while (pageToken !== undefined && pageToken !== "");
  }

  async delete(
    keys: readonly string[],
    options?: RequestOptions,
  ): Promise<void> {
    keys.forEach(checkKey);
    await inParallel(
      keys,
      DELETE_WIDTH,
      (key) =>
        this.#runPaced(options, "Deleting", key, async (what, signal) => {
          const answer = await this.#http.send({
            method: "DELETE",
            path: this.#pathOf(key),
            expect: [200, 204, 404],
            what,
            signal,
          });
          isMissing(answer, what);
        }),
    );
  }

  close(): Promise<void> {
    this.#closing.abort(closedError(this.url));
    return Promise.resolve();
  }

  #pathOf(key: string): string {
    const name = encodeURIComponent(this.#prefix + key);
    return `/storage/v1${this.#objects}/${name}`;
  }

  #download(
    key: string,
    headers: Record<string, string>,
    expect: readonly number[],
    what: string,
    signal: AbortSignal,
  ): Promise<GcsAnswer> {
    return this.#http.send({
      method: "GET",
      path: this.#pathOf(key),
      query: { alt: "media" },
      headers,
      expect,
      what,
      signal,
    });
  }

  #upload(
    key: string,
    data: Uint8Array,
    ifGenerationMatch: string | undefined,
    what: string,
    signal: AbortSignal,
  ): Promise<GcsAnswer> {
    const metadata = metadataOf(data);
    // The data's own hash: it cannot stand in the data by chance.
    const boundary = `denokv-${md5(data).toHex()}`;
    const part = (type: string) =>
      `\r\n--${boundary}\r\ncontent-type: ${type}\r\n\r\n`;
    return this.#http.send({
      method: "POST",
      path: `/upload/storage/v1${this.#objects}`,
      query: {
        uploadType: "multipart",
        name: this.#prefix + key,
        fields: FIELDS,
        ifGenerationMatch,
      },
      headers: { "content-type": `multipart/related; boundary=${boundary}` },
      body: concatBytes([
        utf8(part("application/json; charset=utf-8")),
        utf8(JSON.stringify(metadata)),
        utf8(part(metadata.contentType)),
        data,
        utf8(`\r\n--${boundary}--`),
      ]),
      expect: ifGenerationMatch === undefined ? [200] : [200, 412],
      what,
      signal,
    });
  }

  #putIf(
    key: string,
    data: Uint8Array,
    generation: VersionTag,
    options: RequestOptions | undefined,
  ): Promise<WriteResult> {
    return this.#runPaced(options, "Writing", key, async (what, signal) => {
      const answer = await this.#upload(key, data, generation, what, signal);
      return answer.status === 412
        ? { written: false }
        : { written: true, tag: writtenGeneration(answer, data, what) };
    });
  }

  #page(
    prefix: string,
    pageToken: string | undefined,
    options: ListOptions | undefined,
  ): Promise<Page> {
    const what = `Listing ${quote(prefix)} in ${this.url}`;
    const { startAfter, pageSize = MAX_PAGE_SIZE } = options ?? {};
    return withinLimits(this.#limits, options, what, async (signal) => {
      const answer = await this.#http.send({
        method: "GET",
        path: `/storage/v1${this.#objects}`,
        query: {
          prefix: this.#prefix + prefix,
          startOffset: startAfter === undefined
            ? undefined
            : this.#prefix + startAfter,
          maxResults: String(pageSize),
          pageToken,
          fields: `items(${FIELDS}),nextPageToken`,
        },
        expect: [200],
        what,
        signal,
      });
      return pageOf(answer, what);
    });
  }

  #infoOf(description: Description): ObjectInfo {
    return {
      key: description.name.slice(this.#prefix.length),
      sizeBytes: Number(description.size),
      modifiedMs: Date.parse(description.timeCreated),
    };
  }

  /** A request that changes the object, when Google takes it. */
  #runPaced<T>(
    options: RequestOptions | undefined,
    doing: string,
    key: string,
    work: (what: string, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    return this.#paced(
      options,
      doing,
      key,
      () => this.#run(options, doing, key, work),
    );
  }

  /** The wait is none of the request's time limit. */
  async #paced<T>(
    options: RequestOptions | undefined,
    doing: string,
    key: string,
    write: () => Promise<T>,
  ): Promise<T> {
    if (this.#pace.waitMs(key) > 0) {
      const what = `${doing} ${quote(key)} in ${this.url}`;
      const waiting = { ...options, timeoutMs: MAX_PACE_WAIT_MS };
      await withinLimits(
        this.#limits,
        waiting,
        what,
        () => this.#pace.turn(key),
      );
    }
    try {
      return await write();
    } finally {
      this.#pace.ended(key);
    }
  }

  /** Runs one request on a key within its limits. */
  #run<T>(
    options: RequestOptions | undefined,
    doing: string,
    key: string,
    work: (what: string, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const what = `${doing} ${quote(key)} in ${this.url}`;
    // deno-lint-ignore require-await -- a bad key rejects, it does not throw
    return withinLimits(this.#limits, options, what, async (signal) => {
      checkKey(key);
      return work(what, signal);
    });
  }
}

/** What is said of an object beside its data. */
export interface Metadata {
  contentType: string;
  /** Google refuses data that has another one. */
  md5Hash: string;
  cacheControl: string;
}

function metadataOf(data: Uint8Array): Metadata {
  return {
    contentType: "application/octet-stream",
    md5Hash: md5(data).toBase64(),
    // Google and proxies keep copies of a public object for an hour otherwise.
    cacheControl: "no-store",
  };
}
