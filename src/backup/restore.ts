/**
 * From the bucket into a database: objects are fetched side by side, verified
 * each on its own and in their order, and put in one after the other. Anything
 * that is not as it was written is named, and nothing of it is kept.
 */
import type { Bytes } from "../common/bytes.ts";
import {
  InvalidRequestError,
  StartupError,
  UnavailableError,
} from "../common/errors.ts";
import type { Clock } from "../common/clock.ts";
import { retry } from "../common/retry.ts";
import { lastVersionAt, timeOf } from "../log/commit_times.ts";
import {
  entriesFault,
  readSegment,
  type SegmentContents,
  sha256,
} from "../log/segment.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { DATA_PATIENCE, Patience } from "../object_store/patience.ts";
import type { RestoreTarget } from "../store/restore_target.ts";
import {
  type ListedSegment,
  offer,
  REPAIR_OFFER,
  type RestorePlan,
  type RestorePoint,
  type SnapshotPartInfo,
} from "./history.ts";
import { givenUpTime } from "./missing.ts";
import { snapshotIndexKey, versionOf } from "./names.ts";

/**
 * Objects on their way at once: four, or more of small ones, whose time is that
 * of the requests. Parts of 4 MiB took 298 MB resident for what parts of 1 MiB
 * do with 189 MB, and no less time.
 */
const CONCURRENCY = 4;
const MAX_SMALL_CONCURRENCY = 32;
const SMALL_BYTES = 1024 * 1024;
/** Those of other programs may be large: then the next waits for the last. */
const MAX_UNDER_WAY_BYTES = 8 * 1024 * 1024;
/** How often an object is asked for while the store does not answer. */
const MAX_TRIES = 8;
const FETCH_RETRY = { firstMs: 200, maxMs: 12_800 };

export interface RestoreOptions {
  objects: ObjectStore;
  plan: RestorePlan;
  target: Pick<RestoreTarget, "load" | "apply">;
  clock: Clock;
  /** The history up to this version is in the target already. */
  afterVersion?: number;
  progress?(doneBytes: number, totalBytes: number): void;
  signal?: AbortSignal;
  patience?: Patience;
}

export interface RestoreResult {
  /** The history's version up to which the target now is. */
  version: number;
  /** When its last commit was made; 0 where that is not known. */
  timeMs: number;
  entries: number;
  logEntries: number;
  sizeBytes: number;
}

/**
 * Leaves the target to be finished or discarded.
 * @throws StartupError where an object is missing or damaged; it is named
 * @throws UnavailableError where the store does not answer
 */
export async function restore(options: RestoreOptions): Promise<RestoreResult> {
  const { beforeVersion, isPast, databaseId } = options.plan;
  const good = { version: beforeVersion, isSnapshotWhole: false };
  try {
    return await restoreAll(options, good);
  } catch (error) {
    if (!(error instanceof DamagedError)) throw error;
    const isRepairable = !good.isSnapshotWhole && !isPast &&
      databaseId !== "" && beforeVersion !== undefined;
    throw new DamagedError(
      `${error.message} ${
        good.version === undefined
          ? "Nothing before it can be restored"
          : offer(good.version).slice(0, -1)
      }; \`backup verify\` looks at all objects.${
        isRepairable ? ` ${REPAIR_OFFER}` : ""
      }`,
    );
  }
}

/** @param good the last version that is known to be whole */
async function restoreAll(
  options: RestoreOptions,
  good: { version: number | undefined; isSnapshotWhole: boolean },
): Promise<RestoreResult> {
  const { plan, target } = options;
  const { snapshot, point } = plan;
  const result: RestoreResult = {
    version: snapshot.version,
    timeMs: plan.snapshotTimeMs,
    entries: 0,
    logEntries: 0,
    sizeBytes: 0,
  };
  const count = (sizeBytes: number) => {
    result.sizeBytes += sizeBytes;
    options.progress?.(result.sizeBytes, plan.sizeBytes);
  };

  if (options.afterVersion === undefined) {
    for await (const { item, bytes } of fetched(options, snapshot.parts)) {
      result.entries += await loadPart(target, item, bytes);
      count(item.sizeBytes);
    }
    const { totals } = snapshot;
    if (
      totals && totals.entries + totals.queueMessages !== result.entries
    ) {
      throw damaged(
        plan.generation + " (snapshot)",
        `it holds ${result.entries} entries, not the ${
          totals.entries + totals.queueMessages
        } that it counts`,
      );
    }
  } else result.version = options.afterVersion;
  const { beforeVersion = 0 } = plan;
  good.isSnapshotWhole = true;
  good.version = Math.max(result.version, beforeVersion);

  // A snapshot of another program is whole only with the log before it.
  const isForeign = snapshot.totals === undefined;
  let appliedVersion = isForeign ? 0 : result.version;
  const segments = isForeign ? plan.segments : plan.segments.filter(
    (segment) => versionOf(segment.last) > result.version,
  );
  let isPast = false;
  const chain = { version: result.version, isForeign };
  for await (
    const { item, contents } of checkedSegments(
      options,
      plan.generation,
      segments,
      chain,
    )
  ) {
    const { entries } = contents;
    const upTo = upToOf(point, contents);
    isPast = point.kind === "time" && upTo < Infinity;
    if (upTo < versionOf(item.first)) break;
    const endsAt = versionOf(item.last);
    try {
      // Commits of another program may share a version, over two segments.
      const after = isForeign ? 0 : appliedVersion;
      const done = await target.apply(entries, after, upTo);
      result.logEntries += done.applied;
      appliedVersion = Math.max(appliedVersion, done.lastVersion);
    } catch (error) {
      if (!(error instanceof InvalidRequestError)) throw error;
      throw damaged(item.key, "its bytes are not those of log entries");
    }
    if (upTo >= endsAt && appliedVersion < endsAt) {
      throw damaged(item.key, "it does not hold what its name says");
    }
    result.version = Math.max(result.version, appliedVersion);
    result.timeMs = timeOf(contents.times, appliedVersion) ?? contents.timeMs;
    good.version = Math.max(result.version, beforeVersion);
    count(item.sizeBytes);
    if (isPast) break;
  }
  // What is missing may be from before that time.
  if (plan.damage && point.kind === "time" && !isPast) throw plan.damage;
  const lost = point.kind === "time" &&
    givenUpTime(plan.lost, result.version, point.timeMs);
  if (lost) throw lost;
  return result;
}

