/** Whether a backup reaches the point that a person has named. */
import type { Clock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import type { RestorePlan } from "../backup/history.ts";
import { hexVersion } from "../backup/manifest.ts";

/**
 * A state from before the point is not what was asked for, and a mistake in a
 * time zone or a digit looks just so.
 * @throws StartupError where the point lies beyond what there is
 */
export function requireReached(
  { point, endVersion, isPast }: Pick<
    RestorePlan,
    "point" | "endVersion" | "isPast"
  >,
  clock: Clock,
): void {
  const end = hexVersion(endVersion);
  if (point.kind === "version" && point.version > endVersion && isPast) {
    throw new StartupError(
      `The backup does not hold the versionstamp ${
        hexVersion(point.version)
      }: the generation that would have it ends at ${end}. Nothing was restored. \`restore --at ${end}\` gives the last state before it.`,
    );
  }
  const newest = `The newest point is ${end}, which is had without naming one.`;
  if (point.kind === "version" && point.version > endVersion) {
    throw new StartupError(
      `The versionstamp ${
        hexVersion(point.version)
      } lies beyond the end of the backup: it was not shipped yet, is of another line of the database, or of a commit that changed nothing. Nothing was restored. ${newest}`,
    );
  }
  if (point.kind === "time" && point.timeMs > clock.nowMs()) {
    throw new StartupError(
      `${
        new Date(point.timeMs).toISOString()
      } lies in the future, by the clock of this machine. Nothing was restored; name its zone where it is none of UTC. ${newest}`,
    );
  }
}
