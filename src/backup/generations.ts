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

/**
 * No two are begun in less, unless asked for: each of them is a whole snapshot,
 * which stays for the time of the retention.
 */
const MIN_AGE_MS = 60_000;
/**
 * The pause after one that failed, or that was made because the log had a gap:
 * twice as long each time, so that a store that is slower than what is written
 * is not given one whole snapshot after the other. Quiet times end that.
 */
const FIRST_PAUSE_MS = 1000;
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
  maxRetainedBytes: number;
  /** How many were served: a snapshot leaves room for them. */
  requests(): number;
  /** How long a necessary one is put off at the most, where others failed. */
  maxPauseMs: number;
  /** Of the present generation, before this launch ships anything. */
  log: LogSize;
  snapshotBytes: number;
  /** Ends the work. */
  signal: AbortSignal;
}

export class Generations {
  /** While one is made and old ones are tidied up. Never rejects. */
  making: Promise<void> | undefined;
  /** Whether the one that was made is complete, or has failed. */
  private isTidyingUp = false;
  /** A wish that came meanwhile: the next one is for it. */
  private wish: string | undefined;
  /** Of the log, less what this launch had shipped before it. */
  private log: LogSize;
  private snapshotBytes: number;
  /** Before, the present one is too young to be outgrown. */
  private outgrownFromMs = 0;
  private hasFailed = false;
  /** One that is put off. */
  private later: Timer | undefined;
  private pauseMs = 0;
  private lastEndMs = -Infinity;

  constructor(private readonly options: GenerationsOptions) {
    this.log = options.log;
    this.snapshotBytes = options.snapshotBytes;
    options.signal.addEventListener("abort", () => this.later?.stop());
  }

  /** Whether everything that is not shipped has a place in the bucket. */
  hasPlace(): boolean {
    return this.options.shipper.hasPlace();
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
    const { shipped } = this.options.shipper;
    const present = {
      sizeBytes: this.log.sizeBytes + shipped.sizeBytes,
      segments: this.log.segments + shipped.segments,
    };
    if (
      isOutgrown(present, this.snapshotBytes) &&
      this.options.clock.monotonicMs() >= this.outgrownFromMs
    ) this.want("its log has outgrown its snapshot");
  }

  /** Begins one now; the one that is being made will do. */
  want(why: string): void {
    if (this.options.signal.aborted) return;
    if (this.making === undefined) this.making = this.run(why);
    else if (this.isTidyingUp) this.wish = why;
  }

  /**
   * Without another one nothing can be shipped: soon, but after a pause where
   * the last one was for the same reason. Where one is being made, its end
   * shows whether it is needed still.
   */
  need(why: string): void {
    const { clock, maxPauseMs, signal } = this.options;
    if (this.making || this.later || signal.aborted) return;
    const agoMs = clock.monotonicMs() - this.lastEndMs;
    if (agoMs > Math.max(MIN_AGE_MS, 2 * this.pauseMs)) this.pauseMs = 0;
    const waitMs = this.pauseMs - agoMs;
    this.pauseMs = Math.min(
      Math.max(FIRST_PAUSE_MS, 2 * this.pauseMs),
      maxPauseMs,
    );
    if (waitMs <= 0) return this.want(why);
    this.options.logger.warn(
      "The backup needs a new generation, and begins it after a pause: the last one is not long ago.",
      { reason: why, pauseMs: Math.round(waitMs) },
    );
    this.later = clock.after(waitMs, () => this.want(why));
  }

  /**
   * Makes one after the other until everything has a place: what another
   * program writes meanwhile needs one more. Ends with one that fails, too.
   */
  async ensurePlace(why: string): Promise<void> {
    while (!this.hasPlace() && !this.options.signal.aborted) {
      this.want(why);
      await this.making;
      if (this.hasFailed) return;
    }
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

  private async run(why: string): Promise<void> {
    const { clock, logger, signal } = this.options;
    for (let reason: string | undefined = why; reason !== undefined;) {
      this.later?.stop();
      this.later = undefined;
      this.wish = undefined;
      logger.info("A new generation of the backup begins.", { reason });
      this.hasFailed = !await this.make();
      this.lastEndMs = clock.monotonicMs();
      this.isTidyingUp = true;
      // What there is of a failed one goes, so that tries do not heap up.
      if (!signal.aborted) await this.tidyUp();
      this.isTidyingUp = false;
      reason = signal.aborted ? undefined : this.wish;
    }
    // Before the next one is begun: two at once would delete each other's.
    this.making = undefined;
    if (this.hasFailed) this.need("the last try failed");
    else if (!this.hasPlace()) this.need("the log has moved on without it");
  }

  /** @returns whether it is complete */
  private async make(): Promise<boolean> {
    const { options } = this;
    const { shipper, clock, logger, signal } = options;
    try {
      const startedMs = clock.monotonicMs();
      const made = await makeGeneration(options);
      this.outgrownFromMs = startedMs + MIN_AGE_MS;
      this.snapshotBytes = made.sizeBytes;
      const { segments, sizeBytes } = shipper.shipped;
      this.log = { sizeBytes: -sizeBytes, segments: -segments };
      logger.info("The new generation is complete.", {
        generation: made.name,
        versionstamp: hexVersion(made.version),
        entries: made.entries,
        sizeBytes: made.sizeBytes,
        tookMs: Math.round(clock.monotonicMs() - startedMs),
      });
      return true;
    } catch (error) {
      if (!signal.aborted && !(error instanceof FencedError)) {
        logger.error(
          "A new generation was not finished; the present one goes on.",
          { reason: messageOf(error) },
        );
      }
      return false;
    }
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
