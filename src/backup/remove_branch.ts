/** Giving a branch up, from outside of whoever owns the backup. */
import type { ObjectStore } from "../object_store/object_store.ts";
import { branchOf } from "./branches.ts";
import { readNewestManifest } from "./copies.ts";
import type { ManifestStore } from "./manifest_store.ts";

/**
 * What only this branch holds is deleted with what has expired, after the
 * retention as ever. Whoever owns the backup goes on owning it.
 * @throws StartupError where there is none of that name
 */
export async function removeBranch(
  objects: ObjectStore,
  manifests: ManifestStore,
  name: string,
): Promise<void> {
  for (let hasTried = false;; hasTried = true) {
    const found = await readNewestManifest(objects, manifests);
    const branches = found?.manifest.branches ?? [];
    // A try without an answer may have done it.
    if (hasTried && !branches.some((branch) => branch.name === name)) return;
    branchOf(found?.manifest, name);
    const { won } = await manifests.swap(found, {
      ...found!.manifest,
      branches: branches.filter((branch) => branch.name !== name),
    }, () => true);
    if (won) return;
  }
}
