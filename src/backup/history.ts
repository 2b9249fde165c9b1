/**
 * What a bucket holds: which objects are history, and in which order. Nothing
 * beyond a seal is. A number that is missing with a later one there is damage,
 * never the end of a history.
 */
import { fromUtf8 } from "../common/bytes.ts";
import { StartupError } from "../common/errors.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { withArchives } from "./archive.ts";
import {
  beginningMs,
  type Generation,
  hexVersion,
  type Manifest,
  type Seal,
} from "./manifest.ts";
import { following, hasMissing, inOrder, missingBetween } from "./missing.ts";
import {
  differentialKey,
  parseSegmentKey,
  type SegmentName,
  segmentsPrefix,
  segmentsPrefixOf,
  snapshotIndexKey,
  snapshotsPrefix,
  versionOf,
} from "./names.ts";
import { contentWithoutManifest } from "./unclaimed.ts";

export interface ListedSegment extends SegmentName {
  key: string;
  sizeBytes: number;
}

export interface SnapshotPartInfo {
  key: string;
  sizeBytes: number;
  /** Undefined in a backup of another program. */
  entries?: number;
  sha256?: string;
}

/** `snapshot.json`. */
export interface SnapshotIndex {
  version: number;
  parts: SnapshotPartInfo[];
  /** Undefined in a backup of another program. */
  totals?: { entries: number; queueMessages: number };
}

export interface Listing {
  /** In order: epochs one after the other, each without gaps. */
  history: ListedSegment[];
  /** What lies there and is not history: late, or foreign. */
  strays: string[];
  /** The first segment that is missing; nothing behind it is in `history`. */
  gap: Gap | undefined;
  /** The newest version in the name of any segment; 0 where there is none. */
  newestVersion: number;
}

/** A listing may begin with a segment that is known to be there. */
export interface ListedFrom {
  epoch: number;
  tsn: number;
}

export interface Gap {
  generation: string;
  epoch: number;
  tsn: number;
}

/**
 * The history as this version of the manifest has it: what later owners have
 * written since is no part of it.
 * @throws StartupError where a segment is there twice
 */
export async function listSegments(
  objects: ObjectStore,
  generation: string,
  { seals, epoch: newestEpoch, head }: Pick<
    Manifest,
    "seals" | "epoch" | "head"
  >,
  signal?: AbortSignal,
  from: ListedFrom = { epoch: 0, tsn: 1 },
): Promise<Listing> {
  const epochs = new Map<number, Map<number, ListedSegment>>();
  const listing: Listing = {
    history: [],
    strays: [],
    gap: undefined,
    newestVersion: 0,
  };
  const prefix = segmentsPrefix(generation);
  const options = from.epoch === 0 ? { signal } : {
    signal,
    startAfter: segmentsPrefixOf(generation, from.epoch, from.tsn),
  };
  for await (const info of objects.list(prefix, options)) {
    const { key, sizeBytes } = info;
    const name = parseSegmentKey(generation, key);
    if (name === undefined) {
      listing.strays.push(key);
      continue;
    }
    if (name.epoch > newestEpoch) continue;
    let epoch = epochs.get(name.epoch);
    if (epoch === undefined) epochs.set(name.epoch, epoch = new Map());
    const twin = epoch.get(name.tsn);
    if (twin !== undefined) {
      throw new StartupError(
        `The backup holds two segments of one number, ${twin.key} and ${key}: one of them is not ours. Nothing was restored; find out who wrote it and move it away.`,
      );
    }
    epoch.set(name.tsn, { ...name, key, sizeBytes });
    listing.newestVersion = Math.max(
      listing.newestVersion,
      versionOf(name.last),
    );
  }
  const isListed = (end: Seal) =>
    end.generation === generation && end.epoch >= from.epoch;
  const sealed = seals.filter(isListed);
  const known = head && isListed(head) ? head : undefined;
  const numbers = new Set([...epochs.keys(), ...sealed.map((s) => s.epoch)]);
  if (known) numbers.add(known.epoch);
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const epoch = epochs.get(number) ?? new Map<number, ListedSegment>();
    const seal = sealed.find((seal) => seal.epoch === number);
    let lastTsn = seal?.lastTsn ?? 0;
    if (seal === undefined) {
      if (known?.epoch === number) lastTsn = known.lastTsn;
      for (const tsn of epoch.keys()) lastTsn = Math.max(lastTsn, tsn);
    }
    for (
      let tsn = number === from.epoch ? from.tsn : 1;
      tsn <= lastTsn;
      tsn++
    ) {
      const segment = epoch.get(tsn) ??
        await findSegment(objects, generation, { epoch: number, tsn }, signal);
      if (segment === undefined) {
        listing.gap = { generation, epoch: number, tsn };
        return listing;
      }
      listing.history.push(segment);
    }
    for (const segment of epoch.values()) {
      if (segment.tsn > lastTsn) listing.strays.push(segment.key);
    }
  }
  return listing;
}

