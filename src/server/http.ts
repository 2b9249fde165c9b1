/**
 * The door: every request comes in here, goes to one of the entrances, and is
 * counted. The only place that turns an error into a status.
 */
import type { Clock } from "../common/clock.ts";
import {
  InvalidRequestError,
  messageOf,
  TooLargeError,
  TooManyError,
  UnavailableError,
} from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import { versionstampHex } from "../protocol/versionstamp.ts";
import { BodyTimeoutError } from "./body.ts";
import { type Client, nameOf } from "./client.ts";
import type { Changes } from "./changes.ts";
import type { Cors } from "./cors.ts";
import type { Denials } from "./denials.ts";
import { DATA_PATH, type KvConnect } from "./kv_connect.ts";
import type { Endpoint, RequestMetrics } from "./metrics.ts";
import { LOG_PATH, type ReplicaFeed, SNAPSHOT_PATH } from "./replica_feed.ts";
import { text } from "./responses.ts";
import type { BackupControl, Service } from "./service.ts";
import { type Target, targetOf } from "./target.ts";
import type { Turns } from "./turns.ts";
import { UnreadBodies } from "./unread_bodies.ts";

/** The REST API, as the door needs it. */
export interface RestEntrance {
  /**
   * @param rawPath still percent-encoded, as on the wire, beginning with `/`
   * @param rawQuery without its `?`; empty where there is none
   */
  handle(
    request: Request,
    rawPath: string,
    rawQuery: string,
    client: Client,
  ): Response | Promise<Response>;
}

export interface DoorDeps {
  clock: Clock;
  logger: Logger;
  metrics: RequestMetrics;
  denials: Denials;
  /** Absent where no page of another origin may use REST. */
  cors: Cors | undefined;
  rest: RestEntrance;
  service: Service;
  changes: Pick<Changes, "handle">;
  replicaFeed: Pick<ReplicaFeed, "handle">;
  /** Absent where no access token is set. */
  kvConnect: KvConnect | undefined;
  backup(): Pick<BackupControl, "durableVersions"> | undefined;
  turns: Turns;
  /** One line of the log for each request. */
  logsAccess: boolean;
}

const SHORT_DATA_PATH = "/v2";
const CHANGES_PATH = "/-/changes";
/** Of a path, in a line of the log: the runtime takes 64 KiB of it from anyone. */
const MAX_LOGGED_PATH_CHARS = 1024;

type Info = Deno.ServeHandlerInfo<Deno.NetAddr>;

export type Handler = (
  request: Request,
  info: Info,
) => Response | Promise<Response>;

