/**
 * Says again and again what is waited for while the object store does not
 * answer: a server that hangs in its start looks like one that works.
 */
import type { Clock, Timer } from "../common/clock.ts";
import type { Logger } from "../common/log.ts";
import type { Silence } from "../object_store/counted.ts";

/** While nothing is served; and later, when the backup alone waits. */
export const STARTING_EVERY_MS = 5000;
export const RUNNING_EVERY_MS = 60_000;
/** A request that takes this long is nothing to tell of. */
const PATIENCE_MS = 4000;

export interface OutageLogOptions {
  store: { readonly url: string; silence(): Silence | undefined };
  /** Where it is reached, if that was named. */
  endpoint: string | undefined;
  clock: Clock;
  logger: Pick<Logger, "warn">;
}

export class OutageLog {
  private timer: Timer;

  constructor(private readonly options: OutageLogOptions) {
    this.timer = this.every(STARTING_EVERY_MS);
  }

  /** From now on requests are answered. */
  started(): void {
    this.stop();
    this.timer = this.every(RUNNING_EVERY_MS);
  }

  stop(): void {
    this.timer.stop();
  }

  private every(intervalMs: number): Timer {
    return this.options.clock.every(intervalMs, () => this.tell());
  }

  private tell(): void {
    const { store, endpoint, logger } = this.options;
    const silence = store.silence();
    if (silence === undefined || silence.forMs < PATIENCE_MS) return;
    logger.warn("The object store has not answered; it is waited for.", {
      waitingFor: silence.waitingFor,
      store: store.url,
      endpoint,
      forMs: Math.round(silence.forMs),
      lastError: silence.lastError,
    });
  }
}
