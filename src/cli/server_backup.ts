/** What a running server says of its backup, for the `backup` commands. */
import { formatAddress } from "./address.ts";
import { ask, member } from "./ask.ts";
import type { BackupConfig } from "./config.ts";

/** Members of `/-/ready`'s `backup`. */
export interface ServerBackup {
  epoch: number;
  generation: string | null;
  /** A versionstamp: everything up to it is in the bucket. */
  bucketVersion: string;
  state: string;
  lagMs: number;
  lagBytes: number;
}

export type Asked =
  | { kind: "backup"; backup: ServerBackup }
  /** `why` is no sentence: more may follow it. */
  | { kind: "none"; why: string };

const TIMEOUT_MS = 3000;

export async function askServer(
  address: BackupConfig["address"],
): Promise<Asked> {
  const url = `http://${formatAddress(address)}/-/ready`;
  const reply = await ask(url, { timeoutMs: TIMEOUT_MS });
  const none = (why: string): Asked => ({ kind: "none", why });
  if (reply.kind !== "answer") {
    const why = reply.why.replace(/\.$/, "");
    return none(
      reply.kind === "notAllowed"
        ? `not asked: ${why}`
        : `none answers at ${formatAddress(address)} (${why})`,
    );
  }
  if (typeof member(reply.json, "status") !== "string") {
    return none(
      `what answers at ${formatAddress(address)} is no denokv server`,
    );
  }
  const backup = member(reply.json, "backup");
  if (backup === undefined) {
    return none(`the one at ${formatAddress(address)} has no backup`);
  }
  return isServerBackup(backup) ? { kind: "backup", backup } : none(
    `the one at ${
      formatAddress(address)
    } is of another version, and its answer is not understood`,
  );
}

function isServerBackup(json: unknown): json is ServerBackup {
  const generation = member(json, "generation");
  return typeof member(json, "epoch") === "number" &&
    (generation === null || typeof generation === "string") &&
    /^[0-9a-f]{20}$/.test(String(member(json, "bucketVersion"))) &&
    typeof member(json, "state") === "string" &&
    typeof member(json, "lagMs") === "number" &&
    typeof member(json, "lagBytes") === "number";
}
