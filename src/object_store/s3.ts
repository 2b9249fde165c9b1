/**
 * `s3://`: a bucket of Amazon S3 or of a store that speaks its language, by
 * the AWS SDK with its standard chain of credentials. Conditions are
 * `If-None-Match: *` and `If-Match: <ETag>`.
 *
 * The SDK's own retries are off. A conditional write whose first try acted
 * unheard would come back from a second one as a conflict, and its caller
 * would believe that it had lost.
 */
import * as aws from "@aws-sdk/client-s3";
import { FetchHttpHandler } from "@smithy/fetch-http-handler";
import type { Bytes } from "../common/bytes.ts";
import type { Clock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import { nowIn } from "./answer_time.ts";
import { checkKey, checkRange, quote } from "./keys.ts";
import {
  DEFAULT_REQUEST_TIMEOUT_MS,
  type ListOptions,
  MAX_PAGE_SIZE,
  type ObjectHead,
  type ObjectInfo,
  type ObjectStore,
  ObjectStoreRefusedError,
  type PutOptions,
  type RequestOptions,
  type StoredObject,
  type VersionTag,
  type WriteResult,
} from "./object_store.ts";
import { withCause } from "./fetch_error.ts";
import { S3Http } from "./s3_http.ts";
import { explain, isConflict, isMissing, isPastEnd } from "./s3_errors.ts";
import { putInParts } from "./s3_parts.ts";
import {
  closedError,
  inParallel,
  type Limits,
  withinLimits,
} from "./time_limit.ts";

export interface S3Options {
  bucket: string;
  /** Before every key; empty, or without a slash at its ends. */
  prefix: string;
  clock: Clock;
  /** As `http://localhost:9000`; default: Amazon's, by region. */
  endpoint?: string;
  /** Default: AWS_REGION, the AWS profile; with an endpoint, us-east-1. */
  region?: string;
  /** The bucket in the path, not the host name; default: with an endpoint. */
  usePathStyle?: boolean;
  /** Default: the standard chain (environment, profile, container, …). */
  credentials?: { accessKeyId: string; secretAccessKey: string };
  timeoutMs?: number;
  /** An object larger than one part goes in parts; at least 5 MiB. */
  partSizeBytes?: number;
}

const DEFAULT_PART_SIZE_BYTES = 16 * 1024 * 1024;

/** Connections that are kept open for the next request. */
const MAX_IDLE_CONNECTIONS = 64;

/** One by one: not every S3-compatible store can delete many in one request. */
const DELETE_WIDTH = 16;

export class S3ObjectStore implements ObjectStore {
  readonly url: string;
  readonly #bucket: string;
  /** Empty, or ends in a slash. */
  readonly #prefix: string;
  readonly #partSizeBytes: number;
  readonly #client: aws.S3Client;
  readonly #http = Deno.createHttpClient({
    poolMaxIdlePerHost: MAX_IDLE_CONNECTIONS,
  });
  readonly #limits: Limits;
  readonly #closing = new AbortController();
  /** For all that is done with one whole object. */
  readonly #objects: S3Http;

  constructor(options: S3Options) {
    this.#bucket = options.bucket;
    this.#prefix = options.prefix === "" ? "" : `${options.prefix}/`;
    this.#partSizeBytes = options.partSizeBytes ?? DEFAULT_PART_SIZE_BYTES;
    this.url = `s3://${options.bucket}/${options.prefix}`.replace(/\/$/, "");
    this.#limits = {
      clock: options.clock,
      timeoutMs: options.timeoutMs ?? DEFAULT_REQUEST_TIMEOUT_MS,
      closed: this.#closing.signal,
    };
    const { endpoint } = options;
    const region = options.region ??
      (endpoint === undefined ? undefined : environmentRegion() ?? "us-east-1");
    this.#client = new aws.S3Client({
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(region === undefined ? {} : { region }),
      ...(options.credentials && { credentials: options.credentials }),
      forcePathStyle: options.usePathStyle ?? endpoint !== undefined,
      maxAttempts: 1,
      // The checksums that the SDK adds by default are refused by some stores.
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
      // By the runtime's own client: over TLS, the SDK's usual one demands
      // every permission about the system, for the list of authorities.
      requestHandler: new FetchHttpHandler({
        // The handler always hands over a Request.
        customFetch: ((request: globalThis.Request) =>
          // A redirect would lose the signature.
          fetch(request, {
            client: this.#http,
            redirect: "manual",
          })) as typeof fetch,
      }),
    });
    this.#objects = new S3Http({
      client: this.#client,
      bucket: this.#bucket,
      http: this.#http,
      clock: options.clock,
    });
  }

  /** Makes the bucket where it is missing: for development. */
  async createBucket(): Promise<void> {
    try {
      await this.#client.send(
        new aws.CreateBucketCommand({ Bucket: this.#bucket }),
      );
    } catch (error) {
      const { name } = error as Error;
      if (name === "BucketAlreadyOwnedByYou") return;
      if (name === "BucketAlreadyExists") return;
      const told = explain(error, `Making the bucket ${this.#bucket}`);
      throw told instanceof UnavailableError
        ? new ObjectStoreRefusedError(
          `The bucket ${this.#bucket} could not be made: ${
            withCause(error)
          }. Is the object store running?`,
        )
        : told;
    }
  }

  get(
    key: string,
    options?: RequestOptions,
  ): Promise<StoredObject | undefined> {
    return this.#run(options, "Reading", key, async (key, signal) => {
      const answer = await this.#objects.send({ method: "GET", key, signal });
      const data = await readBody(answer);
      return { data, tag: tagOf(answer) };
    }, { missing: undefined });
  }

  getRange(
    key: string,
    offsetBytes: number,
    sizeBytes: number,
    options?: RequestOptions,
  ): Promise<Bytes | undefined> {
    return this.#run(options, "Reading", key, async (key, signal) => {
      checkRange(offsetBytes, sizeBytes);
      const range = `bytes=${offsetBytes}-${offsetBytes + sizeBytes - 1}`;
      try {
        const answer = await this.#objects.send({
          method: "GET",
          key,
          headers: { range },
          signal,
        });
        const data = await readBody(answer);
        if (data.length <= sizeBytes) return data;
        throw new UnavailableError(
          `${this.url} answered a range of ${sizeBytes} bytes with ` +
            `${data.length}: something between ignores ranges.`,
        );
      } catch (error) {
        if (isPastEnd(error)) return new Uint8Array(0);
        throw error;
      }
    }, { missing: undefined });
  }

  head(key: string, options?: RequestOptions): Promise<ObjectHead | undefined> {
    return this.#run(options, "Looking at", key, async (fullKey, signal) => {
      const answer = await this.#objects.send({
        method: "HEAD",
        key: fullKey,
        signal,
      });
      const { headers } = answer;
      return {
        key,
        sizeBytes: Number(headers.get("content-length") ?? 0),
        modifiedMs: Date.parse(headers.get("last-modified") ?? "") || 0,
        tag: tagOf(answer),
        ...nowIn(headers.get("date")),
      };
    }, { missing: undefined, hasBody: false });
  }

  put(
    key: string,
    data: Uint8Array,
    options?: PutOptions,
  ): Promise<VersionTag> {
    if (data.length <= this.#partSizeBytes) {
      return this.#run(
        options,
        "Writing",
        key,
        (key, signal) => this.#putWhole(key, data, {}, signal, options),
      );
    }
    return putInParts({
      client: this.#client,
      bucket: this.#bucket,
      data,
      partSizeBytes: this.#partSizeBytes,
      // Each step is a request with a limit of its own.
      step: (what, work, stepOptions) =>
        this.#run(stepOptions ?? options, what, key, work),
    });
  }

  create(
    key: string,
    data: Uint8Array,
    options?: RequestOptions,
  ): Promise<WriteResult> {
    return this.#putIf(key, data, { "if-none-match": "*" }, options);
  }

  replace(
    key: string,
    data: Uint8Array,
    tag: VersionTag,
    options?: RequestOptions,
  ): Promise<WriteResult> {
    return this.#putIf(key, data, { "if-match": tag }, options);
  }

  async *list(
    prefix: string,
    options?: ListOptions,
  ): AsyncGenerator<ObjectInfo> {
    const startAfter = options?.startAfter;
    let token: string | undefined;
    do {
      const page = await this.#page(prefix, startAfter, token, options);
      // Names that XML cannot carry come percent-encoded, where asked for.
      const decode = page.EncodingType === "url" ? decodeName : String;
      for (const object of page.Contents ?? []) {
        yield {
          key: decode(object.Key!).slice(this.#prefix.length),
          sizeBytes: object.Size ?? 0,
          modifiedMs: object.LastModified?.getTime() ?? 0,
        };
      }
      token = page.IsTruncated ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
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
        this.#run(options, "Deleting", key, async (Key, signal) => {
          await this.#client.send(
            new aws.DeleteObjectCommand({ Bucket: this.#bucket, Key }),
            { abortSignal: signal },
          );
        }, { missing: undefined }),
    );
  }

  close(): Promise<void> {
    if (this.#closing.signal.aborted) return Promise.resolve();
    this.#closing.abort(closedError(this.url));
    this.#client.destroy();
    this.#http.close();
    return Promise.resolve();
  }

  async #putWhole(
    key: string,
    body: Uint8Array,
    conditions: Record<string, string>,
    signal: AbortSignal,
    options: PutOptions = {},
  ): Promise<VersionTag> {
    const answer = await this.#objects.send({
      method: "PUT",
      key,
      headers: { "content-type": "application/octet-stream", ...conditions },
      body,
      bodySha256: options.sha256,
      pauseMs: options.pauseMs,
      signal,
    });
    await answer.body?.cancel();
    return tagOf(answer);
  }

  #putIf(
    key: string,
    data: Uint8Array,
    conditions: Record<string, string>,
    options: RequestOptions | undefined,
  ): Promise<WriteResult> {
    return this.#run<WriteResult>(
      options,
      "Writing",
      key,
      async (key, signal) => {
        try {
          const tag = await this.#putWhole(key, data, conditions, signal);
          return { written: true, tag };
        } catch (error) {
          if (isConflict(error)) return { written: false };
          throw error;
        }
      },
      // S3 says "no such key" of a replace where there is nothing.
      { missing: { written: false } },
    );
  }

  #page(
    prefix: string,
    startAfter: string | undefined,
    token: string | undefined,
    options: ListOptions | undefined,
  ): Promise<aws.ListObjectsV2CommandOutput> {
    const what = `Listing ${quote(prefix)} in ${this.url}`;
    return withinLimits(this.#limits, options, what, async (signal) => {
      try {
        return await this.#client.send(
          new aws.ListObjectsV2Command({
            Bucket: this.#bucket,
            Prefix: this.#prefix + prefix,
            StartAfter: token === undefined && startAfter !== undefined
              ? this.#prefix + startAfter
              : undefined,
            ContinuationToken: token,
            MaxKeys: options?.pageSize ?? MAX_PAGE_SIZE,
            EncodingType: "url",
          }),
          { abortSignal: signal },
        );
      } catch (error) {
        throw explain(error, what);
      }
    });
  }

  /**
   * Runs one request on a key, with errors a person can read.
   * @param known the answer where the object is missing, if that is no error
   */
  #run<T>(
    options: RequestOptions | undefined,
    doing: string,
    key: string,
    work: (fullKey: string, signal: AbortSignal) => Promise<T>,
    known?: { missing: T; hasBody?: false },
  ): Promise<T> {
    const what = `${doing} ${quote(key)} in ${this.url}`;
    return withinLimits(this.#limits, options, what, async (signal) => {
      try {
        checkKey(key);
        return await work(this.#prefix + key, signal);
      } catch (error) {
        if (known !== undefined && isMissing(error, known.hasBody ?? true)) {
          return known.missing;
        }
        throw explain(error, what);
      }
    });
  }
}

