/** `promote`: a replica becomes the owner of its database. */
import { systemClock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import { ask, member } from "./ask.ts";
import type { PromoteConfig } from "./config.ts";
import { formatDuration } from "./duration.ts";
import type { CliIo } from "./io.ts";

/** @returns the exit code */
export async function promote(
  { url, secret, json: isJson }: PromoteConfig,
  io: CliIo,
): Promise<number> {
  const startedMs = systemClock.monotonicMs();
  // Without a time limit: the server has one of its own.
  const reply = await ask(`${url}/-/promote`, {
    method: "POST",
    headers: { authorization: `Bearer ${secret}` },
  });
  if (reply.kind === "notAllowed") {
    throw new StartupError(`${reply.why} Nothing was changed.`);
  }
  if (reply.kind === "silent") {
    throw new StartupError(
      `${url} could not be asked, or gave no answer. ${reply.why} Start the replica, or name its --addr or --url; where it was asked already, its log says what came of it.`,
    );
  }
  const { status, text, json } = reply;
  if (status === 401) {
    throw new StartupError(
      "The server does not know this secret: it is neither its access token nor its KVSTORE_SECRET. Nothing was changed; set it as it is set for the server, and check --addr or --url.",
    );
  }
  const epoch = member(json, "epoch");
  const versionstamp = member(json, "versionstamp");
  if (status !== 200 || typeof versionstamp !== "string") {
    throw new StartupError(
      /^[^<{]{1,1000}$/.test(text)
        ? `The server refused (${status}): ${text}`
        : `What answers at ${url} (status ${status}) is no denokv server, or one of another version. Nothing was changed by this; check --addr or --url.`,
    );
  }
  const tookMs = Math.round(systemClock.monotonicMs() - startedMs);
  io.out(
    isJson
      ? JSON.stringify({ url, epoch, versionstamp, tookMs })
      : `${url} is the owner of the database and takes writes: epoch ${epoch}, versionstamp ${versionstamp}, after ${
        formatDuration(tookMs)
      }.`,
  );
  return 0;
}
