/**
 * Who may write the history. One launch owns one epoch; every change of owner
 * is a compare-and-swap of the manifest. Read docs/fencing.md beside this file.
 *
 * Invariant: a segment of epoch e is history only up to the seal that whoever
 * raised the epoch above e recorded, before it served anything. The worst
 * outcome of a mistake here: two histories.
 */
import { type Clock, sleep, type Timer } from "../common/clock.ts";
import { messageOf, StartupError, UnavailableError } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import { type Random, randomUuid } from "../common/random.ts";
import {
  type ObjectStore,
  ObjectStoreRefusedError,
} from "../object_store/object_store.ts";
import { damageOf, listSegments } from "./history.ts";
import {
  encodeManifest,
  type Manifest,
  ManifestStore,
  type Seal,
  type VersionedManifest,
} from "./manifest.ts";
import { epochOf, manifestCopyKey, versionOf } from "./names.ts";
import { contentWithoutManifest } from "./unclaimed.ts";

/** How long an owner may go without renewing before another takes over. */
export const LEASE_MS = 10_000;
/** How far the clocks of two machines may be apart. */
export const CLOCK_MARGIN_MS = 1000;
/** How often a launch that waits for ownership looks. */
const WAIT_POLL_MS = 250;
/**
 * A lease that cannot be renewed because the store does not answer: after this
 * long, durability `local` goes on without it.
 */
const OUTAGE_GRACE_MS = 2000;
const RENEW_RETRY_MS = 500;
/** A request for the manifest is waited for so long at first. */
const MANIFEST_TIMEOUT_MS = 3000;
/** How often an owner looks whether another instance waits for it. */
const LOOK_MS = 1000;

/** Another instance owns the history now, or this one has given it up. */
export class FencedError extends UnavailableError {
  override name = "FencedError";
}

/** The store does not answer, or not as it should: to be tried again. */
export function isOutage(error: unknown): error is Error {
  return !(error instanceof FencedError) &&
    (error instanceof UnavailableError ||
      error instanceof ObjectStoreRefusedError);
}

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
  /** Goes on without a lease while the store does not answer at all. */
  servesThroughOutages: boolean;
  /** Another instance asks for ownership; called once. */
  onHandoverRequested(): void;
  /** Why it takes long, in a sentence; called once for each reason. */
  onWaiting?(what: string): void;
  signal?: AbortSignal;
  leaseMs?: number;
  clockMarginMs?: number;
}

/** Where the history that we took over ends. */
export interface HistoryEnd {
  generation: string;
  version: number;
}

export class Ownership {
  readonly owner: string;
  readonly epoch: number;
  /** Resolves when the ownership is lost to another instance. */
  readonly lost: Promise<FencedError>;
  /** Since when the lease could not be renewed for lack of an answer. */
  cutOffSinceMs: number | undefined;
  /** Why the last try to renew it failed; undefined where it did not. */
  renewalError: unknown;
  private readonly lostWith = Promise.withResolvers<FencedError>();
  private failure: FencedError | undefined;
  private leaseEndMs = 0;
  private leaseEndMonotonicMs = 0;
  private renewAtMonotonicMs = 0;
  private renewing: Promise<void> | undefined;
  private changing: Promise<unknown> = Promise.resolve();
  private hasHandover = false;
  private isReleasing = false;
  private looking: Timer | undefined;
  private isLooking = false;
  /** Resolves when an outage is no reason to wait any more. */
  private servingOn = Promise.withResolvers<void>();

  private constructor(
    private readonly options: OwnershipOptions,
    private readonly store: ManifestStore,
    private current: VersionedManifest,
    /** The manifest as the owner before us left it. */
    readonly previous: Manifest | undefined,
  ) {
    this.owner = current.manifest.owner!;
    this.epoch = current.manifest.epoch;
    this.lost = this.lostWith.promise;
  }

  get manifest(): Manifest {
    return this.current.manifest;
  }

