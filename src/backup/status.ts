/** What a bucket tells of its backup, for `backup status`. */
import type { Clock } from "../common/clock.ts";
import type { Random } from "../common/random.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { withArchives } from "./archive.ts";
import { readNewestManifest } from "./copies.ts";
import {
  damageOf,
  listSegments,
  readSnapshotIndex,
  sumBytes,
} from "./history.ts";
import { beginningMs, hexVersion, type Manifest } from "./manifest.ts";
import { ManifestStore } from "./manifest_store.ts";
import { versionOf } from "./names.ts";
import { expiredGenerations } from "./retention.ts";
import { contentWithoutManifest } from "./unclaimed.ts";
import { lastVerified } from "./verify.ts";

export interface BucketStatus {
  databaseId: string;
  epoch: number;
  /** `owned`: its lease runs. `idle`: it may run, and has nothing to ship. */
  ownership: "owned" | "idle" | "released";
  /** The newest versionstamp in the bucket. */
  versionstamp: string;
  generation: {
    name: string;
    startedMs: number;
    snapshotEntries: number | undefined;
    snapshotBytes: number;
    segments: number;
    logBytes: number;
  };
  /** The oldest moment that can be restored. */
  recoverableSinceMs: number;
  generations: number;
  /** Generations that were begun and are not complete. */
  making: string[];
  /**
   * What no recovery needs any more once the retention has passed since then;
   * it is deleted when a new generation is complete. The oldest first.
   */
  expiring: { name: string; endedMs: number }[];
  /** What is being deleted, or was when a pass was interrupted. */
  deleting: string[];
  /** Objects that are not history: late, or foreign. */
  strays: string[];
  /** What is missing, in a sentence; undefined where nothing is. */
  damage: string | undefined;
  lastVerified: { atMs: number; version: string } | undefined;
}

/**
 * @returns undefined where the bucket holds no backup
 * @throws StartupError where it holds one without its manifest
 */
export async function bucketStatus(
  objects: ObjectStore,
  clock: Clock,
  random: Random,
): Promise<BucketStatus | undefined> {
  const found = await readNewestManifest(
    objects,
    new ManifestStore(objects, clock, random),
  );
  if (found === undefined) {
    const content = await contentWithoutManifest(objects);
    if (content) throw content;
  }
  if (found === undefined || found.manifest.generation === null) {
    return undefined;
  }
  const manifest = await withArchives(objects, found.manifest);
  const name = found.manifest.generation;
  const snapshot = await readSnapshotIndex(
    objects,
    name,
    manifest.generations.find((generation) => generation.name === name),
  );
  const listing = await listSegments(objects, name, manifest);
  const { history, strays } = listing;
  const last = history.at(-1);
  const startedMs = (generation: string) =>
    manifest.generations.find((g) => g.name === generation)!.startedMs;
  return {
    databaseId: manifest.databaseId,
    epoch: manifest.epoch,
    ownership: manifest.owner === null
      ? "released"
      : manifest.leaseUntilMs > clock.nowMs()
      ? "owned"
      : "idle",
    versionstamp: hexVersion(last ? versionOf(last.last) : snapshot.version),
    generation: {
      name,
      startedMs: startedMs(name),
      snapshotEntries: snapshot.totals?.entries,
      snapshotBytes: sumBytes(snapshot.parts),
      segments: history.length,
      logBytes: sumBytes(history),
    },
    recoverableSinceMs: Math.min(...manifest.generations.map(beginningMs)),
    generations: manifest.generations.length,
    expiring: expiringOf(manifest),
    making: manifest.making,
    deleting: manifest.deleting,
    strays,
    damage: damageOf(listing, snapshot.version)?.message,
    lastVerified: await lastVerified(objects),
  };
}

/** All that is not the present one, nor kept for a branch. */
function expiringOf(manifest: Manifest): BucketStatus["expiring"] {
  const names = new Set(expiredGenerations(manifest, Infinity, 0));
  return manifest.generations.flatMap(({ name, endedMs }) =>
    names.has(name) && endedMs !== null ? [{ name, endedMs }] : []
  );
}
