/**
 * What a live replica asks of its primary: `GET /-/log?after=<versionstamp>`
 * and `GET /-/snapshot` (docs/formats/replica-stream.md). Both show everything,
 * so they are for the holder of the access token, as KV Connect is.
 */
import { InvalidRequestError } from "../common/errors.ts";
import { versionstampHex } from "../protocol/versionstamp.ts";
import { LogGoneError } from "../store/log_source.ts";
import type { Store } from "../store/store.ts";
import type { Access } from "./access.ts";
import type { LogStreams } from "./log_streams.ts";
import { text } from "./responses.ts";
import type { SnapshotStreams } from "./snapshot_streams.ts";

export const LOG_PATH = "/-/log";
export const SNAPSHOT_PATH = "/-/snapshot";

export interface ReplicaFeedDeps {
  store: Store;
  access: Pick<Access, "isFromClient">;
  logs: LogStreams;
  snapshots: SnapshotStreams;
  /** The owner's epoch; 0 where there are none. */
  epoch(): number;
}

export class ReplicaFeed {
  constructor(private readonly deps: ReplicaFeedDeps) {}

  /** @throws InvalidRequestError, UnavailableError */
  handle(request: Request, path: string, rawQuery: string): Response {
    const { access, store } = this.deps;
    if (request.method !== "GET") {
      return text(405, "This address takes GET only.", [["allow", "GET"]]);
    }
    if (!access.isFromClient(request)) {
      const isMissing = !request.headers.has("authorization");
      return text(
        401,
        `A replica gets everything: the access token is ${
          isMissing ? "missing" : "wrong"
        }.`,
        [["www-authenticate", "Bearer"]],
      );
    }
    if (store.log === undefined) {
      const health = store.health();
      return health.writable
        ? text(404, "This server has no log; ask the one that takes writes.")
        : text(503, health.reason, [["retry-after", "1"]]);
    }
    const deflates = /\bdeflate-raw\b/.test(
      request.headers.get("accept-encoding") ?? "",
    );
    if (path === SNAPSHOT_PATH) {
      return this.answer(this.deps.snapshots.stream(deflates));
    }
    return this.log(afterOf(rawQuery), timeOf(rawQuery), deflates);
  }

  private log(
    afterVersion: number,
    timeMs: number | undefined,
    deflates: boolean,
  ): Response {
    const log = this.deps.store.log!;
    try {
      if (
        afterVersion > log.durableVersion ||
        !log.hasBeenAt(afterVersion, timeMs)
      ) {
        return text(
          409,
          `This database was never at ${
            versionstampHex(afterVersion, 0)
          }: what has that state followed another line of its history, and has to begin anew with a snapshot. This one is at ${
            versionstampHex(log.durableVersion, 0)
          }.`,
          this.identity(),
        );
      }
      const { logs } = this.deps;
      return this.answer(logs.stream(log, afterVersion, deflates));
    } catch (error) {
      if (!(error instanceof LogGoneError)) throw error;
      return text(
        410,
        `The log no longer reaches back to ${
          versionstampHex(afterVersion, 0)
        }: it begins after ${
          versionstampHex(error.floorVersion, 0)
        }. Follow the backup from there, or begin anew with a snapshot.`,
        this.identity(),
      );
    }
  }

  /** Whose answer it is, so that nobody takes another database's word. */
  private identity(): [string, string][] {
    const { store, epoch } = this.deps;
    return [
      ["x-denokv-database-id", store.databaseId],
      ["x-denokv-epoch", String(epoch())],
    ];
  }

  private answer(stream: ReadableStream): Response {
    return new Response(stream, {
      headers: [
        ["content-type", "application/vnd.denokv.frames"],
        ["cache-control", "no-store, no-transform"],
        ["x-accel-buffering", "no"],
        ...this.identity(),
      ],
    });
  }
}

/** When the commit of that version was made, where the replica knows. */
function timeOf(rawQuery: string): number | undefined {
  const time = new URLSearchParams(rawQuery).get("time");
  if (time === null) return undefined;
  if (/^\d{1,15}$/.test(time)) return Number(time);
  throw new InvalidRequestError("Give &time= in milliseconds since 1970.");
}

function afterOf(rawQuery: string): number {
  const after = new URLSearchParams(rawQuery).get("after") ?? "";
  if (!/^[0-9a-f]{16}(0{4})?$/i.test(after)) {
    throw new InvalidRequestError(
      "Give ?after= the versionstamp that the replica has: 20 hexadecimal digits.",
    );
  }
  const version = Number(BigInt("0x" + after.slice(0, 16)));
  if (!Number.isSafeInteger(version)) {
    throw new InvalidRequestError("There is no such versionstamp.");
  }
  return version;
}
