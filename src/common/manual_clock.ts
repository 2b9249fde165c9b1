/**
 * A clock that stands still until a test moves it, so that a test of expiry
 * or of timeouts takes no time and goes the same way each run.
 */
import type { Clock, Timer } from "./clock.ts";
import { systemClock } from "./clock.ts";

interface Waiting {
  dueMs: number;
  fire: () => void;
  /** Undefined where it fires once only. */
  intervalMs: number | undefined;
}

export class ManualClock implements Clock {
  #nowMs: number;
  /** What monotonic time does not know of: the clock was set forward. */
  #jumpedMs = 0;
  readonly #startMs: number;
  readonly #waiting = new Set<Waiting>();

  constructor(startMs: number) {
    this.#startMs = startMs;
    this.#nowMs = startMs;
  }

  /** Timers that wait. */
  get timers(): number {
    return this.#waiting.size;
  }

  nowMs(): number {
    return this.#nowMs + this.#jumpedMs;
  }

  monotonicMs(): number {
    return this.#nowMs - this.#startMs;
  }

  after(delayMs: number, fire: () => void): Timer {
    return this.#wait(Math.max(0, delayMs), fire, undefined);
  }

  every(intervalMs: number, fire: () => void): Timer {
    return this.#wait(intervalMs, fire, Math.max(1, intervalMs));
  }

  /** Input arrives in real turns of the event loop, whatever the time is. */
  endOfTurn(fire: () => void): Timer {
    return systemClock.endOfTurn(fire);
  }

  #wait(delayMs: number, fire: () => void, intervalMs?: number): Timer {
    const waiting = { dueMs: this.#nowMs + delayMs, fire, intervalMs };
    this.#waiting.add(waiting);
    return { stop: () => void this.#waiting.delete(waiting) };
  }

  /** Sets the time of day forward or back, as a person would: no timer fires. */
  jump(byMs: number): void {
    this.#jumpedMs += byMs;
  }

  /** Moves time on and fires, in order, every timer that falls due. */
  advance(byMs: number): void {
    const untilMs = this.#nowMs + byMs;
    while (true) {
      let next: Waiting | undefined;
      for (const waiting of this.#waiting) {
        if (waiting.dueMs > untilMs) continue;
        if (next === undefined || waiting.dueMs < next.dueMs) next = waiting;
      }
      if (next === undefined) break;
      this.#nowMs = Math.max(this.#nowMs, next.dueMs);
      if (next.intervalMs === undefined) this.#waiting.delete(next);
      else next.dueMs += next.intervalMs;
      next.fire();
    }
    this.#nowMs = untilMs;
  }
}
