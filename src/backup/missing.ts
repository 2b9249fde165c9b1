/**
 * Versions that no generation has: the one before ends before the snapshot of
 * the next one begins, because the log had a gap between them, or what was
 * between them is gone. A point among them is refused, never answered with an
 * older state.
 */
import { StartupError } from "../common/errors.ts";
import {
  type Generation,
  hexVersion,
  type LostRange,
  type Manifest,
  VERSION_LEAP,
} from "./manifest.ts";

/**
 * In the order of the history. That of a branch outlives what came after it:
 * the one that follows then says what is missing.
 */
export function inOrder(
  { generations, branches = [] }: Pick<Manifest, "generations" | "branches">,
): Generation[] {
  const all = generations.toSorted((a, b) =>
    a.snapshotVersion - b.snapshotVersion
  );
  return all.map((generation, i) => {
    const branch = branches.find((branch) =>
      branch.generation === all[i - 1]?.name
    );
    // The one that a rewind began was begun when the branch was left.
    if (!branch || branch.createdMs === generation.startedMs) return generation;
    return { ...generation, missingAfterVersion: branch.lastVersion };
  });
}

/**
 * Of generations in their order, those that are whole; each says what those
 * before it had that are not.
 */
export function withoutDamaged(
  generations: readonly Generation[],
  isWhole: (generation: Generation) => boolean,
): Generation[] {
  const whole: Generation[] = [];
  let firstDamaged: Generation | undefined;
  for (const generation of generations) {
    if (!isWhole(generation)) {
      firstDamaged ??= generation;
      continue;
    }
    if (firstDamaged === undefined) whole.push(generation);
    else {
      // The one before reaches up to the snapshot of the first.
      const { missingAfterVersion, snapshotVersion } = firstDamaged;
      whole.push({
        ...generation,
        missingAfterVersion: missingAfterVersion === null
          ? snapshotVersion
          : missingAfterVersion,
      });
    }
    firstDamaged = undefined;
  }
  return whole;
}

/** The generation that follows; undefined for the last one. */
export function following(
  manifest: Pick<Manifest, "generations" | "branches">,
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
    `The backup does not hold that state: what was written after ${first} and before ${last} is missing (an outage went past --backup-max-log-mib, another program wrote to the file, or the generation that had it is gone: given up with \`backup repair\`, or deleted after the retention). Nothing was restored. \`restore --at ${first}\` gives the last state before it, out of ${generation}, and \`restore --at ${last}\` the first one after it.`,
  );
}

/** Whether something is known to be missing before the generation. */
export function hasMissing(
  generation: Generation | undefined,
): generation is Generation & { missingAfterVersion: number } {
  return typeof generation?.missingAfterVersion === "number";
}

/**
 * Why a version between two neighbours of the history cannot be restored;
 * undefined where it can: a commit that changed nothing has the state before
 * it. Where versions leapt, perhaps more than once, it may be of a line that
 * was lost.
 */
export function lostInLeap(
  version: number,
  before: number,
  next: number,
): StartupError | undefined {
  if (version <= before || next - before < VERSION_LEAP) return undefined;
  const first = hexVersion(before);
  return new StartupError(
    `The backup does not hold that versionstamp: its history goes from ${first} to ${
      hexVersion(next)
    }. What was written between them was lost with a machine before it was shipped, was given up with \`backup repair\`, or is of a commit that changed nothing. Nothing was restored. \`restore --at ${first}\` gives the last state before it.`,
  );
}

/**
 * What was given up of a generation, unless a database file that had it has
 * brought it back since.
 * @param nextAfter the history's next version after one; undefined: none
 */
export function givenUp(
  { lost = [] }: Pick<Manifest, "lost">,
  generation: string,
  nextAfter: (version: number) => number | undefined,
): LostRange[] {
  return lost.filter((range) => {
    if (range.generation !== generation) return false;
    const next = nextAfter(range.afterVersion);
    // Whoever went on without it leapt further.
    return next === undefined || next >= range.untilVersion + VERSION_LEAP;
  });
}

/** Why a version that was given up cannot be restored. */
export function givenUpVersion(
  ranges: readonly LostRange[],
  version: number,
): StartupError | undefined {
  const range = ranges.find(({ afterVersion, untilVersion }) =>
    version > afterVersion && version < untilVersion + VERSION_LEAP
  );
  return range && givenUpError(range);
}

/** Why a time at which something was given up cannot be restored. */
export function givenUpTime(
  ranges: readonly LostRange[],
  reachedVersion: number,
  timeMs: number,
): StartupError | undefined {
  const range = ranges.find(({ afterVersion, decidedMs }) =>
    afterVersion === reachedVersion && timeMs < decidedMs
  );
  return range && givenUpError(range);
}

function givenUpError(
  { afterVersion, decidedMs }: LostRange,
): StartupError {
  const first = hexVersion(afterVersion);
  return new StartupError(
    `The backup does not hold that state: what was written after ${first} was given up with \`backup repair\` at ${
      new Date(decidedMs).toISOString()
    }. Nothing was restored. \`restore --at ${first}\` gives the last state before it.`,
  );
}