function tagOf({ headers }: Response): VersionTag {
  const tag = headers.get("etag");
  if (tag !== null) return tag;
  throw new UnavailableError(
    "The store gave no ETag, without which nothing can be replaced safely.",
  );
}

/** The body, and no less of it than was announced. */
async function readBody({ headers, body }: Response): Promise<Bytes> {
  const sizeBytes = Number(headers.get("content-length") ?? NaN);
  if (!Number.isSafeInteger(sizeBytes)) {
    throw new UnavailableError(
      "The store's answer does not say how long it is. It can be tried again.",
    );
  }
  let data = new Uint8Array(sizeBytes);
  if (sizeBytes === 0 || body === null) return data;
  // Straight to where it belongs: chunks would be garbage faster than it is
  // collected, 50 MB of it at a time.
  const reader = body.getReader({ mode: "byob" });
  for (let at = 0;;) {
    const { value } = at < sizeBytes
      ? await reader.read(data.subarray(at))
      : await reader.read(new Uint8Array(1));
    const readBytes = value?.length ?? 0;
    if (readBytes === 0 && at === sizeBytes) return data;
    if (readBytes === 0 || at === sizeBytes) break;
    at += readBytes;
    data = new Uint8Array(value!.buffer);
  }
  void reader.cancel().catch(() => {});
  throw new UnavailableError(
    "The store's answer broke off before its end. It can be tried again.",
  );
}

/** Form encoding, as S3 uses it in lists: a plus is a space. */
function decodeName(name: string): string {
  return decodeURIComponent(name.replaceAll("+", " "));
}

function environmentRegion(): string | undefined {
  try {
    return Deno.env.get("AWS_REGION") || undefined;
  } catch {
    // Not allowed to look: as if it were not set.
    return undefined;
  }
}
