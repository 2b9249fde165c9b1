/** `health`: asks a running server whether it is ready. */
import { type Clock, systemClock } from "../common/clock.ts";
import { formatAddress } from "./address.ts";
import { ask, member } from "./ask.ts";
import type { HealthConfig } from "./config.ts";
import type { CliIo } from "./io.ts";

/** Docker gives a health check 30 s; an answer this late is no good answer. */
const TIMEOUT_MS = 5_000;

/**
 * A standby is well: a container engine should not replace it. Whether it
 * serves is for a load balancer, which asks /-/ready itself.
 * @returns the exit code: 0 ready or standing by, 1 neither, or not reached
 */
export async function health(
  config: HealthConfig,
  io: CliIo,
  clock: Clock = systemClock,
): Promise<number> {
  const url = `http://${formatAddress(config.address)}/-/ready`;
  const reply = await ask(url, { timeoutMs: TIMEOUT_MS, clock });
  if (reply.kind !== "answer") {
    io.err(`not ready: ${url} could not be asked. ${reply.why}`);
    return 1;
  }
  const { status, json } = reply;
  const said = member(json, "status");
  if (status === 200 && said === "ready") {
    io.out(`ready: ${url}`);
    return 0;
  }
  if (said === "not ready" && member(json, "cause") === "standby") {
    io.out(`standby: ${url}`);
    return 0;
  }
  // Another program at this address says nothing about the database.
  const isOurs = said === "ready" || said === "not ready";
  io.err(
    isOurs
      ? `not ready: ${url} answered ${status}: ${
        member(json, "reason") ?? member(json, "cause") ?? "it gave no reason"
      }`
      : `not ready: ${url} answered ${status}, and not as a denokv server does. Another program may have this address; check --addr.`,
  );
  return 1;
}
