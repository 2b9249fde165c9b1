/**
 * What a backup of ours has after a position: the one answer for a replica and
 * for a warm standby.
 */
import type { ObjectStore } from "../object_store/object_store.ts";
import {
  damageOf,
  type ListedSegment,
  listSegments,
} from "../backup/history.ts";
import type { Manifest, Seal } from "../backup/manifest.ts";
import { epochOf, versionOf } from "../backup/names.ts";

/** The last segment that a file has; `tsn` 0: the snapshot, and none yet. */
export interface BackupPosition {
  generation: string;
  epoch: number;
  tsn: number;
  /** The version that the file is at. */
  version: number;
  /** When its commit was made, where it is known. */
  timeMs?: number;
  /**
   * Where that segment ends, if the version is in the middle of the next one,
   * because another source had it.
   */
  chainVersion?: number;
}

export interface BeginAnew {
  kind: "beginAnew";
  why: string;
  /** All that the file has is in the history. */
  isKnown: boolean;
}

export type Following =
  | { kind: "segments"; segments: ListedSegment[] }
  /** The generation is over; the next one goes on at the same state. */
  | { kind: "enter"; position: BackupPosition }
  | { kind: "end" }
  | BeginAnew;

/**
 * @throws StartupError where a segment is missing
 * @throws UnavailableError where the store does not answer
 */
export async function following(
  objects: ObjectStore,
  manifest: Manifest,
  position: BackupPosition,
  signal: AbortSignal,
): Promise<Following> {
  const { generation } = position;
  const isThere = manifest.generations.some(({ name }) => name === generation);
  if (!isThere) {
    const why = "it is too far behind to be caught up";
    return { kind: "beginAnew", why, isKnown: true };
  }
  if (!isHistory(position, manifest.seals)) {
    // What it has of a fenced owner is nowhere else.
    const why = "it holds a segment that came too late to be history";
    return { kind: "beginAnew", why, isKnown: false };
  }
  const from = {
    epoch: position.tsn > 0 ? position.epoch : 0,
    tsn: position.tsn + 1,
  };
  const listing = await listSegments(
    objects,
    generation,
    manifest,
    signal,
    from,
  );
  const damage = damageOf(listing, position.version);
  if (damage) throw damage;
  if (listing.history.length > 0) {
    return { kind: "segments", segments: listing.history };
  }
  if (generation === manifest.generation) return { kind: "end" };
  return await enterNext(objects, manifest, position, signal);
}

/** A segment behind its epoch's seal is none, whoever has applied it. */
function isHistory(position: BackupPosition, seals: readonly Seal[]): boolean {
  const seal = seals.find(({ generation, epoch }) =>
    generation === position.generation && epoch === position.epoch
  );
  return seal === undefined || position.tsn <= seal.lastTsn;
}

/** The generation is over: where does the one after it go on? */
async function enterNext(
  objects: ObjectStore,
  manifest: Manifest,
  { generation, version, timeMs }: BackupPosition,
  signal: AbortSignal,
): Promise<Following> {
  const at = manifest.generations.findIndex(({ name }) => name === generation);
  const next = manifest.generations[at + 1];
  // Both hold what was there when the one followed the other.
  const { history } = await listSegments(objects, next.name, manifest, signal);
  const last = history.findLast((s) => versionOf(s.last) <= version);
  const startsAt = last ? versionOf(last.last) : next.snapshotVersion;
  if (startsAt !== version) {
    const why =
      "the backup goes on from another state, or without a part of its log";
    return { kind: "beginAnew", why, isKnown: true };
  }
  const position = { ...placeOf(next.name, last), version, timeMs };
  return { kind: "enter", position };
}

export function placeOf(
  generation: string,
  last: Pick<ListedSegment, "epoch" | "tsn"> | undefined,
): Pick<BackupPosition, "generation" | "epoch" | "tsn"> {
  return {
    generation,
    epoch: last?.epoch ?? epochOf(generation),
    tsn: last?.tsn ?? 0,
  };
}

/**
 * Where the state of a version is that another source has handed out, such as
 * the primary itself. It may be ahead of what the bucket has.
 */
export async function findPlace(
  objects: ObjectStore,
  manifest: Manifest,
  version: number,
  signal: AbortSignal,
): Promise<BackupPosition | BeginAnew> {
  const generation = manifest.generations.findLast(({ snapshotVersion }) =>
    snapshotVersion <= version
  );
  if (generation === undefined) {
    const why = "it is too far behind to be caught up";
    return { kind: "beginAnew", why, isKnown: true };
  }
  const { name, snapshotVersion } = generation;
  const listing = await listSegments(objects, name, manifest, signal);
  const damage = damageOf(listing, snapshotVersion);
  if (damage) throw damage;
  const { history } = listing;
  const last = history.findLast((s) => versionOf(s.last) <= version);
  const next = history.find((s) => versionOf(s.last) > version);
  const place = placeOf(name, last);
  const isThere = version === (last ? versionOf(last.last) : snapshotVersion) ||
    next !== undefined && versionOf(next.first) <= version;
  // Between two segments of one owner is a commit that changed nothing; behind
  // its last one is what is not in the bucket yet.
  const isOfOwner = place.epoch === (next?.epoch ?? manifest.epoch) &&
    (next !== undefined || name === manifest.generation);
  if (isThere || isOfOwner) {
    const chainVersion = last ? versionOf(last.last) : snapshotVersion;
    return { ...place, version, chainVersion };
  }
  const why = "it has what its primary did not ship before another took over";
  return { kind: "beginAnew", why, isKnown: false };
}

/**
 * Whether it is not known yet where an earlier owner's epoch ends. What it put
 * last may be no history, and a listing that is younger than this manifest may
 * already show what the next owner put behind it.
 */
export function isBetweenOwners(
  { generation, epoch, seals }: Manifest,
): boolean {
  if (generation === null) return false;
  const sealed = new Set(
    seals.filter((seal) => seal.generation === generation)
      .map((seal) => seal.epoch),
  );
  for (let earlier = epochOf(generation); earlier < epoch; earlier++) {
    if (!sealed.has(earlier)) return true;
  }
  return false;
}
