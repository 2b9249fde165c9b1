/**
 * Disk and bucket at launch: which of them is right. The decision is a pure
 * function over what is known; carrying it out is below.
 */
import type { Clock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import type { Patience } from "../object_store/patience.ts";
import type { LocalEngine } from "../store/local_engine.ts";
import type { LocalDatabase } from "../store/restore_target.ts";
import { withArchives } from "./archive.ts";
import type { LogSize } from "./generation.ts";
import { planRestore, type RestorePlan, sumBytes } from "./history.ts";
import {
  type Branch,
  hexVersion,
  type LostRange,
  type Manifest,
  type Seal,
} from "./manifest.ts";
import { epochOf, MANIFEST_KEY } from "./names.ts";
import type { HistoryEnd } from "./history_end.ts";
import { restore } from "./restore.ts";

/** Names of what a backup keeps in the database (`denokv_state`). */
export const STATE = {
  url: "backup_url",
  /** The epoch in which this file was last served, and its launch. */
  epoch: "backup_epoch",
  owner: "backup_owner",
  /** On which machine, and by which lock (`same_machine.ts`). */
  machine: "backup_machine",
  /** Which place of that URL it was (`ObjectStore.placeId`). */
  place: "backup_place",
  /** How far a file that only followed has come (`database/follower.ts`). */
  followed: "backup_followed",
} as const;

/**
 * Refuses a folder that has the URL of this database's backup and is another
 * one: what lies below the mount point of a share that is not mounted. Before
 * anything is written there.
 * @throws StartupError
 */
export async function requirePlace(
  objects: ObjectStore,
  local: LocalDatabase | undefined,
  logger: Logger,
): Promise<void> {
  if (!objects.url.startsWith("file:")) return;
  const { url, placeId } = objects;
  const known = local?.state(STATE.url) === url
    ? local.state(STATE.place)
    : undefined;
  if (placeId !== undefined && known === placeId) return;
  const isBegun = await objects.head(MANIFEST_KEY) !== undefined;
  // A marker that was deleted is made again: what the backup holds is asked for.
  if (known && !(isBegun && placeId === undefined)) {
    throw new StartupError(
      `${url} is not the place that this database was backed up to: ${
        isBegun
          ? "it holds another backup. Mount the share with its own; or, where this backup is the right one, move the local file away to restore it"
          : "it holds no backup. Mount the share with it; or, where it is gone for good, give --backup another URL, in which a new one begins"
      }. Nothing was written.`,
    );
  }
  if (!isBegun) {
    logger.warn(
      "The folder of the backup is empty: a new backup begins in it. If a share with a backup should be mounted there, stop the server and mount it first.",
      { url },
    );
  }
}

export interface LaunchFacts {
  /** Undefined where there is no file. */
  local: {
    version: number;
    contentVersion: number;
    /** The epoch of its last launch with this backup; undefined: none. */
    epoch: number | undefined;
  } | undefined;
  /** Undefined where the bucket holds no history yet. */
  bucket: {
    end: HistoryEnd;
    /** Ends of epochs, in any generation; all before ours are sealed. */
    seals: readonly Seal[];
    /** The present generation's snapshot. */
    snapshotVersion: number;
    /** What a person has given up of it. */
    lost?: readonly LostRange[];
    branches?: readonly Branch[];
  } | undefined;
}

export type LaunchDecision =
  /** Nothing anywhere. */
  | { action: "new" }
  /** The file begins the history. */
  | { action: "adopt" }
  /** The file is the history's end, or ahead of it in an epoch that was its own. */
  | { action: "use" }
  /** The file is an earlier state of the history. */
  | { action: "catchUp" }
  | { action: "restore" }
  /** What the file holds is not of this history, or cannot be shown to be. */
  | { action: "setAside"; why: string };

/**
 * The file belongs to the history in two cases: nobody has written to the
 * bucket since its last launch, and it holds all that the bucket has; or it
 * ended its epoch with everything shipped.
 */
export function decide({ local, bucket }: LaunchFacts): LaunchDecision {
  if (bucket === undefined) {
    return { action: local === undefined ? "new" : "adopt" };
  }
  if (local === undefined) return { action: "restore" };
  const { epoch, contentVersion } = local;
  const { end, seals, snapshotVersion, lost = [], branches = [] } = bucket;
  if (epoch === undefined) {
    return {
      action: "setAside",
      why: "it was never served with this backup",
    };
  }
  const haveOthersWritten = epochOf(end.generation) > epoch ||
    seals.some((seal) =>
      seal.generation === end.generation && seal.epoch > epoch &&
      seal.lastTsn > 0
    ) ||
    // What was given up was written, too.
    lost.some((range) =>
      range.generation === end.generation && range.lastEpoch > epoch
    );
  if (!haveOthersWritten) {
    return contentVersion >= end.version ? { action: "use" } : {
      action: "setAside",
      why: "it is an older copy of itself: the backup holds later writes",
    };
  }
  // Its epoch's seal may be in an archive then.
  if (contentVersion < snapshotVersion) {
    const branch = branches.find((former) =>
      former.lastVersion >= contentVersion
    );
    return {
      action: "setAside",
      why: branch
        ? `the backup was rewound since; the branch ${branch.name} has what was shipped of the line that it is of`
        : "it is too far behind to be caught up",
    };
  }
  const isAncestor = seals.some((seal) =>
    seal.epoch === epoch && seal.lastVersion === contentVersion
  );
  return isAncestor ? { action: "catchUp" } : {
    action: "setAside",
    why:
      "another instance took over while it held writes that were not in the backup",
  };
}

export interface PrepareOptions {
  engine: Pick<LocalEngine, "create" | "catchUp" | "setAside">;
  url: string;
  /** A look at the file, under the instance lock. */
  local: LocalDatabase | undefined;
  objects: ObjectStore;
  manifest: Manifest;
  /**
   * Writes a leap over `version` into the manifest, before a version above it
   * is issued; resolves with the one that they go on after.
   */
  announceLeap(version: number): Promise<number>;
  end: HistoryEnd | undefined;
  clock: Clock;
  progress?(doneBytes: number, totalBytes: number): void;
  signal?: AbortSignal;
  patience?: Patience;
}

export interface Prepared {
  decision: LaunchDecision;
  /** The version up to which the bucket holds the history. */
  bucketVersion: number;
  /** The version after which the file's log has what is to be shipped. */
  logVersion: number;
  /** The present generation's log, in the bucket. */
  log: LogSize;
  snapshotBytes: number;
  /** Where a file was put that did not belong. */
  asideName?: string;
  restored?: { entries: number; logEntries: number; sizeBytes: number };
}

/**
 * Makes the local file what the history says, under the instance lock.
 * @throws StartupError where it cannot be done; the file is as it was, or set aside
 */
export async function prepare(options: PrepareOptions): Promise<Prepared> {
  const { local, objects, manifest, end } = options;
  const decision = decide(factsOf(options));
  const { action } = decision;
  if (action === "new" || action === "adopt" || end === undefined) {
    const none = {
      bucketVersion: 0,
      logVersion: 0,
      log: { sizeBytes: 0, segments: 0 },
      snapshotBytes: 0,
    };
    return { decision, ...none };
  }
  let plan: RestorePlan;
  try {
    plan = await planRestore(objects, manifest, { kind: "latest" });
  } catch (error) {
    if (action !== "use" || !(error instanceof StartupError)) throw error;
    throw new StartupError(
      `${error.message} The local file was not changed, and has everything that this backup had. Bring the object back; or give --backup another URL, in which a new backup of that file begins, and keep this one for its earlier states.`,
    );
  }
  const prepared: Prepared = {
    decision,
    bucketVersion: end.version,
    logVersion: end.version,
    log: { sizeBytes: sumBytes(plan.segments), segments: plan.segments.length },
    snapshotBytes: sumBytes(plan.snapshot.parts),
  };
  if (action === "use") return prepared;
  if (action === "setAside") {
    const suffix = asideSuffix(local!, await isInHistory(options));
    prepared.asideName = options.engine.setAside(suffix);
  }
  prepared.restored = await fill(options, plan, end, action === "catchUp");
  return prepared;
}

/** Under which a file is kept; `store/sqlite/aside.ts` reads it again. */
export function asideSuffix(
  local: LocalDatabase,
  isInHistory: boolean,
): string {
  return `epoch-${local.state(STATE.epoch) || "none"}-${
    hexVersion(local.version)
  }${isInHistory ? "-in-history" : ""}`;
}

/**
 * Whether the history has all that the file holds: it is as its launch left it
 * when everything of it was shipped. Anything less is no proof.
 */
export async function isInHistory(
  options: Pick<
    PrepareOptions,
    "local" | "url" | "manifest" | "end" | "objects"
  >,
): Promise<boolean> {
  const { local } = factsOf(options);
  if (local?.epoch === undefined || options.local!.hasForeignWrites) {
    return false;
  }
  const { seals } = await withArchives(options.objects, options.manifest)
    .catch((error) => {
      if (error instanceof StartupError) return options.manifest;
      throw error;
    });
  return seals.some(({ epoch, lastVersion }) =>
    epoch === local.epoch && lastVersion === local.contentVersion
  );
}

/** What `decide` needs, out of a file and a manifest. */
export function factsOf(
  { local, url, manifest, end }: Pick<
    PrepareOptions,
    "local" | "url" | "manifest" | "end"
  >,
): LaunchFacts {
  const isOurs = local?.databaseId === manifest.databaseId &&
    local?.state(STATE.url) === url;
  const stated = local?.state(STATE.epoch);
  return {
    local: local && {
      version: local.version,
      contentVersion: local.contentVersion,
      // Empty in a file that followed another instance since.
      epoch: isOurs && stated ? Number(stated) : undefined,
    },
    bucket: end && {
      end,
      seals: manifest.seals,
      snapshotVersion: manifest.generations
        .find(({ name }) => name === end.generation)!.snapshotVersion,
      lost: manifest.lost,
      branches: manifest.branches,
    },
  };
}

async function fill(
  options: PrepareOptions,
  plan: RestorePlan,
  end: HistoryEnd,
  isCatchUp: boolean,
) {
  const { engine, local, objects, clock, progress, signal, patience } = options;
  const target = await (isCatchUp ? engine.catchUp() : engine.create(signal));
  try {
    const afterVersion = isCatchUp ? local!.contentVersion : undefined;
    const result = await restore({
      objects,
      plan,
      target,
      clock,
      afterVersion,
      progress,
      signal,
      patience,
    });
    if (result.version !== end.version) {
      throw new StartupError(
        `The backup should end at ${
          hexVersion(end.version)
        }, and what was read ends at ${
          hexVersion(result.version)
        }. Nothing was put into place.`,
      );
    }
    const leapToVersion = await options.announceLeap(
      Math.max(end.version, local?.version ?? 0),
    );
    await target.finish({
      databaseId: options.manifest.databaseId,
      version: end.version,
      timeMs: result.timeMs,
      leapToVersion,
      state: { [STATE.url]: options.url },
    });
    return result;
  } catch (error) {
    await target.discard();
    throw error;
  }
}
