/**
 * Reads the manifest and changes it by compare-and-swap.
 *
 * Each version carries a fresh nonce: stores whose tags are content hashes
 * then never take two versions for one, and a swap whose answer was lost is
 * told by the nonce.
 */
import type { Clock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import type { Random } from "../common/random.ts";
import { retry } from "../common/retry.ts";
import {
  cutOf,
  type ObjectStore,
  type VersionTag,
} from "../object_store/object_store.ts";
import { Patience } from "../object_store/patience.ts";
import { type ClockComparison, compareClocks } from "./store_clock.ts";
import {
  decodeManifest,
  encodeManifest,
  type Manifest,
  UnreadableError,
} from "./manifest.ts";
import { requireSound } from "./manifest_invariants.ts";
import { MANIFEST_KEY } from "./names.ts";

export interface VersionedManifest {
  manifest: Manifest;
  tag: VersionTag;
  nonce: string;
}

/** The wait between tries to learn what became of a swap. */
const SWAP_RETRY = { firstMs: 100, maxMs: 2000 };

/** How long a request is waited for, where no lease depends on it. */
const FIRST_TIMEOUT_MS = 10_000;
const MAX_TIMEOUT_MS = 30_000;

/** A version of the manifest, without its contents. */
export interface ManifestHead {
  tag: VersionTag;
  /**
   * How long ago it was written at least, by the store's own clock, which was
   * read with the same answer; absent where the store does not say.
   */
  ageMs?: number;
}

export class ManifestStore {
  /** What the clocks said with the last answer that had the store's time. */
  clocks: ClockComparison | undefined;
  private readonly patience: Patience;

  /** @param firstTimeoutMs of a request; it grows while answers are slow */
  constructor(
    private readonly objects: ObjectStore,
    private readonly clock: Clock,
    private readonly random: Random,
    firstTimeoutMs = FIRST_TIMEOUT_MS,
  ) {
    this.patience = new Patience({
      clock,
      firstMs: firstTimeoutMs,
      maxMs: MAX_TIMEOUT_MS,
    });
  }

  /** @throws UnavailableError, StartupError where it cannot be read */
  async read(): Promise<VersionedManifest | undefined> {
    const object = await this.patience.run((timeoutMs) =>
      this.objects.get(MANIFEST_KEY, { timeoutMs })
    );
    if (object === undefined) return undefined;
    return { ...decodeManifest(object.data), tag: object.tag };
  }

  /**
   * Which version is there now; less work than reading it.
   * @param options.now asks for the store's time also where it costs something
   */
  async head(options?: { now: boolean }): Promise<ManifestHead | undefined> {
    const { clock } = this;
    const beganMs = clock.nowMs();
    const head = await this.patience.run((timeoutMs) =>
      this.objects.head(MANIFEST_KEY, { timeoutMs, ...options })
    );
    if (head === undefined) return undefined;
    const { tag, modifiedMs, nowMs } = head;
    if (nowMs === undefined) return { tag };
    this.clocks = compareClocks(beganMs, clock.nowMs(), nowMs);
    // It may have been written up to a second later than the answer says.
    const ageMs = Math.max(0, nowMs - modifiedMs - cutOf(modifiedMs));
    return { tag, ageMs };
  }

  /**
   * Puts `next` in the place of exactly `previous` (undefined: of nothing).
   * Where no answer came, it looks until it knows what became of it: the swap
   * may act seconds later, so not finding it means nothing while the version
   * that it replaces is still there. Then it is sent again, with the same
   * bytes; only one of the two can act.
   *
   * @param giveUp ends the looking; what became of the swap is then unknown
   * @returns `won`: the change is in `current`, perhaps with one by somebody
   *   else on top of it
   * @throws UnavailableError where the caller gave up
   */
  async swap(
    previous: VersionedManifest | undefined,
    next: Manifest,
    giveUp?: (error: unknown) => boolean,
  ): Promise<{ won: boolean; current: VersionedManifest | undefined }> {
    requireSound(previous?.manifest, next);
    const nonce = this.random.bytes(16).toHex();
    const data = encodeManifest(next, nonce);
    return await retry(async () => {
      const result = await this.patience.run((timeoutMs) =>
        previous === undefined
          ? this.objects.create(MANIFEST_KEY, data, { timeoutMs })
          : this.objects.replace(MANIFEST_KEY, data, previous.tag, {
            timeoutMs,
          })
      );
      if (result.written) {
        const current = { manifest: next, tag: result.tag, nonce };
        return { won: true, current };
      }
      // A conflict, or the second try of one that acted.
      const current = await this.read();
      const won = current !== undefined &&
        (current.nonce === nonce ||
          holds(current.manifest, next, previous?.manifest));
      return { won, current };
    }, {
      clock: this.clock,
      random: this.random,
      policy: SWAP_RETRY,
      isTemporary: (error) =>
        (error instanceof UnavailableError ||
          error instanceof UnreadableError) && !giveUp?.(error),
    });
  }
}

/** Whether an owner's change of `previous` into `next` is in what is there. */
function holds(
  current: Manifest,
  next: Manifest,
  previous: Manifest | undefined,
): boolean {
  return next.change !== undefined && next.change !== previous?.change &&
    next.change === current.change;
}
