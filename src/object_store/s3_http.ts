/**
 * One request for one object of an S3, signed and sent here. The SDK takes 1 to
 * 2 ms of processor time for each, five times as much, and these are made with
 * every segment (docs/decisions/object-stores.md). Where it goes to, for which
 * region and with which credentials is the SDK's to say.
 */
import * as aws from "@aws-sdk/client-s3";
import type { Bytes } from "../common/bytes.ts";
import type { Clock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import { nowIn } from "./answer_time.ts";
import { PacedBody, PIECE_BYTES } from "./paced_body.ts";
import { hashOf, type Scope, Signer } from "./s3_signature.ts";

/** An error's text is read up to this. */
const MAX_ERROR_CHARS = 4096;
/** A store refuses a request that is 15 minutes early or late. */
const MAX_SKEW_MS = 5 * 60_000;
/** Stands for every key where the SDK is asked where objects lie. */
const ANY_KEY = "k";

export interface S3HttpOptions {
  client: aws.S3Client;
  bucket: string;
  http: Deno.HttpClient;
  clock: Clock;
}

export interface S3Request {
  method: "GET" | "HEAD" | "PUT";
  /** With the prefix. */
  key: string;
  headers?: Record<string, string>;
  body?: Uint8Array;
  /** See `PutOptions`. */
  bodySha256?: string | undefined;
  pauseMs?: number | undefined;
  signal: AbortSignal;
}

/** What the store says instead of doing it, in the form of the SDK's errors. */
export class S3HttpError extends Error {
  readonly $metadata: { httpStatusCode: number };

  constructor(name: string, message: string, status: number) {
    super(message);
    this.name = name;
    this.$metadata = { httpStatusCode: status };
  }
}

/** Where the bucket's objects lie, and for what their requests are signed. */
export interface BucketPlace {
  origin: string;
  host: string;
  /** Before every key; with a slash at both ends. */
  path: string;
  scope: Scope;
}

export class S3Http {
  #place: BucketPlace & { signer: Signer } | undefined;

  constructor(private readonly options: S3HttpOptions) {}

  /** @throws S3HttpError unless the answer is a success; then its body is open */
  async send(
    request: S3Request,
  ): Promise<Response> {
    const { method, key, headers = {}, body, pauseMs = 0, signal } = request;
    const { client, bucket, clock, http } = this.options;
    if (this.#place === undefined) {
      const place = await findPlace(client, bucket);
      this.#place = { ...place, signer: new Signer(place.scope) };
    }
    const { origin, path: folder, host, signer } = this.#place;
    const credentials = await client.config.credentials();
    const path = folder + key.split("/").map(encoded).join("/");
    const signed = signer.sign({
      method,
      path,
      headers: { ...headers, host },
      bodyHash: request.bodySha256 ?? await hashOf(body),
      nowMs: clock.nowMs() + client.config.systemClockOffset,
    }, credentials);
    // The runtime says it by itself.
    delete signed.host;
    const answer = await fetch(origin + path, {
      method,
      headers: signed,
      body: body !== undefined && pauseMs > 0 && body.length > PIECE_BYTES
        ? new PacedBody(body, pauseMs, clock)
        : body as Bytes | undefined,
      client: http,
      // A redirect would lose the signature.
      redirect: "manual",
      signal,
    });
    this.#noteClock(answer);
    if (answer.ok) return answer;
    throw await errorOf(answer, method);
  }

  /** A clock that is far off is put right in signatures, as the SDK does it. */
  #noteClock({ headers }: Response): void {
    const { client: { config }, clock } = this.options;
    const { nowMs } = nowIn(headers.get("date"));
    if (nowMs === undefined) return;
    const skewMs = nowMs - clock.nowMs();
    if (Math.abs(skewMs - config.systemClockOffset) >= MAX_SKEW_MS) {
      config.systemClockOffset = skewMs;
    }
  }
}

/** A request as the SDK has made it. */
interface MadeRequest {
  protocol: string;
  hostname: string;
  port?: number;
  path: string;
  headers: Record<string, string>;
}

/** By the SDK's rules: from a request that it signs and does not send. */
export async function findPlace(
  client: aws.S3Client,
  bucket: string,
): Promise<BucketPlace> {
  const command = new aws.HeadObjectCommand({ Bucket: bucket, Key: ANY_KEY });
  let request: MadeRequest | undefined;
  command.middlewareStack.add(() => (args) => {
    request = args.request as MadeRequest;
    return Promise.resolve({ output: { $metadata: {} }, response: {} });
  }, { step: "finalizeRequest", priority: "low" });
  await client.send(command);
  const { protocol, hostname, port, path, headers } = request!;
  const scope = /\/\d{8}\/([^/]+)\/([^/]+)\/aws4_request,/
    .exec(headers.authorization ?? "");
  if (scope === null || !path.endsWith(`/${ANY_KEY}`)) {
    throw new UnavailableError(
      "The AWS SDK does not say where the objects lie and how to sign for them.",
    );
  }
  const { origin, host } = new URL(
    `${protocol}//${hostname}${port === undefined ? "" : `:${port}`}`,
  );
  return {
    origin,
    host,
    path: path.slice(0, -ANY_KEY.length),
    scope: { region: scope[1], service: scope[2] },
  };
}

/** Everything but what RFC 3986 leaves as it is. */
function encoded(part: string): string {
  return encodeURIComponent(part).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

async function errorOf(answer: Response, method: string): Promise<Error> {
  const { status } = answer;
  const text = (await answer.text()).slice(0, MAX_ERROR_CHARS);
  const name = tagIn(text, "Code");
  if (name !== undefined) {
    return new S3HttpError(name, tagIn(text, "Message") ?? "", status);
  }
  // The answer to a HEAD has no room for it.
  return method === "HEAD"
    ? new S3HttpError("", "", status)
    : new S3HttpError(NOT_S3, "", status);
}

/** The name of an error whose body is not that of an S3's. */
export const NOT_S3 = "NotS3";

function tagIn(xml: string, tag: string): string | undefined {
  return /<Error>/.test(xml)
    ? new RegExp(`<${tag}>([^<]*)</${tag}>`).exec(xml)?.[1]
    : undefined;
}
