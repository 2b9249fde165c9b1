/**
 * One request to Google Cloud Storage's JSON API, with credentials from
 * Google's own library. Its storage library is not used: it can neither be
 * given an `AbortSignal` nor a time limit, and does not say which generation
 * it has downloaded (docs/decisions/object-stores.md).
 */
import { GoogleAuth } from "google-auth-library";
import type { Bytes } from "../common/bytes.ts";
import { messageOf, UnavailableError } from "../common/errors.ts";
import { missingPermission } from "../common/permissions.ts";
import { ALL_PERMISSIONS, unknownOutcome, withCause } from "./fetch_error.ts";
import { ObjectStoreRefusedError } from "./object_store.ts";

const GOOGLE_ENDPOINT = "https://storage.googleapis.com";
const SCOPE = "https://www.googleapis.com/auth/devstorage.read_write";

/** An error's text is cut to this; it goes into a sentence. */
const MAX_REASON_CHARS = 300;

const PASSING_STATUS = new Set([408, 425, 429]);

/** A key file that cannot be read: a person has to do something about it. */
const OF_FILES = new Set(["ENOENT", "EACCES", "EPERM", "EISDIR", "ENOTDIR"]);

export interface GcsRequest {
  method: "GET" | "POST" | "PUT" | "DELETE";
  /** A path below the endpoint, or a whole URL that the store gave out. */
  path: string;
  query?: Record<string, string | undefined>;
  headers?: Record<string, string>;
  body?: Uint8Array;
  /** Statuses that are an answer; any other is thrown as an error. */
  expect: readonly number[];
  /** What is being done, as in "Reading x": begins an error's sentence. */
  what: string;
  signal: AbortSignal;
}

export interface GcsAnswer {
  status: number;
  headers: Headers;
  body: Bytes;
}

export class GcsHttp {
  readonly #endpoint: string;
  /** With the token that it last got, which it keeps until that runs out. */
  #auth: GoogleAuth | undefined;

  /**
   * @param options.endpoint default: Google's
   * @param options.isAnonymous send no credentials, as an emulator wants it
   */
  constructor(options: { endpoint?: string; isAnonymous: boolean }) {
    this.#endpoint = options.endpoint ?? GOOGLE_ENDPOINT;
    this.#auth = options.isAnonymous ? undefined : newAuth();
  }

  async send(request: GcsRequest): Promise<GcsAnswer> {
    const auth = this.#auth;
    let answer = await this.#sendOnce(request, auth);
    if (answer.status === 401 && auth !== undefined) {
      // The token was revoked before its time. Nothing was carried out.
      if (this.#auth === auth) this.#auth = newAuth();
      answer = await this.#sendOnce(request, this.#auth);
    }
    if (request.expect.includes(answer.status)) return answer;
    throw refusal(request.what, answer);
  }

  async #sendOnce(
    request: GcsRequest,
    auth: GoogleAuth | undefined,
  ): Promise<GcsAnswer> {
    const { what, signal } = request;
    const url = this.#urlOf(request);
    const headers = await this.#headers(url, auth, what);
    for (const [name, value] of Object.entries(request.headers ?? {})) {
      headers.set(name, value);
    }
    try {
      const response = await fetch(url, {
        method: request.method,
        headers,
        body: request.body as Bytes | undefined,
        redirect: "manual",
        signal,
      });
      const { status, headers: answered } = response;
      return { status, headers: answered, body: await all(response) };
    } catch (error) {
      const missing = missingPermission(error);
      if (missing !== undefined) {
        throw new ObjectStoreRefusedError(`${missing} ${ALL_PERMISSIONS}`);
      }
      throw new UnavailableError(
        `${what} got no answer (${withCause(error)})${unknownOutcome(what)}`,
      );
    }
  }

  #urlOf({ path, query }: GcsRequest): URL {
    const url = new URL(path, this.#endpoint);
    for (const [name, value] of Object.entries(query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, value);
    }
    return url;
  }

  async #headers(
    url: URL,
    auth: GoogleAuth | undefined,
    what: string,
  ): Promise<Headers> {
    // An upload's URL comes from an answer; credentials go to one place only.
    const isHome = url.origin === new URL(this.#endpoint).origin;
    if (auth === undefined || !isHome) return new Headers();
    try {
      return new Headers(await auth.getRequestHeaders(url.href));
    } catch (error) {
      const missing = missingPermission(permissionError(error));
      if (missing !== undefined) {
        throw new ObjectStoreRefusedError(
          `${what} needs credentials, which could not be looked for. ${missing} ${ALL_PERMISSIONS}`,
        );
      }
      const reason = oneLine(messageOf(error)).slice(0, MAX_REASON_CHARS);
      if (isPassing(error)) {
        throw new UnavailableError(
          `${what} needs a token, and Google's token service gave no answer (${reason}). It can be tried again.`,
        );
      }
      throw new ObjectStoreRefusedError(
        `${what} needs credentials, and there are none: ${reason}. Name a key file in GOOGLE_APPLICATION_CREDENTIALS, or ` +
          "run where Google gives credentials to the machine.",
      );
    }
  }
}

