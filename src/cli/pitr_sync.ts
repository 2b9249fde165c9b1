/** `pitr sync`: a replica's file, brought to the end of what a bucket holds. */
import { systemClock } from "../common/clock.ts";
import { createLogger } from "../common/log.ts";
import { hexVersion } from "../backup/manifest.ts";
import { asStartupError } from "./backup_place.ts";
import type { PitrSyncConfig } from "./config.ts";
import { type CliIo, say } from "./io.ts";
import { Progress, standardError } from "./progress.ts";
import { openReplica } from "./replica.ts";

/** It asks until it has all, so this is between a failure and the next try. */
const INTERVAL_MS = 1000;

/** @returns the exit code */
export async function pitrSync(
  { place, sqlitePath, json }: PitrSyncConfig,
  io: CliIo,
): Promise<number> {
  const progress = new Progress("Restoring", standardError(), systemClock);
  const startedMs = systemClock.monotonicMs();
  const { replica } = await openReplica({
    place,
    sqlitePath,
    intervalMs: INTERVAL_MS,
    maxWatches: 0,
    logger: createLogger({ format: "text", level: "warn", clock: systemClock }),
    progress: (done, total) => progress.update(done, total),
  });
  try {
    const { version, entries } = await replica.catchUp(() => {
      progress.end();
      if (!json) {
        say(io, "denokv", "Initial snapshot is complete, starting sync.");
      }
    });
    const tookMs = Math.round(systemClock.monotonicMs() - startedMs);
    const versionstamp = hexVersion(version);
    io.out(
      json
        ? JSON.stringify({ versionstamp, logEntries: entries, tookMs })
        : `${sqlitePath} is at ${versionstamp}, the end of what ${place.url} holds: ${entries} entries of the log were new, ${
          (tookMs / 1000).toFixed(1)
        } s.`,
    );
    return 0;
  } catch (error) {
    throw asStartupError(error);
  } finally {
    progress.end();
    await replica.close();
  }
}
