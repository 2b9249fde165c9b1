/**
 * `backup list`: the points that can be restored, out of the manifest and its
 * archives alone. It is as fast with a year of history as with a minute, and
 * needs nobody to ask.
 */
import { systemClock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import { systemRandom } from "../common/random.ts";
import { withArchives } from "../backup/archive.ts";
import { hexVersion, type Manifest } from "../backup/manifest.ts";
import { ManifestStore } from "../backup/manifest_store.ts";
import { branchJson, branchLine } from "./backup_branches.ts";
import { withBackupPlace } from "./backup_place.ts";
import type { ListConfig } from "./config.ts";
import type { CliIo } from "./io.ts";

/** @returns the exit code */
export function backupList(config: ListConfig, io: CliIo): Promise<number> {
  return withBackupPlace(config.place, async (objects) => {
    const manifests = new ManifestStore(objects, systemClock, systemRandom);
    const found = await manifests.read();
    if (found === undefined || found.manifest.generation === null) {
      throw new StartupError(
        `There is no backup in ${objects.url}${
          found === undefined
            ? ": its manifest is not there"
            : " that is whole yet"
        }. Nothing can be restored from it; check the URL.`,
      );
    }
    const manifest = await withArchives(objects, found.manifest);
    const generations = manifest.generations.map((generation) => ({
      name: generation.name,
      startedMs: generation.startedMs,
      endedMs: generation.endedMs,
      versionstamp: hexVersion(generation.snapshotVersion),
    }));
    const newest = newestOf(manifest);
    const { branches = [] } = manifest;
    const lost = {
      lost: (manifest.lost ?? []).map((range) => ({
        generation: range.generation,
        after: hexVersion(range.afterVersion),
        until: hexVersion(range.untilVersion),
        decidedMs: range.decidedMs,
      })),
    };
    const { url } = objects;
    if (config.json) {
      const { databaseId } = manifest;
      io.out(
        JSON.stringify({
          url,
          databaseId,
          generations,
          newest,
          branches: branches.map(branchJson),
          ...lost,
        }),
      );
      return 0;
    }
    const time = (ms: number) => new Date(ms).toISOString();
    const columns = [
      ["from", "versionstamp", "until", "generation"],
      ...generations.map(({ name, startedMs, endedMs, versionstamp }) => [
        time(startedMs),
        versionstamp,
        endedMs === null ? "now" : time(endedMs),
        name,
      ]),
    ];
    io.out(url);
    for (const [from, versionstamp, until, name] of columns) {
      io.out(
        `  ${from.padEnd(24)}  ${versionstamp.padEnd(20)}  ${
          until.padEnd(24)
        }  ${name}`,
      );
    }
    io.out(
      `  newest  ${
        newest.isExact
          ? newest.versionstamp
          : `at least ${newest.versionstamp}; \`backup status\` finds the one that it is`
      }`,
    );
    for (const branch of branches) io.out(branchLine(branch));
    for (const { after, until, decidedMs } of lost.lost) {
      io.out(
        `  lost    after ${after}, up to ${until} or later: given up with \`backup repair\` at ${
          time(decidedMs)
        }`,
      );
    }
    io.out(
      "Every versionstamp and time from the first line to the newest can be restored (restore --at), not these alone.",
    );
    return 0;
  });
}

/** Exact where its owner has given it up: that is when the end is noted. */
function newestOf(manifest: Manifest) {
  const { generation, generations, seals, owner } = manifest;
  const version = Math.max(
    ...generations
      .filter(({ name }) => name === generation)
      .map(({ snapshotVersion }) => snapshotVersion),
    ...seals
      .filter((seal) => seal.generation === generation)
      .map(({ lastVersion }) => lastVersion),
  );
  return { versionstamp: hexVersion(version), isExact: owner === null };
}
