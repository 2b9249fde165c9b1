/**
 * Deletes generations that nothing within the retention needs, and what was
 * left of generations that were not finished. Nothing is ever deleted that the
 * manifest does not name: in one swap a name goes from what is history into
 * `deleting`, and only then its objects go. A pass that was interrupted is
 * finished by the next one, whoever runs it.
 */
import type { Clock } from "../common/clock.ts";
import type { Logger } from "../common/log.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import type { Manifest } from "./manifest.ts";
import { readArchive, withArchives } from "./archive.ts";
import { pinned } from "./branches.ts";
import {
  ARCHIVES_PREFIX,
  differentialKey,
  epochOf,
  isGenerationName,
  startOf,
} from "./names.ts";
import type { Ownership } from "./ownership.ts";

/** What a fenced owner began may still be put to for this long. */
const MIN_GARBAGE_AGE_MS = 24 * 60 * 60_000;
const DELETE_AT_ONCE = 1000;

export interface RetentionOptions {
  objects: ObjectStore;
  ownership: Pick<Ownership, "manifest" | "update" | "epoch">;
  clock: Clock;
  logger: Logger;
  retentionMs: number;
  /** Ends the pass; the next one goes on. */
  signal?: AbortSignal;
}

/**
 * A generation stays while a moment that it covers is within the retention:
 * it covers everything from its snapshot to its end; and while a branch ends in
 * it.
 */
export function expiredGenerations(
  manifest: Pick<Manifest, "generation" | "generations" | "branches">,
  nowMs: number,
  retentionMs: number,
): string[] {
  const kept = pinned(manifest);
  return manifest.generations.filter(({ name, endedMs }) =>
    name !== manifest.generation && !kept.has(name) && endedMs !== null &&
    endedMs < nowMs - retentionMs
  ).map(({ name }) => name);
}

/** Those that came to nothing; none is being made while a pass runs. */
function abandoned(
  { making }: Pick<Manifest, "making">,
  epoch: number,
  nowMs: number,
): string[] {
  return making.filter((name) =>
    epochOf(name) === epoch || startOf(name) < nowMs - MIN_GARBAGE_AGE_MS
  );
}

/**
 * Not while a generation is being made.
 * @returns the folders and archives that were deleted
 * @throws UnavailableError where the store does not answer; the next pass goes on
 */
export async function applyRetention(
  options: RetentionOptions,
): Promise<string[]> {
  const { objects, ownership, clock, logger, retentionMs, signal } = options;
  const nowMs = clock.nowMs();
  const before = ownership.manifest;
  const gone = new Set([
    ...expiredGenerations(before, nowMs, retentionMs),
    ...abandoned(before, ownership.epoch, nowMs),
  ]);
  // An archive goes as a whole, when its last generation does.
  for (const archive of before.archives) {
    if (archive.endedMs >= nowMs - retentionMs) continue;
    const { generations } = await readArchive(objects, archive);
    for (const { name } of generations) gone.add(name);
    gone.add(archive.key);
  }
  if (gone.size === 0 && before.deleting.length === 0) return [];
  // A swap that wins shows that nothing has changed since it was read.
  const planned = await ownership.update((manifest) => ({
    ...manifest,
    making: manifest.making.filter((name) => !gone.has(name)),
    archives: manifest.archives.filter(({ key }) => !gone.has(key)),
    generations: manifest.generations.filter(({ name }) => !gone.has(name)),
    seals: manifest.seals.filter(({ generation }) => !gone.has(generation)),
    deleting: [...new Set([...manifest.deleting, ...gone])],
  }), () => signal?.aborted === true);
  const needed = await neededNames(objects, planned);
  const doomed = planned.deleting.filter((name) => !needed.has(name));
  for (const name of doomed) {
    if (isGenerationName(name)) await deleteFolder(objects, name, signal);
    else if (name.startsWith(ARCHIVES_PREFIX)) await objects.delete([name]);
  }
  const finished = new Set(planned.deleting);
  await ownership.update((manifest) => ({
    ...manifest,
    deleting: manifest.deleting.filter((name) => !finished.has(name)),
  }), () => signal?.aborted === true);
  logger.info("Deleted what no recovery within the retention needs.", {
    folders: doomed.length,
    first: doomed[0],
  });
  return doomed;
}

/** What is history, whatever else a manifest says of it. */
async function neededNames(
  objects: ObjectStore,
  manifest: Manifest,
): Promise<Set<string>> {
  const { generations } = await withArchives(objects, manifest);
  return new Set([
    ...generations.map(({ name }) => name),
    ...manifest.archives.map(({ key }) => key),
  ]);
}

async function deleteFolder(
  objects: ObjectStore,
  folder: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  // Readers begin with it: from now on none takes the folder for a backup.
  await objects.delete([differentialKey(folder)], { signal });
  let keys: string[] = [];
  for await (const { key } of objects.list(`${folder}/`, { signal })) {
    keys.push(key);
    if (keys.length < DELETE_AT_ONCE) continue;
    await objects.delete(keys, { signal });
    keys = [];
  }
  if (keys.length > 0) await objects.delete(keys, { signal });
}
