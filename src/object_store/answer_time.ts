/** When a store has answered, by its own clock. */

/** @param date the `Date` of its answer, where it has one */
export function nowIn(date: string | null | undefined): { nowMs?: number } {
  const nowMs = Date.parse(date ?? "");
  return Number.isNaN(nowMs) ? {} : { nowMs };
}
