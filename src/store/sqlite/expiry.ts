/**
 * Physical deletion of expired rows. Nobody sees an expired entry, deleted or
 * not; this only gives the space back, in batches that each are a commit of
 * their own. One timer, at the next expiry there is.
 */
import type { Clock, Timer } from "../../common/clock.ts";

/** Expiries closer together than this are deleted together. */
const GATHER_MS = 1000;

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
    const delayMs = Math.max(expireAtMs - this.deps.clock.nowMs(), 0);
    this.timer = this.deps.clock.after(
      delayMs + GATHER_MS,
      () => void this.run(),
    );
  }

  private async run(): Promise<void> {
    this.isSweeping = true;
    try {
      // A timer may fire long before a far expiry; then nothing is deleted.
      while (!this.isStopped && await this.deps.sweep() > 0);
      this.isSweeping = false;
      this.arm(this.deps.earliestExpiryMs() ?? Infinity);
    } catch {
      // The store takes no writes now; the rows are hidden all the same.
      this.isSweeping = false;
      this.arm(this.deps.clock.nowMs() + GATHER_MS);
    }
  }

  stop(): void {
    this.isStopped = true;
    this.timer?.stop();
  }
}
