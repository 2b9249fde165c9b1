/**
 * What no change of the manifest may break, whoever makes it: checked before
 * every swap. A change that would is a fault of this program, and is refused
 * while the history is still whole.
 */
import { pinned } from "./branches.ts";
import type { LostRange, Manifest, Seal } from "./manifest.ts";

/** The change was not made; the manifest and the history are as they were. */
export class ManifestInvariantError extends Error {
  override name = "ManifestInvariantError";
}

/**
 * @param before undefined where there is no manifest yet
 * @throws ManifestInvariantError
 */
export function requireSound(
  before: Manifest | undefined,
  after: Manifest,
): void {
  const broken = brokenBy(before, after);
  if (broken.length === 0) return;
  throw new ManifestInvariantError(
    `A change of the backup's manifest was refused, because it would break what holds of every backup: ${
      broken.join("; ")
    }. Nothing was changed. This is a fault of the server; please report it.`,
  );
}

/** What the change would break, in words; nothing where it is sound. */
export function brokenBy(
  before: Manifest | undefined,
  after: Manifest,
): string[] {
  if (before === undefined) return unsound(after);
  // What an older server left wrong must not stop every change for ever.
  const known = new Set(unsound(before));
  return [
    ...unsound(after).filter((what) => !known.has(what)),
    ...brokenSteps(before, after),
  ];
}

/** What is wrong with a version by itself. */
function unsound(manifest: Manifest): string[] {
  const { generation, generations, making, archives, deleting, seals } =
    manifest;
  const found: string[] = [];
  const needed = [
    ...generations.map(({ name }) => name),
    ...archives.map(({ key }) => key),
    ...making,
  ];
  for (const name of twice(needed)) found.push(`${name} stands twice`);
  for (const name of twice(seals.map(nameOf))) {
    found.push(`the seal of ${name} stands twice`);
  }
  const isNeeded = new Set(needed);
  for (const name of deleting) {
    if (isNeeded.has(name)) {
      found.push(`${name} is to be deleted and is needed`);
    }
  }
  const names = new Set(generations.map(({ name }) => name));
  for (const seal of seals) {
    if (!names.has(seal.generation)) {
      found.push(`the seal of ${nameOf(seal)} is of no generation`);
    }
    if (seal.epoch > manifest.epoch) {
      found.push(`the seal of ${nameOf(seal)} is of an epoch to come`);
    }
  }
  for (const branch of manifest.branches ?? []) {
    if (!names.has(branch.generation)) {
      found.push(`the branch ${branch.name} is of no generation`);
    }
  }
  if (generation !== null && !names.has(generation)) {
    found.push(`the present generation ${generation} is not listed`);
  }
  for (const { name, endedMs } of generations) {
    if ((endedMs === null) !== (name === generation)) {
      found.push(`${name} ${endedMs === null ? "has no" : "has an"} end`);
    }
  }
  return found;
}

/** What may not become of `before`. */
function brokenSteps(before: Manifest, after: Manifest): string[] {
  const found: string[] = [];
  const refuse = (isBroken: boolean, what: string) => {
    if (isBroken) found.push(what);
  };
  refuse(after.databaseId !== before.databaseId, "the database id changes");
  refuse(after.epoch < before.epoch, "the epoch falls");
  refuse(after.leapVersion < before.leapVersion, "leapVersion falls");
  refuse(
    after.epoch === before.epoch && after.owner !== before.owner &&
      after.owner !== null,
    "the owner changes without a new epoch",
  );
  refuse(
    before.generation !== null && after.generation === null,
    "the present generation is given up for none",
  );
  const given = givenUp(before, after);
  refuse(
    isBehind(after.head, before.head) &&
      !given.some(({ generation }) => generation === before.head?.generation),
    "the head of the log falls",
  );
  found.push(...lostSeals(before, after), ...lostGenerations(before, after));
  return found;
}

