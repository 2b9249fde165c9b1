/** `backup rewind`: back to an earlier point, on the same place. */
import { systemClock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import { createLogger } from "../common/log.ts";
import { systemRandom } from "../common/random.ts";
import { readNewestManifest } from "../backup/copies.ts";
import { planRestore } from "../backup/history.ts";
import { hexVersion } from "../backup/manifest.ts";
import { ManifestStore } from "../backup/manifest_store.ts";
import { requireFree, rewind } from "../backup/rewind.ts";
import { sqliteScratch } from "../store/sqlite/local_engine.ts";
import { isWanted } from "./agreement.ts";
import { withBackupPlace } from "./backup_place.ts";
import type { RewindConfig } from "./config.ts";
import type { CliIo } from "./io.ts";
import { formatBytes, Progress, standardError } from "./progress.ts";
import { requireReached } from "./restore_point.ts";
import { scratchFolder } from "./scratch_folder.ts";

/** @returns the exit code: 0 where the database goes on from the point */
export function backupRewind(
  config: RewindConfig,
  io: CliIo,
): Promise<number> {
  return withBackupPlace(config.place, async (objects) => {
    const manifests = new ManifestStore(objects, systemClock, systemRandom);
    const found = await readNewestManifest(objects, manifests);
    if (found === undefined || found.manifest.generation === null) {
      throw new StartupError(
        `There is no whole backup in ${objects.url}. Nothing was changed; check the URL.`,
      );
    }
    const branchName = config.branchName ?? defaultBranchName();
    requireFree(found.manifest, branchName);
    const plan = await planRestore(objects, found.manifest, config.point);
    requireReached(plan, systemClock);
    const back = config.point.kind === "version"
      ? hexVersion(config.point.version)
      : config.pointText;
    if (!config.json) {
      io.out(`${objects.url}, database ${plan.databaseId}`);
      io.out(
        `  goes back to   the last commit at or before ${back}, out of ${
          formatBytes(plan.sizeBytes)
        }`,
      );
      io.out(
        `  its state now  is kept as the branch ${branchName} (restore --branch ${branchName}), until \`backup branches --remove ${branchName}\``,
      );
      io.out(
        "  meanwhile      a server that runs hands the database over and answers nothing, until it or another takes it up again",
      );
    }
    if (!isWanted("Go back to it?", config, io)) {
      if (config.json) {
        const { url } = objects;
        io.out(
          JSON.stringify({ url, to: back, branch: branchName, done: false }),
        );
      } else io.out("Nothing was changed.");
      return 1;
    }
    const folder = await scratchFolder("A rewind", "changed", config.folder);
    const progress = new Progress("Restoring", standardError(), systemClock);
    try {
      const { version, branch, generation, leapVersion } = await rewind({
        objects,
        plan,
        branchName,
        scratch: sqliteScratch(`${folder}/scratch`, systemClock),
        clock: systemClock,
        random: systemRandom,
        logger: createLogger({
          format: "text",
          level: "warn",
          clock: systemClock,
        }),
        leaseMs: config.leaseMs,
        signal: new AbortController().signal,
        progress: (done, total) => progress.update(done, total),
        onStage(what) {
          progress.end();
          io.err(what);
        },
      });
      const former = hexVersion(branch.lastVersion);
      if (config.json) {
        io.out(JSON.stringify({
          url: objects.url,
          versionstamp: hexVersion(version),
          generation,
          branch: branchName,
          former,
          after: hexVersion(leapVersion),
          done: true,
        }));
      } else {
        io.out(
          `The database is at ${hexVersion(version)} again, and goes on above ${
            hexVersion(leapVersion)
          }. What it was until ${former} is the branch ${branchName}; \`backup rewind --to ${former}\` goes back to that. Start its servers, where none waits.`,
        );
      }
      return 0;
    } finally {
      progress.end();
      await Deno.remove(folder, { recursive: true });
    }
  });
}

function defaultBranchName(): string {
  const time = new Date(systemClock.nowMs()).toISOString().slice(0, 19);
  return `before-${time.replaceAll(/[-:]/g, "").toLowerCase()}z`;
}