  private static leaseMsOf(options: OwnershipOptions): number {
    return options.leaseMs ?? LEASE_MS;
  }

  // -------------------------------------------------------------- acquiring

  /**
   * Becomes the owner: asks a living one to hand over, waits for a dead one's
   * lease, raises the epoch, and records where the earlier epochs end.
   * @throws StartupError where the bucket holds another database
   * @throws ObjectStoreRefusedError where the store does not let us
   */
  static async acquire(options: OwnershipOptions): Promise<Ownership> {
    const { clock, random, objects } = options;
    const firstTimeoutMs = Math.min(
      MANIFEST_TIMEOUT_MS,
      Math.ceil(Ownership.leaseMsOf(options) / 3),
    );
    const store = new ManifestStore(objects, clock, random, firstTimeoutMs);
    const owner = randomUuid(random);
    try {
      return await Ownership.acquireAs(owner, store, options);
    } catch (error) {
      // Nobody should hand over to a launch that is gone.
      await withdraw(store, owner).catch(() => {});
      throw error;
    }
  }

  private static async acquireAs(
    owner: string,
    store: ManifestStore,
    options: OwnershipOptions,
  ): Promise<Ownership> {
    const { clock, random } = options;
    const leaseMs = Ownership.leaseMsOf(options);
    let seenNonce: string | undefined;
    let seenSinceMs = 0;
    let told: string | undefined;
    const tell = (what: string) => {
      if (told !== what) options.onWaiting?.(told = what);
    };
    for (;;) {
      options.signal?.throwIfAborted();
      let found: VersionedManifest | undefined;
      try {
        found = await store.read() ??
          await readOfNonEmpty(options.objects, store, options.signal);
      } catch (error) {
        if (!(error instanceof UnavailableError)) throw error;
        tell(
          `The object store does not answer (${messageOf(error)}); trying on.`,
        );
        await sleep(clock, 4 * WAIT_POLL_MS);
        continue;
      }
      if (found) checkDatabase(found.manifest, options.databaseId);
      if (found?.nonce !== seenNonce) {
        seenNonce = found?.nonce;
        seenSinceMs = clock.monotonicMs();
      }
      const startedMs = clock.nowMs();
      const startedMonotonicMs = clock.monotonicMs();
      if (!found || Ownership.mayTake(found.manifest, options, seenSinceMs)) {
        if (found) checkFile(found.manifest, options.databaseId);
        const next = takenOver(found?.manifest, {
          databaseId: options.databaseId ?? randomUuid(random),
          beganWithFile: options.databaseId !== undefined,
          owner,
          leaseUntilMs: startedMs + leaseMs,
        });
        const { won, current } = await store.swap(found, next);
        if (!won) continue;
        const ownership = new Ownership(
          options,
          store,
          current!,
          found?.manifest,
        );
        ownership.beginLease(startedMs, startedMonotonicMs);
        try {
          await ownership.seal();
          await ownership.keepCopy();
        } catch (error) {
          // Whoever is to look into it need not wait for our lease.
          await ownership.release(undefined, () => true).catch(() => {});
          throw error;
        }
        return ownership;
      }
      tell(
        "Another instance owns this backup; it is asked to hand over, or its lease is waited for.",
      );
      if (found.manifest.handoverTo === null) {
        await store.swap(found, { ...found.manifest, handoverTo: owner });
        continue;
      }
      await sleep(clock, WAIT_POLL_MS);
    }
  }

  /** Whether the owner is gone, or its lease has run out by any reckoning. */
  private static mayTake(
    manifest: Manifest,
    options: OwnershipOptions,
    seenSinceMs: number,
  ): boolean {
    if (manifest.owner === null || manifest.owner === options.previousOwner) {
      return true;
    }
    const { clock } = options;
    const marginMs = options.clockMarginMs ?? CLOCK_MARGIN_MS;
    // A renewal changes the nonce; without one for a whole lease it is over,
    // whatever the owner's clock says.
    const unchangedMs = clock.monotonicMs() - seenSinceMs;
    return clock.nowMs() > manifest.leaseUntilMs + marginMs ||
      unchangedMs > Ownership.leaseMsOf(options) + marginMs;
  }

