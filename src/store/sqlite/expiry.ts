/**
 * Physical deletion of expired rows. Nobody sees an expired entry, deleted or
 * not; this only gives the space back, in batches that each are a commit of
 * their own. One timer while there is anything that expires, and none
 * otherwise. It looks at the time of day every second, because a clock that is
 * set forward makes no timer fire earlier.
 */
import type { Clock, Timer } from "../../common/clock.ts";

/** Expiries closer together than this are deleted together. */
const GATHER_MS = 1000;
const LOOK_EVERY_MS = 1000;

export interface ExpirySweeperDeps {
  clock: Clock;
  earliestExpiryMs(): number | undefined;
  /** Deletes one batch; resolves with the number of rows. */
  sweep(): Promise<number>;
}

export class ExpirySweeper {
  private timer: Timer | undefined;
  private dueMs = Infinity;
  private isSweeping = false;
  private isStopped = false;

  constructor(private readonly deps: ExpirySweeperDeps) {
    this.arm(deps.earliestExpiryMs() ?? Infinity);
  }

  /** An entry was written that expires then. */
  expect(expireAtMs: number): void {
    if (expireAtMs < this.dueMs && !this.isSweeping) this.arm(expireAtMs);
  }

  private arm(expireAtMs: number): void {
    this.timer?.stop();
    this.timer = undefined;
    this.dueMs = expireAtMs;
    if (expireAtMs === Infinity || this.isStopped) return;
    const restMs = expireAtMs + GATHER_MS - this.deps.clock.nowMs();
    this.timer = this.deps.clock.after(
      Math.min(Math.max(restMs, 0), LOOK_EVERY_MS),
      () => this.look(),
    );
  }

  private look(): void {
    if (this.deps.clock.nowMs() >= this.dueMs + GATHER_MS) void this.run();
    else this.arm(this.dueMs);
  }

  private async run(): Promise<void> {
    this.isSweeping = true;
    try {
      while (!this.isStopped && await this.deps.sweep() > 0);
      this.isSweeping = false;
      this.arm(this.deps.earliestExpiryMs() ?? Infinity);
    } catch {
      // The store takes no writes now; the rows are hidden all the same.
      this.isSweeping = false;
      this.arm(this.deps.clock.nowMs());
    }
  }

  stop(): void {
    this.isStopped = true;
    this.timer?.stop();
  }
}