function newAuth(): GoogleAuth {
  return new GoogleAuth({
    scopes: SCOPE,
    // No request here needs a project. Unless one is given the library
    // looks for it, as far as running `gcloud`.
    projectId: "unused",
    // By the runtime's own client: over TLS, the library's usual one
    // demands every permission about the system.
    clientOptions: { transporterOptions: { fetchImplementation: fetch } },
  });
}

/**
 * Whether the object is missing; a missing bucket is thrown as an error, and so
 * is a page of something else that answers, which must not look like a backup
 * that is empty or gone.
 */
export function isMissing(answer: GcsAnswer, what: string): boolean {
  if (answer.status !== 404) return false;
  if (/bucket does not exist/i.test(text(answer)) || isForeign(answer)) {
    throw refusal(what, answer);
  }
  return true;
}

/** A page for people: Google's own errors are JSON, or a line of text. */
function isForeign(answer: GcsAnswer): boolean {
  return /^\s*<(?:!doctype|html)/i.test(text(answer));
}

async function all(response: Response): Promise<Bytes> {
  const body = new Uint8Array(await response.arrayBuffer());
  const announced = response.headers.get("content-length");
  // A body that came compressed is longer than its length was.
  const isPlain = !response.headers.has("content-encoding");
  if (isPlain && announced !== null && Number(announced) !== body.length) {
    throw new Error("it broke off before its end");
  }
  return body;
}

/** Google found that data is not what its checksum says. */
export function damaged(what: string): UnavailableError {
  return new UnavailableError(
    `${what}: the data was damaged on its way to the store. It can be tried again.`,
  );
}

/** The error for an answer that nobody expected. */
function refusal(what: string, answer: GcsAnswer): Error {
  const { status } = answer;
  if (status === 400 && /hash|crc32c/i.test(text(answer))) return damaged(what);
  const said = `${status}${reasonOf(answer)}`;
  const isFinal = status < 500 && !PASSING_STATUS.has(status);
  if (!isFinal || status < 300) {
    return new UnavailableError(
      `${what} got no good answer (${said})${unknownOutcome(what)}`,
    );
  }
  if (isForeign(answer)) {
    return new ObjectStoreRefusedError(
      `${what} got an answer that is not Google's (status ${status}). Something between here and the store answers in its place.`,
    );
  }
  const advice = status === 401 || status === 403
    ? "Allow this account to read, write, list and delete objects there."
    : status === 404
    ? "Create the bucket, or correct its name."
    : "Nothing was changed.";
  return new ObjectStoreRefusedError(
    `${what} was refused (${said}). ${advice}`,
  );
}

function reasonOf(answer: GcsAnswer): string {
  const raw = text(answer);
  let reason = raw;
  try {
    reason = String(JSON.parse(raw).error?.message ?? raw);
  } catch {
    // Not JSON: a media download, or something between, answers with text.
  }
  reason = oneLine(reason).slice(0, MAX_REASON_CHARS);
  return reason === "" ? "" : `, ${reason}`;
}

function text(answer: GcsAnswer): string {
  return new TextDecoder().decode(answer.body.subarray(0, 4096));
}

function oneLine(message: string): string {
  return message.replace(/\p{Cc}+/gu, " ").trim().replace(/[.\s]+$/, "");
}

/** The runtime's refusal, out of an error of the library that quotes it. */
function permissionError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  if (error instanceof Deno.errors.NotCapable) return error;
  const quoted = /Requires \w+ access.*--allow-\w+/s.exec(error.message)?.[0];
  if (quoted !== undefined) return new Deno.errors.NotCapable(quoted);
  return error.cause === undefined ? error : permissionError(error.cause);
}

/** A failure to get a token that may pass: no answer, 429 or 5xx. */
function isPassing(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const status = "status" in error ? Number(error.status) : NaN;
  if (status >= 500 || status === 429) return true;
  // Of a request by the library itself, to which nothing was answered.
  if ("config" in error && Number.isNaN(status)) return true;
  return "code" in error && typeof error.code === "string" &&
    /^E[A-Z_]+$/.test(error.code) && !OF_FILES.has(error.code);
}