/**
 * A listing may leave out what was put after it began, and show what was put
 * after that. One that begins now shows it, because the later one was there.
 */
async function findSegment(
  objects: ObjectStore,
  generation: string,
  { epoch, tsn }: Pick<SegmentName, "epoch" | "tsn">,
  signal: AbortSignal | undefined,
): Promise<ListedSegment | undefined> {
  const prefix = segmentsPrefixOf(generation, epoch, tsn);
  for await (const { key, sizeBytes } of objects.list(prefix, { signal })) {
    const name = parseSegmentKey(generation, key);
    if (name !== undefined) return { ...name, key, sizeBytes };
  }
  return undefined;
}

/** What a person can do about a gap; undefined where there is none. */
export function damageOf(
  { history, gap }: Listing,
  snapshotVersion: number,
): StartupError | undefined {
  if (gap === undefined) return undefined;
  const last = history.at(-1);
  const reached = last ? versionOf(last.last) : snapshotVersion;
  return new StartupError(
    `The backup misses segment ${gap.tsn} of epoch ${gap.epoch} in ${
      segmentsPrefix(gap.generation)
    }: it was there, and was deleted or lost. Nothing was restored or served, and the backup is as it was. Bring the object back, from an older version in the bucket or a copy of it. Otherwise it is a person's decision what counts: \`restore --at ${
      hexVersion(reached)
    }\` gives everything before it, and a database file that still has everything can go on with a backup URL of its own.`,
  );
}

/** @throws StartupError where there is no whole snapshot */
export async function readSnapshotIndex(
  objects: ObjectStore,
  generation: string,
): Promise<SnapshotIndex> {
  const key = snapshotIndexKey(generation);
  const object = await objects.get(key);
  if (object !== undefined) {
    try {
      return parseIndex(JSON.parse(fromUtf8(object.data) ?? ""));
    } catch {
      throw new StartupError(
        `The backup's ${key} is damaged. Nothing was restored; choose an older generation with \`restore --at\`.`,
      );
    }
  }
  const differential = await objects.get(differentialKey(generation));
  if (generation === "" && differential === undefined) {
    throw await contentWithoutManifest(objects) ?? new StartupError(
      `There is no backup in ${objects.url}: neither its manifest nor a snapshot is there. Nothing was restored; check the URL.`,
    );
  }
  const stamp = differential && fromUtf8(differential.data)?.trim();
  if (stamp === undefined || !/^[0-9a-f]{20}$/.test(stamp)) {
    throw new StartupError(
      `The backup has no whole snapshot in ${
        generation || "this folder"
      }: ${key} is missing. Nothing was restored.`,
    );
  }
  const parts: SnapshotPartInfo[] = [];
  for await (const info of objects.list(snapshotsPrefix(generation))) {
    parts.push({ key: info.key, sizeBytes: info.sizeBytes });
  }
  return { version: versionOf(stamp), parts };
}

function parseIndex(object: Record<string, unknown>): SnapshotIndex {
  const number = (value: unknown): number => {
    if (!Number.isSafeInteger(value)) throw new TypeError("no number");
    return value as number;
  };
  const text = (value: unknown): string => {
    if (typeof value !== "string") throw new TypeError("no text");
    return value;
  };
  const parts = (object.parts as Record<string, unknown>[]).map((part) => ({
    key: text(part.key),
    sizeBytes: number(part.sizeBytes),
    entries: number(part.entries),
    sha256: text(part.sha256),
  }));
  return {
    version: versionOf(text(object.version)),
    parts,
    totals: {
      entries: number(object.entries),
      queueMessages: number(object.queueMessages),
    },
  };
}

