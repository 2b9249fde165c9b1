/**
 * A number of bytes that many holders share: who finds it spent waits in
 * line, for a bounded time. Owners take turns, and nobody overtakes, so that
 * a large claim is not starved by small ones.
 */
import type { Clock, Timer } from "./clock.ts";
import { UnavailableError } from "./errors.ts";
import { FairLine } from "./fair_line.ts";

export interface BudgetOptions {
  clock: Clock;
  limitBytes: number;
  /** How long one may wait in line, and how many. Default: without a limit. */
  maxWaitMs?: number;
  maxWaiting?: number;
  /** What the refused one reads: what is short, and what to do. */
  refusal?: string;
}

/** Who waits, and until when. */
export interface Claim {
  /** Those of one name take turns with the others as one. */
  who?: string;
  /** Aborted: nobody wants it any more. */
  signal?: AbortSignal;
}

interface Waiting {
  sizeBytes: number;
  resolve(): void;
  timer: Timer | undefined;
}

export class Budget {
  /** Refused because the line was full, or because its turn did not come. */
  refusals = 0;
  private used = 0;
  private readonly line = new FairLine<Waiting>();

  constructor(private readonly options: BudgetOptions) {}

  get usedBytes(): number {
    return this.used;
  }

  get limitBytes(): number {
    return this.options.limitBytes;
  }

  get waiting(): number {
    return this.line.size;
  }

  /** Takes so much at once, or nothing. */
  tryTake(sizeBytes: number): boolean {
    if (this.line.size > 0 || !this.fits(sizeBytes)) return false;
    this.used += sizeBytes;
    return true;
  }

  /**
   * Takes so much, now or when it is free.
   * @throws UnavailableError where the line is full, the time is over, or
   *   nobody wants it any more
   */
  async take(sizeBytes: number, claim: Claim = {}): Promise<void> {
    if (this.tryTake(sizeBytes)) return;
    const { maxWaiting = Infinity } = this.options;
    if (this.line.size >= maxWaiting) throw this.refused();
    await this.wait(sizeBytes, claim);
  }

  private wait(
    sizeBytes: number,
    { who = "", signal }: Claim,
  ): Promise<void> {
    const { clock, maxWaitMs } = this.options;
    return new Promise((resolve, reject) => {
      const leave = (error: Error) => {
        this.line.remove(who, waiting);
        end();
        reject(error);
        // A large one at the head may have held smaller ones back.
        this.serve();
      };
      const onAbort = () => leave(new UnavailableError("No longer wanted."));
      const end = () => {
        waiting.timer?.stop();
        signal?.removeEventListener("abort", onAbort);
      };
      const waiting: Waiting = {
        sizeBytes,
        resolve() {
          end();
          resolve();
        },
        timer: maxWaitMs === undefined
          ? undefined
          : clock.after(maxWaitMs, () => leave(this.refused())),
      };
      this.line.push(who, waiting);
      signal?.addEventListener("abort", onAbort);
      if (signal?.aborted) onAbort();
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
    let next = this.line.peek();
    while (next !== undefined && this.fits(next.sizeBytes)) {
      this.line.shift();
      this.used += next.sizeBytes;
      next.resolve();
      next = this.line.peek();
    }
  }

  private refused(): UnavailableError {
    this.refusals++;
    return new UnavailableError(this.options.refusal ?? "Not now.");
  }
}
