/**
 * What a person can do about a backup that is refused: a manifest that is
 * lost is made anew from the newest copy, and a history with a hole ends
 * before it; one without its snapshot goes on from the generation before. Nothing is deleted, and the plan is made before anything is
 * written. The argument is in docs/fencing.md.
 */
import type { Clock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import type { Random } from "../common/random.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { copiesOf, type ManifestCopy, newerCopy, readCopy } from "./copies.ts";
import { listSegments } from "./history.ts";
import { withLeap } from "./leap.ts";
import {
  decodeManifest,
  encodeManifest,
  type Generation,
  hexVersion,
  type LostRange,
  type Manifest,
  UnreadableError,
  VERSION_LEAP,
} from "./manifest.ts";
import { ManifestStore, type VersionedManifest } from "./manifest_store.ts";
import {
  ARCHIVES_PREFIX,
  epochOf,
  isGenerationName,
  MANIFEST_KEY,
  manifestCopyKey,
  startOf,
  versionOf,
} from "./names.ts";
import { endOfLog, type LogEnd, sealsFromChain } from "./repair_chain.ts";
import { withoutDamaged } from "./missing.ts";
import { type LeftOut, released, type RepairPlan } from "./repair_plan.ts";
import { endBeforeSnapshot } from "./repair_snapshot.ts";
import { contentWithoutManifest, topNames } from "./unclaimed.ts";
import { whyNotWhole } from "./whole.ts";

/**
 * `restore --same-database` leaps without leaving a copy: a manifest from one
 * leaps over as many of them as anybody may have made since.
 */
const LEAPS = 64;

/**
 * Reads, and writes nothing.
 * @returns undefined where there is nothing to repair
 * @throws StartupError where it cannot be repaired, or need not be
 */
export async function planRepair(
  objects: ObjectStore,
  clock: Clock,
): Promise<RepairPlan | undefined> {
  const stored = await objects.get(MANIFEST_KEY);
  if (stored === undefined) {
    const problem = `${MANIFEST_KEY} is missing.`;
    return await fromCopy(objects, undefined, problem, clock);
  }
  let found: VersionedManifest;
  try {
    found = { ...decodeManifest(stored.data), tag: stored.tag };
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error;
    return await fromCopy(objects, stored.tag, error.message, clock);
  }
  const newer = await newerCopy(objects, found.manifest);
  if (newer !== undefined) {
    return await fromCopy(
      objects,
      stored.tag,
      `${MANIFEST_KEY} is older than ${newer.key}, which a later owner left.`,
      clock,
    );
  }
  const plan = await endBeforeSnapshot(objects, found, clock, "sizes") ??
    await endBeforeGap(objects, found, clock) ??
    // It takes long, and so comes last.
    await endBeforeSnapshot(objects, found, clock, "contents");
  if (plan) requireNoOwner(found.manifest, clock);
  return plan;
}

/** It has everything, and makes a new generation of it. */
function requireNoOwner(
  { owner, leaseUntilMs }: Manifest,
  clock: Clock,
): void {
  if (owner === null || leaseUntilMs < clock.nowMs()) return;
  throw new StartupError(
    "The backup has lost an object, and a server has it all: its lease runs. Nothing was changed. That server has everything: let it make a whole new generation with `backup snapshot`. If it is gone, wait until its lease has run out.",
  );
}

/**
 * @returns whether it was written; otherwise somebody changed it meanwhile
 * @throws UnavailableError, ObjectStoreRefusedError
 */
export async function carryOutRepair(
  objects: ObjectStore,
  plan: RepairPlan,
  clock: Clock,
  random: Random,
): Promise<boolean> {
  const { manifest, replaces } = plan;
  const { won } = await new ManifestStore(objects, clock, random).swap(
    replaces,
    manifest,
  );
  if (won && manifest.generation !== null) {
    await objects.put(
      manifestCopyKey(manifest.generation, manifest.epoch),
      encodeManifest(manifest, random.bytes(16).toHex()),
    );
  }
  return won;
}

// ---------------------------------------------------------- a lost manifest

async function fromCopy(
  objects: ObjectStore,
  tag: string | undefined,
  problem: string,
  clock: Clock,
): Promise<RepairPlan> {
  const folders: string[] = [];
  const archives: string[] = [];
  for await (const { name } of topNames(objects)) {
    if (isGenerationName(name)) folders.push(name);
  }
  for await (const { key } of objects.list(ARCHIVES_PREFIX)) archives.push(key);
  const leftOut: LeftOut[] = [];
  const { copy, base, lastCopy } = await newestReadable(
    objects,
    folders,
    leftOut,
  );
  const present = await wholeGenerations(objects, base, leftOut);
  const generation = present.at(-1)!;
  const branches = base.branches?.filter((branch) => {
    const isWhole = present.some(({ name }) => name === branch.generation);
    if (!isWhole) {
      leftOut.push({
        name: `branch ${branch.name}`,
        why: `its generation ${branch.generation} is not whole`,
      });
    }
    return isWhole;
  });
  const chain = await sealsFromChain(objects, generation.name, base);
  let newest = chain.newestVersion;
  // Whoever wrote anything here is fenced by a later one.
  let newestEpoch = Math.max(base.epoch, lastCopy.epoch);
  const known = new Set([
    ...base.generations.map(({ name }) => name),
    ...base.deleting,
  ]);
  for (const name of folders) {
    if (name < base.generations[0].name) continue;
    const log = await endOfLog(objects, name);
    newest = Math.max(newest, log?.lastVersion ?? 0);
    newestEpoch = Math.max(newestEpoch, epochOf(name), log?.newestEpoch ?? 0);
    if (known.has(name)) continue;
    leftOut.push({ name, why: whyUnnamed(log) });
  }
  const kept = new Set(present.map(({ name }) => name));
  const manifest: Manifest = {
    ...base,
    generation: generation.name,
    generations: present,
    seals: [
      ...base.seals.filter((seal) => kept.has(seal.generation)),
      ...chain.seals,
    ],
    archives: base.archives.filter(({ key }) => archives.includes(key)),
    ...(branches && { branches }),
    // What an old copy takes for garbage may have become history since.
    making: [],
    deleting: base.deleting.filter((name) => !kept.has(name)),
  };
  for (const { key } of base.archives) {
    if (archives.includes(key)) continue;
    leftOut.push({ name: key, why: "it is missing, with what it tells of" });
  }
  // The newest ones are not whole: what they had is given up.
  const isShort = generation.name !== base.generation;
  const lost: LostRange | undefined = !isShort ? undefined : {
    generation: generation.name,
    epoch: epochOf(base.generation!),
    tsn: 1,
    lastEpoch: newestEpoch,
    afterVersion: chain.lastVersion,
    untilVersion: Math.max(newest, begunAt(base)),
    decidedMs: clock.nowMs(),
  };
  if (lost) manifest.lost = [...manifest.lost ?? [], lost];
  const leapt = withLeap(manifest, Math.max(newest, begunAt(base)));
  leapt.leapVersion += (LEAPS - 1) * VERSION_LEAP;
  const next = released(leapt, newestEpoch + 1);
  return {
    problem,
    manifest: next,
    replaces: tag === undefined
      ? undefined
      : { manifest: next, tag, nonce: "" },
    copy: copy.key,
    newestVersion: chain.lastVersion,
    leftOut,
    lost,
  };
}

async function newestReadable(
  objects: ObjectStore,
  folders: readonly string[],
  leftOut: LeftOut[],
): Promise<{ copy: ManifestCopy; base: Manifest; lastCopy: ManifestCopy }> {
  const copies: ManifestCopy[] = [];
  for (const name of folders) copies.push(...await copiesOf(objects, name));
  // Of one epoch, the one in the later generation.
  copies.sort((a, b) =>
    b.epoch - a.epoch || (a.generation < b.generation ? 1 : -1)
  );
  let newest: { copy: ManifestCopy; base: Manifest } | undefined;
  for (const copy of copies) {
    if (newest && !isAmongFirst(copy, newest.copy)) break;
    const base = await readCopy(objects, copy.key);
    if (base?.generation != null) {
      if (!newest || begunAt(base) > begunAt(newest.base)) {
        newest = { copy, base };
      }
      continue;
    }
    leftOut.push({ name: copy.key, why: "this copy cannot be read" });
  }
  if (newest) return { ...newest, lastCopy: copies[0] };
  const folder = folders.at(-1);
  if (folder === undefined) {
    throw await contentWithoutManifest(objects) ?? new StartupError(
      `${objects.url} is empty: there is nothing to repair. Nothing was changed; check the URL.`,
    );
  }
  throw new StartupError(
    `${objects.url} holds generations of a backup, and no copy of its ${MANIFEST_KEY} that can be read: a server wrote them that left none. Nothing was changed. Bring an older version of ${MANIFEST_KEY} back, if the bucket keeps them. Otherwise take the data out of the newest generation that is whole, with \`restore --from ${objects.url}/${folder}\`, and serve that file with a backup URL of its own.`,
  );
}

/** Names of generations that one epoch began in one second are in no order. */
function isAmongFirst(copy: ManifestCopy, newest: ManifestCopy): boolean {
  return copy.epoch === newest.epoch &&
    startOf(copy.generation) === startOf(newest.generation);
}

function begunAt({ generation, generations }: Manifest): number {
  return generations.find(({ name }) => name === generation)?.snapshotVersion ??
    0;
}

/** @throws StartupError where none of them is whole */
async function wholeGenerations(
  objects: ObjectStore,
  base: Manifest,
  leftOut: LeftOut[],
): Promise<Generation[]> {
  const damaged = new Set<Generation>();
  for (const generation of base.generations) {
    const why = await whyNotWhole(objects, generation, "sizes");
    if (why === undefined) continue;
    damaged.add(generation);
    leftOut.push({ name: generation.name, why });
  }
  const whole = withoutDamaged(
    base.generations,
    (generation) => !damaged.has(generation),
  );
  const last = whole.at(-1);
  if (last === undefined) {
    throw new StartupError(
      `No generation of the backup in ${objects.url} is whole any more (${
        leftOut.map(({ name, why }) => `${name}: ${why}`).join("; ")
      }). Nothing was changed; bring the missing objects back.`,
    );
  }
  return [...whole.slice(0, -1), { ...last, endedMs: null }];
}

function whyUnnamed(
  log: LogEnd | undefined,
): string {
  return log === undefined
    ? "no copy names it and nothing was shipped to it: it was being made, or deleted"
    : `no copy that can be read names it, and ${log.segments} segments were shipped to it, up to ${
      hexVersion(log.lastVersion)
    }: what was acknowledged in it would be given up`;
}

// ------------------------------------------------------------ a lost segment

async function endBeforeGap(
  objects: ObjectStore,
  found: VersionedManifest,
  clock: Clock,
): Promise<RepairPlan | undefined> {
  const { manifest } = found;
  const { generation, generations, epoch } = manifest;
  if (generation === null) return undefined;
  const { history, gap, newestVersion } = await listSegments(
    objects,
    generation,
    manifest,
  );
  if (gap === undefined) return undefined;
  const { snapshotVersion } = generations
    .find(({ name }) => name === generation)!;
  const last = history.at(-1);
  const afterVersion = last ? versionOf(last.last) : snapshotVersion;
  const lost: LostRange = {
    generation,
    epoch: gap.epoch,
    tsn: gap.tsn,
    lastEpoch: (await endOfLog(objects, generation))?.newestEpoch ?? 0,
    afterVersion,
    untilVersion: Math.max(newestVersion, afterVersion),
    decidedMs: clock.nowMs(),
  };
  const seals = manifest.seals.filter((seal) =>
    seal.generation !== generation || seal.epoch < gap.epoch
  );
  for (let ended = gap.epoch; ended <= epoch; ended++) {
    const lastTsn = ended === gap.epoch ? gap.tsn - 1 : 0;
    seals.push({
      generation,
      epoch: ended,
      lastTsn,
      lastVersion: afterVersion,
    });
  }
  return {
    problem:
      `Segment ${gap.tsn} of epoch ${gap.epoch} in ${generation} is missing, and later ones are there.`,
    manifest: {
      ...released(withLeap(manifest, newestVersion), epoch + 1),
      seals,
      // What it says to be there is not, or no part of the history any more.
      head: { generation, epoch, lastTsn: 0, lastVersion: afterVersion },
      lost: [...manifest.lost ?? [], lost],
    },
    replaces: found,
    copy: undefined,
    newestVersion: afterVersion,
    leftOut: [],
    lost,
  };
}
