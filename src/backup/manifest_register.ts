/**
 * The manifest as its owner changes it: by compare-and-swap, one change at a
 * time. Whoever finds that another launch owns it is fenced here.
 *
 * A change is made once, also where its answer was lost and somebody else has
 * touched the manifest since: each carries an id (`Manifest.change`) that such
 * a touch keeps.
 */
import type { Clock } from "../common/clock.ts";
import type { Logger } from "../common/log.ts";
import type { Random } from "../common/random.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import type { Manifest, Seal } from "./manifest.ts";
import { changesHistory, putManifestCopy } from "./manifest_copy.ts";
import type { ManifestStore, VersionedManifest } from "./manifest_store.ts";
import { FencedError, type OwnerState } from "./owner_state.ts";
import { withSeals } from "./sealing.ts";

/** Ends the tries of a change; what became of it is then unknown. */
export type GiveUp = (error: unknown) => boolean;

/** Where an epoch ends in a generation. */
export interface EpochEnd {
  generation: string;
  lastTsn: number;
  lastVersion: number;
}

export interface RegisterOptions {
  objects: ObjectStore;
  store: ManifestStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  state: OwnerState;
  /** Called for every launch that asks, as often as it asks anew. */
  onHandoverRequested(launch: string): void;
  signal?: AbortSignal;
}

export class ManifestRegister {
  readonly owner: string;
  readonly epoch: number;
  /** When the last look that found us as the owner was begun. */
  seenAtMonotonicMs: number;
  /** Whether another launch stands by, as of the last version that was read. */
  hasStandby = false;
  private changing: Promise<unknown> = Promise.resolve();
  private toldHandover: string | null = null;
  /** Where our log ends, once we give it up. */
  private givenUpAt: EpochEnd | undefined;
  private isGivenUp = false;
  private shipped: () => EpochEnd | undefined = () => undefined;

  /** @param current the version that made us the owner, as of that moment */
  constructor(
    private readonly options: RegisterOptions,
    private current: VersionedManifest,
    seenAtMonotonicMs: number,
  ) {
    this.owner = current.manifest.owner!;
    this.epoch = current.manifest.epoch;
    this.seenAtMonotonicMs = seenAtMonotonicMs;
  }

  get manifest(): Manifest {
    return this.current.manifest;
  }

  /**
   * Changes the manifest; `change` may run several times, on what is there by
   * then. Where it returns what it was given, nothing is written.
   * @throws FencedError where another instance has taken over
   * @throws UnavailableError where `giveUp` said so
   */
  update(
    change: (manifest: Manifest) => Manifest,
    giveUp?: GiveUp,
  ): Promise<Manifest> {
    return this.inTurn(async () => {
      const { before, after } = await this.swap(change, giveUp);
      if (changesHistory(before, after)) await this.keepCopy();
      return this.manifest;
    });
  }

  /**
   * Gives the manifest up, in order: everything of ours is shipped, up to
   * `end`. Nothing may be written or acknowledged after the call.
   * @throws FencedError, UnavailableError where it gave up
   */
  release(end: EpochEnd | undefined, giveUp?: GiveUp): Promise<void> {
    const { state } = this.options;
    state.beginRelease();
    return this.inTurn(async () => {
      const seals = end ? [{ ...end, epoch: this.epoch }] : [];
      this.givenUpAt = end;
      try {
        await this.swap((manifest) => ({
          ...withSeals(manifest, seals),
          owner: null,
          ownerUrl: null,
          leaseUntilMs: 0,
        }), giveUp);
      } catch (error) {
        if (!this.isGivenUp) throw error;
      }
      state.released();
    });
  }

  /**
   * Whether somebody has it who has all of ours: what became of a release whose
   * answer was lost, where another has taken over before we looked.
   */
  private hasOurEnd(found: VersionedManifest | undefined): boolean {
    const end = this.givenUpAt;
    return end !== undefined && found !== undefined &&
      found.manifest.epoch > this.epoch &&
      found.manifest.seals.some((seal) =>
        seal.generation === end.generation && seal.epoch === this.epoch &&
        seal.lastTsn === end.lastTsn
      );
  }

