/**
 * A history whose present generation has no whole snapshot any more goes on
 * from the newest generation before it that has one, with that one's log. What
 * came after is given up, and said.
 */
import type { Clock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { listSegments } from "./history.ts";
import { withLeap } from "./leap.ts";
import type { Generation, LostRange, Manifest, Seal } from "./manifest.ts";
import type { VersionedManifest } from "./manifest_store.ts";
import { inOrder } from "./missing.ts";
import { epochOf, versionOf } from "./names.ts";
import { endOfLog } from "./repair_chain.ts";
import { type LeftOut, released, type RepairPlan } from "./repair_plan.ts";
import { whyNotWhole } from "./whole.ts";

/**
 * @returns undefined where the present snapshot is whole
 * @throws StartupError where no generation is
 */
export async function endBeforeSnapshot(
  objects: ObjectStore,
  found: VersionedManifest,
  clock: Clock,
  depth: "sizes" | "contents",
): Promise<RepairPlan | undefined> {
  const { manifest } = found;
  const present = manifest.generations
    .find(({ name }) => name === manifest.generation);
  if (present === undefined) return undefined;
  const why = await whyNotWhole(objects, present, depth);
  if (why === undefined) return undefined;
  const leftOut: LeftOut[] = [{ name: present.name, why }];
  const former = await newestWhole(objects, manifest, present, leftOut);
  const left = new Set(leftOut.map(({ name }) => name));
  const { lost, seals } = await endOf(objects, manifest, former, left, clock);
  const { epoch, generations, branches } = manifest;
  const branchesLeft = branches?.filter(({ name, generation }) => {
    const isPresent = generation === former.name;
    if (!isPresent && !left.has(generation)) return true;
    leftOut.push({
      name: `branch ${name}`,
      why: isPresent
        ? "it is the line that the backup goes on with"
        : `its generation ${generation} is not whole`,
    });
    return false;
  });
  const { afterVersion } = lost;
  return {
    problem: `The present generation ${present.name} is not whole: ${why}.`,
    manifest: {
      ...released(withLeap(manifest, lost.untilVersion), epoch + 1),
      generation: former.name,
      generations: generations
        .filter(({ name }) => !left.has(name))
        .map((kept) => kept === former ? { ...kept, endedMs: null } : kept),
      seals,
      ...(branchesLeft && { branches: branchesLeft }),
      head: {
        generation: former.name,
        epoch,
        lastTsn: 0,
        lastVersion: afterVersion,
      },
      lost: [...manifest.lost ?? [], lost],
    },
    replaces: found,
    copy: undefined,
    newestVersion: afterVersion,
    leftOut,
    lost,
  };
}

/** The last one before the present one; what is between them is left out. */
async function newestWhole(
  objects: ObjectStore,
  manifest: Manifest,
  present: Generation,
  leftOut: LeftOut[],
): Promise<Generation> {
  const before = manifest.generations
    .filter(({ snapshotVersion }) => snapshotVersion < present.snapshotVersion)
    .sort((a, b) => b.snapshotVersion - a.snapshotVersion);
  for (const generation of before) {
    const why = await whyNotWhole(objects, generation, "contents");
    if (why === undefined) return generation;
    leftOut.push({ name: generation.name, why });
  }
  throw new StartupError(
    `No generation that the manifest of ${objects.url} names is whole any more (${
      leftOut.map(({ name, why }) => `${name}: ${why}`).join("; ")
    }). Nothing was changed; bring the missing objects back. A database file that still has everything begins a new backup with another URL.`,
  );
}

/** Where the generation ends, for good, and what that gives up. */
async function endOf(
  objects: ObjectStore,
  manifest: Manifest,
  { name, snapshotVersion }: Generation,
  left: ReadonlySet<string>,
  clock: Clock,
): Promise<{ lost: LostRange; seals: Seal[] }> {
  const { history, gap, newestVersion } = await listSegments(
    objects,
    name,
    manifest,
  );
  const last = history.at(-1);
  const afterVersion = last ? versionOf(last.last) : snapshotVersion;
  let lastEpoch = 0;
  let untilVersion = Math.max(afterVersion, newestVersion);
  for (const generation of inOrder(manifest)) {
    if (!left.has(generation.name)) continue;
    const log = await endOfLog(objects, generation.name);
    lastEpoch = Math.max(
      lastEpoch,
      epochOf(generation.name),
      log?.newestEpoch ?? 0,
    );
    untilVersion = Math.max(
      untilVersion,
      generation.snapshotVersion,
      log?.lastVersion ?? 0,
    );
  }
  const seals = manifest.seals.filter(({ generation, epoch }) =>
    !left.has(generation) &&
    !(generation === name && gap && epoch >= gap.epoch)
  );
  // Nothing that arrives late in that folder becomes history.
  const sealed = new Set(
    seals.filter(({ generation }) => generation === name)
      .map(({ epoch }) => epoch),
  );
  for (let epoch = epochOf(name); epoch <= manifest.epoch; epoch++) {
    if (sealed.has(epoch)) continue;
    const ended = history.findLast((segment) => segment.epoch === epoch);
    seals.push({
      generation: name,
      epoch,
      lastTsn: ended?.tsn ?? 0,
      lastVersion: ended ? versionOf(ended.last) : afterVersion,
    });
  }
  const lost: LostRange = {
    generation: name,
    epoch: gap?.epoch ?? epochOf(manifest.generation!),
    tsn: gap?.tsn ?? 1,
    lastEpoch,
    afterVersion,
    untilVersion,
    decidedMs: clock.nowMs(),
  };
  return { lost, seals };
}