  /**
   * Records where the epochs before ours end. The listing begins after the
   * swap that raised the epoch has won: a segment that its owner may still
   * acknowledge was put before that, and is in the listing.
   */
  private async seal(): Promise<void> {
    const { generation } = this.manifest;
    if (generation === null) return;
    let seals: Seal[];
    for (;;) {
      // Whoever owns the next epoch seals what is not sealed then.
      this.options.signal?.throwIfAborted();
      try {
        seals = await this.endsOf(generation);
        break;
      } catch (error) {
        if (!(error instanceof UnavailableError)) throw error;
        await sleep(this.options.clock, RENEW_RETRY_MS);
      }
    }
    if (seals.length === 0) return;
    await this.update((manifest) => ({
      ...manifest,
      seals: [...manifest.seals, ...seals],
    }), () => this.options.signal?.aborted === true);
  }

  /**
   * Seals for the epochs of this generation that have none.
   * @throws StartupError where a segment is missing before another one
   */
  private async endsOf(generation: string): Promise<Seal[]> {
    const { objects } = this.options;
    const { seals } = this.manifest;
    const listing = await listSegments(objects, generation, this.manifest);
    const { history } = listing;
    const { snapshotVersion } = this.manifest.generations
      .find(({ name }) => name === generation)!;
    // A seal before a segment that was there would make the loss the history.
    const damage = damageOf(listing, snapshotVersion);
    if (damage) throw damage;
    const sealed = new Map(
      seals.filter((seal) => seal.generation === generation)
        .map((seal) => [seal.epoch, seal]),
    );
    const found: Seal[] = [];
    let lastVersion = snapshotVersion;
    // An epoch without a segment in the listing is sealed too: one that is on
    // its way must not become history when it arrives.
    for (let epoch = epochOf(generation); epoch < this.epoch; epoch++) {
      const seal = sealed.get(epoch);
      const last = history.findLast((segment) => segment.epoch === epoch);
      if (last) lastVersion = versionOf(last.last);
      if (seal) continue;
      found.push({ generation, epoch, lastTsn: last?.tsn ?? 0, lastVersion });
    }
    return found;
  }

  /** Undefined where there is no history yet. */
  get historyEnd(): HistoryEnd | undefined {
    const { generation, generations, seals } = this.manifest;
    if (generation === null) return undefined;
    let { snapshotVersion: version } = generations
      .find(({ name }) => name === generation)!;
    for (const seal of seals) {
      if (seal.generation === generation && seal.epoch < this.epoch) {
        version = Math.max(version, seal.lastVersion);
      }
    }
    return { generation, version };
  }

  // ------------------------------------------------------------------ lease

  private beginLease(startedMs: number, startedMonotonicMs: number): void {
    const leaseMs = Ownership.leaseMsOf(this.options);
    this.leaseEndMs = startedMs + leaseMs;
    this.leaseEndMonotonicMs = startedMonotonicMs + leaseMs;
    this.renewAtMonotonicMs = startedMonotonicMs + leaseMs / 3;
    this.looking ??= this.options.clock.every(LOOK_MS, () => this.look());
  }

  /**
   * While the lease runs, a look now and then for a launch that waits. When it
   * has run out, whoever waits need not ask.
   */
  private look(): void {
    const isRunning =
      this.options.clock.monotonicMs() < this.leaseEndMonotonicMs;
    if (!isRunning || this.failure !== undefined) return this.stopLooking();
    // A store that falls silent is asked once, not once a second.
    if (this.isLooking) return;
    this.isLooking = true;
    this.confirmOwned().catch(() => {}).finally(() => this.isLooking = false);
  }

