/**
 * The KV Connect protocol, versions 1 to 3: the metadata exchange and the
 * data path. Errors are thrown; the router turns them into statuses.
 */
import { type Bytes, fromUtf8 } from "../common/bytes.ts";
import type { Clock } from "../common/clock.ts";
import { InvalidRequestError } from "../common/errors.ts";
import {
  decodeAtomicWrite,
  decodeSnapshotRead,
  decodeWatch,
} from "../protocol/datapath.ts";
import {
  encodeAtomicWriteOutput,
  encodeSnapshotReadOutput,
  LargeReadOutput,
} from "../protocol/datapath_answers.ts";
import * as limits from "../protocol/limits.ts";
import type { Entry, ReadRange, WriteOutcome } from "../protocol/messages.ts";
import { LargeReadError, type Store } from "../store/store.ts";
import { type Answers, MAX_TURN_BYTES, PIECE_BYTES } from "./answers.ts";
import type { Bodies } from "./body.ts";
import { type Client, nameOf } from "./client.ts";
import { DataTokens } from "./data_token.ts";
import { bearerOf, Secret } from "./secret.ts";
import { text } from "./responses.ts";
import type { WatchStreams } from "./watch_stream.ts";

/** Where the data path lives; clients append `/snapshot_read` and so on. */
export const DATA_PATH = "/-/kv/v2";

const PROTOBUF: ResponseInit = {
  headers: [["content-type", "application/x-protobuf"]],
};
const STREAM: ResponseInit = {
  headers: [["content-type", "application/octet-stream"]],
};
/** Exactly so: `@deno/kv` refuses a charset. */
const JSON_INIT: ResponseInit = {
  headers: [["content-type", "application/json"], [
    "cache-control",
    "no-store",
  ]],
};

export interface KvConnectDeps {
  store: Store;
  accessToken: string;
  clock: Clock;
  watches: WatchStreams;
  bodies: Bodies;
  answers: Answers;
  /** Where clients may read with eventual consistency. */
  advertisedReplicas: readonly string[];
  /** A replica names itself alone, for every read. */
  isNamedStrong: boolean;
}

export class KvConnect {
  private readonly secret: Secret;
  private tokens: { databaseId: string; of: DataTokens } | undefined;

  constructor(private readonly deps: KvConnectDeps) {
    this.secret = new Secret(deps.accessToken);
  }

  /**
   * The tokens of the database that is served, at once but for the first time.
   * @throws UnavailableError while none is served
   */
  private dataTokens(): DataTokens | Promise<DataTokens> {
    const { databaseId } = this.deps.store;
    const { tokens } = this;
    return tokens?.databaseId === databaseId
      ? tokens.of
      : this.makeTokens(databaseId);
  }

  private async makeTokens(databaseId: string): Promise<DataTokens> {
    const { accessToken, clock } = this.deps;
    const of = await DataTokens.create(accessToken, databaseId, clock);
    this.tokens = { databaseId, of };
    return of;
  }

  // ------------------------------------------------------ metadata exchange

  async exchange(request: Request): Promise<Response> {
    const authorization = request.headers.get("authorization");
    const bearer = bearerOf(authorization);
    if (bearer === undefined || !this.secret.matches(bearer)) {
      return unauthorized(
        `The access token is ${
          authorization === null ? "missing" : "wrong"
        }. Set DENO_KV_ACCESS_TOKEN to the one this server was started with.`,
      );
    }
    const { bodies } = this.deps;
    const body = await bodies.read(request, limits.MAX_METADATA_BODY_BYTES);
    const version = chooseVersion(body);
    const { databaseId } = this.deps.store;
    const tokens = await this.dataTokens();
    const { token, expiresAtMs } = await tokens.issue();
    const answer = {
      version,
      databaseId,
      endpoints: this.endpoints(
        // Relative from version 2 on.
        version === 1 ? originOf(request) + DATA_PATH : DATA_PATH,
      ),
      token,
      expiresAt: new Date(expiresAtMs).toISOString(),
    };
    return new Response(JSON.stringify(answer), JSON_INIT);
  }

