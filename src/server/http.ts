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
import type { BackupReport, Store } from "../store/store.ts";
import type { Access } from "./access.ts";
import { afterBody, BodyTimeoutError } from "./body.ts";
import { DATA_PATH, type KvConnect } from "./kv_connect.ts";
import { type Endpoint, RequestMetrics } from "./metrics.ts";
import { json, text } from "./responses.ts";

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
  ): Response | Promise<Response>;
}

/** A backup, as the door needs it. */
export interface BackupControl {
  report(): BackupReport;
  /** Cheap: asked for every REST answer. */
  durableVersions(): { local: number; bucket: number };
  /** Begins a new generation; resolves when it is complete. */
  snapshot(): Promise<{ generation: string }>;
}

export interface DoorDeps {
  store: Store;
  clock: Clock;
  logger: Logger;
  version: string;
  rest: RestEntrance;
  /** Absent where no access token is set. */
  kvConnect: KvConnect | undefined;
  /** A sentence while the server is stopping. */
  stopping(): string | undefined;
  access: Access;
  backup: BackupControl | undefined;
}

const SHORT_DATA_PATH = "/v2";

export type Handler = (
  request: Request,
  info: Deno.ServeHandlerInfo<Deno.NetAddr>,
) => Response | Promise<Response>;

export function createDoor(deps: DoorDeps): Handler {
  const { clock, logger, backup } = deps;
  const metrics = new RequestMetrics();

  return function handle(request, info) {
    const startedMs = clock.monotonicMs();
    const { url } = request;
    // The raw target: a WHATWG URL would swallow `.` and `..`, which may be
    // keys. What comes before it is `http://` and the host.
    const pathAt = url.indexOf("/", 8);
    const queryAt = url.indexOf("?", pathAt);
    const path = pathAt < 0
      ? "/"
      : queryAt < 0
      ? url.slice(pathAt)
      : url.slice(pathAt, queryAt);
    const endpoint = endpointOf(request, path);
    const done = (answer: Response) => {
      const response = request.method === "HEAD" ? bodiless(answer) : answer;
      if (backup !== undefined && endpoint === "rest") {
        tellDurable(response.headers, backup.durableVersions());
      }
      metrics.observe(
        endpoint,
        response.status,
        (clock.monotonicMs() - startedMs) / 1000,
      );
      return response.status < 400 ? response : afterBody(request, response);
    };
    const failed = (error: unknown) =>
      done(errorResponse(error, endpoint, logger));
    try {
      const query = queryAt < 0 ? "" : url.slice(queryAt + 1);
      const answer = route(endpoint, request, path, query, info);
      return answer instanceof Promise
        ? answer.then(done, failed)
        : done(answer);
    } catch (error) {
      return failed(error);
    }
  };

  function route(
    endpoint: Endpoint,
    request: Request,
    path: string,
    query: string,
    info: Deno.ServeHandlerInfo<Deno.NetAddr>,
  ): Response | Promise<Response> {
    if (endpoint === "rest") return deps.rest.handle(request, path, query);
    if (endpoint === "service") return service(request, path);
    const { kvConnect } = deps;
    if (kvConnect === undefined) {
      return text(
        403,
        "KV Connect is off: this server was started without an access token. Set DENO_KV_ACCESS_TOKEN where it is started.",
      );
    }
    if (endpoint === "exchange") return kvConnect.exchange(request);
    return kvConnect.data(request, callOf(path), () => {
      const { hostname, port } = info.remoteAddr;
      return `${hostname}:${port}`;
    });
  }

  function service(
    request: Request,
    path: string,
  ): Response | Promise<Response> {
    if (path === "/-/backup/snapshot") return snapshot(request);
    if (request.method !== "GET" && request.method !== "HEAD") {
      return text(405, "This address takes GET only.", [[
        "allow",
        "GET, HEAD",
      ]]);
    }
    switch (path) {
      case "/-/health":
        return json(200, { status: "ok", version: deps.version });
      case "/-/ready": {
        const reason = notReady();
        const status = reason === undefined
          ? { status: "ready" }
          : { status: "not ready", reason };
        return json(reason === undefined ? 200 : 503, {
          ...status,
          backup: backup && readableReport(backup.report()),
        });
      }
      case "/-/metrics":
        return new Response(
          metrics.render(
            deps.store,
            deps.version,
            notReady() === undefined,
            backup,
          ),
          {
            headers: [
              ["content-type", "text/plain; version=0.0.4; charset=utf-8"],
              ["cache-control", "no-store"],
            ],
          },
        );
      default:
        return text(
          404,
          "Nothing is here. Addresses under /-/ belong to the server; a key whose first part is a dash is written /%2D.",
        );
    }
  }

  async function snapshot(request: Request): Promise<Response> {
    if (request.method !== "POST") {
      return text(405, "This address takes POST only.", [["allow", "POST"]]);
    }
    if (!deps.access.mayWrite(request)) {
      return text(
        401,
        "The access token or KVSTORE_SECRET is missing or wrong.",
        [[
          "www-authenticate",
          "Bearer",
        ]],
      );
    }
    if (backup === undefined) {
      return text(404, "This server has no backup; start it with --backup.");
    }
    return json(200, await backup.snapshot());
  }

  function notReady(): string | undefined {
    const stopping = deps.stopping();
    if (stopping !== undefined) return stopping;
    const health = deps.store.health();
    return health.writable ? undefined : health.reason;
  }
}

/** Versions as people and clients know them. */
function readableReport(report: BackupReport) {
  return {
    ...report,
    localVersion: versionstampHex(report.localVersion, 0),
    bucketVersion: versionstampHex(report.bucketVersion, 0),
  };
}

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
  return new Response(null, { status: answer.status, headers: answer.headers });
}

/** By the shape of the path alone; what is in it is the entrance's business. */
function endpointOf(request: Request, path: string): Endpoint {
  if (path.startsWith(DATA_PATH) || path.startsWith(SHORT_DATA_PATH)) {
    const base = path.startsWith(DATA_PATH) ? DATA_PATH : SHORT_DATA_PATH;
    if (path.length === base.length || path[base.length] === "/") {
      const call = path.slice(base.length + 1);
      return call === "atomic_write" || call === "watch"
        ? call
        : "snapshot_read";
    }
  }
  if (path === "/") return request.method === "POST" ? "exchange" : "service";
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
