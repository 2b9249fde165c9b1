/** Where the epochs before a takeover end (docs/fencing.md). */
import type { ObjectStore } from "../object_store/object_store.ts";
import { damageOf, listSegments } from "./history.ts";
import type { Manifest, Seal } from "./manifest.ts";
import { epochOf, versionOf } from "./names.ts";

/**
 * Seals for the earlier epochs of the present generation that have none. The
 * listing has to begin after the swap that raised the epoch has won: a segment
 * that its owner may still acknowledge was put before that, and is listed.
 *
 * It begins where the last seal or the head of the log is: what comes before
 * changes no seal, however many segments that are.
 * @throws StartupError where a segment is missing before another one
 */
export async function missingSeals(
  objects: ObjectStore,
  manifest: Manifest,
  signal?: AbortSignal,
): Promise<Seal[]> {
  const { generation, generations, seals, head } = manifest;
  if (generation === null) return [];
  const { snapshotVersion } = generations
    .find(({ name }) => name === generation)!;
  const sealed = new Map(
    seals.filter((seal) => seal.generation === generation)
      .map((seal) => [seal.epoch, seal]),
  );
  let epoch = epochOf(generation);
  let lastVersion = snapshotVersion;
  for (let seal; (seal = sealed.get(epoch)) !== undefined; epoch++) {
    lastVersion = seal.lastVersion;
  }
  const from = head?.generation === generation && head.epoch === epoch
    ? { epoch, tsn: Math.max(1, head.lastTsn) }
    : { epoch, tsn: 1 };
  const listing = await listSegments(
    objects,
    generation,
    manifest,
    signal,
    from,
  );
  // A seal before a segment that was there would make the loss the history.
  if (listing.gap) {
    // What it says of the history before the loss needs all of it.
    const all = await listSegments(objects, generation, manifest, signal);
    const damage = damageOf(all, snapshotVersion);
    if (damage) throw damage;
  }
  const found: Seal[] = [];
  // An epoch without a segment in the listing is sealed too: one that is on
  // its way must not become history when it arrives.
  for (; epoch < manifest.epoch; epoch++) {
    const last = listing.history
      .findLast((segment) => segment.epoch === epoch);
    if (last) lastVersion = versionOf(last.last);
    const seal = sealed.get(epoch);
    if (seal) lastVersion = Math.max(lastVersion, seal.lastVersion);
    else {found.push({
        generation,
        epoch,
        lastTsn: last?.tsn ?? 0,
        lastVersion,
      });}
  }
  return found;
}

/** With seals of epochs that have none; one that is there stays. */
export function withSeals(manifest: Manifest, more: readonly Seal[]): Manifest {
  const missing = more.filter((seal) =>
    !manifest.seals.some(({ generation, epoch }) =>
      generation === seal.generation && epoch === seal.epoch
    )
  );
  if (missing.length === 0) return manifest;
  return { ...manifest, seals: [...manifest.seals, ...missing] };
}
