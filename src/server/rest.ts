/**
 * The REST API: one key a path, its value the body. Who may do what is
 * `Access`'s to say; keys are made in rest_key.ts; what a value looks like as
 * JSON is in protocol/typed_json.ts. docs/rest.md is for users.
 *
 * Errors are thrown where they are an `InvalidRequestError`, `TooLargeError`
 * or `UnavailableError`: the router turns them into statuses.
 */
import { type Bytes, EMPTY_BYTES, fromUtf8, utf8 } from "../common/bytes.ts";
import { InvalidRequestError, TooLargeError } from "../common/errors.ts";
import { MAX_VALUE_BYTES } from "../protocol/limits.ts";
import {
  Encoding,
  type Entry,
  MutationType,
  NEVER_MS,
  type ReadRange,
} from "../protocol/messages.ts";
import { UnreadableValueError } from "../protocol/stored_value.ts";
import { toJson, TYPED_JSON_TYPE } from "../protocol/typed_json.ts";
import { parseJson, parseTypedJson } from "../protocol/typed_json_parse.ts";
import { encodeValue } from "../protocol/v8_encode.ts";
import {
  asciiText,
  encodeText,
  STRING_OVERHEAD_BYTES,
} from "../protocol/v8_string.ts";
import { decodeValue } from "../protocol/v8_value.ts";
import { versionstampHex } from "../protocol/versionstamp.ts";
import { LargeReadError, type Store } from "../store/store.ts";
import type { Access } from "./access.ts";
import type { Answers } from "./answers.ts";
import type { Bodies } from "./body.ts";
import type { Client } from "./client.ts";
import { isMetadataExchange } from "./exchange.ts";
import type { MinVersions } from "./min_version.ts";
import { text } from "./responses.ts";
import { keyOfPath } from "./rest_key.ts";

/** The longest text that can be stored: two bytes of UTF-8 for each Latin letter. */
const MAX_TEXT_BODY_BYTES = 2 * (MAX_VALUE_BYTES - STRING_OVERHEAD_BYTES);
/**
 * The longest body of JSON. A value is limited where it is stored, and there
 * a character of JSON takes as little as an eighth of its bytes.
 */
const MAX_JSON_BODY_BYTES = 8 * MAX_VALUE_BYTES;

const TEXT_TYPE = "text/plain; charset=utf-8";
const JSON_TYPE = "application/json";
const BYTES_TYPE = "application/octet-stream";
/** What curl says about any body that it was not told about. */
const FORM_TYPE = "application/x-www-form-urlencoded";

const ALLOWED_METHODS = "GET, HEAD, POST, PUT, DELETE";

/** Headers that ask for more than this API does: never silently ignored. */
const REFUSED_ON_WRITES = [
  "if-match",
  "if-none-match",
  "if-unmodified-since",
  "content-range",
];

export interface RestDeps {
  store: Pick<Store, "read" | "write" | "isReadOnly" | "primaryUrl">;
  access: Access;
  bodies: Pick<Bodies, "read">;
  answers: AnswersOfRest;
  minVersions: Pick<MinVersions, "ready">;
}

type AnswersOfRest = Pick<
  Answers,
  "respond" | "take" | "maxReadBytes" | "budget"
>;

export interface Rest {
  /**
   * @param rawPath the path of the request line, not decoded or normalised
   * @param rawQuery what follows its question mark, or ""
   * @throws InvalidRequestError, TooLargeError, UnavailableError, and what
   *   `Bodies.read` throws; at once or as a rejection
   */
  handle(
    request: Request,
    rawPath: string,
    rawQuery: string,
    client: Client,
  ): Response | Promise<Response>;
}

