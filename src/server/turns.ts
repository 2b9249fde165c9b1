/**
 * Turns of the event loop between requests. The runtime answers what a client
 * has sent in a row without a pause, and does so for every connection before
 * anything else gets its turn: 200 requests in a row on 200 connections kept
 * others waiting for seconds. So a request that comes late in a turn waits for
 * the next one, and connections take turns.
 */
import type { Clock } from "../common/clock.ts";
import { FairLine } from "../common/fair_line.ts";

/** How long requests may be answered in one turn. */
const MAX_TURN_MS = 20;

export class Turns {
  private startedMs = -1;
  private readonly line = new FairLine<() => void>();

  constructor(private readonly clock: Clock) {}

  /** Requests that wait for a turn. */
  get waiting(): number {
    return this.line.size;
  }

  /** Whether a request that comes now has to wait. */
  isOver(nowMs: number): boolean {
    if (this.startedMs >= 0) {
      return this.line.size > 0 || nowMs - this.startedMs > MAX_TURN_MS;
    }
    this.begin(nowMs);
    return false;
  }

  /**
   * What `run` returns, in a later turn.
   * @param who the connection
   */
  later<T>(who: string, run: () => T | Promise<T>): Promise<T> {
    return new Promise((resolve) => this.line.push(who, () => resolve(run())));
  }

  private begin(nowMs: number): void {
    this.startedMs = nowMs;
    this.clock.endOfTurn(this.end);
  }

  private readonly end = () => {
    this.startedMs = -1;
    if (this.line.size === 0) return;
    const startedMs = this.clock.monotonicMs();
    this.begin(startedMs);
    do this.line.shift()!(); while (
      this.line.size > 0 &&
      this.clock.monotonicMs() - startedMs < MAX_TURN_MS
    );
  };
}
