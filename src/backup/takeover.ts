/**
 * Becoming the owner of a history: looking who owns it, asking for it, and
 * taking it (docs/fencing.md).
 */
import { type Clock, sleepUntil } from "../common/clock.ts";
import { messageOf, UnavailableError } from "../common/errors.ts";
import { randomUuid } from "../common/random.ts";
import { retry } from "../common/retry.ts";
import type { VersionTag } from "../object_store/object_store.ts";
import { HandoverBeat } from "./handover.ts";
import type { Moment } from "./lease.ts";
import { type Manifest, UnreadableError } from "./manifest.ts";
import {
  type ManifestHead,
  ManifestStore,
  type VersionedManifest,
} from "./manifest_store.ts";
import {
  CLOCK_MARGIN_MS,
  FencedError,
  LEASE_MS,
  Ownership,
  type OwnershipOptions,
} from "./ownership.ts";
import { missingSeals } from "./sealing.ts";
import { checkDatabase, checkFile, takenOver } from "./takeover_rules.ts";
import { readOfNonEmpty } from "./unclaimed.ts";

/** A request for the manifest is waited for so long at first. */
const MANIFEST_TIMEOUT_MS = 3000;
/** How often a launch that waits for ownership looks. */
const WAIT_POLL_MS = 250;
const OUTAGE_POLL_MS = 1000;
const SEAL_RETRY = { firstMs: 250, maxMs: 2000 };
/** How long a start asks for a manifest that it cannot read. */
const UNREADABLE_MS = 30_000;
/** After so many leases a launch that asks and gets no answer is gone. */
const STALE_ASK_LEASES = 2;

/**
 * Why a manifest may be taken: there is `none`; it was `released`; it is
 * `ours`, by the lock of the file that its owner served; or its owner has let
 * the lease run out (`leaseOver`).
 */
export type TakeReason = "none" | "released" | "ours" | "leaseOver";

/** One look at the manifest. */
export interface Sight {
  /** Undefined: the place is empty. */
  manifest: Manifest | undefined;
  tag: VersionTag | undefined;
  /** Undefined: its owner may be alive, and has to be asked or waited for. */
  mayTake: TakeReason | undefined;
}

/** A launch that would own the history; one for as long as it waits. */
export class Candidate {
  /** The owner's id in the manifest, once it has taken it. */
  readonly launch: string;
  private readonly store: ManifestStore;
  private readonly leaseMs: number;
  private readonly marginMs: number;
  private found: VersionedManifest | undefined;
  /**
   * The last sign of life of an owner: a change of its own, and since when at
   * least none has come after it, by our monotonic clock.
   */
  private quiet: { change: string | undefined; sinceMs: number };
  /** Another launch that asks, since when we see it. */
  private asking: { launch: string | null; sinceMs: number };
  private hasToldClocks = false;

  constructor(private readonly options: OwnershipOptions) {
    const { objects, clock, random } = options;
    this.leaseMs = options.leaseMs ?? LEASE_MS;
    this.marginMs = options.clockMarginMs ?? CLOCK_MARGIN_MS;
    this.store = new ManifestStore(
      objects,
      clock,
      random,
      Math.min(MANIFEST_TIMEOUT_MS, Math.ceil(this.leaseMs / 6)),
    );
    this.launch = randomUuid(random);
    const sinceMs = clock.monotonicMs();
    this.quiet = { change: undefined, sinceMs };
    this.asking = { launch: null, sinceMs };
  }

  /**
   * One look at the manifest; it is read where it has changed.
   * @throws StartupError where it is of another database, or was lost
   * @throws UnavailableError, ObjectStoreRefusedError
   */
  async look(): Promise<Sight> {
    const { objects, databaseId, signal } = this.options;
    const beganMs = this.options.clock.monotonicMs();
    const head = await this.store.head({ now: true });
    this.tellClocks();
    if (head === undefined || head.tag !== this.found?.tag) {
      this.found = await this.store.read() ??
        await readOfNonEmpty(objects, this.store, signal);
    }
    const { found } = this;
    if (found) checkDatabase(found.manifest, databaseId);
    this.listen(beganMs, head);
    return {
      manifest: found?.manifest,
      tag: found?.tag,
      mayTake: this.mayTake(found?.manifest),
    };
  }

