/**
 * The first state of a file that goes back in time: the earliest one that a
 * generation has, so that all of its log becomes history that can be gone to.
 */
import {
  type ListedSegment,
  type RestorePlan,
  sumBytes,
} from "../backup/history.ts";
import { versionOf } from "../backup/names.ts";

export interface FirstState {
  plan: RestorePlan;
  /** The last segment that is in it whole; undefined: none. */
  last: ListedSegment | undefined;
}

/** @param plan of the newest state */
export function firstState(
  plan: RestorePlan,
  which: "newest" | "earliest",
): FirstState {
  return which === "newest"
    ? { plan, last: plan.segments.at(-1) }
    : earliestState(plan);
}

function earliestState(plan: RestorePlan): FirstState {
  const { snapshot: { version, parts } } = plan;
  // A snapshot of another program is whole only with the log up to it. What
  // comes behind it in the last of these objects is read once more.
  const segments = plan.segments.filter(({ first }) =>
    versionOf(first) <= version
  );
  return {
    plan: {
      ...plan,
      point: { kind: "version", version },
      segments,
      sizeBytes: sumBytes(parts) + sumBytes(segments),
    },
    last: segments.findLast(({ last }) => versionOf(last) <= version),
  };
}
