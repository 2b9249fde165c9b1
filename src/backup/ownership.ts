/**
 * Who may write the history. One launch owns one epoch; every change of owner
 * is a compare-and-swap of the manifest. Read docs/fencing.md beside this file.
 * It is made by a takeover (`takeover.ts`), and has three parts: the manifest
 * as its owner changes it, the lease, and how it stands.
 *
 * Invariant: a segment of epoch e is history only up to the seal that whoever
 * raised the epoch above e recorded, before it served anything. The worst
 * outcome of a mistake here: two histories.
 */
import type { Clock, Timer } from "../common/clock.ts";
import type { Logger } from "../common/log.ts";
import type { Random } from "../common/random.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { type HistoryEnd, historyEndOf } from "./history_end.ts";
import { withLeap } from "./leap.ts";
import { Lease, type Moment } from "./lease.ts";
import type { Manifest, Seal } from "./manifest.ts";
import {
  type EpochEnd,
  type GiveUp,
  ManifestRegister,
} from "./manifest_register.ts";
import type { ManifestStore, VersionedManifest } from "./manifest_store.ts";
import {
  type FencedError,
  type OwnerStanding,
  OwnerState,
} from "./owner_state.ts";
import { withSeals } from "./sealing.ts";

export { FencedError, isOutage } from "./owner_state.ts";

/** How long an owner may go without renewing before another takes over. */
export const LEASE_MS = 10_000;
/** How far the clocks of two machines may be apart. */
export const CLOCK_MARGIN_MS = 1000;

export interface OwnershipOptions {
  objects: ObjectStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Of the local file, where there is one. */
  databaseId?: string;
  /**
   * The launch that last had the local file, whose lock we hold: it is gone,
   * so its lease need not be waited for.
   */
  previousOwner?: string;
  /** Where clients reach this instance, for others to tell. */
  ownerUrl?: string;
  /** Goes on without a lease while the store does not answer at all. */
  servesThroughOutages: boolean;
  /**
   * Another launch asks for ownership; called for each that asks. It is handed
   * over (`release`) or declined (`declineHandover`).
   */
  onHandoverRequested(launch: string): void;
  /** Why it takes long, in a sentence; called once for each reason. */
  onWaiting?(what: string): void;
  signal?: AbortSignal;
  leaseMs?: number;
  clockMarginMs?: number;
}

/** What a takeover has won. */
export interface Taken {
  store: ManifestStore;
  current: VersionedManifest;
  /** The manifest as the owner before us left it. */
  previous: Manifest | undefined;
  /** When the swap was begun. */
  begun: Moment;
}

export class Ownership {
  readonly owner: string;
  readonly epoch: number;
  /** Resolves when the ownership is lost to another instance. */
  readonly lost: Promise<FencedError>;
  /** The manifest as the owner before us left it. */
  readonly previous: Manifest | undefined;
  private readonly state = new OwnerState();
  private readonly store: ManifestStore;
  private readonly register: ManifestRegister;
  private readonly lease: Lease;
  /** The last leap, and the version that it is over. */
  private leapt: { over: number; to: number } | undefined;

  constructor(options: OwnershipOptions, taken: Taken) {
    const { state } = this;
    const { store, current, previous, begun } = taken;
    const { leaseMs = LEASE_MS } = options;
    this.store = store;
    this.register = new ManifestRegister(
      { ...options, store, state },
      current,
      begun.monotonicMs,
    );
    const { register } = this;
    this.lease = new Lease({ ...options, state, register, leaseMs }, begun);
    this.owner = register.owner;
    this.epoch = register.epoch;
    this.lost = state.lost;
    this.previous = previous;
    void state.lost.then(() => this.lease.stop());
  }

  get manifest(): Manifest {
    return this.register.manifest;
  }

  get standing(): OwnerStanding {
    return this.state.now;
  }

  /** Since when the lease could not be renewed for lack of an answer. */
  get cutOffSinceMs(): number | undefined {
    const { now } = this.state;
    return now.kind === "cutOff" ? now.sinceMs : undefined;
  }

