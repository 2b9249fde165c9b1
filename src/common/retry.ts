/** The one loop that does something again until it works. */
import { type Clock, sleepUntil } from "./clock.ts";
import type { Random } from "./random.ts";

/** The pause between two tries doubles from the first to the longest one. */
export interface RetryPolicy {
  firstMs: number;
  maxMs: number;
}

export interface RetryOptions {
  clock: Clock;
  policy: RetryPolicy;
  /**
   * Takes up to half of each pause off by chance, so that many clients of one
   * server do not come back at the same moment.
   */
  random?: Random;
  /** Ends a pause early, and the tries; its reason is what is thrown. */
  signal?: AbortSignal;
  /** How often it is tried at the most. Default: without end. */
  maxTries?: number;
  /** Whether a later try may work. Any other error is thrown. */
  isTemporary(error: unknown): boolean;
  /** Called before each pause: for the log, or to give up by throwing. */
  onFailure?(error: unknown, tries: number): void;
}

/**
 * Runs `work` until it resolves.
 * @throws the error of a try that is not temporary or was the last one, or the
 *   signal's reason
 */
export async function retry<T>(
  work: () => T | Promise<T>,
  options: RetryOptions,
): Promise<T> {
  const { clock, policy, random, signal, maxTries = Infinity } = options;
  let pauseMs = policy.firstMs;
  for (let tries = 1;; tries++) {
    signal?.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      signal?.throwIfAborted();
      if (!options.isTemporary(error) || tries >= maxTries) throw error;
      options.onFailure?.(error, tries);
    }
    const halfMs = pauseMs / 2;
    await sleepUntil(
      clock,
      random === undefined
        ? pauseMs
        : halfMs + random.below(Math.ceil(halfMs) + 1),
      signal,
    );
    pauseMs = Math.min(2 * pauseMs, policy.maxMs);
  }
}
