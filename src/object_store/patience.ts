/**
 * How long requests are waited for. A short limit finds a connection that is
 * dead early, and a long one lets a slow line finish: so it grows with every
 * request that came to its end, and shrinks to what answers take.
 */
import type { Clock } from "../common/clock.ts";

/** Of what the last answer took: the next one may take so much more. */
const SLACK = 4;

export interface PatienceOptions {
  clock: Clock;
  firstMs: number;
  maxMs: number;
}

export class Patience {
  timeoutMs: number;

  constructor(private readonly options: PatienceOptions) {
    this.timeoutMs = options.firstMs;
  }

  /** Runs a request with the present limit, and learns from it. */
  async run<T>(request: (timeoutMs: number) => Promise<T>): Promise<T> {
    const { clock, firstMs, maxMs } = this.options;
    const { timeoutMs } = this;
    const startedMs = clock.monotonicMs();
    let nextMs = timeoutMs;
    try {
      const answer = await request(timeoutMs);
      nextMs = SLACK * (clock.monotonicMs() - startedMs);
      return answer;
    } catch (error) {
      // Only a limit that was reached was too short.
      if (clock.monotonicMs() - startedMs >= timeoutMs) nextMs = 2 * timeoutMs;
      throw error;
    } finally {
      this.timeoutMs = Math.min(Math.max(nextMs, firstMs), maxMs);
    }
  }
}

/** Of objects with data, up to some MiB. */
export const DATA_PATIENCE = { firstMs: 5000, maxMs: 120_000 };
