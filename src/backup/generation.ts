/**
 * A generation: a snapshot, and the log from it on, in a folder that is a
 * complete backup by itself. It is history from the moment in which the
 * manifest names it as one; until then it names it as one in the making, and
 * what a crash leaves of that is garbage.
 */
import { utf8 } from "../common/bytes.ts";
import { type Clock, sleep } from "../common/clock.ts";
import { messageOf } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { Random } from "../common/random.ts";
import { sha256 } from "../log/segment.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import type { Patience } from "../object_store/patience.ts";
import type {
  BackupSource,
  SnapshotPart,
  SnapshotSummary,
} from "../store/backup_source.ts";
import type { SnapshotPartInfo } from "./history.ts";
import { type Generation, hexVersion } from "./manifest.ts";
import {
  differentialKey,
  generationName,
  snapshotIndexKey,
  snapshotKey,
} from "./names.ts";
import { isOutage, type Ownership } from "./ownership.ts";
import type { Shipper } from "./shipper.ts";

const PART_BYTES = 1024 * 1024;
/** Parts on their way at once, each held in memory. */
const UPLOADS = 4;
const RETRY_MS = 1000;
/** The log may grow to this, and to the snapshot's size, before a new one. */
const MIN_LOG_BYTES = 64 * 1024 * 1024;
/**
 * What a segment counts at least: a restore asks for each of them, and a write
 * a second makes 86,400 a day. More would begin generations more often: at 16
 * KiB and a write a second, a week of them holds at most 10 GB.
 */
const MIN_SEGMENT_BYTES = 16 * 1024;

export interface GenerationOptions {
  objects: ObjectStore;
  source: BackupSource;
  ownership: Ownership;
  shipper: Shipper;
  clock: Clock;
  random: Random;
  logger: Logger;
  signal: AbortSignal;
  patience: Patience;
  /** Entries that are uploaded so far. */
  progress?(entries: number): void;
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
 * Makes a generation beside running writes, and goes over to it.
 * @returns undefined where the log moved on without us: begin again
 * @throws FencedError, UnavailableError, or the signal's reason; the present
 *   generation then goes on
 */
export async function makeGeneration(
  options: GenerationOptions,
): Promise<(SnapshotSummary & { name: string }) | undefined> {
  const { source, ownership, shipper, clock } = options;
  const startedMs = clock.nowMs();
  const name = generationName(startedMs, ownership.epoch, options.random);
  shipper.keepLogFrom(Math.min(
    source.syncedVersion,
    shipper.position?.logVersion ?? source.syncedVersion,
  ));
  try {
    // Named before it is there: what a crash leaves of it is known as garbage.
    await ownership.update((manifest) => ({
      ...manifest,
      making: [...manifest.making, name],
    }), () => options.signal.aborted);
    const summary = await uploadSnapshot(options, name);
    const generation: Generation = {
      name,
      startedMs,
      endedMs: null,
      snapshotVersion: summary.version,
      snapshotSha256: summary.indexSha256,
    };
    const hasMoved = await shipper.moveTo(
      name,
      summary.version,
      async (end) => {
        await ownership.update((manifest) => ({
          ...manifest,
          generation: name,
          making: manifest.making.filter((other) => other !== name),
          generations: [
            ...manifest.generations.map((former) =>
              former.endedMs === null
                ? { ...former, endedMs: clock.nowMs() }
                : former
            ),
            generation,
          ],
          seals: end === undefined ? manifest.seals : [...manifest.seals, {
            generation: end.generation,
            epoch: ownership.epoch,
            lastTsn: end.tsn,
            lastVersion: end.bucketVersion,
          }],
        }));
      },
    );
    return hasMoved ? { ...summary, name } : undefined;
  } finally {
    shipper.keepLogFrom(undefined);
  }
}

/** What an upload needs; a server of its own it need not be. */
export interface UploadOptions extends
  Pick<
    GenerationOptions,
    "objects" | "clock" | "logger" | "signal" | "patience" | "progress"
  > {
  source: Pick<BackupSource, "snapshot">;
  ownership: { epoch: number };
}

/** The snapshot in a generation's folder, which the manifest names by then. */
export async function uploadSnapshot(
  options: UploadOptions,
  generation: string,
): Promise<SnapshotSummary & { indexSha256: string }> {
  const { source, ownership } = options;
  const parts: SnapshotPartInfo[] = [];
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {});
  const uploads = new Set<Promise<void>>();
  let entries = 0;
  const upload = async (part: SnapshotPart, index: number) => {
    const { bytes } = part;
    const digest = await sha256(bytes);
    const key = snapshotKey(generation, ownership.epoch, index);
    parts[index] = {
      key,
      sizeBytes: bytes.length,
      entries: part.entries,
      sha256: digest.toHex(),
    };
    await put(options, key, bytes);
    entries += part.entries;
    options.progress?.(entries);
  };
  let count = 0;
  const uploaded = source.snapshot({
    partBytes: PART_BYTES,
    signal: options.signal,
    onBegin() {},
    async onPart(part) {
      const uploading = upload(part, count++).finally(() =>
        uploads.delete(uploading)
      );
      uploading.catch(failed.reject);
      uploads.add(uploading);
      if (uploads.size < UPLOADS) return;
      await Promise.race([failed.promise, ...uploads]);
    },
  });
  let summary: SnapshotSummary;
  try {
    summary = await uploaded;
    await Promise.race([failed.promise, Promise.all(uploads)]);
  } catch (error) {
    // What is on its way must not come to a folder that is deleted.
    await Promise.allSettled(uploads);
    throw error;
  }
  const version = hexVersion(summary.version);
  const index = {
    format: 1,
    version,
    entries: summary.entries,
    queueMessages: summary.queueMessages,
    parts,
  };
  const indexBytes = utf8(JSON.stringify(index, null, 1) + "\n");
  await put(options, snapshotIndexKey(generation), indexBytes);
  await put(options, differentialKey(generation), utf8(version));
  return { ...summary, indexSha256: (await sha256(indexBytes)).toHex() };
}

/** Tries until it is there, or the signal ends it. */
async function put(
  { objects, clock, logger, signal, patience }: UploadOptions,
  key: string,
  data: Uint8Array,
): Promise<void> {
  for (let hasFailed = false;; hasFailed = true) {
    try {
      await patience.run((timeoutMs) =>
        objects.put(key, data, { signal, timeoutMs })
      );
      return;
    } catch (error) {
      signal.throwIfAborted();
      if (!isOutage(error)) throw error;
      if (!hasFailed) {
        const reason = messageOf(error);
        logger.warn("A part of the snapshot is tried again.", { key, reason });
      }
    }
    await sleep(clock, RETRY_MS);
    signal.throwIfAborted();
  }
}