export function createRest(deps: RestDeps): Rest {
  const { store, access, bodies, answers, minVersions } = deps;

  function read(
    request: Request,
    rawPath: string,
    rawQuery: string,
    client: Client,
    isHead: boolean,
  ): Response | Promise<Response> {
    if (!access.mayRead(request)) {
      return refuseAccess(access, request, "Reads");
    }
    refuseQuery(rawQuery);
    const key = keyOfPath(rawPath);
    const ready = minVersions.ready(request);
    return ready === undefined
      ? readKey(request, key, client, isHead)
      : ready.then(() => readKey(request, key, client, isHead));
  }

  function readKey(
    request: Request,
    key: Bytes,
    client: Client,
    isHead: boolean,
  ): Response | Promise<Response> {
    const end = new Uint8Array(key.length + 1);
    end.set(key);
    const range = { start: key, end, limit: 1, reverse: false, isPoint: true };
    const condition = request.headers.get("if-none-match");
    let found: Entry[][] | Promise<Entry[][]>;
    const later = (error: unknown) =>
      readInTurn(range, condition, request, client, error);
    try {
      // An answer to HEAD is small whatever is stored.
      found = store.read(
        [range],
        isHead ? undefined : answers.maxReadBytes(client),
      );
    } catch (error) {
      return later(error);
    }
    const reply = ([[entry]]: Entry[][]) => {
      const made = answer(entry, condition, isHead);
      return made instanceof Response
        ? made
        : answers.respond(made.body, made, request, client);
    };
    // No promise where the store has the answer at hand: most reads.
    return found instanceof Promise ? found.then(reply, later) : reply(found);
  }

  /** A large value while others wait for theirs: read when its turn comes. */
  async function readInTurn(
    range: ReadRange,
    condition: string | null,
    request: Request,
    client: Client,
    cause: unknown,
  ): Promise<Response> {
    if (!(cause instanceof LargeReadError)) throw cause;
    await answers.take(MAX_VALUE_BYTES, request, client);
    try {
      const [[entry]] = await store.read([range]);
      const made = answer(entry, condition, false);
      if (!(made instanceof Response)) {
        const { body } = made;
        return await answers.respond(
          body,
          made,
          request,
          client,
          MAX_VALUE_BYTES,
        );
      }
      answers.budget.give(MAX_VALUE_BYTES);
      return made;
    } catch (error) {
      answers.budget.give(MAX_VALUE_BYTES);
      throw error;
    }
  }

  async function write(
    request: Request,
    rawPath: string,
    rawQuery: string,
    isDelete: boolean,
  ): Promise<Response> {
    if (!access.mayWrite(request)) {
      return refuseAccess(access, request, "Writes");
    }
    if (store.isReadOnly) return refuseReadOnly(store.primaryUrl);
    refuseQuery(rawQuery);
    refuseHeaders(request.headers);
    const key = keyOfPath(rawPath);
    let raw = NO_VALUE;
    if (!isDelete) {
      const type = mediaType(request.headers.get("content-type"));
      const body = await bodies.read(request, maxBodyBytes(type));
      if (
        request.method === "POST" && isMetadataExchange(request, body) &&
        access.isFromClient(request)
      ) {
        return text(404, WRONG_DATABASE_PATH);
      }
      raw = valueOf(type, body);
    }
    const { value, encoding } = raw;
    const outcome = await store.write({
      checks: [],
      mutations: [{
        type: isDelete ? MutationType.DELETE : MutationType.SET,
        key,
        value,
        encoding,
        expireAtMs: NEVER_MS,
        sumMin: null,
        sumMax: null,
        sumClamp: false,
      }],
      enqueues: [],
    });
    switch (outcome.status) {
      case "committed":
        return written(versionstampHex(outcome.version, outcome.order));
      case "writeDisabled":
        return refuseReadOnly(store.primaryUrl);
      case "refused":
        throw new InvalidRequestError(outcome.message);
      case "checkFailed":
        throw new Error("A write without checks cannot fail one.");
    }
  }

  return {
    handle(request, rawPath, rawQuery, client) {
      switch (request.method) {
        case "GET":
          return read(request, rawPath, rawQuery, client, false);
        case "HEAD":
          return read(request, rawPath, rawQuery, client, true);
        case "POST":
        case "PUT":
          return write(request, rawPath, rawQuery, false);
        case "DELETE":
          return write(request, rawPath, rawQuery, true);
        default:
          return text(405, "A key takes GET, HEAD, POST, PUT and DELETE.", [
            ["allow", ALLOWED_METHODS],
          ]);
      }
    },
  };
}