  private stopLooking(): void {
    this.looking?.stop();
    this.looking = undefined;
  }

  /**
   * Whether requests may be answered now: for every request, so it takes two
   * looks at clocks and nothing else. Both have to agree: one stands still
   * while the machine sleeps, the other can be set.
   */
  mayServe(): boolean {
    const { clock } = this.options;
    const monotonicMs = clock.monotonicMs();
    if (monotonicMs >= this.renewAtMonotonicMs) this.renewSoon();
    if (this.failure !== undefined) return false;
    return (monotonicMs < this.leaseEndMonotonicMs &&
      clock.nowMs() < this.leaseEndMs) || this.cutOffSinceMs !== undefined;
  }

  /** There is no timer: an owner that nobody asks anything lets it run out. */
  private renewSoon(): void {
    if (this.renewing || this.failure) return;
    this.renewing = this.renew().finally(() => this.renewing = undefined);
    this.renewing.catch(() => {});
  }

  /**
   * Resolves when requests may be answered.
   * @throws FencedError
   * @throws UnavailableError where the store does not answer in time
   */
  async ensure(): Promise<void> {
    const late = Promise.withResolvers<never>();
    const timer = this.options.clock.after(
      2 * OUTAGE_GRACE_MS,
      () =>
        late.reject(
          new UnavailableError(
            "The object store does not answer, so this instance cannot tell whether it still owns the database. Nothing of the request was applied; try again.",
          ),
        ),
    );
    try {
      while (!this.mayServe()) {
        if (this.failure) throw this.failure;
        this.renewSoon();
        await Promise.race([
          this.renewing,
          this.servingOn.promise,
          late.promise,
        ]);
      }
    } finally {
      timer.stop();
    }
  }

  private async renew(): Promise<void> {
    const { clock } = this.options;
    let reason = "no answer at all";
    let startedMs = 0;
    let startedMonotonicMs = 0;
    // By a timer: in an outage a request may neither fail nor be answered.
    const leaseLeftMs = Math.min(
      this.leaseEndMonotonicMs - clock.monotonicMs(),
      this.leaseEndMs - clock.nowMs(),
    );
    const outage = clock.after(
      Math.max(leaseLeftMs, OUTAGE_GRACE_MS),
      () => this.serveOn(reason),
    );
    try {
      for (;;) {
        try {
          await this.update((manifest) => {
            startedMs = clock.nowMs();
            startedMonotonicMs = clock.monotonicMs();
            const leaseUntilMs = startedMs + Ownership.leaseMsOf(this.options);
            return { ...manifest, leaseUntilMs };
          }, () => true);
          this.beginLease(startedMs, startedMonotonicMs);
          this.renewalError = undefined;
          if (this.cutOffSinceMs !== undefined) {
            this.cutOffSinceMs = undefined;
            this.options.logger.info("The object store answers again.");
          }
          return;
        } catch (error) {
          if (!isOutage(error) || this.isReleasing) throw error;
          this.renewalError = error;
          reason = messageOf(error);
        }
        await sleep(clock, RENEW_RETRY_MS);
      }
    } finally {
      outage.stop();
    }
  }

  /**
   * Goes on without a lease, where that is wanted. The tries go on, too: when
   * the outage ends, someone may have taken over.
   */
  private serveOn(reason: string): void {
    const { servesThroughOutages, clock, logger } = this.options;
    if (!servesThroughOutages || this.failure) return;
    if (this.cutOffSinceMs !== undefined) return;
    this.cutOffSinceMs = clock.nowMs();
    logger.warn(
      "The object store does not answer. Requests are served on; what is written is on this machine's disk alone until it does.",
      { reason },
    );
    this.servingOn.resolve();
    this.servingOn = Promise.withResolvers();
  }

  // --------------------------------------------------------------- changing

