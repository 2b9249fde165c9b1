/**
 * Where epochs end, told by the segments alone: each says which version the
 * history has before it. For a manifest that is made anew and knows of fewer
 * epochs than there are.
 */
import { StartupError } from "../common/errors.ts";
import { readSegment } from "../log/segment.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { type ListedSegment, listSegments } from "./history.ts";
import type { Manifest, Seal } from "./manifest.ts";
import { parseSegmentKey, segmentsPrefix, versionOf } from "./names.ts";

export interface Chain {
  /** For epochs that the manifest knows no end of, and that have a later one. */
  seals: Seal[];
  /** Where the history ends. */
  lastVersion: number;
  /** In the name of any segment. */
  newestVersion: number;
}

/**
 * @param base the newest manifest that there is
 * @throws StartupError where the segments do not say it
 */
export async function sealsFromChain(
  objects: ObjectStore,
  generation: string,
  base: Manifest,
): Promise<Chain> {
  const { history, newestVersion } = await listSegments(objects, generation, {
    seals: base.seals,
    epoch: Infinity,
    head: base.head,
  });
  const isSealed = (epoch: number) =>
    base.seals.some((seal) =>
      seal.generation === generation && seal.epoch === epoch
    );
  const { snapshotVersion } = base.generations
    .find(({ name }) => name === generation)!;
  const epochs = Map.groupBy(history, ({ epoch }) => epoch);
  const numbers = [...epochs.keys()];
  const seals: Seal[] = [];
  let lastVersion = snapshotVersion;
  for (const [i, epoch] of numbers.entries()) {
    const segments = epochs.get(epoch)!;
    const next = numbers[i + 1];
    let last = segments.at(-1)!;
    if (next !== undefined && !isSealed(epoch)) {
      const [following] = epochs.get(next)!;
      const before = await versionBefore(objects, following);
      const end = segments.findLast(({ last }) => versionOf(last) === before);
      if (end === undefined && before !== lastVersion) {
        throw new StartupError(
          `The backup's ${following.key} follows no segment that is there, and no copy of the manifest says where epoch ${epoch} ended. Nothing was changed. Bring an older version of manifest.json back, or take the data out with \`restore --from ${objects.url}/${generation}\`.`,
        );
      }
      seals.push({
        generation,
        epoch,
        lastTsn: end?.tsn ?? 0,
        lastVersion: before,
      });
      if (end === undefined) continue;
      last = end;
    }
    lastVersion = versionOf(last.last);
  }
  return {
    seals,
    lastVersion,
    newestVersion: Math.max(newestVersion, snapshotVersion),
  };
}

async function versionBefore(
  objects: ObjectStore,
  { key }: ListedSegment,
): Promise<number> {
  const object = await objects.get(key);
  const contents = object && await readSegment(object.data);
  if (
    contents === undefined || typeof contents === "string" ||
    contents.previousVersion === undefined
  ) {
    throw new StartupError(
      `The backup's ${key} cannot be read, and no copy of the manifest says where the epoch before it ended. Nothing was changed; bring that object back.`,
    );
  }
  return contents.previousVersion;
}

export interface LogEnd {
  segments: number;
  newestEpoch: number;
  lastVersion: number;
}

/** What was shipped to a folder that no manifest names; undefined: nothing. */
export async function endOfLog(
  objects: ObjectStore,
  generation: string,
): Promise<LogEnd | undefined> {
  let segments = 0;
  let newestEpoch = 0;
  let lastVersion = 0;
  for await (const { key } of objects.list(segmentsPrefix(generation))) {
    const name = parseSegmentKey(generation, key);
    if (name === undefined) continue;
    segments++;
    newestEpoch = Math.max(newestEpoch, name.epoch);
    lastVersion = Math.max(lastVersion, versionOf(name.last));
  }
  return segments === 0 ? undefined : { segments, newestEpoch, lastVersion };
}
