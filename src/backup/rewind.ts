/**
 * The whole recovery from a bad deploy: the database goes on from an earlier
 * point of its history, on the same place and under the same id, and what it
 * is now is kept as a branch. The argument is in docs/fencing.md.
 *
 * The state at that point becomes the snapshot of a new generation, whose
 * version is above every one that was issued. To all others it is a generation
 * as any other: the history goes on, and nothing in it is undone. Until the
 * one swap that names it, the old state is what a launch restores.
 */
import type { Clock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { Random } from "../common/random.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { DATA_PATIENCE, Patience } from "../object_store/patience.ts";
import type { ScratchDatabase } from "../store/local_engine.ts";
import { goneOver, putSnapshot } from "./generation.ts";
import type { RestorePlan } from "./history.ts";
import type { Branch, Manifest } from "./manifest.ts";
import { generationName } from "./names.ts";
import type { HistoryEnd } from "./history_end.ts";
import type { Ownership } from "./ownership.ts";
import { restore } from "./restore.ts";
import { acquireOwnership } from "./takeover.ts";

export interface RewindOptions {
  objects: ObjectStore;
  /** The state to go on from. */
  plan: RestorePlan;
  /** What the present line is kept as. */
  branchName: string;
  /** Left empty. */
  scratch: ScratchDatabase;
  clock: Clock;
  random: Random;
  logger: Logger;
  leaseMs?: number;
  signal: AbortSignal;
  progress?(doneBytes: number, totalBytes: number): void;
  onStage?(what: string): void;
}

export interface Rewound {
  /** The version of the history that the database went back to. */
  version: number;
  branch: Branch;
  generation: string;
  /** Versions go on above this one. */
  leapVersion: number;
}

/**
 * Killed at any moment, it leaves either the old state or the new one.
 * @throws StartupError, FencedError, UnavailableError: nothing was changed,
 *   unless the error came after the last swap, which its sentence says
 */
export async function rewind(options: RewindOptions): Promise<Rewound> {
  const { objects, plan, scratch, clock, onStage } = options;
  const target = await scratch.create(options.signal);
  let isFinished = false;
  try {
    // First what can fail: until it is there, a server serves on.
    onStage?.("Restoring the chosen point into a scratch file.");
    const { version } = await restore({
      objects,
      plan,
      target,
      clock,
      progress: options.progress,
      signal: options.signal,
    });
    onStage?.("Taking the backup over: a server that runs hands it over.");
    const ownership = await acquire(options);
    const keepAlive = ownership.keepAlive();
    try {
      const end = requireEnd(ownership);
      requireFree(ownership.manifest, options.branchName);
      const leapVersion = await ownership.leap(end.version);
      await target.finish({
        databaseId: ownership.manifest.databaseId,
        version,
        leapToVersion: leapVersion,
        state: {},
      });
      isFinished = true;
      onStage?.("Writing it as a new generation.");
      const { generation, branch } = await goOver(options, ownership, end);
      await ownership.release({
        generation,
        lastTsn: 0,
        lastVersion: leapVersion,
      }, () => true).catch(() => {
        // The lease runs out by itself, and the new generation is named.
      });
      return { version, branch, generation, leapVersion };
    } catch (error) {
      await ownership.release(undefined, () => true).catch(() => {});
      throw error;
    } finally {
      keepAlive.stop();
    }
  } finally {
    if (isFinished) await scratch.remove();
    else await target.discard();
  }
}

function acquire(options: RewindOptions): Promise<Ownership> {
  const { objects, plan, clock, random, logger, leaseMs, signal } = options;
  return acquireOwnership({
    objects,
    clock,
    random,
    logger,
    databaseId: plan.databaseId,
    servesThroughOutages: false,
    // Whoever asks has it in a moment.
    onHandoverRequested() {},
    onWaiting: options.onStage,
    signal,
    leaseMs,
  });
}

function requireEnd({ historyEnd }: Ownership): HistoryEnd {
  if (historyEnd !== undefined) return historyEnd;
  throw new StartupError(
    "The backup holds no whole generation. Nothing was changed.",
  );
}

/** @throws StartupError where a branch of that name is there */
export function requireFree(
  { branches = [] }: Pick<Manifest, "branches">,
  name: string,
): void {
  if (!branches.some((branch) => branch.name === name)) return;
  throw new StartupError(
    `The backup has a branch ${name} already. Nothing was changed; give the present state another name with --branch.`,
  );
}

/** The scratch file as a generation, and the present line as a branch. */
async function goOver(
  options: RewindOptions,
  ownership: Ownership,
  end: HistoryEnd,
): Promise<{ generation: string; branch: Branch }> {
  const { objects, scratch, clock, random, logger, signal } = options;
  const { epoch } = ownership;
  const name = generationName(clock.nowMs(), epoch, random);
  // Named before it is there: what a kill leaves of it is known as garbage.
  await ownership.update((manifest) => ({
    ...manifest,
    making: [...manifest.making.filter((other) => other !== name), name],
  }));
  const { version, snapshotSha256 } = await putSnapshot({
    objects,
    source: scratch,
    epoch,
    clock,
    random,
    logger,
    signal,
    patience: new Patience({ clock, ...DATA_PATIENCE }),
  }, name);
  const createdMs = clock.nowMs();
  const branch: Branch = {
    name: options.branchName,
    generation: end.generation,
    lastVersion: end.version,
    createdMs,
  };
  const begun = {
    name,
    startedMs: createdMs,
    endedMs: null,
    snapshotVersion: version,
    // From now on this is what the database was at a time.
    snapshotTimeMs: createdMs,
    missingAfterVersion: null,
    snapshotSha256,
  };
  const seal = {
    generation: end.generation,
    epoch,
    lastTsn: 0,
    lastVersion: end.version,
  };
  await ownership.update((manifest) => {
    const next = goneOver(manifest, begun, seal, createdMs);
    return next === manifest
      ? manifest
      : { ...next, branches: [...manifest.branches ?? [], branch] };
  });
  return { generation: name, branch };
}