export function createDoor(deps: DoorDeps): Handler {
  const { clock, logger, metrics, denials, cors, turns, logsAccess } = deps;
  const unreadBodies = new UnreadBodies(clock);

  return function handle(request, info) {
    const startedMs = clock.monotonicMs();
    return turns.isOver(startedMs)
      ? turns.later(nameOf(info), () => answer(request, info, startedMs))
      : answer(request, info, startedMs);
  };

  function answer(
    request: Request,
    info: Info,
    startedMs: number,
  ): Response | Promise<Response> {
    const target = targetOf(request.url, request.headers.get("host"));
    const endpoint = target === undefined
      ? "service"
      : endpointOf(request.method, target.path);
    const done = (made: Response): Response | Promise<Response> => {
      const response = request.method === "HEAD" ? bodiless(made) : made;
      const { status } = response;
      if (endpoint === "rest" || endpoint === "changes") {
        cors?.allow(request, response.headers);
      }
      if (endpoint === "rest") {
        const versions = deps.backup()?.durableVersions();
        if (versions) tellDurable(response.headers, versions);
      }
      const tookMs = clock.monotonicMs() - startedMs;
      metrics.observe(endpoint, status, tookMs / 1000);
      if (status === 401) {
        const hasSecret = request.headers.has("authorization");
        denials.count(hasSecret, () => nameOf(info));
      }
      if (logsAccess) {
        logger.info("request", {
          from: nameOf(info),
          method: request.method,
          path: target?.path.slice(0, MAX_LOGGED_PATH_CHARS),
          status,
          tookMs: Math.round(tookMs * 1000) / 1000,
        });
      }
      // What nobody has read is in the way of the answer. A read has no body,
      // and asking whether it has takes a microsecond.
      if (status < 400 && request.method !== "DELETE") return response;
      return unreadBodies.discard(request)?.then(() => response) ?? response;
    };
    const failed = (error: unknown) =>
      done(errorResponse(error, endpoint, logger));
    try {
      const made = target === undefined
        ? text(400, NO_HOST)
        : route(endpoint, request, target, info);
      return made instanceof Promise ? made.then(done, failed) : done(made);
    } catch (error) {
      return failed(error);
    }
  }

  function route(
    endpoint: Endpoint,
    request: Request,
    { path, query }: Target,
    info: Info,
  ): Response | Promise<Response> {
    if (endpoint === "rest") {
      return cors?.preflight(request) ??
        deps.rest.handle(request, path, query, info);
    }
    if (endpoint === "changes") {
      return cors?.preflight(request) ?? deps.changes.handle(request, query);
    }
    if (endpoint === "replica") {
      return deps.replicaFeed.handle(request, path, query);
    }
    if (endpoint === "service") return deps.service.handle(request, path);
    const { kvConnect } = deps;
    if (kvConnect === undefined) {
      return text(
        403,
        "KV Connect is off: this server was started without an access token. Set DENO_KV_ACCESS_TOKEN where it is started.",
      );
    }
    if (endpoint === "exchange") return kvConnect.exchange(request);
    return kvConnect.data(request, callOf(path), info);
  }
}

const NO_HOST =
  "The Host header names no host, or the request's address is none of http or https. Nothing was done.";

/** Up to where every commit is durable, on this disk and in the bucket. */
function tellDurable(
  headers: Headers,
  { local, bucket }: ReturnType<BackupControl["durableVersions"]>,
): void {
  headers.set("durable-local", versionstampHex(local, 0));
  headers.set("durable-backup", versionstampHex(bucket, 0));
}

/**
 * The answer to HEAD. The runtime would send a body over HTTP/2 all the same,
 * and clients end the connection with a protocol error.
 */
function bodiless(answer: Response): Response {
  if (answer.body === null) return answer;
  void answer.body.cancel().catch(() => {});
  return new Response(null, { status: answer.status, headers: answer.headers });
}

/** By the shape of the path alone; what is in it is the entrance's business. */
function endpointOf(method: string, path: string): Endpoint {
  if (path.startsWith(DATA_PATH) || path.startsWith(SHORT_DATA_PATH)) {
    const base = path.startsWith(DATA_PATH) ? DATA_PATH : SHORT_DATA_PATH;
    if (path.length === base.length || path[base.length] === "/") {
      const call = path.slice(base.length + 1);
      return call === "atomic_write" || call === "watch"
        ? call
        : "snapshot_read";
    }
  }
  if (path === LOG_PATH || path === SNAPSHOT_PATH) return "replica";
  if (path === "/") return method === "POST" ? "exchange" : "service";
  if (path === CHANGES_PATH) return "changes";
  return path.startsWith("/-/") || path === "/-" ? "service" : "rest";
}

function callOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

function errorResponse(
  error: unknown,
  endpoint: Endpoint,
  logger: Logger,
): Response {
  if (error instanceof InvalidRequestError) return text(400, error.message);
  if (error instanceof TooLargeError) {
    // On the data path every limit is a 400, which its clients do not retry.
    return text(endpoint === "rest" ? 413 : 400, error.message);
  }
  if (error instanceof BodyTimeoutError) return text(408, error.message);
  if (error instanceof TooManyError) return text(429, error.message);
  if (error instanceof UnavailableError) {
    return text(503, error.message, [["retry-after", "1"]]);
  }
  logger.error("A request failed in an unforeseen way.", {
    endpoint,
    reason: error instanceof Error
      ? error.stack ?? error.message
      : messageOf(error),
  });
  return text(
    500,
    "The server failed in an unforeseen way; its log says more. The request may or may not have been applied.",
  );
}
