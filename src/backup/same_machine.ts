/**
 * Whether the launch that last served the local file is gone. We hold the
 * file's lock, but that says so only for launches that would have met it: on
 * this machine since it was started, and with this very file. A copy of the
 * folder on another machine holds the same words and another lock.
 */
import type { LocalDatabase } from "../store/restore_target.ts";
import { STATE } from "./launch.ts";

/** Of a machine's start, as two launches reckon it: seconds, and clock steps. */
const MAX_START_APART_MS = 2000;

/** Of the start of a machine: two of them are never the same. */
const NOT_KNOWN = "?";

/**
 * What holds of this machine and this lock, to be kept in the file.
 * @param startedMs when the machine was started, where that is known
 */
export function machineMark(
  startedMs: number | undefined,
  lockIdentity: string | undefined,
): string {
  if (lockIdentity === undefined) return "";
  const started = startedMs === undefined ? NOT_KNOWN : Math.round(startedMs);
  return `${started} ${lockIdentity}`;
}

/**
 * The launch that last had the file, where it cannot be alive; undefined
 * where that is not certain, so that its lease has to be waited for.
 */
export function goneOwner(
  local: LocalDatabase | undefined,
  url: string,
  mark: string,
): string | undefined {
  if (local === undefined || local.state(STATE.url) !== url) return undefined;
  return isSameMachine(local.state(STATE.machine) ?? "", mark)
    ? local.state(STATE.owner)
    : undefined;
}

/**
 * Whether the file lies somewhere else than when it was last served with this
 * backup. The one that it was copied from may have gone on, and have issued
 * versions that nobody here knows of.
 */
export function isCopy(
  local: LocalDatabase | undefined,
  url: string,
  mark: string,
): boolean {
  if (local === undefined || local.state(STATE.url) !== url) return false;
  const [, lockBefore] = (local.state(STATE.machine) ?? "").split(" ");
  const [, lockNow] = mark.split(" ");
  return lockBefore !== undefined && lockNow !== undefined &&
    lockBefore !== lockNow;
}

export function isSameMachine(before: string, now: string): boolean {
  const [startedBefore, lockBefore] = before.split(" ");
  const [startedNow, lockNow] = now.split(" ");
  return lockNow !== undefined && lockNow === lockBefore &&
    Math.abs(Number(startedBefore) - Number(startedNow)) <=
      MAX_START_APART_MS;
}
