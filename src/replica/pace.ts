/** How often a place is looked at, and that nobody looks for nobody. */
import { type Clock, sleepUntil } from "../common/clock.ts";

export interface PaceOptions {
  clock: Clock;
  /** Between two looks while something comes. */
  intervalMs: number;
  /**
   * Resolves when somebody reads, or has lately. Absent: it is looked whether
   * anybody reads or not.
   */
  whileUnread?(signal: AbortSignal): Promise<void>;
}

export class Pace {
  private pauseMs: number;
  private isFirst = true;

  constructor(private readonly options: PaceOptions) {
    this.pauseMs = options.intervalMs;
  }

  get intervalMs(): number {
    return this.options.intervalMs;
  }

  /** Before a look; the first one is made at once. */
  async pause(signal: AbortSignal): Promise<void> {
    const { clock, whileUnread } = this.options;
    if (!this.isFirst) await sleepUntil(clock, this.pauseMs, signal);
    this.isFirst = false;
    await whileUnread?.(signal);
  }

  /** Something came: the next look comes soon. */
  quicken(): void {
    this.pauseMs = this.options.intervalMs;
  }

  /** The next pause is longer by half, up to so many intervals. */
  slow(maxIntervals: number): void {
    this.pauseMs = Math.min(
      this.pauseMs * 1.5,
      this.options.intervalMs * maxIntervals,
    );
  }
}
