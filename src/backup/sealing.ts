/** Where the epochs before a takeover end (docs/fencing.md). */
import type { ObjectStore } from "../object_store/object_store.ts";
import { damageOf, listSegments } from "./history.ts";
import type { Manifest, Seal } from "./manifest.ts";
import { epochOf, versionOf } from "./names.ts";

/**
 * Seals for the earlier epochs of the present generation that have none. The
 * listing has to begin after the swap that raised the epoch has won: a segment
 * that its owner may still acknowledge was put before that, and is listed.
 * @throws StartupError where a segment is missing before another one
 */
export async function missingSeals(
  objects: ObjectStore,
  manifest: Manifest,
  signal?: AbortSignal,
): Promise<Seal[]> {
  const { generation, generations, seals } = manifest;
  if (generation === null) return [];
  const listing = await listSegments(objects, generation, manifest, signal);
  const { history } = listing;
  const { snapshotVersion } = generations
    .find(({ name }) => name === generation)!;
  // A seal before a segment that was there would make the loss the history.
  const damage = damageOf(listing, snapshotVersion);
  if (damage) throw damage;
  const sealed = new Set(
    seals.filter((seal) => seal.generation === generation)
      .map(({ epoch }) => epoch),
  );
  const found: Seal[] = [];
  let lastVersion = snapshotVersion;
  // An epoch without a segment in the listing is sealed too: one that is on
  // its way must not become history when it arrives.
  for (let epoch = epochOf(generation); epoch < manifest.epoch; epoch++) {
    const last = history.findLast((segment) => segment.epoch === epoch);
    if (last) lastVersion = versionOf(last.last);
    if (sealed.has(epoch)) continue;
    found.push({ generation, epoch, lastTsn: last?.tsn ?? 0, lastVersion });
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