  /** For how long the owner has given no sign of life, and who asks it. */
  private listen(beganMs: number, head: ManifestHead | undefined): void {
    const { found } = this;
    const nowMs = this.options.clock.monotonicMs();
    // A launch that asks touches the manifest too, and keeps this.
    const change = found?.manifest.change ?? found?.nonce;
    if (change !== this.quiet.change) this.quiet = { change, sinceMs: nowMs };
    // The owner's change is no younger than the version that it is in.
    if (head?.ageMs !== undefined && head.tag === found?.tag) {
      const sinceMs = beganMs - head.ageMs;
      this.quiet.sinceMs = Math.min(this.quiet.sinceMs, sinceMs);
    }
    const launch = found?.manifest.handoverTo ?? null;
    if (launch !== this.asking.launch) this.asking = { launch, sinceMs: nowMs };
  }

  private tellClocks(): void {
    const { clocks } = this.store;
    if (this.hasToldClocks || clocks === undefined) return;
    this.hasToldClocks = true;
    if (Math.abs(clocks.skewMs) <= this.marginMs) return;
    const time = (ms: number) => new Date(ms).toISOString();
    this.options.logger.warn(
      "The clock of this machine and that of the object store disagree. Set the one that is wrong: times in the backup are by this machine's clock, and what has expired is deleted by the earlier of the two.",
      {
        ours: time(clocks.ourMs),
        store: time(clocks.storeMs),
        skewMs: Math.round(clocks.skewMs),
      },
    );
  }

  private mayTake(manifest: Manifest | undefined): TakeReason | undefined {
    const { clock, previousOwner } = this.options;
    if (manifest === undefined) return "none";
    if (manifest.owner === null) return "released";
    if (manifest.owner === previousOwner) return "ours";
    // Without a renewal for a whole lease it is over, whatever anybody's time
    // of day is. An older manifest does not say how long the owner's is.
    const leaseMs = manifest.leaseMs ?? Math.max(this.leaseMs, LEASE_MS);
    const quietMs = clock.monotonicMs() - this.quiet.sinceMs;
    return quietMs > leaseMs + this.marginMs ? "leaseOver" : undefined;
  }

  /**
   * Asks the owner for the history, where nobody asks, or who asks is gone.
   * @returns whether the owner is asked for us now
   */
  async ask(): Promise<boolean> {
    const { found } = this;
    if (found === undefined || found.manifest.owner === null) return false;
    const { handoverTo } = found.manifest;
    if (handoverTo === this.launch) return true;
    // The owner hands over to whoever asks, or declines; both end the asking.
    const askedMs = this.options.clock.monotonicMs() - this.asking.sinceMs;
    const isStale = askedMs > STALE_ASK_LEASES * this.leaseMs + this.marginMs;
    if (handoverTo !== null && !isStale) return false;
    const next = { ...found.manifest, handoverTo: this.launch };
    const { won } = await this.store.swap(found, next, () => true);
    return won;
  }

  /**
   * Says that somebody stands by, where nobody has: an owner that is asked
   * nothing then keeps its lease, and is not taken for dead.
   * @returns whether it is said now
   */
  async standBy(): Promise<boolean> {
    const { found } = this;
    if (found === undefined || found.manifest.owner === null) return false;
    if (found.manifest.standby) return true;
    const next = { ...found.manifest, standby: this.launch };
    const { won } = await this.store.swap(found, next, () => true);
    return won;
  }

  /**
   * Asks no more and stands by no more, so that nobody hands over to a launch
   * that is gone.
   */
  async withdraw(): Promise<void> {
    const found = await this.store.read();
    if (found === undefined) return;
    const { handoverTo, standby } = found.manifest;
    if (handoverTo !== this.launch && standby !== this.launch) return;
    const without = (launch: string | null | undefined) =>
      launch === this.launch ? null : launch ?? null;
    await this.store.swap(found, {
      ...found.manifest,
      handoverTo: without(handoverTo),
      standby: without(standby),
    }, () => true);
  }