// ----------------------------------------------------------------- refusals

/** A client that opened a URL with a path takes the path for a database. */
const WRONG_DATABASE_PATH =
  'This is a metadata exchange of KV Connect, as Deno.openKv sends it, and there is no database at this path: this server\'s only one is at its root, as in Deno.openKv("http://host:4512"). Nothing was written. To store such a value over REST, use PUT.';

function refuseAccess(
  access: Access,
  request: Request,
  what: "Reads" | "Writes",
): Response {
  if (!access.isWritePossible) {
    return text(
      403,
      `${what} over REST are off: this server has neither KVSTORE_SECRET nor an access token. Set one of them and send it in the authorization header.`,
    );
  }
  return text(
    401,
    request.headers.has("authorization")
      ? `The secret in the authorization header is wrong: ${what.toLowerCase()} need KVSTORE_SECRET or "Bearer <access token>". Nothing was done.`
      : `${what} need a secret: send KVSTORE_SECRET or "Bearer <access token>" in the authorization header. Nothing was done.`,
    [["www-authenticate", "Bearer"]],
  );
}

function refuseReadOnly(primaryUrl: string | undefined): Response {
  const where = primaryUrl === undefined
    ? ""
    : ` Writes are taken at ${primaryUrl}.`;
  return text(403, `This server is read-only. Nothing was written.${where}`);
}

function refuseQuery(rawQuery: string): void {
  if (rawQuery === "") return;
  throw new InvalidRequestError(
    "A key takes no parameters; a question mark in a key is written %3F. Nothing was done.",
  );
}

function refuseHeaders(headers: Headers): void {
  for (const name of REFUSED_ON_WRITES) {
    if (!headers.has(name)) continue;
    throw new InvalidRequestError(
      `Writes do not take the header ${name}. Nothing was written.`,
    );
  }
  const coding = headers.get("content-encoding");
  if (coding !== null && coding.toLowerCase() !== "identity") {
    throw new InvalidRequestError(
      "A body is stored as it is: send it without content-encoding. Nothing was written.",
    );
  }
}

// -------------------------------------------------------------------- values

type RawValue = { value: Bytes; encoding: Encoding };

const NO_VALUE: RawValue = { value: EMPTY_BYTES, encoding: Encoding.BYTES };

function isText(type: string): boolean {
  return type === "" || type === FORM_TYPE || type.startsWith("text/");
}

function isJson(type: string): boolean {
  return type === JSON_TYPE || type.endsWith("+json");
}

function maxBodyBytes(type: string): number {
  if (isText(type)) return MAX_TEXT_BODY_BYTES;
  return isJson(type) ? MAX_JSON_BODY_BYTES : MAX_VALUE_BYTES;
}

/** What to store for a request's body, by its content type. */
function valueOf(type: string, body: Bytes): RawValue {
  if (isText(type)) {
    const value = encodeText(body);
    return value === undefined
      ? checked({ value: body, encoding: Encoding.BYTES }, BYTES_FIT)
      : checked({ value, encoding: Encoding.V8 }, TEXT_FITS);
  }
  if (isJson(type)) {
    const json = fromUtf8(body);
    if (json === undefined) {
      throw new InvalidRequestError(
        "The body is said to be JSON but is no UTF-8. Nothing was written.",
      );
    }
    const isTyped = type === TYPED_JSON_TYPE;
    const value = isTyped ? parseTypedJson(json) : parseJson(json);
    return encodeValue(value, MAX_VALUE_BYTES);
  }
  return { value: body, encoding: Encoding.BYTES };
}

