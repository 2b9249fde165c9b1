/** `backup branches`: the lines that rewinds have left, and an end to one. */
import { systemClock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import { systemRandom } from "../common/random.ts";
import { readNewestManifest } from "../backup/copies.ts";
import { type Branch, hexVersion } from "../backup/manifest.ts";
import { ManifestStore } from "../backup/manifest_store.ts";
import { removeBranch } from "../backup/remove_branch.ts";
import { withBackupPlace } from "./backup_place.ts";
import type { BranchesConfig } from "./config.ts";
import type { CliIo } from "./io.ts";

/** @returns the exit code */
export function backupBranches(
  config: BranchesConfig,
  io: CliIo,
): Promise<number> {
  return withBackupPlace(config.place, async (objects) => {
    const manifests = new ManifestStore(objects, systemClock, systemRandom);
    const { url } = objects;
    const { remove } = config;
    if (remove !== undefined) {
      await removeBranch(objects, manifests, remove);
      io.out(
        config.json
          ? JSON.stringify({ url, removed: remove })
          : `The branch ${remove} is gone. What only it held is deleted once it is older than the retention, after the next new generation.`,
      );
      return 0;
    }
    const found = await readNewestManifest(objects, manifests);
    if (found === undefined) {
      throw new StartupError(
        `There is no backup in ${url}: its manifest is not there. Check the URL.`,
      );
    }
    const { branches = [] } = found.manifest;
    if (config.json) {
      io.out(JSON.stringify({ url, branches: branches.map(branchJson) }));
      return 0;
    }
    io.out(branches.length === 0 ? `${url} has no branches.` : url);
    for (const branch of branches) io.out(branchLine(branch));
    return 0;
  });
}

export function branchJson(branch: Branch) {
  const { lastVersion, ...rest } = branch;
  return { ...rest, versionstamp: hexVersion(lastVersion) };
}

export function branchLine({ name, lastVersion, createdMs }: Branch): string {
  return `  branch  ${name}: until ${hexVersion(lastVersion)}, left at ${
    new Date(createdMs).toISOString()
  } (restore --branch ${name})`;
}
