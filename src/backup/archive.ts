/**
 * Keeps the manifest small: it is read with every acknowledgement of
 * `--durability s3`. Generations that have ended long ago go into objects of
 * their own, which nobody ever changes; the manifest names them.
 */
import { StartupError } from "../common/errors.ts";
import type { Random } from "../common/random.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import {
  type Archive,
  decodeArchive,
  encodeArchive,
  type History,
  type Manifest,
} from "./manifest.ts";
import { pinned } from "./branches.ts";
import { archiveKey } from "./names.ts";

/** From this many on, all but the newest are archived. */
const MAX_GENERATIONS = 48;
/** A file that is caught up has its epoch's seal in one of these. */
const KEPT_GENERATIONS = 16;

export interface ArchiveOptions {
  objects: ObjectStore;
  ownership: {
    epoch: number;
    manifest: Manifest;
    update(change: (manifest: Manifest) => Manifest): Promise<Manifest>;
  };
  random: Random;
}

/** Archives what has to be; an archive that no manifest names is garbage. */
export async function archiveOldGenerations(
  { objects, ownership, random }: ArchiveOptions,
): Promise<void> {
  const { generations, seals } = ownership.manifest;
  if (generations.length < MAX_GENERATIONS) return;
  // An archive goes as a whole one day; a branch stays.
  const kept = pinned(ownership.manifest);
  const old = generations.slice(0, -KEPT_GENERATIONS)
    .filter(({ name }) => !kept.has(name));
  const last = old.at(-1);
  if (last === undefined) return;
  const names = new Set(old.map(({ name }) => name));
  const archive: Archive = {
    key: archiveKey(last.name, ownership.epoch, random),
    endedMs: last.endedMs!,
  };
  await objects.put(
    archive.key,
    encodeArchive({
      generations: old,
      seals: seals.filter(({ generation }) => names.has(generation)),
    }),
  );
  await ownership.update((manifest) => ({
    ...manifest,
    archives: [...manifest.archives, archive],
    generations: manifest.generations.filter(({ name }) => !names.has(name)),
    seals: manifest.seals.filter(({ generation }) => !names.has(generation)),
  }));
}

/** @throws StartupError where it is missing or damaged */
export async function readArchive(
  objects: ObjectStore,
  { key }: Archive,
): Promise<History> {
  const object = await objects.get(key);
  if (object === undefined) {
    throw new StartupError(
      `The backup misses ${key}, which tells of its older generations. Nothing was restored; what the manifest itself names can be.`,
    );
  }
  return decodeArchive(key, object.data);
}

/** The manifest with all generations that can be restored. */
export async function withArchives(
  objects: ObjectStore,
  manifest: Manifest,
): Promise<Manifest> {
  if (manifest.archives.length === 0) return manifest;
  const histories = [];
  for (const archive of manifest.archives) {
    histories.push(await readArchive(objects, archive));
  }
  return {
    ...manifest,
    archives: [],
    generations: [
      ...histories.flatMap(({ generations }) => generations),
      ...manifest.generations,
    ].sort((a, b) => a.snapshotVersion - b.snapshotVersion),
    seals: [...histories.flatMap(({ seals }) => seals), ...manifest.seals],
  };
}
