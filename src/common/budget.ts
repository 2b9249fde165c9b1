/**
 * A number of bytes that many holders share: who finds it spent waits in
 * line, for a bounded time. Nobody overtakes, so that a large request is not
 * starved by small ones.
 */
import type { Clock, Timer } from "./clock.ts";
import { UnavailableError } from "./errors.ts";

export interface BudgetOptions {
  clock: Clock;
  limitBytes: number;
  /** How long one may wait in line, and how many. Default: without a limit. */
  maxWaitMs?: number;
  maxWaiting?: number;
  /** What the refused one reads: what is short, and what to do. */
  refusal?: string;
}

interface Waiting {
  sizeBytes: number;
  resolve(): void;
  reject(error: Error): void;
  timer: Timer | undefined;
}

export class Budget {
  /** Refused because the line was full, or because its turn did not come. */
  refusals = 0;
  private used = 0;
  private readonly line: Waiting[] = [];

  constructor(private readonly options: BudgetOptions) {}

  get usedBytes(): number {
    return this.used;
  }

  get limitBytes(): number {
    return this.options.limitBytes;
  }

  get waiting(): number {
    return this.line.length;
  }

  /** Takes so much at once, or nothing. */
  tryTake(sizeBytes: number): boolean {
    if (this.line.length > 0 || !this.fits(sizeBytes)) return false;
    this.used += sizeBytes;
    return true;
  }

  /**
   * Takes so much, now or when it is free.
   * @throws UnavailableError where the line is full or the time is over
   */
  async take(sizeBytes: number): Promise<void> {
    if (this.tryTake(sizeBytes)) return;
    const { clock, maxWaitMs, maxWaiting = Infinity } = this.options;
    if (this.line.length >= maxWaiting) throw this.refused();
    await new Promise<void>((resolve, reject) => {
      const waiting: Waiting = {
        sizeBytes,
        resolve,
        reject,
        timer: maxWaitMs === undefined ? undefined : clock.after(
          maxWaitMs,
          () => {
            this.line.splice(this.line.indexOf(waiting), 1);
            reject(this.refused());
            // A large one at the head may have held smaller ones back.
            this.serve();
          },
        ),
      };
      this.line.push(waiting);
    });
  }

  /** Takes so much in any case: for whoever has it already. */
  takeAnyway(sizeBytes: number): void {
    this.used += sizeBytes;
  }

  /** Gives back what was taken, or a part of it. */
  give(sizeBytes: number): void {
    this.used -= sizeBytes;
    this.serve();
  }

  /** One that is larger than the whole passes when it is alone. */
  private fits(sizeBytes: number): boolean {
    return this.used + sizeBytes <= this.options.limitBytes || this.used === 0;
  }

  private serve(): void {
    while (this.line.length > 0 && this.fits(this.line[0].sizeBytes)) {
      const next = this.line.shift()!;
      next.timer?.stop();
      this.used += next.sizeBytes;
      next.resolve();
    }
  }

  private refused(): UnavailableError {
    this.refusals++;
    return new UnavailableError(this.options.refusal ?? "Not now.");
  }
}
