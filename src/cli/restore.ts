/** `restore`: a database file out of a backup. */
import { sleep, systemClock } from "../common/clock.ts";
import { messageOf, UnavailableError } from "../common/errors.ts";
import { systemRandom } from "../common/random.ts";
import { planRestore } from "../backup/history.ts";
import { hexVersion, ManifestStore } from "../backup/manifest.ts";
import { restore } from "../backup/restore.ts";
import { createRestoreTarget } from "../store/sqlite/restore_target.ts";
import { randomUuid } from "../common/random.ts";
import { asStartupError, openBackupPlace } from "./backup_place.ts";
import type { RestoreConfig } from "./config.ts";
import type { CliIo } from "./io.ts";
import { formatBytes, Progress, standardError } from "./progress.ts";

const PLAN_TRIES = 3;
const RETRY_MS = 1000;

/** @returns the exit code */
export async function restoreCommand(
  config: RestoreConfig,
  io: CliIo,
): Promise<number> {
  const objects = await openBackupPlace(config.place);
  const progress = new Progress("Restoring", standardError(), systemClock);
  const startedMs = systemClock.monotonicMs();
  try {
    const plan = await patiently(async () => {
      const found = await new ManifestStore(objects, systemClock, systemRandom)
        .read();
      return await planRestore(objects, found?.manifest, config.point);
    });
    const target = createRestoreTarget(config.output);
    try {
      const result = await restore({
        objects,
        plan,
        target,
        clock: systemClock,
        progress: (done, total) => progress.update(done, total),
      });
      target.finish({
        databaseId: plan.databaseId || randomUuid(systemRandom),
        version: result.version,
        leapToVersion: result.version,
        state: {},
      });
      progress.end();
      const tookMs = Math.round(systemClock.monotonicMs() - startedMs);
      const versionstamp = hexVersion(result.version);
      const { version: _version, ...counts } = result;
      if (config.json) {
        io.out(JSON.stringify({ versionstamp, ...counts, tookMs }));
      } else {
        io.out(
          `Restored ${config.output} to ${versionstamp}: ${counts.entries} entries of the snapshot and ${counts.logEntries} of the log, ${
            formatBytes(counts.sizeBytes)
          } in ${(tookMs / 1000).toFixed(1)} s.`,
        );
      }
      return 0;
    } catch (error) {
      progress.end();
      target.discard();
      throw error;
    }
  } catch (error) {
    throw asStartupError(error);
  } finally {
    await objects.close();
  }
}

async function patiently<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1;; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof UnavailableError) || attempt === PLAN_TRIES) {
        throw error instanceof UnavailableError
          ? new UnavailableError(
            `The object store does not answer: ${messageOf(error)}`,
          )
          : error;
      }
    }
    await sleep(systemClock, RETRY_MS);
  }
}
