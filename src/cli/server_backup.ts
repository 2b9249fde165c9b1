/** What a running server says of its backup, for the `backup` commands. */
import type { BackupRequests } from "../store/store.ts";
import { formatAddress } from "./address.ts";
import { ask, member } from "./ask.ts";
import type { BackupConfig } from "./config.ts";

/** Members of `/-/ready`'s `backup`. */
export interface ServerBackup {
  state: string;
  /** 0 where everything that is durable on its disk is in the backup. */
  lagMs: number;
  /** Absent where the server was not shown its secret. */
  more?: {
    epoch: number;
    generation: string | null;
    /** A versionstamp: everything up to it is in the bucket. */
    bucketVersion: string;
    lagBytes: number;
    /** Absent where the server is of a version that does not count them. */
    requests?: BackupRequests;
  };
}

export type Asked =
  | { kind: "backup"; backup: ServerBackup }
  /** `why` is no sentence: more may follow it. */
  | { kind: "none"; why: string };

const TIMEOUT_MS = 3000;

export async function askServer(
  { address, secret }: Pick<BackupConfig, "address" | "secret">,
): Promise<Asked> {
  const at = formatAddress(address);
  const reply = await ask(`http://${at}/-/ready`, {
    headers: secret === undefined ? {} : { authorization: `Bearer ${secret}` },
    timeoutMs: TIMEOUT_MS,
  });
  const none = (why: string): Asked => ({ kind: "none", why });
  if (reply.kind !== "answer") {
    const why = reply.why.replace(/\.$/, "");
    return none(
      reply.kind === "notAllowed"
        ? `not asked: ${why}`
        : `none answers at ${at} (${why})`,
    );
  }
  if (typeof member(reply.json, "status") !== "string") {
    return none(`what answers at ${at} is no denokv server`);
  }
  const said = member(reply.json, "backup");
  if (said === undefined) return none(`the one at ${at} has no backup`);
  const backup = backupOf(said);
  return backup === undefined
    ? none(
      `the one at ${at} is of another version, and its answer is not understood`,
    )
    : { kind: "backup", backup };
}

function backupOf(json: unknown): ServerBackup | undefined {
  const state = member(json, "state");
  const lagMs = member(json, "lagMs");
  if (typeof state !== "string" || typeof lagMs !== "number") return undefined;
  const epoch = member(json, "epoch");
  if (epoch === undefined) return { state, lagMs };
  const generation = member(json, "generation");
  const bucketVersion = member(json, "bucketVersion");
  const lagBytes = member(json, "lagBytes");
  if (
    typeof epoch !== "number" || typeof lagBytes !== "number" ||
    generation !== null && typeof generation !== "string" ||
    typeof bucketVersion !== "string" || !/^[0-9a-f]{20}$/.test(bucketVersion)
  ) return undefined;
  const requests = requestsOf(member(json, "requests"));
  const more = {
    epoch,
    generation,
    bucketVersion,
    lagBytes,
    ...(requests && { requests }),
  };
  return { state, lagMs, more };
}

function requestsOf(json: unknown): BackupRequests | undefined {
  const names = ["put", "list", "get", "head", "delete", "forMs"] as const;
  const entries = names.map((name) => [name, member(json, name)] as const);
  const isWhole = entries.every(([, count]) =>
    typeof count === "number" && count >= 0
  );
  return isWhole
    ? Object.fromEntries(entries) as unknown as BackupRequests
    : undefined;
}