  /** Why the last try to renew the lease failed; undefined where it did not. */
  get renewalError(): unknown {
    return this.lease.renewalError;
  }

  /** Our clock less the object store's; undefined where it does not say. */
  get clockSkewMs(): number | undefined {
    return this.store.clocks?.skewMs;
  }

  /** Undefined where there is no history yet. */
  get historyEnd(): HistoryEnd | undefined {
    return historyEndOf(this.manifest);
  }

  /** Cheap: see {@linkcode Lease.mayServe}. */
  mayServe(): boolean {
    return this.lease.mayServe();
  }

  /** See {@linkcode Lease.ensure}. */
  ensure(): Promise<void> {
    return this.lease.ensure();
  }

  /** The lease is renewed no more: whoever owned it is gone, in order or not. */
  stop(): void {
    this.lease.stop();
  }

  /** Renews the lease also where nobody asks, until it is stopped. */
  keepAlive(): Timer {
    return this.lease.keepAlive();
  }

  /** See {@linkcode Lease.watch}. */
  watch(): Timer {
    return this.lease.watch();
  }

  /** See {@linkcode Lease.lookIfOld}. */
  lookIfOld(): void {
    this.lease.lookIfOld();
  }

  /** See {@linkcode Lease.trouble}. */
  get trouble(): unknown {
    return this.lease.trouble;
  }

  /** See {@linkcode ManifestRegister.update}. */
  update(
    change: (manifest: Manifest) => Manifest,
    giveUp?: GiveUp,
  ): Promise<Manifest> {
    return this.register.update(change, giveUp);
  }

  /**
   * Records where the earlier epochs end, and with the same change leaps over
   * that, where the file is known to leap: some stores take one a second.
   */
  async seal(
    seals: readonly Seal[],
    leaps: boolean,
    giveUp?: GiveUp,
  ): Promise<void> {
    await this.update((manifest) => {
      const sealed = withSeals(manifest, seals);
      return leaps
        ? this.leaping(sealed, historyEndOf(sealed)?.version ?? 0)
        : sealed;
    }, giveUp);
  }

  /**
   * Before a launch issues its first version: writes a leap over `version`, and
   * over every leap before, into the manifest. One that it has made already
   * does, where it is over that version.
   * @returns the version that versions go on after
   */
  async leap(version: number): Promise<number> {
    if (this.leapt === undefined || this.leapt.over < version) {
      // It is reckoned with every try: a restore may have leapt meanwhile.
      await this.update((manifest) => this.leaping(manifest, version));
    }
    return this.leapt!.to;
  }

  /** What is noted last is what was written: a try that lost is reckoned anew. */
  private leaping(manifest: Manifest, version: number): Manifest {
    const over = Math.max(version, manifest.leapVersion);
    const next = withLeap(manifest, version);
    this.leapt = { over, to: next.leapVersion };
    return next;
  }

  /** See {@linkcode ManifestRegister.carryHead}. */
  carryHead(shipped: () => EpochEnd | undefined): void {
    this.register.carryHead(shipped);
  }

  /** See {@linkcode ManifestRegister.look}. */
  confirmOwned(): Promise<void> {
    return this.register.look();
  }

  /** See {@linkcode ManifestRegister.keepCopy}. */
  keepCopy(): Promise<void> {
    return this.register.keepCopy();
  }

  /** The launch that asked is told that it does not get it. */
  async declineHandover(launch: string, giveUp?: GiveUp): Promise<void> {
    await this.update(
      (manifest) =>
        manifest.handoverTo === launch
          ? { ...manifest, handoverTo: null }
          : manifest,
      giveUp,
    );
  }

  /** See {@linkcode ManifestRegister.release}. */
  release(end: EpochEnd | undefined, giveUp?: GiveUp): Promise<void> {
    this.lease.stop();
    return this.register.release(end, giveUp);
  }
}