  /**
   * Changes the manifest, as its owner. One change at a time.
   * @param giveUp ends the tries while the store does not answer
   * @throws FencedError where another instance has taken over
   * @throws UnavailableError where `giveUp` said so
   */
  update(
    change: (manifest: Manifest) => Manifest,
    giveUp?: (error: UnavailableError) => boolean,
  ): Promise<Manifest> {
    const changed = this.changing.then(() => this.change(change, giveUp));
    this.changing = changed.catch(() => {});
    return changed;
  }

  private async change(
    change: (manifest: Manifest) => Manifest,
    giveUp?: (error: UnavailableError) => boolean,
  ): Promise<Manifest> {
    for (;;) {
      if (this.failure) throw this.failure;
      const previous = this.current;
      const next = change(previous.manifest);
      const { won, current } = await this.store.swap(
        previous,
        next,
        giveUp,
      );
      const before = previous.manifest;
      this.see(current);
      if (!won) continue;
      if (changesHistory(before, next)) await this.keepCopy();
      return next;
    }
  }

  /**
   * The manifest once more, beside the history that it tells of, for when it
   * is lost. Before a segment is put that an older copy would not know of.
   */
  private async keepCopy(): Promise<void> {
    const { clock, random, objects, logger, signal } = this.options;
    const { generation } = this.manifest;
    if (generation === null) return;
    const key = manifestCopyKey(generation, this.epoch);
    const released = { owner: null, leaseUntilMs: 0, handoverTo: null };
    for (let hasFailed = false;; hasFailed = true) {
      if (this.failure) throw this.failure;
      const copy = { ...this.manifest, ...released };
      try {
        await objects.put(
          key,
          encodeManifest(copy, random.bytes(16).toHex()),
        );
        return;
      } catch (error) {
        if (!hasFailed) {
          const reason = messageOf(error);
          logger.warn("A copy of the manifest is tried again.", { reason });
        }
        // The swap has won: what called for it has to go on.
        if (this.isReleasing || signal?.aborted) return;
      }
      await sleep(clock, RENEW_RETRY_MS);
    }
  }

  /** Takes note of a version of the manifest. @throws FencedError */
  private see(found: VersionedManifest | undefined): void {
    if (this.failure) throw this.failure;
    if (
      found === undefined || found.manifest.epoch !== this.epoch ||
      found.manifest.owner !== this.owner
    ) {
      throw this.fence(
        found === undefined
          ? "The backup's manifest is gone from the object store. Nothing that was not in the bucket is acknowledged any more; the local file is kept."
          : "Another instance has taken over this database. Nothing is acknowledged here any more; the local file is kept and set aside at the next start if it differs.",
      );
    }
    this.current = found;
    if (found.manifest.handoverTo !== null && !this.hasHandover) {
      this.hasHandover = true;
      this.options.onHandoverRequested();
    }
  }

  private fence(message: string): FencedError {
    this.failure = new FencedError(message);
    this.stopLooking();
    this.cutOffSinceMs = undefined;
    this.lostWith.resolve(this.failure);
    return this.failure;
  }

  /**
   * One look at the manifest, begun now. What was put before the call and
   * stands when it resolves is history for good (docs/fencing.md).
   * @throws FencedError, UnavailableError where there was no answer
   */
  async confirmOwned(): Promise<void> {
    if (await this.store.tag() === this.current.tag) {
      if (this.failure) throw this.failure;
      return;
    }
    const found = await this.store.read();
    if (
      found && found.manifest.epoch === this.epoch &&
      found.manifest.owner === this.owner && found.tag !== this.current.tag
    ) {
      // A change of ours, or a request for hand-over, of which `changing` is
      // about to learn; only the request matters here.
      if (this.failure) throw this.failure;
      if (found.manifest.handoverTo !== null && !this.hasHandover) {
        this.hasHandover = true;
        this.options.onHandoverRequested();
      }
      return;
    }
    this.see(found);
  }

