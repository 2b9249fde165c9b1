/**
 * Branches: former lines of the history, which a rewind has left. Each is a
 * version in a generation that the manifest names as ever; what makes it a
 * branch is that no retention takes that generation before a person does.
 */
import { StartupError } from "../common/errors.ts";
import type { Branch, Manifest } from "./manifest.ts";

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
