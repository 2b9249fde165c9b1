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
import type { Clock } from "../common/clock.ts";
import type { Random } from "../common/random.ts";
import { retry } from "../common/retry.ts";
import { Waiters } from "../common/waiters.ts";
import type { Durability } from "../store/durability.ts";
import { isOutage } from "./owner_state.ts";

export type DurabilityName = "local" | "s3";

/** The wait before asking for the lease again where there was no answer. */
const LEASE_RETRY = { firstMs: 200, maxMs: 2000 };
/** The wait before another look where one got no answer. */
const LOOK_RETRY = { firstMs: 200, maxMs: 5000 };

interface Attached {
  clock: Clock;
  random: Random;
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
  /** Why the last look got no answer, while looks fail. */
  lastError: unknown;
  private attached: Attached | undefined;
  private readonly refused = new AbortController();
  private shippedVersion = 0;
  private looking: Promise<void> | undefined;
  private readonly waiting = new Waiters();

  constructor(readonly name: DurabilityName) {}

  attach(attached: Attached): void {
    this.attached = attached;
  }

  confirm(version: number): void | Promise<void> {
    const { signal } = this.refused;
    if (signal.aborted) return Promise.reject(signal.reason);
    const { shipper, ownership } = this.attached!;
    shipper.synced(version);
    if (this.name === "local") {
      return ownership.mayServe() ? undefined : this.whenOwner();
    }
    if (version <= this.confirmedVersion) return;
    return this.waiting.wait(version);
  }

  /** The commit stands; only whether it may be acknowledged is in question. */
  private whenOwner(): Promise<void> {
    const { ownership } = this.attached!;
    return this.untilAnswered(() => ownership.ensure(), LEASE_RETRY);
  }

  private untilAnswered(
    work: () => Promise<void>,
    policy: { firstMs: number; maxMs: number },
  ): Promise<void> {
    const { clock, random } = this.attached!;
    return retry(work, {
      clock,
      random,
      policy,
      signal: this.refused.signal,
      isTemporary: isOutage,
      onFailure: (error) => this.lastError = error,
    });
  }

  /**
   * The put of everything up to `version` is over. Resolves when all that was
   * shipped is confirmed, or nothing is any more. With `local` nobody waits
   * for that: the lease says whether this instance is the owner.
   */
  shipped(version: number): Promise<void> {
    this.shippedVersion = Math.max(this.shippedVersion, version);
    const isDone = this.name === "local" || this.refused.signal.aborted ||
      this.shippedVersion <= this.confirmedVersion;
    if (isDone) return Promise.resolve();
    return this.looking ??= this.lookUntilConfirmed();
  }

  private async lookUntilConfirmed(): Promise<void> {
    const { ownership } = this.attached!;
    const { signal } = this.refused;
    try {
      while (this.shippedVersion > this.confirmedVersion && !signal.aborted) {
        let version = 0;
        await this.untilAnswered(() => {
          // What is shipped from here on may be later than the look.
          version = this.shippedVersion;
          return ownership.confirmOwned();
        }, LOOK_RETRY);
        if (!signal.aborted) this.confirmed(version);
      }
    } catch (error) {
      this.refuse(error as Error);
    }
    // In the same turn as the last check: what comes next has its own look.
    this.looking = undefined;
  }

  private confirmed(version: number): void {
    this.lastError = undefined;
    this.confirmedVersion = version;
    this.waiting.reached(version);
  }

  /** Nothing is confirmed any more. */
  refuse(error: Error): void {
    this.refused.abort(error);
    this.waiting.fail(this.refused.signal.reason);
  }
}
