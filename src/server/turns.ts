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
/**
 * How often a turn's end is looked for. A look costs a microsecond, so not
 * every request begins one.
 */
const LOOK_EVERY_MS = 10;

export class Turns {
  /** When the look began that has not seen the turn's end yet. */
  private lookingSinceMs: number | undefined;
  private lookedMs = -Infinity;
  private readonly line = new FairLine<() => void>();

  constructor(private readonly clock: Clock) {}

  /** Whether a request that comes now has to wait. */
  isOver(nowMs: number): boolean {
    if (this.lookingSinceMs !== undefined) {
      return this.line.size > 0 || nowMs - this.lookingSinceMs > MAX_TURN_MS;
    }
    if (nowMs - this.lookedMs >= LOOK_EVERY_MS) this.look(nowMs);
    return false;
  }

  /**
   * What `run` returns, in a later turn.
   * @param who the connection
   */
  later<T>(who: string, run: () => T | Promise<T>): Promise<T> {
    return new Promise((resolve) => this.line.push(who, () => resolve(run())));
  }

  private look(nowMs: number): void {
    this.lookingSinceMs = nowMs;
    this.lookedMs = nowMs;
    this.clock.endOfTurn(this.onEnd);
  }

  private readonly onEnd = () => {
    this.lookingSinceMs = undefined;
    if (this.line.size === 0) return;
    const startedMs = this.clock.monotonicMs();
    // Whoever comes meanwhile stands behind those who wait.
    this.look(startedMs);
    do this.line.shift()!(); while (
      this.line.size > 0 &&
      this.clock.monotonicMs() - startedMs < MAX_TURN_MS
    );
  };
}
