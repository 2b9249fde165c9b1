/**
 * When a backup begins anew with a whole snapshot: where it has no place to go
 * on, when its log has outgrown it, or when it is asked to. One at a time; old
 * ones are tidied up behind it.
 */
import type { Clock, Timer } from "../common/clock.ts";
import { messageOf, UnavailableError } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { Random } from "../common/random.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import type { Patience } from "../object_store/patience.ts";
import type { BackupSource } from "../store/backup_source.ts";
import { archiveOldGenerations } from "./archive.ts";
import { isOutgrown, type LogSize, makeGeneration } from "./generation.ts";
import { hexVersion } from "./manifest.ts";
import { FencedError, type Ownership } from "./ownership.ts";
import { applyRetention } from "./retention.ts";
import type { Shipper } from "./shipper.ts";

/** One that failed is tried again after this. */
const RETRY_MS = 30_000;
/**
 * No two are begun in less, unless asked for: each of them is a whole snapshot,
 * which stays for the time of the retention.
 */
const MIN_AGE_MS = 60_000;
/** Seals of the present one, one of each launch. */
const MAX_SEALS = 64;

export interface GenerationsOptions {
  objects: ObjectStore;
  ownership: Ownership;
  source: BackupSource;
  shipper: Shipper;
  clock: Clock;
  random: Random;
  logger: Logger;
  patience: Patience;
  retentionMs: number;
  /** Of the present generation, before this launch ships anything. */
  log: LogSize;
  snapshotBytes: number;
  /** Ends the work. */
  signal: AbortSignal;
}

export class Generations {
  /** Never rejects. */
  making: Promise<void> | undefined;
  /** Of the log, less what this launch had shipped before it. */
  private log: LogSize;
  private snapshotBytes: number;
  /** Before, the present one is too young to be outgrown. */
  private outgrownFromMs = 0;
  private retry: Timer | undefined;

  constructor(private readonly options: GenerationsOptions) {
    this.log = options.log;
    this.snapshotBytes = options.snapshotBytes;
    options.signal.addEventListener("abort", () => this.retry?.stop());
  }

  /** Whether everything that is not shipped has a place in the bucket. */
  hasPlace(): boolean {
    const { source, shipper } = this.options;
    if (shipper.position === undefined) return false;
    try {
      return source.logFloorVersion <= shipper.shippedVersion;
    } catch (error) {
      // The file is being opened anew, and keeps its log.
      if (error instanceof UnavailableError) return true;
      throw error;
    }
  }

  /** At launch. */
  begin(): void {
    const { generation, seals } = this.options.ownership.manifest;
    const isPresent = (seal: { generation: string }) =>
      seal.generation === generation;
    if (!this.hasPlace()) this.want("there is none to go on with");
    else if (seals.filter(isPresent).length > MAX_SEALS) {
      this.want("it has seen many launches");
    }
  }

  /** After a segment. */
  shipped(): void {
    const { shipper, clock } = this.options;
    const present = {
      sizeBytes: this.log.sizeBytes + shipper.shippedBytes,
      segments: this.log.segments + shipper.segments,
    };
    if (
      isOutgrown(present, this.snapshotBytes) &&
      clock.monotonicMs() >= this.outgrownFromMs
    ) this.want("its log has outgrown its snapshot");
  }

  /** Begins one, where none is being made. */
  want(why: string): void {
    const { signal, logger } = this.options;
    if (this.making || signal.aborted) return;
    this.retry?.stop();
    logger.info("A new generation of the backup begins.", { reason: why });
    this.making = this.make().finally(() => this.making = undefined);
  }

  /**
   * A new one now, or the one that is being made.
   * @throws UnavailableError where none came of it
   */
  async ask(): Promise<{ generation: string }> {
    const { ownership } = this.options;
    this.want("it was asked for");
    const before = ownership.manifest.generation;
    await this.making;
    const { generation } = ownership.manifest;
    if (generation === null || generation === before) {
      throw new UnavailableError(
        "No new generation was made; the server's log says why. The present one goes on.",
      );
    }
    return { generation };
  }

  private async make(): Promise<void> {
    const { options } = this;
    const { shipper, clock, logger, signal } = options;
    try {
      const startedMs = clock.monotonicMs();
      const made = await makeGeneration(options);
      if (made === undefined) throw new UnavailableError("the log moved on");
      this.outgrownFromMs = startedMs + MIN_AGE_MS;
      this.snapshotBytes = made.sizeBytes;
      this.log = {
        sizeBytes: -shipper.shippedBytes,
        segments: -shipper.segments,
      };
      logger.info("The new generation is complete.", {
        generation: made.name,
        versionstamp: hexVersion(made.version),
        entries: made.entries,
        sizeBytes: made.sizeBytes,
        tookMs: Math.round(clock.monotonicMs() - startedMs),
      });
    } catch (error) {
      if (signal.aborted || error instanceof FencedError) return;
      logger.error(
        "A new generation was not finished; the present one goes on.",
        { reason: messageOf(error) },
      );
      // What there is of it goes, so that tries do not heap up.
      await this.tidyUp();
      if (signal.aborted) return;
      this.retry = clock.after(
        RETRY_MS,
        () => this.want("the last try failed"),
      );
      return;
    }
    await this.tidyUp();
  }

  /** What is left undone is done after the next one. */
  private async tidyUp(): Promise<void> {
    const { options } = this;
    const { logger, signal } = options;
    try {
      await archiveOldGenerations(options);
      await applyRetention(options);
    } catch (error) {
      if (signal.aborted || error instanceof FencedError) return;
      logger.warn(
        "Generations that have expired were not all deleted; the next pass goes on.",
        { reason: messageOf(error) },
      );
    }
  }
}