  /**
   * The token that goes along is good at all of them: they have the same
   * access token and the same database.
   */
  private endpoints(own: string): Endpoint[] {
    const { store, advertisedReplicas, isNamedStrong } = this.deps;
    const primaryUrl = isNamedStrong ? undefined : store.primaryUrl;
    const strong = primaryUrl === undefined ? own : dataPathAt(primaryUrl);
    const eventual = primaryUrl === undefined ? [] : [own];
    return [
      { url: strong, consistency: "strong" },
      ...[...eventual, ...advertisedReplicas.map(dataPathAt)].map((url) => ({
        url,
        consistency: "eventual" as const,
      })),
    ];
  }

  // -------------------------------------------------------------- data path

  data(
    request: Request,
    call: string,
    client: Client,
  ): Response | Promise<Response> {
    if (request.method !== "POST") {
      return text(405, "The data path takes POST only.", [["allow", "POST"]]);
    }
    const authorization = request.headers.get("authorization");
    const tokens = this.dataTokens();
    const isKnown = tokens instanceof DataTokens
      ? tokens.check(authorization)
      : tokens.then((made) => made.check(authorization));
    if (isKnown === true) return this.authorized(request, call, client);
    if (isKnown === false) return badToken();
    return isKnown.then((isGood) =>
      isGood ? this.authorized(request, call, client) : badToken()
    );
  }

  private authorized(
    request: Request,
    call: string,
    client: Client,
  ): Response | Promise<Response> {
    this.checkHeaders(request.headers);
    switch (call) {
      case "snapshot_read":
        return this.snapshotRead(request, client);
      case "atomic_write":
        return this.atomicWrite(request);
      case "watch":
        return this.watch(request, nameOf(client));
      default:
        return text(
          404,
          "The data path has the calls snapshot_read, atomic_write and watch.",
        );
    }
  }

  private checkHeaders(headers: Headers): void {
    const version = headers.get("x-denokv-version");
    const isFirst = version === null;
    if (!isFirst && version !== "3" && version !== "2" && version !== "1") {
      throw new InvalidRequestError(
        "x-denokv-version must be 1, 2 or 3; make a new metadata exchange.",
      );
    }
    const id = headers.get(
      isFirst ? "x-transaction-domain-id" : "x-denokv-database-id",
    );
    if (id !== this.deps.store.databaseId) {
      throw new InvalidRequestError(
        "The request names another database than this server has; make a new metadata exchange.",
      );
    }
  }

  private snapshotRead(request: Request, client: Client): Promise<Response> {
    const { bodies, store, answers } = this.deps;
    return bodies.read(request, limits.MAX_READ_BODY_BYTES).then((body) => {
      const ranges = decodeSnapshotRead(body);
      let answer: Entry[][] | Promise<Entry[][]>;
      try {
        answer = store.read(ranges, answers.maxReadBytes(client));
      } catch (error) {
        return this.largeRead(ranges, error, request, client);
      }
      return answer instanceof Promise
        ? answer.then(
          (entries) => this.readResponse(entries, request, client),
          (error) => this.largeRead(ranges, error, request, client),
        )
        : this.readResponse(answer, request, client);
    });
  }

  private readResponse(
    ranges: Entry[][],
    request: Request,
    client: Client,
    reservedBytes?: number,
  ): Response | Promise<Response> {
    const { answers } = this.deps;
    const body = encodeSnapshotReadOutput(ranges);
    return answers.respond(body, PROTOBUF, request, client, reservedBytes);
  }

  /**
   * A read that has to wait, or takes more than one turn of the serving
   * thread. Which of both it is shows when it is read in its turn.
   */
  private async largeRead(
    ranges: readonly ReadRange[],
    cause: unknown,
    request: Request,
    client: Client,
  ): Promise<Response> {
    if (!(cause instanceof LargeReadError)) throw cause;
    const { answers, store } = this.deps;
    const mostBytes = mostBytesOf(ranges);
    if (answers.maxReadBytes(client) < MAX_TURN_BYTES) {
      const turnBytes = Math.min(mostBytes, MAX_TURN_BYTES);
      await answers.take(turnBytes, request, client);
      try {
        const entries = await readInTurn(store, ranges);
        if (entries) {
          return await this.readResponse(entries, request, client, turnBytes);
        }
      } catch (error) {
        answers.budget.give(turnBytes);
        throw error;
      }
      answers.budget.give(turnBytes);
    }
    return await this.readInSlices(ranges, mostBytes, request, client);
  }

