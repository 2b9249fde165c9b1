/** The one time limit for something that may never settle. */
import type { Clock } from "./clock.ts";
import { UnavailableError } from "./errors.ts";

/**
 * Settles as `work` does, or rejects when `timeoutMs` have passed before. The
 * work is not ended by it; what becomes of it later is dropped.
 * @param sentence says what was waited for and what state the data is in
 * @throws UnavailableError with that sentence
 */
export async function withDeadline<T>(
  clock: Clock,
  timeoutMs: number,
  sentence: string,
  work: Promise<T>,
): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = clock.after(
    timeoutMs,
    () => late.reject(new UnavailableError(sentence)),
  );
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    timer.stop();
  }
}
