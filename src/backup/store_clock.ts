/**
 * Our clock beside that of the object store. Nobody takes a backup over by the
 * time of day of its own machine, and nothing is deleted by it alone.
 */
import { cutOf } from "../object_store/object_store.ts";

export interface ClockComparison {
  ourMs: number;
  storeMs: number;
  /** Ours less the store's, at least; 0 where they may agree. */
  skewMs: number;
}

/** @param storeMs what the store answered to a request that we timed */
export function compareClocks(
  beganMs: number,
  endedMs: number,
  storeMs: number,
): ClockComparison {
  // It was read between the two, and is perhaps cut to its second.
  const aheadMs = beganMs - (storeMs + cutOf(storeMs));
  const behindMs = endedMs - storeMs;
  const skewMs = aheadMs > 0 ? aheadMs : Math.min(0, behindMs);
  return { ourMs: endedMs, storeMs, skewMs };
}
