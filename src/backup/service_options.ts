/** What a backup service is made of, and how long it waits for its store. */
import type { Clock } from "../common/clock.ts";
import { messageOf } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { Random } from "../common/random.ts";
import { retry } from "../common/retry.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { DATA_PATIENCE, Patience } from "../object_store/patience.ts";
import type { LocalEngine } from "../store/local_engine.ts";
import type { DurabilityName } from "./backup_durability.ts";
import { temporaryAtLaunch, waitingFor } from "./takeover.ts";

const LAUNCH_RETRY_MS = 1000;

export interface BackupServiceOptions {
  objects: ObjectStore;
  engine: LocalEngine;
  clock: Clock;
  random: Random;
  logger: Logger;
  durability: DurabilityName;
  intervalMs: number;
  retentionMs: number;
  maxRetainedBytes: number;
  /** 0: never. */
  verifyEveryMs: number;
  /** Uses a store that ignores conditions: two instances may fork the data. */
  allowUnfenced: boolean;
  /** Where clients reach this instance, for others to tell. */
  ownerUrl?: string;
  leaseMs?: number;
  clockMarginMs?: number;
  /** Undefined where it is not known. Default: of this machine. */
  machineStartedMs?(clock: Clock): number | undefined;
  /** How long a request with data is waited for at first. Default: 5 s. */
  firstTimeoutMs?: number;
  progress?(what: string, done: number, total: number): void;
  /** Ends the launch; its reason is what `open` rejects with. */
  signal?: AbortSignal;
}

export function patienceOf(
  { clock, firstTimeoutMs }: BackupServiceOptions,
): Patience {
  const { firstMs, maxMs } = DATA_PATIENCE;
  return new Patience({ clock, firstMs: firstTimeoutMs ?? firstMs, maxMs });
}

/**
 * Until the store answers: nothing can be served without it.
 * @throws FencedError, or any other error of the work that is not temporary
 */
export function patiently<T>(
  { clock, logger, signal }: BackupServiceOptions,
  work: () => Promise<T>,
): Promise<T> {
  return retry(work, {
    clock,
    policy: { firstMs: LAUNCH_RETRY_MS, maxMs: LAUNCH_RETRY_MS },
    signal,
    isTemporary: temporaryAtLaunch(clock),
    onFailure(error, tries) {
      if (tries > 1) return;
      logger.warn(waitingFor(error), { reason: messageOf(error) });
    },
  });
}
