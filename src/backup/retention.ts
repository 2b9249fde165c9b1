/**
 * Deletes generations that nothing within the retention needs, and what
 * crashes left. What is to be deleted is written down first, so that a pass
 * that was interrupted is finished by the next one, whoever runs it.
 */
import { fromUtf8, utf8 } from "../common/bytes.ts";
import type { Clock } from "../common/clock.ts";
import type { Logger } from "../common/log.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import type { Manifest } from "./manifest.ts";
import { readArchive, withArchives } from "./archive.ts";
import {
  ARCHIVES_PREFIX,
  differentialKey,
  isGenerationName,
  RETENTION_PLAN_KEY,
} from "./names.ts";
import type { Ownership } from "./ownership.ts";

/** An unnamed folder may be a generation in the making for this long. */
const MIN_GARBAGE_AGE_MS = 24 * 60 * 60_000;
const DELETE_AT_ONCE = 1000;

export interface RetentionOptions {
  objects: ObjectStore;
  ownership: Pick<Ownership, "manifest" | "update">;
  clock: Clock;
  logger: Logger;
  retentionMs: number;
  /** Also looks for what crashes left: a request for each generation. */
  findsGarbage: boolean;
  /** Ends the pass; the next one goes on. */
  signal?: AbortSignal;
}

/**
 * A generation stays while a moment that it covers is within the retention:
 * it covers everything from its snapshot to its end.
 */
export function expiredGenerations(
  { generation, generations }: Pick<Manifest, "generation" | "generations">,
  nowMs: number,
  retentionMs: number,
): string[] {
  return generations.filter(({ name, endedMs }) =>
    name !== generation && endedMs !== null && endedMs < nowMs - retentionMs
  ).map(({ name }) => name);
}

/**
 * @returns the folders that were deleted
 * @throws UnavailableError where the store does not answer; the next pass goes on
 */
export async function applyRetention(
  options: RetentionOptions,
): Promise<string[]> {
  const { objects, ownership, clock, logger, retentionMs, signal } = options;
  const nowMs = clock.nowMs();
  const { manifest } = ownership;
  const expired = expiredGenerations(manifest, nowMs, retentionMs);
  // An archive goes as a whole, when its last generation does.
  const archives = manifest.archives.filter(({ endedMs }) =>
    endedMs < nowMs - retentionMs
  );
  for (const archive of archives) {
    const { generations } = await readArchive(objects, archive);
    expired.push(...generations.map(({ name }) => name));
  }
  const gone = new Set(expired);
  const planned = await readPlan(objects);
  const doomed = new Set([...planned, ...gone]);
  const needed = new Set<string>();
  if (options.findsGarbage || planned.some((name) => !gone.has(name))) {
    const whole = await withArchives(objects, manifest);
    for (const { name } of whole.generations) {
      if (!gone.has(name)) needed.add(name);
    }
  }
  if (options.findsGarbage) {
    const known = new Set([...needed, ...gone]);
    for (const name of await unnamedFolders(objects, known, nowMs, signal)) {
      doomed.add(name);
    }
    await deleteArchives(
      objects,
      await unnamedArchives(objects, manifest, nowMs),
    );
  }
  // A plan is never trusted against the manifest.
  for (const name of needed) doomed.delete(name);
  if (doomed.size === 0) return [];
  const folders = [...doomed];
  await objects.put(
    RETENTION_PLAN_KEY,
    utf8(JSON.stringify({ format: 1, folders }) + "\n"),
  );
  if (gone.size > 0) {
    const keys = new Set(archives.map(({ key }) => key));
    await ownership.update((manifest) => ({
      ...manifest,
      archives: manifest.archives.filter(({ key }) => !keys.has(key)),
      generations: manifest.generations.filter(({ name }) => !gone.has(name)),
      seals: manifest.seals.filter(({ generation }) => !gone.has(generation)),
    }));
  }
  for (const folder of folders) await deleteFolder(objects, folder, signal);
  await deleteArchives(objects, archives.map(({ key }) => key));
  await objects.delete([RETENTION_PLAN_KEY]);
  logger.info("Deleted what no recovery within the retention needs.", {
    folders: folders.length,
    first: folders[0],
  });
  return folders;
}

async function deleteArchives(
  objects: ObjectStore,
  keys: string[],
): Promise<void> {
  if (keys.length > 0) await objects.delete(keys);
}

/** Archives that no manifest came to name. */
async function unnamedArchives(
  objects: ObjectStore,
  { archives }: Manifest,
  nowMs: number,
): Promise<string[]> {
  const named = new Set(archives.map(({ key }) => key));
  const found: string[] = [];
  for await (const { key, modifiedMs } of objects.list(ARCHIVES_PREFIX)) {
    if (!named.has(key) && modifiedMs < nowMs - MIN_GARBAGE_AGE_MS) {
      found.push(key);
    }
  }
  return found;
}

async function readPlan(objects: ObjectStore): Promise<string[]> {
  const object = await objects.get(RETENTION_PLAN_KEY);
  if (object === undefined) return [];
  try {
    const { folders } = JSON.parse(fromUtf8(object.data) ?? "");
    return (folders as unknown[]).filter((folder): folder is string =>
      typeof folder === "string" && isGenerationName(folder)
    );
  } catch {
    // It is made anew from what is there.
    return [];
  }
}

/** Folders of generations that no manifest came to name. */
async function unnamedFolders(
  objects: ObjectStore,
  named: ReadonlySet<string>,
  nowMs: number,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const found: string[] = [];
  let startAfter = "";
  for (;;) {
    const next = await firstKey(objects, startAfter, signal);
    if (next === undefined) return found;
    const folder = next.split("/", 1)[0];
    const startedMs = startOf(folder);
    if (
      startedMs !== undefined && !named.has(folder) &&
      startedMs < nowMs - MIN_GARBAGE_AGE_MS
    ) found.push(folder);
    // "0" comes right after "/": past everything in the folder.
    startAfter = next.includes("/") ? `${folder}0` : next;
  }
}

async function firstKey(
  objects: ObjectStore,
  startAfter: string,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const options = startAfter === ""
    ? { pageSize: 1, signal }
    : { pageSize: 1, startAfter, signal };
  for await (const { key } of objects.list("", options)) return key;
  return undefined;
}

function startOf(folder: string): number | undefined {
  if (!isGenerationName(folder)) return undefined;
  const time = folder.replace(
    /^(\d{4})(\d\d)(\d\d)t(\d\d)(\d\d)(\d\d)z.*$/,
    "$1-$2-$3T$4:$5:$6Z",
  );
  return Date.parse(time);
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
