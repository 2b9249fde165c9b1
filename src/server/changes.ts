/**
 * `GET /-/changes`: every mutation, commit by commit, as JSON lines or as
 * server-sent events. docs/changes.md is for users.
 */
import { LogGoneError, type LogSource } from "../store/log_source.ts";
import type { Store } from "../store/store.ts";
import { versionstampHex } from "../protocol/versionstamp.ts";
import type { Access } from "./access.ts";
import { type ChangeQuery, changeQuery, goneSentence } from "./change_query.ts";
import type { ChangeStreams } from "./change_streams.ts";
import { text } from "./responses.ts";

export interface ChangesDeps {
  store: Pick<Store, "health" | "log">;
  access: Pick<Access, "mayWrite" | "isWritePossible">;
  streams: ChangeStreams;
}

export class Changes {
  constructor(private readonly deps: ChangesDeps) {}

  /**
   * @param rawQuery without its `?`
   * @throws InvalidRequestError, TooLargeError, UnavailableError
   */
  handle(request: Request, rawQuery: string): Response {
    const { access, store } = this.deps;
    if (request.method !== "GET") {
      return text(405, "A change feed takes GET only.", [["allow", "GET"]]);
    }
    if (!access.mayWrite(request)) {
      const isMissing = !request.headers.has("authorization");
      return text(
        401,
        `A change feed shows every key: the access token or KVSTORE_SECRET is ${
          isMissing ? "missing" : "wrong"
        }.`,
        [["www-authenticate", "Bearer"]],
      );
    }
    const query = changeQuery(rawQuery, request.headers);
    const { log } = store;
    if (log !== undefined) return this.open(query, log);
    const health = store.health();
    // Not here, or not now: another instance has the database, or none has.
    if (!health.writable) return text(503, health.reason, RETRY);
    return text(
      404,
      "This server has no log, so it has no change feed: ask the one that takes the writes.",
    );
  }

  private open(query: ChangeQuery, log: LogSource): Response {
    const { durableVersion, logFloorVersion } = log;
    const { from } = query;
    const afterVersion = from === "now"
      ? durableVersion
      : from === "oldest"
      ? logFloorVersion
      : from;
    try {
      // What the log no longer has is looked for when the feed gets there.
      const isPast = afterVersion < logFloorVersion &&
        this.deps.streams.reachesBack;
      if (
        afterVersion > durableVersion ||
        !isPast && !log.hasBeenAt(afterVersion)
      ) {
        return text(
          409,
          `This database is at ${
            versionstampHex(durableVersion, 0)
          } and has never been at ${
            versionstampHex(afterVersion, 0)
          }: whoever has seen that has followed another database, or what a takeover or a rewind has given up. Take the present state once, as docs/changes.md has it.`,
        );
      }
      const stream = this.deps.streams.stream({ ...query, log, afterVersion });
      const type = query.format === "lines"
        ? "application/x-ndjson"
        : "text/event-stream";
      return new Response(stream, {
        headers: [
          ["content-type", type],
          // Compressed, lines would wait for each other.
          ["cache-control", "no-store, no-transform"],
          ["x-content-type-options", "nosniff"],
          // For a proxy of nginx, which would gather them too.
          ["x-accel-buffering", "no"],
        ],
      });
    } catch (error) {
      if (!(error instanceof LogGoneError)) throw error;
      return text(410, goneSentence(afterVersion, error.floorVersion));
    }
  }
}

const RETRY: [string, string][] = [["retry-after", "1"]];
