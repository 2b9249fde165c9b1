/**
 * `backup list`: the points that can be restored, out of the manifest and its
 * archives alone. It is as fast with a year of history as with a minute, and
 * needs nobody to ask.
 */
import { systemClock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import { systemRandom } from "../common/random.ts";
import { withArchives } from "../backup/archive.ts";
import { beginningMs, hexVersion, type Manifest } from "../backup/manifest.ts";
import { ManifestStore } from "../backup/manifest_store.ts";
import { following, hasMissing, inOrder } from "../backup/missing.ts";
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
    const generations = inOrder(manifest).map((generation) => {
      const next = following(manifest, generation.name);
      return {
        name: generation.name,
        startedMs: beginningMs(generation),
        endedMs: next ? beginningMs(next) : null,
        versionstamp: hexVersion(generation.snapshotVersion),
        ...(hasMissing(generation) && {
          missingAfter: hexVersion(generation.missingAfterVersion),
        }),
      };
    });
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
    const line = (
      from: string,
      versionstamp: string,
      until: string,
      name: string,
    ) =>
      io.out(
        `  ${from.padEnd(24)}  ${versionstamp.padEnd(20)}  ${
          until.padEnd(24)
        }  ${name}`,
      );
    io.out(url);
    line("from", "versionstamp", "until", "generation");
    for (const generation of generations) {
      const { name, startedMs, endedMs, versionstamp } = generation;
      if (generation.missingAfter !== undefined) {
        io.out(
          `  what was written after ${generation.missingAfter} and before ${versionstamp} is missing: it cannot be restored`,
        );
      }
      const until = endedMs === null ? "now" : time(endedMs);
      line(time(startedMs), versionstamp, until, name);
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
      lost.lost.length > 0 ||
        generations.some(({ missingAfter }) => missingAfter !== undefined)
        ? "Every other versionstamp and time from the first line to the newest can be restored (restore --at), not these alone."
        : "Every versionstamp and time from the first line to the newest can be restored (restore --at), not these alone.",
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
