/**
 * A generation: a snapshot, and the log from it on, in a folder that is a
 * complete backup by itself. It is history from the moment in which the
 * manifest names it as one; until then it names it as one in the making, and
 * what a crash leaves of that is garbage.
 */
import { utf8 } from "../common/bytes.ts";
import type { Clock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { Random } from "../common/random.ts";
import { sha256 } from "../log/segment.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import type { Patience } from "../object_store/patience.ts";
import type { BackupSource } from "../store/backup_source.ts";
import {
  type Generation,
  hexVersion,
  type Manifest,
  type Seal,
} from "./manifest.ts";
import { differentialKey, generationName, snapshotIndexKey } from "./names.ts";
import type { Ownership } from "./ownership.ts";
import type { ShippingPoint } from "./segment_uploads.ts";
import type { Shipper } from "./shipper.ts";
import {
  putUntilThere,
  SnapshotUpload,
  type SnapshotUploadOptions,
  type UploadedSnapshot,
} from "./snapshot_upload.ts";

/** The log may grow to this, and to the snapshot's size, before a new one. */
const MIN_LOG_BYTES = 64 * 1024 * 1024;
/**
 * What a segment counts at least: a restore asks for each of them, and a write
 * a second makes 86,400 a day. More would begin generations more often: at 16
 * KiB and a write a second, a week of them holds at most 10 GB.
 */
const MIN_SEGMENT_BYTES = 16 * 1024;
/** How often a wait that goes on says what it is for. */
const TELL_EVERY_MS = 60_000;

export interface GenerationOptions {
  objects: ObjectStore;
  source: BackupSource;
  ownership: Pick<Ownership, "epoch" | "update">;
  shipper: Shipper;
  clock: Clock;
  random: Random;
  logger: Logger;
  signal: AbortSignal;
  patience: Patience;
  /** What the logs on this machine may grow to meanwhile. */
  maxRetainedBytes: number;
  /** How many were served: a snapshot leaves room for them. */
  requests(): number;
}

/** Of a generation's log. */
export interface LogSize {
  sizeBytes: number;
  segments: number;
}

/** Whether a restore would take more than about twice what the data takes. */
export function isOutgrown(log: LogSize, snapshotBytes: number): boolean {
  const { sizeBytes, segments } = log;
  return Math.max(sizeBytes, segments * MIN_SEGMENT_BYTES) >
    Math.max(MIN_LOG_BYTES, snapshotBytes);
}

/**
 * Makes a generation beside running writes, and goes over to it. The present
 * one is shipped up to the snapshot first, so that every version is in one of
 * them; only where the log has a gap is there something that neither has.
 * @throws FencedError, UnavailableError, or the signal's reason; the present
 *   generation then goes on
 */
export async function makeGeneration(
  options: GenerationOptions,
): Promise<UploadedSnapshot & { name: string }> {
  const { source, ownership, shipper, clock, signal } = options;
  const startedMs = clock.nowMs();
  const name = generationName(startedMs, ownership.epoch, options.random);
  const upload = new SnapshotUpload({
    ...options,
    epoch: ownership.epoch,
    maxLogBytes: options.maxRetainedBytes,
    onBegin: (version) => shipper.keepLogFrom(version),
  }, name);
  shipper.keepLogFrom(source.syncedVersion);
  try {
    // Named before it is there: what a crash leaves of it is known as garbage.
    await ownership.update((manifest) => ({
      ...manifest,
      making: [...new Set([...manifest.making, name])],
    }), () => signal.aborted);
    const snapshot = await upload.run(async (version) => {
      await announced(
        options,
        "the present generation is shipped up to the snapshot of the new one",
        shipper.shipTo(version),
      );
      signal.throwIfAborted();
      return source.logFloorVersion <= version;
    });
    const snapshotSha256 = await putIndex(options, name, snapshot);
    const hasMoved = await announced(
      options,
      "the log since the snapshot is put into the new generation's folder",
      shipper.moveTo(name, snapshot.version, async (end) => {
        const begun = {
          name,
          startedMs,
          endedMs: null,
          snapshotVersion: snapshot.version,
          snapshotTimeMs: snapshot.timeMs,
          missingAfterVersion: missingAfter(end, snapshot.version),
          snapshotSha256,
        };
        const seal = end && {
          generation: end.generation,
          epoch: ownership.epoch,
          lastTsn: end.tsn,
          lastVersion: end.bucketVersion,
        };
        await ownership.update((manifest) =>
          goneOver(manifest, begun, seal, clock.nowMs())
        );
      }),
    );
    if (!hasMoved) throw new UnavailableError("the log moved on");
    return { ...snapshot, name };
  } finally {
    shipper.keepLogFrom(Infinity);
  }
}

/** What the present generation has no place for any more, and the next lacks. */
function missingAfter(
  end: ShippingPoint | undefined,
  snapshotVersion: number,
): number | null {
  return end === undefined || end.logVersion >= snapshotVersion
    ? null
    : end.logVersion;
}

/**
 * The manifest that names it as the present generation.
 * @param seal where our epoch ends in the one before it, if there is one
 */
export function goneOver(
  manifest: Manifest,
  generation: Generation,
  seal: Seal | undefined,
  nowMs: number,
): Manifest {
  const { name, snapshotVersion } = generation;
  // A swap that is asked for again may have acted.
  if (manifest.generation === name) return manifest;
  const former = manifest.generations
    .find((former) => former.name === manifest.generation);
  // One version has one time. That of a database without a commit is the
  // clock's, which may be put back before the first one.
  const begun = former?.snapshotVersion === snapshotVersion &&
      former.snapshotTimeMs !== undefined
    ? { ...generation, snapshotTimeMs: former.snapshotTimeMs }
    : generation;
  return {
    ...manifest,
    generation: name,
    making: manifest.making.filter((other) => other !== name),
    generations: [
      ...manifest.generations.map((former) =>
        former.endedMs === null ? { ...former, endedMs: nowMs } : former
      ),
      begun,
    ],
    seals: seal === undefined ? manifest.seals : [...manifest.seals, seal],
  };
}

/** What an upload of a file that nobody writes to needs. */
export type FileUploadOptions = Omit<
  SnapshotUploadOptions,
  "maxLogBytes" | "onBegin" | "requests"
>;

/**
 * The whole snapshot of a file that nobody writes to, in the folder of a
 * generation, which the manifest names by then.
 * @throws UnavailableError, or the signal's reason
 */
export async function putSnapshot(
  options: FileUploadOptions,
  generation: string,
): Promise<{ version: number; snapshotSha256: string }> {
  const upload = new SnapshotUpload(
    { ...options, maxLogBytes: Infinity, requests: () => 0, onBegin() {} },
    generation,
  );
  const snapshot = await upload.run(() => Promise.resolve(true));
  const snapshotSha256 = await putIndex(options, generation, snapshot);
  return { version: snapshot.version, snapshotSha256 };
}

/**
 * Once for each folder: a put that acts late must not bring back another.
 * @returns the SHA-256 of `snapshot.json`, in hexadecimal
 */
async function putIndex(
  options: Parameters<typeof putUntilThere>[0],
  generation: string,
  { version, entries, queueMessages, parts }: UploadedSnapshot,
): Promise<string> {
  const stamp = hexVersion(version);
  const index = { format: 1, version: stamp, entries, queueMessages, parts };
  const bytes = utf8(JSON.stringify(index, null, 1) + "\n");
  await putUntilThere(options, snapshotIndexKey(generation), bytes);
  await putUntilThere(options, differentialKey(generation), utf8(stamp));
  return (await sha256(bytes)).toHex();
}

/** Says now and then what is waited for. */
async function announced<T>(
  { clock, logger }: Pick<GenerationOptions, "clock" | "logger">,
  waitingFor: string,
  work: Promise<T>,
): Promise<T> {
  const startedMs = clock.monotonicMs();
  const timer = clock.every(TELL_EVERY_MS, () => {
    const forMs = Math.round(clock.monotonicMs() - startedMs);
    logger.warn("A new generation of the backup waits.", { waitingFor, forMs });
  });
  try {
    return await work;
  } finally {
    timer.stop();
  }
}
