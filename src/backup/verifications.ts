/** Verifies the backup of a running server, when asked and on a schedule. */
import type { Clock, Timer } from "../common/clock.ts";
import { messageOf } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import type { BackupSource } from "../store/backup_source.ts";
import type { ScratchDatabase } from "../store/local_engine.ts";
import type { Generations } from "./generations.ts";
import { hexVersion } from "./manifest.ts";
import type { Ownership } from "./ownership.ts";
import type { Shipper } from "./shipper.ts";
import {
  lastVerified,
  noteVerified,
  type Verification,
  verifyBackup,
} from "./verify.ts";

/** One that is due at launch waits until that is over. */
const FIRST_MS = 60_000;

export interface VerificationsOptions {
  objects: ObjectStore;
  ownership: Ownership;
  source: BackupSource;
  shipper: Shipper;
  generations: Generations;
  scratch(): ScratchDatabase;
  clock: Clock;
  logger: Logger;
  /** 0: only when asked. */
  everyMs: number;
  /** Ends the work. */
  signal: AbortSignal;
}

export class Verifications {
  /** When the backup was last verified, by this launch or an earlier one. */
  verifiedAtMs: number | undefined;
  /** Why the last one failed. */
  failure: unknown;
  private timer: Timer | undefined;
  private running: Promise<Verification> | undefined;

  constructor(private readonly options: VerificationsOptions) {
    options.signal.addEventListener("abort", () => this.timer?.stop());
  }

  /**
   * The schedule goes on where the launch before left it: an instance that is
   * replaced more often than it verifies would never come to it.
   */
  async begin(): Promise<void> {
    const { objects, clock, everyMs } = this.options;
    try {
      this.verifiedAtMs ??= (await lastVerified(objects))?.atMs;
    } catch {
      // Without an answer it counts as never; shipping says what is the matter.
    }
    if (everyMs === 0) return;
    const dueMs = (this.verifiedAtMs ?? 0) + everyMs - clock.nowMs();
    this.verifyIn(Math.min(Math.max(dueMs, FIRST_MS), everyMs));
  }

  private verifyIn(delayMs: number): void {
    const { clock, everyMs, signal } = this.options;
    if (signal.aborted) return;
    this.timer = clock.after(delayMs, () => {
      void this.verify().catch(() => {}).finally(() => this.verifyIn(everyMs));
    });
  }

  /** @throws StartupError where the backup is not as the database is */
  verify(): Promise<Verification> {
    this.running ??= this.run().finally(() => this.running = undefined);
    return this.running;
  }

  private async run(): Promise<Verification> {
    const { objects, ownership, source, shipper, generations, clock, signal } =
      this.options;
    const { logger } = this.options;
    try {
      await generations.making;
      const primary = await source.digest(signal);
      await source.settled(primary.version);
      shipper.synced(primary.version);
      await shipper.whenShipped(primary.version);
      const verification = await verifyBackup({
        objects,
        manifest: ownership.manifest,
        primary,
        scratch: this.options.scratch(),
        clock,
        signal,
      });
      await noteVerified(objects, verification);
      this.verifiedAtMs = verification.atMs;
      this.failure = undefined;
      logger.info("The backup was restored and equals the database.", {
        versionstamp: hexVersion(verification.version),
        entries: verification.entries,
      });
      return verification;
    } catch (error) {
      if (!signal.aborted) {
        this.failure = error;
        logger.error("The backup could not be verified.", {
          reason: messageOf(error),
        });
      }
      throw error;
    }
  }
}
