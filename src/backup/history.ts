/**
 * What a bucket holds: which objects are history, and in which order. Nothing
 * beyond a seal is. A number that is missing with a later one there is damage,
 * never the end of a history.
 */
import { fromUtf8 } from "../common/bytes.ts";
import { messageOf, StartupError } from "../common/errors.ts";
import { sha256 } from "../log/segment.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { withArchives } from "./archive.ts";
import { pinned } from "./branches.ts";
import { manifestOfFolder } from "./copies.ts";
import { lastVersionOf, listFolder } from "./folder.ts";
import {
  beginningMs,
  type Generation,
  hexVersion,
  type LostRange,
  type Manifest,
  type Seal,
  VERSION_LEAP,
} from "./manifest.ts";
import {
  following,
  givenUp,
  givenUpVersion,
  hasMissing,
  inOrder,
  lostInLeap,
  missingBetween,
} from "./missing.ts";
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
    const last = epoch.get(lastTsn);
    if (seal && last && versionOf(last.last) !== seal.lastVersion) {
      throw new StartupError(
        `The backup's manifest ends epoch ${number} of ${
          generation || "this folder"
        } at segment ${lastTsn} with version ${
          hexVersion(seal.lastVersion)
        }, and ${last.key} ends with another one: one of the two was changed. Nothing was restored or changed; bring an older version of manifest.json back.`,
      );
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

/** The folder of another program. */
async function listForeign(objects: ObjectStore): Promise<Listing> {
  const { segments, strays } = await listFolder(objects);
  const newestVersion = lastVersionOf(segments);
  return { history: segments, strays, gap: undefined, newestVersion };
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
    }\` gives everything before it, \`backup repair\` lets this backup go on from there, and so from everything where a database file of its last owner still has it.`,
  );
}

/**
 * @param known what the manifest records of it
 * @throws StartupError where there is no whole snapshot
 */