/** `text/html` of `Text/HTML; charset=utf-8`; "" where there is none. */
function mediaType(header: string | null): string {
  if (header === null) return "";
  const end = header.indexOf(";");
  return (end < 0 ? header : header.slice(0, end)).trim().toLowerCase();
}

const BYTES_FIT = `A body of bytes may have ${MAX_VALUE_BYTES} of them.`;
const TEXT_FITS = `A body of ASCII text may have ${
  MAX_VALUE_BYTES - STRING_OVERHEAD_BYTES
} bytes, one of Latin letters as many characters, any other half as many.`;

/** @param fits says how long a body of its kind may be */
function checked(raw: RawValue, fits: string): RawValue {
  if (raw.value.length > MAX_VALUE_BYTES) {
    throw new TooLargeError(
      `A value may take at most ${MAX_VALUE_BYTES} bytes where it is stored; this one takes ${raw.value.length}. ${fits} Nothing was written.`,
    );
  }
  return raw;
}

// ------------------------------------------------------------------- answers

function written(versionstamp: string): Response {
  return new Response(`{"ok":true,"versionstamp":"${versionstamp}"}`, {
    headers: [["content-type", JSON_TYPE], ["cache-control", "no-store"]],
  });
}

/** A value as it is shown, still to be sent. */
interface ToSend {
  body: Bytes;
  headers: [string, string][];
}

function answer(
  entry: Entry | undefined,
  ifNoneMatch: string | null,
  isHead: boolean,
): Response | ToSend {
  if (entry === undefined) return text(404, "There is no value at this key.");
  const etag = `"${versionstampHex(entry.version, entry.order)}"`;
  if (ifNoneMatch !== null && names(ifNoneMatch, etag)) {
    return new Response(null, {
      status: 304,
      headers: [["etag", etag], ["cache-control", "no-cache"]],
    });
  }
  let shown: Shown;
  try {
    shown = show(entry);
  } catch (error) {
    if (!(error instanceof UnreadableValueError)) throw error;
    return text(
      422,
      `${error.message} It is kept as it is; it can be read over KV Connect, overwritten or deleted.`,
    );
  }
  const headers: [string, string][] = [
    ["content-type", shown.type],
    ["etag", etag],
    // Kept by a cache or not: it has to ask whether it is still current.
    ["cache-control", "no-cache"],
    // A stored page must not act in the name of this server.
    ["x-content-type-options", "nosniff"],
    ["content-security-policy", "sandbox; default-src 'none'"],
  ];
  if (!isHead) return { body: shown.body, headers };
  headers.push(["content-length", String(shown.body.length)]);
  return new Response(null, { headers });
}

/** Whether an If-None-Match header names the tag; weak tags count as well. */
function names(header: string, etag: string): boolean {
  return header.split(",").some((item) => {
    const tag = item.trim();
    return tag === "*" || tag === etag || tag === `W/${etag}`;
  });
}

interface Shown {
  type: string;
  body: Bytes;
}

/** @throws UnreadableValueError */
function show(entry: Entry): Shown {
  if (entry.encoding === Encoding.BYTES) {
    return { type: BYTES_TYPE, body: entry.value };
  }
  const ascii = entry.encoding === Encoding.V8
    ? asciiText(entry.value)
    : undefined;
  if (ascii !== undefined) return { type: TEXT_TYPE, body: ascii };
  const decoded = decodeValue(entry);
  const { value } = decoded;
  // A string that no UTF-8 can hold comes as JSON, with its escapes.
  if (typeof value === "string" && value.isWellFormed()) {
    return { type: TEXT_TYPE, body: utf8(value) };
  }
  if (value instanceof Uint8Array) {
    return { type: BYTES_TYPE, body: value as Bytes };
  }
  const { body, isTyped } = toJson(decoded);
  return { type: isTyped ? TYPED_JSON_TYPE : JSON_TYPE, body };
}
