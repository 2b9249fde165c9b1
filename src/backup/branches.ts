/**
 * Branches: former lines of the history, which a rewind has left. Each is a
 * version in a generation that the manifest names as ever; what makes it a
 * branch is that no retention takes that generation before a person does.
 */
import { StartupError } from "../common/errors.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { readNewestManifest } from "./copies.ts";
import type { Branch, Manifest, ManifestStore } from "./manifest.ts";

/** As people type it, and as it may stand in a log. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

export function isBranchName(text: string): boolean {
  return NAME.test(text);
}

/** Generations that stay as long as a branch ends in them. */
export function pinned(
  { branches = [] }: Pick<Manifest, "branches">,
): Set<string> {
  return new Set(branches.map(({ generation }) => generation));
}

/** @throws StartupError where there is none of that name */
export function branchOf(manifest: Manifest | undefined, name: string): Branch {
  const branches = manifest?.branches ?? [];
  const branch = branches.find((branch) => branch.name === name);
  if (branch === undefined) {
    throw new StartupError(
      `The backup has no branch ${name}${
        branches.length === 0
          ? ", nor any other"
          : `; it has ${branches.map(({ name }) => name).join(", ")}`
      }. Nothing was restored or changed.`,
    );
  }
  return branch;
}

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