/** Another generation's head counts anew. */
function isBehind(after: Seal | undefined, before: Seal | undefined): boolean {
  if (before === undefined) return false;
  if (after === undefined) return true;
  if (after.generation !== before.generation) return false;
  return after.epoch < before.epoch ||
    (after.epoch === before.epoch && after.lastTsn < before.lastTsn);
}

/**
 * Up to where: the generation that a person goes on with, because none after it
 * has a whole snapshot.
 */
function keptUntil(before: Manifest, after: Manifest): number {
  const given = givenUp(before, after)
    .some(({ generation }) => generation === after.generation);
  const kept = before.generations.find(({ name }) => name === after.generation);
  return given && kept ? kept.snapshotVersion : Infinity;
}

/** By a person, with this very change; every owner before is fenced by it. */
function givenUp(before: Manifest, after: Manifest): readonly LostRange[] {
  return after.epoch > before.epoch && after.owner === null
    ? (after.lost ?? []).slice(before.lost?.length ?? 0)
    : [];
}

/**
 * A seal never changes, and goes with its generation alone: only where a
 * person gives a part of the history up, it ends before that.
 */
function lostSeals(before: Manifest, after: Manifest): string[] {
  const given = givenUp(before, after);
  const present = new Set(after.generations.map(({ name }) => name));
  const seals = new Map(after.seals.map((seal) => [nameOf(seal), seal]));
  return before.seals.filter((seal) => {
    if (!present.has(seal.generation)) return false;
    const isGiven = given.some(({ generation, epoch }) =>
      generation === seal.generation && epoch <= seal.epoch
    );
    if (isGiven) return false;
    const now = seals.get(nameOf(seal));
    return now?.lastTsn !== seal.lastTsn ||
      now.lastVersion !== seal.lastVersion;
  }).map((seal) => `the seal of ${nameOf(seal)} is changed or lost`);
}

/**
 * A generation goes into an archive or to what is to be deleted, the oldest
 * first, so that what stays covers its time without a hole; or the newest ones
 * are given up by a person. Only what this version named is ever deleted.
 */
function lostGenerations(before: Manifest, after: Manifest): string[] {
  const found: string[] = [];
  const archived = after.archives.length > 0 &&
    !before.archives.some(({ key }) => key === after.archives.at(-1)!.key);
  const stays = new Map(after.generations.map((item) => [item.name, item]));
  const doomed = new Set(after.deleting);
  const former = pinned(after);
  const untilVersion = keptUntil(before, after);
  let hasStayed = false;
  for (const { name, startedMs, snapshotVersion } of before.generations) {
    const now = stays.get(name);
    if (now === undefined) {
      if (snapshotVersion > untilVersion) continue;
      if (!archived && !doomed.has(name)) {
        found.push(`${name} is lost`);
      }
      if (hasStayed) found.push(`${name} goes before an older one`);
      continue;
    }
    // That of a branch stays longer than those after it.
    if (!former.has(name)) hasStayed = true;
    if (
      now.startedMs !== startedMs || now.snapshotVersion !== snapshotVersion
    ) found.push(`${name} is changed`);
  }
  const keys = new Set(after.archives.map(({ key }) => key));
  const gone = before.archives.filter(({ key }) => !keys.has(key));
  for (const { key } of gone) {
    if (!doomed.has(key)) found.push(`${key} is lost`);
  }
  // What an archive names goes with it; what it names is not in here.
  if (gone.length > 0) return found;
  const known = new Set([
    ...before.deleting,
    ...before.making,
    ...before.generations.map(({ name }) => name),
  ]);
  for (const name of doomed) {
    if (!known.has(name)) found.push(`${name} is to be deleted and unknown`);
  }
  return found;
}

function nameOf({ generation, epoch }: Seal): string {
  return `epoch ${epoch} in ${generation}`;
}

function twice(names: readonly string[]): Set<string> {
  const seen = new Set<string>();
  const found = new Set<string>();
  for (const name of names) (seen.has(name) ? found : seen).add(name);
  return found;
}