export async function readSnapshotIndex(
  objects: ObjectStore,
  generation: string,
  known?: Generation,
): Promise<SnapshotIndex> {
  const key = snapshotIndexKey(generation);
  const object = await objects.get(key);
  if (object !== undefined) {
    const damaged = (why: string) =>
      new StartupError(
        `The backup's ${key} is damaged: ${why}. Nothing was restored.`,
      );
    const digest = known?.snapshotSha256;
    if (digest && (await sha256(object.data)).toHex() !== digest) {
      throw damaged("it is not the one that the manifest records");
    }
    let index: SnapshotIndex;
    try {
      index = parseIndex(generation, JSON.parse(fromUtf8(object.data) ?? ""));
    } catch (error) {
      throw damaged(messageOf(error));
    }
    if (known && index.version !== known.snapshotVersion) {
      throw damaged("its version is not the one that the manifest records");
    }
    return index;
  }
  // Every generation that a manifest names has one; others need not.
  if (generation !== "") {
    throw new StartupError(
      `The backup has no whole snapshot in ${generation}: ${key} is missing. Nothing was restored.`,
    );
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

function parseIndex(
  generation: string,
  object: Record<string, unknown>,
): SnapshotIndex {
  const number = (value: unknown): number => {
    if (!Number.isSafeInteger(value)) throw new TypeError("no number");
    return value as number;
  };
  const text = (value: unknown): string => {
    if (typeof value !== "string") throw new TypeError("no text");
    return value;
  };
  const parts = (object.parts as Record<string, unknown>[]).map((part) => ({
    key: partKey(generation, text(part.key)),
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

/** A generation's folder is a backup by itself, without its own name. */
function partKey(generation: string, key: string): string {
  const folder = snapshotsPrefix(generation);
  const name = key.slice(key.lastIndexOf("/") + 1);
  if (!key.endsWith(folder + name)) throw new TypeError("a foreign part");
  return folder + name;
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
  /** What a person has given up of this generation. */
  lost: readonly LostRange[];
  /** The newest version that this generation has, or can reach. */
  endVersion: number;
  /** Whether history goes on in another generation after it. */
  isPast: boolean;
  /** Where the generations before this one end; undefined: there is none. */
  beforeVersion: number | undefined;
}

/**
 * @param manifest undefined where the URL is that of a generation's folder
 * @param damaged generations that are of no use: an earlier one may reach the
 *   version as well
 * @throws StartupError where the point cannot be restored
 */
export async function planRestore(
  objects: ObjectStore,
  manifest: Manifest | undefined,
  point: RestorePoint,
  damaged: ReadonlySet<string> = new Set(),
): Promise<RestorePlan> {
  if (manifest && point.kind !== "latest" && !reaches(manifest, point)) {
    manifest = await withArchives(objects, manifest);
  }
  const generation = manifest === undefined
    ? ""
    : generationOf(manifest, point, damaged);
  // A generation's folder tells of itself, where a server of ours made it.
  const records = manifest ?? await manifestOfFolder(objects);
  const known = records?.generations.find(({ name }) => name === generation);
  const beforeVersion = known && endBefore(records!, known);
  let snapshot: SnapshotIndex;
  try {
    snapshot = await readSnapshotIndex(objects, generation, known);
  } catch (error) {
    if (!(error instanceof StartupError) || beforeVersion === undefined) {
      throw error;
    }
    if (isReachedBefore(point, beforeVersion)) {
      const others = new Set([...damaged, generation]);
      return await planRestore(objects, manifest, point, others);
    }
    const isPresent = manifest?.generation === generation;
    throw new StartupError(
      `${error.message} ${offer(beforeVersion)}${
        isPresent ? ` ${REPAIR_OFFER}` : ""
      }`,
    );
  }
  if (records && snapshot.totals === undefined) {
    throw new StartupError(
      `The backup has no whole snapshot in this folder: ${
        snapshotIndexKey(generation)
      } is missing. Nothing was restored.`,
    );
  }
  const listing = snapshot.totals === undefined
    ? await listForeign(objects)
    : await listSegments(objects, generation, {
      seals: records?.seals ?? [],
      epoch: manifest?.epoch ?? Infinity,
      head: records?.head,
    });
  const { history, strays } = listing;
  let damage = damageOf(listing, snapshot.version);
  if (damage && point.kind === "latest") throw damage;
  const next = manifest && following(manifest, generation);
  // A time is known to be before it when the segments have been read.
  if (point.kind === "time" && hasMissing(next)) {
    damage ??= missingBetween(generation, next);
  }
  const nextAfter = (version: number) => {
    const segment = history.find(({ first }) => versionOf(first) > version);
    return segment ? versionOf(segment.first) : next?.snapshotVersion;
  };
  const lost = givenUp(manifest ?? {}, generation, nextAfter);
  const end = history.at(-1);
  const last = end ? versionOf(end.last) : snapshot.version;
  let endVersion = last;
  let segments = history;
  if (point.kind === "version") {
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
    const reached = segments.at(-1);
    const before = reached ? versionOf(reached.last) : snapshot.version;
    const after = nextAfter(before);
    const error = givenUpVersion(lost, point.version) ??
      (after && lostInLeap(point.version, before, after));
    if (error) throw error;
    // Up to the next snapshot there are at most commits that changed nothing.
    if (next?.missingAfterVersion === null) {
      const isLeap = next.snapshotVersion - last >= VERSION_LEAP;
      if (!isLeap) endVersion = Math.max(last, next.snapshotVersion - 1);
    }
  }
  const sizeBytes = sumBytes(snapshot.parts) + sumBytes(segments);
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
    lost,
    endVersion,
    isPast: manifest !== undefined && generation !== manifest.generation,
    beforeVersion,
  };
}

/** Where the generation before this one ends. */
function endBefore(
  { generations, seals }: Pick<Manifest, "generations" | "seals">,
  { snapshotVersion }: Generation,
): number | undefined {
  const before = generations
    .filter((generation) => generation.snapshotVersion < snapshotVersion)
    .sort((a, b) => a.snapshotVersion - b.snapshotVersion).at(-1);
  if (before === undefined) return undefined;
  return Math.max(
    before.snapshotVersion,
    ...seals.filter(({ generation }) => generation === before.name)
      .map(({ lastVersion }) => lastVersion),
  );
}

/** Whether a generation before this one has the point, too. */
export function isReachedBefore(
  point: RestorePoint,
  beforeVersion: number | undefined,
): boolean {
  return point.kind === "version" && beforeVersion !== undefined &&
    point.version <= beforeVersion;
}

/** @param version that has been looked at, or is known to be whole */
export function offer(version: number): string {
  return `\`restore --at ${
    hexVersion(version)
  }\` gives everything before the damage.`;
}

/** Of a snapshot of the present generation that is not whole. */
export const REPAIR_OFFER =
  "`backup repair` lets this backup go on from there, once nobody can bring the object back; it says what is given up then, and asks.";

/**
 * Whether a generation that the manifest itself names has the point. That of a
 * branch may be from long before: what came after it is in an archive.
 */
function reaches(manifest: Manifest, point: RestorePoint): boolean {
  const former = pinned(manifest);
  return manifest.generations.some((generation) =>
    !former.has(generation.name) && isBefore(generation, point)
  );
}

function isBefore(generation: Generation, point: RestorePoint): boolean {
  if (point.kind === "latest") return true;
  return point.kind === "version"
    ? generation.snapshotVersion <= point.version
    : beginningMs(generation) <= point.timeMs;
}

function generationOf(
  manifest: Manifest,
  point: RestorePoint,
  damaged: ReadonlySet<string>,
): string {
  if (manifest.generation === null) {
    throw new StartupError(
      "The backup holds no whole snapshot yet: its first one was not finished. Nothing was restored.",
    );
  }
  if (point.kind === "latest") return manifest.generation;
  const fitting = inOrder(manifest).findLast((generation) =>
    isBefore(generation, point) && !damaged.has(generation.name)
  );
  if (fitting === undefined) {
    throw new StartupError(
      "The backup does not reach that far back (`backup status` lists what it holds). Nothing was restored.",
    );
  }
  return fitting.name;
}

export function sumBytes(parts: readonly { sizeBytes: number }[]): number {
  return parts.reduce((total, { sizeBytes }) => total + sizeBytes, 0);
}