  /**
   * Gives the ownership up, in order: everything of ours is shipped, up to
   * `end`. Nothing may be written or acknowledged after the call.
   * @param giveUp ends the tries while the store does not answer
   * @throws FencedError, UnavailableError where it gave up
   */
  release(
    end:
      | { generation: string; lastTsn: number; lastVersion: number }
      | undefined,
    giveUp?: (error: UnavailableError) => boolean,
  ): Promise<void> {
    this.isReleasing = true;
    this.stopLooking();
    const released = this.changing.then(async () => {
      for (;;) {
        if (this.failure) throw this.failure;
        const { seals } = this.manifest;
        const { won, current } = await this.store.swap(this.current, {
          ...this.manifest,
          owner: null,
          leaseUntilMs: 0,
          seals: end ? [...seals, { ...end, epoch: this.epoch }] : seals,
        }, giveUp);
        if (won) {
          this.failure = new FencedError(
            "This instance has handed the database over.",
          );
          return;
        }
        this.see(current);
      }
    });
    this.changing = released.catch(() => {});
    return released;
  }
}

/**
 * The manifest of a place that has none and is not empty: there by now, where
 * another launch began the backup meanwhile.
 * @throws StartupError where it is still missing: no backup begins there
 */
export async function readOfNonEmpty(
  objects: ObjectStore,
  store: ManifestStore,
  signal?: AbortSignal,
): Promise<VersionedManifest | undefined> {
  const content = await contentWithoutManifest(objects, signal);
  if (content === undefined) return undefined;
  const found = await store.read();
  if (found === undefined) throw content;
  return found;
}

/** Whether a restore from the one would differ from one from the other. */
function changesHistory(before: Manifest, after: Manifest): boolean {
  return before.generation !== after.generation ||
    before.generations !== after.generations ||
    before.seals !== after.seals || before.archives !== after.archives ||
    before.leapVersion !== after.leapVersion;
}

async function withdraw(store: ManifestStore, owner: string): Promise<void> {
  const found = await store.read();
  if (found?.manifest.handoverTo !== owner) return;
  await store.swap(found, { ...found.manifest, handoverTo: null }, () => true);
}

function takenOver(
  manifest: Manifest | undefined,
  by: {
    databaseId: string;
    beganWithFile: boolean;
    owner: string;
    leaseUntilMs: number;
  },
): Manifest {
  const { owner, leaseUntilMs } = by;
  const handoverTo = null;
  if (manifest) {
    const epoch = manifest.epoch + 1;
    return { ...manifest, epoch, owner, leaseUntilMs, handoverTo };
  }
  return {
    databaseId: by.databaseId,
    epoch: 1,
    owner,
    leaseUntilMs,
    handoverTo,
    generation: null,
    beganWithFile: by.beganWithFile,
    making: [],
    deleting: [],
    archives: [],
    generations: [],
    seals: [],
    leapVersion: 0,
  };
}

/** Whoever has no file would begin an empty history in the place of a full one. */
function checkFile(manifest: Manifest, databaseId?: string): void {
  const { generation, beganWithFile } = manifest;
  if (generation !== null || !beganWithFile || databaseId !== undefined) return;
  throw new StartupError(
    `The backup is of database ${manifest.databaseId}, which was there before it, and holds no whole snapshot of it yet: the first one was not finished. No file of that database is here. Nothing was opened or changed. Start the server with that file, on the machine that has it, and it goes on. If the file is gone for good, begin a new database: give --backup another URL, or delete every object below this one.`,
  );
}

function checkDatabase(manifest: Manifest, databaseId?: string): void {
  if (databaseId === undefined || databaseId === manifest.databaseId) return;
  throw new StartupError(
    `The backup holds database ${manifest.databaseId}, and the local file is database ${databaseId}. Neither was changed; give this file a backup URL of its own, or move it away to restore the one in the backup.`,
  );
}
