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
import type { Archive, Manifest } from "./manifest.ts";
import { readArchive, withArchives } from "./archive.ts";
import { pinned } from "./branches.ts";
import {
  ARCHIVES_PREFIX,
  differentialKey,
  epochOf,
  isGenerationName,
  MANIFEST_KEY,
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
 * it. The oldest go first, so
 * that no hole comes about where a clock was wrong once.
 */
export function expiredGenerations(
  manifest: Pick<Manifest, "generation" | "generations" | "branches">,
  nowMs: number,
  retentionMs: number,
): string[] {
  const { generation, generations } = manifest;
  const end = generations.findIndex(({ name, endedMs }) =>
    name === generation || endedMs === null || endedMs >= nowMs - retentionMs
  );
  const kept = pinned(manifest);
  return generations.slice(0, Math.max(0, end)).map(({ name }) => name)
    .filter((name) => !kept.has(name));
}

/** By the earlier of our clock and the store's: one may be wrong. */
async function earlierNowMs(
  objects: ObjectStore,
  clock: Clock,
): Promise<number> {
  const head = await objects.head(MANIFEST_KEY, { now: true });
  return Math.min(clock.nowMs(), head?.nowMs ?? Infinity);
}

/**
 * Whether the store's own times agree that a generation has ended so long ago:
 * it ended when the one after it was whole.
 */
async function endedBefore(
  objects: ObjectStore,
  next: string | undefined,
  timeMs: number,
): Promise<boolean> {
  if (next === undefined) return false;
  const head = await objects.head(differentialKey(next));
  // Not even begun by the store's word, where it is not there.
  return head !== undefined && head.modifiedMs < timeMs;
}

/**
 * Those that came to nothing; none is being made while a pass runs. Only an
 * owner before us may still put to one: its time is by that owner's clock.
 */
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
  const nowMs = await earlierNowMs(objects, clock);
  const before = ownership.manifest;
  const gone = new Set([
    ...abandoned(before, ownership.epoch, nowMs),
    ...await expired(objects, before, nowMs - retentionMs),
  ]);
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

/** Archives and generations that ended before a time, the oldest first. */
async function expired(
  objects: ObjectStore,
  manifest: Manifest,
  timeMs: number,
): Promise<string[]> {
  const gone: string[] = [];
  const { archives, generations } = manifest;
  // An archive goes as a whole, when its last generation does.
  for (const [at, archive] of archives.entries()) {
    if (archive.endedMs >= timeMs) return gone;
    const next = archives[at + 1];
    const after = next === undefined
      ? generations[0]?.name
      : (await namesIn(objects, next))[0];
    if (!await endedBefore(objects, after, timeMs)) return gone;
    gone.push(archive.key, ...await namesIn(objects, archive));
  }
  for (const name of expiredGenerations(manifest, timeMs, 0)) {
    const at = generations.findIndex((generation) => generation.name === name);
    if (!await endedBefore(objects, generations[at + 1]?.name, timeMs)) break;
    gone.push(name);
  }
  return gone;
}

async function namesIn(
  objects: ObjectStore,
  archive: Archive,
): Promise<string[]> {
  const { generations } = await readArchive(objects, archive);
  return generations.map(({ name }) => name);
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