  /** Waits until there is room for as much as it might be. */
  private async readInSlices(
    ranges: readonly ReadRange[],
    mostBytes: number,
    request: Request,
    client: Client,
  ): Promise<Response> {
    const { answers, store } = this.deps;
    const { largeReads } = answers;
    await answers.take(mostBytes, request, client, largeReads);
    let output: LargeReadOutput;
    try {
      output = new LargeReadOutput(await store.readLarge(ranges));
    } catch (error) {
      largeReads.give(mostBytes);
      throw error;
    }
    const { sizeBytes } = output;
    largeReads.give(mostBytes - sizeBytes);
    const pieces = output.pieces(PIECE_BYTES);
    return answers.inPieces(pieces, sizeBytes, PROTOBUF, client, largeReads);
  }

  private atomicWrite(request: Request): Promise<Response> {
    const { bodies, store, clock } = this.deps;
    return bodies.read(request, limits.MAX_WRITE_BODY_BYTES).then((body) => {
      const write = decodeAtomicWrite(body, clock.nowMs());
      return store.write(write).then(writeResponse);
    });
  }

  private async watch(request: Request, connection: string): Promise<Response> {
    const { watches, store, bodies } = this.deps;
    const body = await bodies.read(request, limits.MAX_WATCH_BODY_BYTES);
    const keys = decodeWatch(body);
    // From here to the stream without a pause, so that no two share a place.
    const refusal = watches.refusal(connection);
    if (refusal !== undefined) return text(429, refusal);
    const watch = store.watch(keys);
    const stream = watches.stream(watch, connection);
    return new Response(stream, STREAM);
  }
}

/** As the metadata exchange names it. */
interface Endpoint {
  url: string;
  consistency: "strong" | "eventual";
}

/** Of another server, by the address at which clients reach it. */
function dataPathAt(url: string): string {
  return url.replace(/\/+$/, "") + DATA_PATH;
}

/** Undefined where it takes more than a turn. */
async function readInTurn(
  store: Store,
  ranges: readonly ReadRange[],
): Promise<Entry[][] | undefined> {
  try {
    return await store.read(ranges, MAX_TURN_BYTES);
  } catch (error) {
    if (error instanceof LargeReadError) return undefined;
    throw error;
  }
}

/** The largest answer that these ranges can have, framing included. */
function mostBytesOf(ranges: readonly ReadRange[]): number {
  let entries = 0;
  for (const { limit } of ranges) entries += limit;
  return entries * MAX_ENTRY_BYTES;
}

const MAX_ENTRY_BYTES = limits.MAX_VALUE_BYTES + limits.MAX_READ_KEY_BYTES + 32;

function writeResponse(outcome: WriteOutcome): Response {
  if (outcome.status === "refused") {
    throw new InvalidRequestError(outcome.message);
  }
  return new Response(encodeAtomicWriteOutput(outcome), PROTOBUF);
}

/** The highest version that both sides know. */
function chooseVersion(body: Bytes): number {
  // Clients of version 1 send no body.
  if (body.length === 0) return 1;
  let versions: unknown;
  try {
    versions = JSON.parse(fromUtf8(body) ?? "")?.supportedVersions;
  } catch {
    // Falls through to the sentence below.
  }
  if (!Array.isArray(versions)) {
    throw new InvalidRequestError(
      'The body of a metadata exchange must be JSON like {"supportedVersions":[1,2,3]}.',
    );
  }
  for (const version of [3, 2, 1]) {
    if (versions.includes(version)) return version;
  }
  throw new InvalidRequestError(
    "This server speaks versions 1, 2 and 3 of the KV Connect protocol; the client supports none of them.",
  );
}

/** Scheme and authority that the client used, as far as it can be known. */
function originOf(request: Request): string {
  const { url, headers } = request;
  const origin = url.slice(0, url.indexOf("/", url.indexOf("://") + 3));
  // A proxy that ends TLS says so; the answer goes to this client alone.
  return headers.get("x-forwarded-proto") === "https"
    ? origin.replace(/^http:/, "https:")
    : origin;
}

function badToken(): Response {
  return unauthorized(
    "The data token is missing, wrong or no longer valid; make a new metadata exchange.",
  );
}

function unauthorized(sentence: string): Response {
  return text(401, sentence, [["www-authenticate", "Bearer"]]);
}
