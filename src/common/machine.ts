/** What tells this machine, since it was started, from every other. */
import type { Clock } from "./clock.ts";

/**
 * When this machine was started, in milliseconds since 1970, to about a
 * second; undefined where the runtime may not tell (`--allow-sys=osUptime`).
 */
export function machineStartedMs(clock: Clock): number | undefined {
  // Asked for first: without `--no-prompt` a person would be asked.
  const { state } = Deno.permissions.querySync({
    name: "sys",
    kind: "osUptime",
  });
  if (state !== "granted") return undefined;
  return clock.nowMs() - Deno.osUptime() * 1000;
}
