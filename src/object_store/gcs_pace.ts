/**
 * Google takes one write a second to the same object, deletions included, and
 * answers more with 429. A write that would come too early waits here.
 */
import { type Clock, sleep } from "../common/clock.ts";

/** Google's limit is 1000 ms; the rest is for what the way takes. */
export const WRITE_INTERVAL_MS = 1050;

export interface WritePaceOptions {
  clock: Clock;
  intervalMs: number;
}

export class WritePace {
  /** When the last write to an object ended; the oldest first. */
  readonly #endedMs = new Map<string, number>();

  constructor(private readonly options: WritePaceOptions) {}

  /** How long a write to the object has to wait. */
  waitMs(key: string): number {
    const { clock, intervalMs } = this.options;
    const endedMs = this.#endedMs.get(key);
    if (endedMs === undefined) return 0;
    return Math.max(0, endedMs + intervalMs - clock.monotonicMs());
  }

  /**
   * Resolves when the object may be written. Writes that wait together go
   * together: whether one of them wins is the caller's question to the store.
   */
  async turn(key: string): Promise<void> {
    for (let ms = this.waitMs(key); ms > 0; ms = this.waitMs(key)) {
      await sleep(this.options.clock, ms);
    }
  }

  /** A write to the object has ended, however: it may have been carried out. */
  ended(key: string): void {
    const { clock, intervalMs } = this.options;
    const nowMs = clock.monotonicMs();
    this.#endedMs.delete(key);
    this.#endedMs.set(key, nowMs);
    // Only what can still make somebody wait is kept.
    for (const [old, endedMs] of this.#endedMs) {
      if (endedMs + intervalMs > nowMs) break;
      this.#endedMs.delete(old);
    }
  }
}