  /**
   * One look, begun now. What was put before the call and stands when it
   * resolves is history for good (docs/fencing.md).
   * @throws FencedError, UnavailableError where there was no answer
   */
  async look(): Promise<void> {
    const { store, state, clock } = this.options;
    const startedMs = clock.monotonicMs();
    if ((await store.head())?.tag !== this.current.tag) {
      const found = await store.read();
      // Of a change of ours, `inTurn` is about to learn; and a version that was
      // read beside it may be the older one.
      if (found === undefined || !this.isOurs(found.manifest)) this.see(found);
      else this.note(found.manifest);
    }
    state.requireOwner();
    this.seenAtMonotonicMs = Math.max(this.seenAtMonotonicMs, startedMs);
  }

  /** A copy beside the history, for when the manifest is lost. */
  async keepCopy(): Promise<void> {
    await putManifestCopy({
      ...this.options,
      epoch: this.epoch,
      manifest: () => this.manifest,
    });
  }

  /**
   * From now on every change says how far the log goes: what `shipped` says
   * has to be put for certain when it is called.
   */
  carryHead(shipped: () => EpochEnd | undefined): void {
    this.shipped = shipped;
  }

  private headOf(manifest: Manifest): Seal | undefined {
    const shipped = this.shipped();
    return shipped ? { ...shipped, epoch: this.epoch } : manifest.head;
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.changing.then(work);
    this.changing = done.catch(() => {});
    return done;
  }

  private async swap(
    change: (manifest: Manifest) => Manifest,
    giveUp: GiveUp | undefined,
  ): Promise<{ before: Manifest; after: Manifest }> {
    const { store, random, clock, state } = this.options;
    const id = random.bytes(8).toHex();
    for (;;) {
      state.requireOwner();
      const previous = this.current;
      const before = previous.manifest;
      const changed = change(before);
      if (changed === before) return { before, after: before };
      const head = this.headOf(changed);
      const after = { ...changed, ...(head && { head }), change: id };
      const startedMs = clock.monotonicMs();
      const { won, current } = await store.swap(previous, after, giveUp);
      state.requireOwner();
      // What we gave up has no owner: nothing is seen of it any more.
      if (won && after.owner === null) return { before, after };
      this.see(current);
      this.seenAtMonotonicMs = Math.max(this.seenAtMonotonicMs, startedMs);
      if (won) return { before, after };
    }
  }

  private isOurs({ epoch, owner }: Manifest): boolean {
    return epoch === this.epoch && owner === this.owner;
  }

  /** Takes note of a version of the manifest. @throws FencedError */
  private see(found: VersionedManifest | undefined): void {
    const { state } = this.options;
    state.requireOwner();
    // It may be what our own release has made of it.
    if (state.now.kind === "releasing" && found?.manifest.owner === null) {
      throw new FencedError("This instance hands the database over.");
    }
    if (this.hasOurEnd(found)) {
      this.isGivenUp = true;
      throw new FencedError("Another instance has the database now.");
    }
    if (found === undefined) {
      throw state.fence(
        "The backup's manifest is gone from the object store. Nothing that was not in the bucket is acknowledged any more; the local file is kept.",
      );
    }
    if (!this.isOurs(found.manifest)) {
      throw state.fence(
        "Another instance has taken over this database. Nothing is acknowledged here any more; the local file is kept and set aside at the next start if it differs.",
      );
    }
    this.current = found;
    this.note(found.manifest);
  }

  /** What other launches have said in it. */
  private note({ handoverTo, standby }: Manifest): void {
    this.hasStandby = Boolean(standby);
    this.tellHandover(handoverTo);
  }

  private tellHandover(launch: string | null): void {
    if (launch === this.toldHandover) return;
    this.toldHandover = launch;
    if (launch !== null) this.options.onHandoverRequested(launch);
  }
}
