/** `restore`: a database file out of a backup. */
import { systemClock } from "../common/clock.ts";
import { messageOf, StartupError, UnavailableError } from "../common/errors.ts";
import { randomUuid, systemRandom } from "../common/random.ts";
import { retry } from "../common/retry.ts";
import { branchOf } from "../backup/branches.ts";
import { readNewestManifest } from "../backup/copies.ts";
import {
  isReachedBefore,
  planRestore,
  type RestorePlan,
  type RestorePoint,
} from "../backup/history.ts";
import { announceLeap } from "../backup/leap.ts";
import { hexVersion, type Manifest } from "../backup/manifest.ts";
import { ManifestStore } from "../backup/manifest_store.ts";
import { DamagedError, restore } from "../backup/restore.ts";
import {
  type ObjectStore,
  ObjectStoreRefusedError,
} from "../object_store/object_store.ts";
import { createRestoreTarget } from "../store/sqlite/restore_target.ts";
import { asStartupError, openBackupPlace } from "./backup_place.ts";
import type { RestoreConfig } from "./config.ts";
import { type CliIo, say } from "./io.ts";
import { formatBytes, Progress, standardError } from "./progress.ts";
import { requireReached } from "./restore_point.ts";

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
  const manifests = new ManifestStore(objects, systemClock, systemRandom);
  try {
    const damaged = new Set<string>();
    for (;;) {
      const plan = await patiently(async () => {
        const found = await readNewestManifest(objects, manifests);
        return await planRestore(
          objects,
          found?.manifest,
          pointOf(config, found?.manifest),
          damaged,
        );
      });
      requireReached(plan, systemClock);
      try {
        return await restoreTo(plan);
      } catch (error) {
        const { generation, point, beforeVersion } = plan;
        const isElsewhere = error instanceof DamagedError &&
          isReachedBefore(point, beforeVersion);
        if (!isElsewhere) throw error;
        damaged.add(generation);
        say(
          io,
          "warning",
          `${error.message} The generation before it has that version, too, and is taken instead.`,
        );
      }
    }
  } catch (error) {
    throw asStartupError(error);
  } finally {
    await objects.close();
  }

  async function restoreTo(plan: RestorePlan): Promise<number> {
    const target = await createRestoreTarget(config.output, {
      clock: systemClock,
    });
    try {
      const result = await restore({
        objects,
        plan,
        target,
        clock: systemClock,
        progress: (done, total) => progress.update(done, total),
      });
      // Two files of one id must not issue the same versions.
      const databaseId = config.isSameDatabase
        ? plan.databaseId
        : randomUuid(systemRandom);
      const leapToVersion = config.isSameDatabase
        ? await patiently(() => leapOver(objects, manifests))
        : result.version;
      const { version, timeMs } = result;
      const end = { databaseId, version, timeMs, leapToVersion, state: {} };
      await target.finish(end);
      progress.end();
      const tookMs = Math.round(systemClock.monotonicMs() - startedMs);
      const versionstamp = hexVersion(result.version);
      const { version: _version, timeMs: _timeMs, ...counts } = result;
      if (config.json) {
        io.out(JSON.stringify({ versionstamp, databaseId, ...counts, tookMs }));
      } else {
        io.out(
          `Restored ${config.output} to ${versionstamp}: ${counts.entries} entries of the snapshot and ${counts.logEntries} of the log, ${
            formatBytes(counts.sizeBytes)
          } in ${(tookMs / 1000).toFixed(1)} s.`,
        );
        io.out(
          config.isSameDatabase
            ? `It is the same database as before, ${databaseId}; its versionstamps go on after ${
              hexVersion(leapToVersion)
            }, above all that were issued.`
            : `It is a database of its own, with the id ${databaseId}.`,
        );
      }
      return 0;
    } catch (error) {
      progress.end();
      await target.discard();
      throw error;
    }
  }
}

/** @throws StartupError where there is no such branch */
function pointOf(
  { point, branchName }: RestoreConfig,
  manifest: Manifest | undefined,
): RestorePoint {
  if (branchName === undefined) return point;
  const version = branchOf(manifest, branchName).lastVersion;
  return { kind: "version", version };
}

async function leapOver(
  objects: ObjectStore,
  manifests: ManifestStore,
): Promise<number> {
  try {
    return await announceLeap(objects, manifests);
  } catch (error) {
    if (!(error instanceof ObjectStoreRefusedError)) throw error;
    throw new StartupError(
      `${error.message} Nothing was restored: with --same-database the backup's manifest has to say how far the versions of the new file leap. Allow writing to the backup, or restore without --same-database, as a database of its own.`,
    );
  }
}

async function patiently<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await retry(work, {
      clock: systemClock,
      policy: { firstMs: RETRY_MS, maxMs: RETRY_MS },
      maxTries: PLAN_TRIES,
      isTemporary: (error) => error instanceof UnavailableError,
    });
  } catch (error) {
    throw error instanceof UnavailableError
      ? new UnavailableError(
        `The object store does not answer: ${messageOf(error)}`,
      )
      : error;
  }
}