export type FetchOptions = Pick<
  RestoreOptions,
  "objects" | "clock" | "signal" | "patience"
>;

/**
 * Segments in order, each known to be as it was written and to follow the one
 * before it.
 * @param chain the version that the first of them has before it; one of
 *   another program's says nothing of that, and is held to its name instead
 * @throws DamagedError, which names the object
 */
export async function* checkedSegments(
  options: FetchOptions,
  generation: string,
  segments: readonly ListedSegment[],
  { version, isForeign }: { version: number; isForeign: boolean },
): AsyncGenerator<{ item: ListedSegment; contents: SegmentContents }> {
  let chainVersion = version;
  for await (const { item, bytes } of fetched(options, segments)) {
    const contents = await readSegment(bytes);
    if (typeof contents === "string") throw damaged(item.key, contents);
    const { previousVersion, entries } = contents;
    if (previousVersion === undefined && !isForeign) {
      throw damaged(item.key, "its end is missing");
    }
    if (previousVersion !== undefined && isForeign) {
      throw damaged(
        snapshotIndexKey(generation),
        "it is missing, and a server of ours has written one",
      );
    }
    if (previousVersion !== undefined && previousVersion !== chainVersion) {
      throw damaged(
        item.key,
        "it does not follow the segment before it; one between them is missing",
      );
    }
    const fault = isForeign ? entriesFault(entries, item) : undefined;
    if (fault !== undefined) throw damaged(item.key, fault);
    chainVersion = versionOf(item.last);
    yield { item, contents };
  }
}

/** How much of a segment lies before the point; Infinity: all of it. */
function upToOf(
  point: RestorePoint,
  { times, timeMs }: SegmentContents,
): number {
  if (point.kind === "latest") return Infinity;
  if (point.kind === "version") return point.version;
  return timeMs <= point.timeMs ? Infinity : lastVersionAt(times, point.timeMs);
}

async function loadPart(
  target: Pick<RestoreTarget, "load">,
  part: SnapshotPartInfo,
  bytes: Bytes,
): Promise<number> {
  if (bytes.length !== part.sizeBytes) {
    throw damaged(
      part.key,
      `it has ${bytes.length} bytes, not ${part.sizeBytes}`,
    );
  }
  if (part.sha256 !== undefined) {
    if ((await sha256(bytes)).toHex() !== part.sha256) {
      throw damaged(part.key, "its checksum does not fit its contents");
    }
  }
  let entries: number;
  try {
    entries = await target.load(bytes);
  } catch (error) {
    if (!(error instanceof InvalidRequestError)) throw error;
    throw damaged(part.key, error.message);
  }
  if (part.entries !== undefined && part.entries !== entries) {
    throw damaged(part.key, `it holds ${entries} entries, not ${part.entries}`);
  }
  return entries;
}

/** The objects in order, while the next ones are on their way. */
async function* fetched<T extends SnapshotPartInfo | ListedSegment>(
  options: FetchOptions,
  items: readonly T[],
): AsyncGenerator<{ item: T; bytes: Bytes }> {
  const { clock } = options;
  const patience = options.patience ??
    new Patience({ clock, ...DATA_PATIENCE });
  const underWay: Promise<Bytes>[] = [];
  let underWayBytes = 0;
  const ended = new AbortController();
  const signal = options.signal
    ? AbortSignal.any([options.signal, ended.signal])
    : ended.signal;
  let next = 0;
  const start = () => {
    const { key, sizeBytes } = items[next++];
    underWayBytes += sizeBytes;
    const fetching = fetchObject(options, patience, key, signal);
    // Dealt with when its turn comes.
    fetching.catch(() => {});
    underWay.push(fetching);
  };
  try {
    for (const item of items) {
      while (
        next < items.length &&
        (underWay.length === 0 || underWayBytes < MAX_UNDER_WAY_BYTES) &&
        underWay.length <
          (underWayBytes < SMALL_BYTES ? MAX_SMALL_CONCURRENCY : CONCURRENCY)
      ) start();
      const bytes = await underWay.shift()!;
      underWayBytes -= item.sizeBytes;
      yield { item, bytes };
    }
  } finally {
    ended.abort(new UnavailableError("The restore has ended."));
  }
}

function fetchObject(
  { objects, clock }: FetchOptions,
  patience: Patience,
  key: string,
  signal: AbortSignal,
): Promise<Bytes> {
  return retry(async () => {
    const object = await patience.run((timeoutMs) =>
      objects.get(key, { signal, timeoutMs })
    );
    if (object === undefined) throw damaged(key, "it is missing");
    return object.data;
  }, {
    clock,
    policy: FETCH_RETRY,
    signal,
    maxTries: MAX_TRIES,
    isTemporary: (error) => error instanceof UnavailableError,
  });
}

/** An object of the generation is not as it was written. */
export class DamagedError extends StartupError {}

function damaged(key: string, what: string): DamagedError {
  return new DamagedError(
    `The backup's object ${key} cannot be used: ${what}. Nothing of it was served.`,
  );
}
