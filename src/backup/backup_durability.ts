/**
 * When a commit counts as durable while there is a backup.
 *
 * `local`: it is synced here, and this instance may serve.
 *
 * `s3`: its segment is in the bucket, and after that a look at the manifest
 * still showed this instance as the owner. The look has to begin when the put
 * is over: then a takeover that it does not show comes later than the put, and
 * its listing has the segment (docs/fencing.md). One look serves every commit
 * that was shipped before it began, and the next segment is put meanwhile.
 * There is one look at a time: a manifest that cannot be read while segments go
 * through is asked for by one, not by each of them.
 */
import { type Clock, sleep, type Timer } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import type { Durability } from "../store/durability.ts";
import { FencedError, isOutage } from "./ownership.ts";

export type DurabilityName = "local" | "s3";

/** The wait before asking for the lease again where there was no answer. */
const LEASE_RETRY_MS = 200;
/** The wait before another look where one got no answer: first, and most. */
const FIRST_LOOK_RETRY_MS = 200;
const MAX_LOOK_RETRY_MS = 5000;

interface Attached {
  clock: Clock;
  shipper: { synced(version: number): void };
  ownership: {
    mayServe(): boolean;
    ensure(): Promise<void>;
    confirmOwned(): Promise<void>;
  };
}

export class BackupDurability implements Durability {
  /** The newest version that is durable in the object store. */
  confirmedVersion = 0;
  private attached: Attached | undefined;
  private refusal: Error | undefined;
  private shippedVersion = 0;
  private looking: Promise<void> | undefined;
  private pausing: { timer: Timer; end(): void } | undefined;
  private readonly waiting: {
    version: number;
    resolve(): void;
    reject(error: Error): void;
  }[] = [];

  constructor(readonly name: DurabilityName) {}

  attach(attached: Attached): void {
    this.attached = attached;
  }

  confirm(version: number): void | Promise<void> {
    if (this.refusal) return Promise.reject(this.refusal);
    const { shipper, ownership } = this.attached!;
    shipper.synced(version);
    if (this.name === "local") {
      return ownership.mayServe() ? undefined : this.whenOwner();
    }
    if (version <= this.confirmedVersion) return;
    return new Promise((resolve, reject) =>
      this.waiting.push({ version, resolve, reject })
    );
  }

  /** The commit stands; only whether it may be acknowledged is in question. */
  private async whenOwner(): Promise<void> {
    const { ownership, clock } = this.attached!;
    for (;;) {
      try {
        return await ownership.ensure();
      } catch (error) {
        if (error instanceof FencedError || this.refusal) throw error;
        if (!(error instanceof UnavailableError)) throw error;
      }
      await sleep(clock, LEASE_RETRY_MS);
    }
  }

  /**
   * The put of everything up to `version` is over. Resolves when all that was
   * shipped is confirmed, or nothing is any more.
   */
  shipped(version: number): Promise<void> {
    this.shippedVersion = Math.max(this.shippedVersion, version);
    if (this.refusal || this.shippedVersion <= this.confirmedVersion) {
      return Promise.resolve();
    }
    return this.looking ??= this.lookUntilConfirmed();
  }

  private async lookUntilConfirmed(): Promise<void> {
    let retryMs = FIRST_LOOK_RETRY_MS;
    while (!this.refusal && this.shippedVersion > this.confirmedVersion) {
      // What is shipped from here on may be later than the look.
      const version = this.shippedVersion;
      try {
        await this.attached!.ownership.confirmOwned();
        retryMs = FIRST_LOOK_RETRY_MS;
        if (!this.refusal) this.confirmed(version);
      } catch (error) {
        if (!isOutage(error)) this.refuse(error as Error);
        if (this.refusal) break;
        await this.pause(retryMs);
        retryMs = Math.min(2 * retryMs, MAX_LOOK_RETRY_MS);
      }
    }
    this.looking = undefined;
  }

  private pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.attached!.clock.after(delayMs, resolve);
      this.pausing = { timer, end: resolve };
    });
  }

  private confirmed(version: number): void {
    this.confirmedVersion = version;
    const { waiting } = this;
    let count = 0;
    while (count < waiting.length && waiting[count].version <= version) count++;
    for (const { resolve } of waiting.splice(0, count)) resolve();
  }

  /** Nothing is confirmed any more. */
  refuse(error: Error): void {
    this.refusal ??= error;
    this.pausing?.timer.stop();
    this.pausing?.end();
    for (const { reject } of this.waiting.splice(0)) reject(this.refusal);
  }
}
