/**
 * The manifest once more, beside the history that it tells of, for when it is
 * lost (docs/fencing.md).
 */
import type { Clock } from "../common/clock.ts";
import { messageOf } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { Random } from "../common/random.ts";
import { retry } from "../common/retry.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { encodeManifest, type Manifest } from "./manifest.ts";
import { manifestCopyKey } from "./names.ts";
import type { OwnerState } from "./owner_state.ts";

const RETRY = { firstMs: 250, maxMs: 2000 };

/** Whether a restore from the one would differ from one from the other. */
export function changesHistory(before: Manifest, after: Manifest): boolean {
  return before.generation !== after.generation ||
    before.generations !== after.generations ||
    before.seals !== after.seals || before.archives !== after.archives ||
    before.leapVersion !== after.leapVersion;
}

/**
 * Before a segment is put that an older copy would not know of. It is tried
 * until it is there, or the ownership ends.
 * @throws FencedError
 */
export async function putManifestCopy(options: {
  objects: ObjectStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  state: OwnerState;
  epoch: number;
  manifest(): Manifest;
  signal?: AbortSignal;
}): Promise<void> {
  const { objects, clock, random, logger, state, signal } = options;
  const { generation } = options.manifest();
  if (generation === null) return;
  const key = manifestCopyKey(generation, options.epoch);
  const released = {
    owner: null,
    ownerUrl: null,
    leaseUntilMs: 0,
    handoverTo: null,
    standby: null,
  };
  // The swap has won: what called for it has to go on.
  const isEnding = () =>
    state.now.kind === "releasing" || signal?.aborted === true;
  try {
    await retry(async () => {
      state.requireOwner();
      const copy = { ...options.manifest(), ...released };
      await objects.put(key, encodeManifest(copy, random.bytes(16).toHex()));
    }, {
      clock,
      random,
      policy: RETRY,
      isTemporary: () => state.now.kind !== "ended" && !isEnding(),
      onFailure(error, tries) {
        if (tries > 1) return;
        const reason = messageOf(error);
        logger.warn("A copy of the manifest is tried again.", { reason });
      },
    });
  } catch (error) {
    state.requireOwner();
    if (!isEnding()) throw error;
  }
}
