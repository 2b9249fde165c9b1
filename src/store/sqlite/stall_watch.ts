/**
 * Notices that writes wait for something that does not come: an fsync that
 * hangs, a checkpoint that holds commits back, another program's lock, a
 * backup that does not confirm. The server then says so instead of looking
 * healthy, and writes that are in no transaction yet get an answer.
 *
 * One timer, and only while writes wait: nothing is done for each of them.
 */
import type { Clock, Timer } from "../../common/clock.ts";
import { UnavailableError } from "../../common/errors.ts";
import type { Logger } from "../../common/log.ts";
import type { NotWritableCause } from "../store.ts";

/** An answer that takes longer than this is a disk that hangs. */
const MAX_DISK_SILENCE_MS = 2000;
/** Uploads may take seconds. */
const MAX_BACKUP_SILENCE_MS = 10_000;
/** Writes that nothing was done for yet are answered after so long a wait. */
const MAX_WAIT_MS = 10_000;
const LOOK_EVERY_MS = 1000;

/** Since when it is waited for each of these, in monotonic milliseconds. */
export interface Waits {
  sync: number | undefined;
  checkpoint: number | undefined;
  lock: number | undefined;
  confirmation: number | undefined;
}

const STALLS: readonly {
  name: keyof Waits;
  cause: NotWritableCause;
  afterMs: number;
  sentence: string;
}[] = [
  {
    name: "sync",
    cause: "disk",
    afterMs: MAX_DISK_SILENCE_MS,
    sentence:
      "The disk has not answered an fsync for more than 2 s. Writes wait for it and are not acknowledged; everything acknowledged is kept and can be read. Look at the disk.",
  },
  {
    name: "checkpoint",
    cause: "disk",
    afterMs: MAX_DISK_SILENCE_MS,
    sentence:
      "A checkpoint has held writes back for more than 2 s, because the disk does not answer. Everything acknowledged is kept and can be read. Look at the disk.",
  },
  {
    name: "lock",
    cause: "lock",
    afterMs: MAX_DISK_SILENCE_MS,
    sentence:
      "Another program has held the database locked for more than 2 s, and writes wait for it. Everything acknowledged is kept and can be read. Close that program.",
  },
  {
    name: "confirmation",
    cause: "backup",
    afterMs: MAX_BACKUP_SILENCE_MS,
    sentence:
      "The backup has not confirmed writes for more than 10 s. They are on this machine's disk and are not acknowledged. Look at the backup.",
  },
];

export interface Stall {
  cause: NotWritableCause;
  sentence: string;
  forMs: number;
}

export interface StallWatchDeps {
  clock: Clock;
  logger: Logger;
  waits(): Waits;
  /** Whether any write waits for its answer. */
  hasWaiting(): boolean;
  /** Nothing was done yet for the writes that this is for. */
  rejectPending(error: UnavailableError): void;
}

export class StallWatch {
  private timer: Timer | undefined;
  private told: string | undefined;

  constructor(private readonly deps: StallWatchDeps) {}

  /** A write has come. */
  expect(): void {
    this.timer ??= this.deps.clock.after(LOOK_EVERY_MS, this.look);
  }

  /** What is waited for too long at this moment. */
  present(): Stall | undefined {
    const nowMs = this.deps.clock.monotonicMs();
    const waits = this.deps.waits();
    for (const { name, cause, afterMs, sentence } of STALLS) {
      const sinceMs = waits[name];
      if (sinceMs !== undefined && nowMs - sinceMs >= afterMs) {
        return { cause, sentence, forMs: nowMs - sinceMs };
      }
    }
  }

  private readonly look = () => {
    const { clock, logger, hasWaiting, rejectPending } = this.deps;
    const stall = this.present();
    if (stall === undefined) {
      if (this.told !== undefined) logger.info("Writes no longer wait.", {});
    } else {
      if (this.told !== stall.sentence) {
        logger.error("Writes wait.", { reason: stall.sentence });
      }
      if (stall.forMs >= MAX_WAIT_MS) {
        rejectPending(
          new UnavailableError(
            `${stall.sentence} Nothing of this write was applied; send it again.`,
          ),
        );
      }
    }
    this.told = stall?.sentence;
    this.timer = stall !== undefined || hasWaiting()
      ? clock.after(LOOK_EVERY_MS, this.look)
      : undefined;
  };

  stop(): void {
    this.timer?.stop();
  }
}