  /**
   * Raises the epoch with ourselves as the owner, keeps the lease alive from
   * then on, and records where the earlier epochs end.
   * @param sight the last look, which says that it may be taken
   * @param options `leaps`: the file is going to; said with the ends then
   * @returns undefined where another launch has won
   * @throws StartupError where a segment is missing, or our file is needed
   */
  async take(
    sight: Sight,
    { leaps = false } = {},
  ): Promise<Ownership | undefined> {
    const { clock, random, databaseId, signal } = this.options;
    const { found } = this;
    if (sight.mayTake === undefined || sight.tag !== found?.tag) {
      throw new Error("only what the last look lets us take can be taken");
    }
    if (found) checkFile(found.manifest, databaseId);
    const begun: Moment = {
      nowMs: clock.nowMs(),
      monotonicMs: clock.monotonicMs(),
    };
    const next = takenOver(found?.manifest, {
      databaseId: databaseId ?? randomUuid(random),
      beganWithFile: databaseId !== undefined,
      owner: this.launch,
      leaseUntilMs: begun.nowMs + this.leaseMs,
      leaseMs: this.leaseMs,
      ownerUrl: this.options.ownerUrl ?? null,
      change: random.bytes(8).toHex(),
    });
    const { won, current } = await this.store.swap(
      found,
      next,
      () => signal?.aborted === true,
    );
    if (!won) return undefined;
    const ownership = new Ownership(this.options, {
      store: this.store,
      current: current!,
      previous: found?.manifest,
      begun,
    });
    const keepingAlive = ownership.keepAlive();
    try {
      await this.seal(ownership, leaps);
      await ownership.keepCopy();
      // A place that was empty has not told its time yet.
      if (!this.hasToldClocks) {
        await this.store.head({ now: true }).catch(() => {});
      }
      this.tellClocks();
      return ownership;
    } catch (error) {
      // Whoever took it from us seals what is not sealed then.
      if (error instanceof FencedError) return undefined;
      // Whoever is to look into it need not wait for our lease.
      await ownership.release(undefined, () => true).catch(() => {});
      throw error;
    } finally {
      keepingAlive.stop();
    }
  }

  /** The listing begins after the swap that raised the epoch has won. */
  private async seal(ownership: Ownership, leaps: boolean): Promise<void> {
    const { objects, clock, random, signal } = this.options;
    const seals = await retry(
      () => missingSeals(objects, ownership.manifest, signal),
      {
        clock,
        random,
        signal,
        policy: SEAL_RETRY,
        isTemporary: (error) =>
          error instanceof UnavailableError &&
          ownership.standing.kind !== "ended",
      },
    );
    await ownership.seal(seals, leaps, () => signal?.aborted === true);
  }
}

/**
 * Which errors a launch tries again after: an outage without end, and what is
 * no manifest for a while, because it may be the page of a proxy.
 */
export function temporaryAtLaunch(
  clock: Clock,
): (error: unknown) => boolean {
  let unreadableSinceMs: number | undefined;
  return (error) => {
    if (error instanceof UnreadableError) {
      const nowMs = clock.monotonicMs();
      unreadableSinceMs ??= nowMs;
      return nowMs - unreadableSinceMs < UNREADABLE_MS;
    }
    unreadableSinceMs = undefined;
    return error instanceof UnavailableError && !(error instanceof FencedError);
  };
}

/** What a launch that tries again says, in a sentence. */
export function waitingFor(error: unknown): string {
  return error instanceof UnreadableError
    ? `The object store gave something that is no manifest; trying on for ${
      UNREADABLE_MS / 1000
    } s.`
    : "The object store does not answer; trying on.";
}

/**
 * Becomes the owner: asks a living one to hand over, waits for a dead one's
 * lease, and takes the history.
 * @throws StartupError where the bucket holds another database
 * @throws ObjectStoreRefusedError where the store does not let us
 */
export async function acquireOwnership(
  options: OwnershipOptions,
): Promise<Ownership> {
  const { clock, signal } = options;
  const candidate = new Candidate(options);
  // It serves as soon as it has the history, so it is ready all the time.
  const beat = new HandoverBeat(options, candidate.launch);
  let told: string | undefined;
  const isTemporary = temporaryAtLaunch(clock);
  const tell = (what: string) => {
    if (told !== what) options.onWaiting?.(told = what);
  };
  try {
    for (;;) {
      signal?.throwIfAborted();
      try {
        const sight = await candidate.look();
        if (sight.mayTake !== undefined) {
          const ownership = await candidate.take(sight);
          if (ownership) return ownership;
          continue;
        }
        tell(
          "Another instance owns this backup; it is asked to hand over, or its lease is waited for.",
        );
        beat.start();
        await candidate.ask();
        await sleepUntil(clock, WAIT_POLL_MS, signal);
      } catch (error) {
        if (!isTemporary(error)) throw error;
        tell(`${waitingFor(error)} ${messageOf(error)}`);
        await sleepUntil(clock, OUTAGE_POLL_MS, signal);
      }
    }
  } catch (error) {
    // Nobody should hand over to a launch that is gone.
    await candidate.withdraw().catch(() => {});
    throw error;
  } finally {
    beat.stop();
  }
}
