/**
 * Versions that no generation has: the one before ends before the snapshot of
 * the next one begins, because the log had a gap between them. A point among
 * them is refused, never answered with an older state.
 */
import { StartupError } from "../common/errors.ts";
import { type Generation, hexVersion, type Manifest } from "./manifest.ts";

/** In the order of the history. */
export function inOrder(
  { generations }: Pick<Manifest, "generations">,
): Generation[] {
  return generations.toSorted((a, b) => a.snapshotVersion - b.snapshotVersion);
}

/** The generation that follows; undefined for the last one. */
export function following(
  manifest: Pick<Manifest, "generations">,
  generation: string,
): Generation | undefined {
  const all = inOrder(manifest);
  return all[all.findIndex(({ name }) => name === generation) + 1];
}

/** Why nothing between these two can be restored. */
export function missingBetween(
  generation: string,
  next: Generation & { missingAfterVersion: number },
): StartupError {
  const first = hexVersion(next.missingAfterVersion);
  const last = hexVersion(next.snapshotVersion);
  return new StartupError(
    `The backup does not hold that state: what was written after ${first} and before ${last} was not shipped before generation ${next.name} began with a snapshot (an outage past --backup-max-log-mib, or another program wrote to the file). Nothing was restored. \`restore --at ${first}\` gives the last state before it, out of ${generation}, and \`restore --at ${last}\` the first one after it.`,
  );
}

/** Whether something is known to be missing before the generation. */
export function hasMissing(
  generation: Generation | undefined,
): generation is Generation & { missingAfterVersion: number } {
  return typeof generation?.missingAfterVersion === "number";
}