/** What to restore: everything, or the state at a version or a time. */
export type RestorePoint =
  | { kind: "latest" }
  | { kind: "version"; version: number }
  | { kind: "time"; timeMs: number };

export interface RestorePlan {
  generation: string;
  /** Empty where another program wrote the backup. */
  databaseId: string;
  snapshot: SnapshotIndex;
  /** When the snapshot's last commit was made; 0 where that is not known. */
  snapshotTimeMs: number;
  segments: ListedSegment[];
  strays: string[];
  point: RestorePoint;
  sizeBytes: number;
  /** What comes after the segments is missing: what to say of it. */
  damage: StartupError | undefined;
}

/**
 * @param manifest undefined where the URL is that of a generation's folder
 * @throws StartupError where the point cannot be restored
 */
export async function planRestore(
  objects: ObjectStore,
  manifest: Manifest | undefined,
  point: RestorePoint,
): Promise<RestorePlan> {
  if (manifest && point.kind !== "latest" && !reaches(manifest, point)) {
    manifest = await withArchives(objects, manifest);
  }
  const generation = manifest === undefined
    ? ""
    : generationOf(manifest, point);
  const snapshot = await readSnapshotIndex(objects, generation);
  const listing = await listSegments(
    objects,
    generation,
    manifest ?? { seals: [], epoch: Infinity },
  );
  const { history, strays } = listing;
  let damage = damageOf(listing, snapshot.version);
  if (damage && point.kind === "latest") throw damage;
  const next = manifest && following(manifest, generation);
  // A time is known to be before it when the segments have been read.
  if (point.kind === "time" && hasMissing(next)) {
    damage ??= missingBetween(generation, next);
  }
  let segments = history;
  if (point.kind === "version") {
    const end = history.at(-1);
    const last = end ? versionOf(end.last) : snapshot.version;
    // A time is known when the segments before the gap have been read.
    if (damage && point.version > last) throw damage;
    if (hasMissing(next) && point.version > next.missingAfterVersion) {
      throw missingBetween(generation, next);
    }
    // An older program did not note whether something is missing.
    if (
      point.version > last && next && next.missingAfterVersion === undefined
    ) {
      throw new StartupError(
        `The backup's history between ${generation} and the generation after it does not reach that version. Nothing was restored.`,
      );
    }
    segments = history.filter((s) => versionOf(s.first) <= point.version);
  }
  let sizeBytes = 0;
  for (const part of snapshot.parts) sizeBytes += part.sizeBytes;
  for (const segment of segments) sizeBytes += segment.sizeBytes;
  return {
    generation,
    databaseId: manifest?.databaseId ?? "",
    snapshot,
    snapshotTimeMs: manifest?.generations
      .find(({ name }) => name === generation)?.snapshotTimeMs ?? 0,
    segments,
    strays,
    point,
    sizeBytes,
    damage,
  };
}

/** Whether a generation that the manifest itself names has the point. */
function reaches({ generations }: Manifest, point: RestorePoint): boolean {
  return generations.some((generation) => isBefore(generation, point));
}

function isBefore(generation: Generation, point: RestorePoint): boolean {
  if (point.kind === "latest") return true;
  return point.kind === "version"
    ? generation.snapshotVersion <= point.version
    : beginningMs(generation) <= point.timeMs;
}

function generationOf(manifest: Manifest, point: RestorePoint): string {
  if (manifest.generation === null) {
    throw new StartupError(
      "The backup holds no whole snapshot yet: its first one was not finished. Nothing was restored.",
    );
  }
  if (point.kind === "latest") return manifest.generation;
  const fitting = inOrder(manifest).findLast((generation) =>
    isBefore(generation, point)
  );
  if (fitting === undefined) {
    throw new StartupError(
      "The backup does not reach that far back (`backup status` lists what it holds). Nothing was restored.",
    );
  }
  return fitting.name;
}
