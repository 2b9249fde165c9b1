/**
 * A whole snapshot in a generation's folder, part after part. A try that takes
 * so long that the write-ahead log grows past its limit is given up, and the
 * next one begins after a pause: its parts end where those before did, and a
 * part whose content is in the bucket already is not put again. Each content
 * has a name of its own, so a put that acts late never changes a part.
 */
import { type Bytes, compareBytes, releaseBytes } from "../common/bytes.ts";
import { type Clock, sleepUntil } from "../common/clock.ts";
import { messageOf } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { Random } from "../common/random.ts";
import { retry } from "../common/retry.ts";
import type { ObjectStore, PutOptions } from "../object_store/object_store.ts";
import type { Patience } from "../object_store/patience.ts";
import {
  type BackupSource,
  SnapshotGivenUpError,
  type SnapshotPart,
  type SnapshotSummary,
} from "../store/backup_source.ts";
import type { SnapshotPartInfo } from "./history.ts";
import { snapshotKey } from "./names.ts";
import { isOutage } from "./ownership.ts";

const PART_BYTES = 1024 * 1024;
/** Parts on their way at once, each held in memory. */
const UPLOADS = 4;
/**
 * While requests are served, a part is begun no sooner than this after the one
 * before: each takes some 15 ms of the processor, in all threads. Not in a try
 * after one that was given up: that one was too slow.
 */
const BUSY_SPACING_MS = 150;
/**
 * While requests are served, a part is read and sent in pieces of 64 KiB, with
 * so much between two of them: the slowest 1 % of the requests wait for one
 * piece then, and not for a part.
 */
const BUSY_PAUSE_MS = 6;
const PUT_RETRY = { firstMs: 1000, maxMs: 5000 };
/** How often what is left of earlier tries is tried to be deleted. */
const MAX_DELETE_TRIES = 5;
/** The pause before the next try: twice as long each time, up to this. */
const FIRST_PAUSE_MS = 5000;
const MAX_PAUSE_MS = 600_000;

export interface SnapshotUploadOptions {
  objects: ObjectStore;
  source: Pick<BackupSource, "snapshot">;
  epoch: number;
  clock: Clock;
  random: Random;
  logger: Logger;
  patience: Patience;
  /** What the write-ahead log may grow to meanwhile. */
  maxLogBytes: number;
  /** How many were served so far. */
  requests(): number;
  /** Ends the work. */
  signal: AbortSignal;
  /** A try has begun: the log is needed from this version on. */
  onBegin(version: number): void;
  /** Entries that are uploaded so far. */
  progress?(entries: number): void;
}

export interface UploadedSnapshot extends SnapshotSummary {
  parts: SnapshotPartInfo[];
}

export class SnapshotUpload {
  /** By their digest: what is in the bucket, of this try or earlier ones. */
  private readonly stored = new Map<string, SnapshotPartInfo>();
  /** Where the parts of the last try ended. */
  private endKeys: Bytes[] = [];
  private partsBegun = 0;
  private hasGivenUp = false;

  constructor(
    private readonly options: SnapshotUploadOptions,
    private readonly generation: string,
  ) {}

  /**
   * Tries until one is whole. The folder then holds its parts and no others.
   * @param isUseful asked of a try that is whole, before it is taken
   * @throws UnavailableError, or the signal's reason
   */
  async run(
    isUseful: (version: number) => Promise<boolean>,
  ): Promise<UploadedSnapshot> {
    const { clock, signal } = this.options;
    for (let pauseMs = FIRST_PAUSE_MS;;) {
      try {
        const snapshot = await this.attempt(pauseMs);
        if (await isUseful(snapshot.version)) {
          await this.deleteOthers(snapshot.parts);
          return snapshot;
        }
        this.tellGivenUp("the log has moved on past it", pauseMs);
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof SnapshotGivenUpError)) throw error;
      }
      await sleepUntil(clock, pauseMs, signal);
      pauseMs = Math.min(2 * pauseMs, MAX_PAUSE_MS);
    }
  }

  private tellGivenUp(reason: string, pauseMs: number): void {
    this.hasGivenUp = true;
    this.options.logger.warn(
      "The snapshot of a new generation is given up for now; the next try needs only what is not in the bucket by then.",
      { reason, partsThere: this.stored.size, pauseMs },
    );
  }

  /** @param pauseMs before the next one */
  private async attempt(pauseMs: number): Promise<UploadedSnapshot> {
    const { source, signal, maxLogBytes } = this.options;
    const parts: SnapshotPartInfo[] = [];
    const endKeys: Bytes[] = [];
    const uploads = new Set<Promise<void>>();
    const failed = Promise.withResolvers<never>();
    failed.promise.catch(() => {});
    const pace = this.hasGivenUp ? undefined : new Pace(this.options);
    let entries = 0;
    const done = (part: SnapshotPartInfo) => {
      entries += part.entries ?? 0;
      this.options.progress?.(entries);
    };
    try {
      const summary = await source.snapshot({
        partBytes: PART_BYTES,
        splitKeys: this.endKeys,
        maxLogBytes,
        signal,
        pauseMs: () => pace?.pauseMs ?? 0,
        onBegin: (version) => this.options.onBegin(version),
        onPart: async (part) => {
          endKeys.push(part.endKey);
          const known = this.stored.get(part.sha256);
          if (known) {
            parts.push(known);
            releaseBytes(part.bytes);
            done(known);
            return;
          }
          const info = this.infoOf(part);
          parts.push(info);
          const uploading = putUntilThere(this.options, info.key, part.bytes, {
            sha256: part.sha256,
            pauseMs: pace?.pauseMs,
          }).then(() => {
            releaseBytes(part.bytes);
            this.stored.set(part.sha256, info);
            done(info);
          }).finally(() => uploads.delete(uploading));
          uploading.catch(failed.reject);
          uploads.add(uploading);
          await pace?.rest();
          if (uploads.size < UPLOADS) return;
          await Promise.race([failed.promise, ...uploads]);
        },
      });
      await Promise.race([failed.promise, Promise.all(uploads)]);
      return { ...summary, parts };
    } catch (error) {
      // Now: the uploads that are under way may wait for the store for long.
      if (error instanceof SnapshotGivenUpError) {
        this.tellGivenUp(error.message, pauseMs);
      }
      throw error;
    } finally {
      // What is on its way gets there before the next try asks for it, and
      // must not come to a folder that is deleted.
      await Promise.allSettled(uploads);
      const reached = endKeys.at(-1);
      const rest = this.endKeys.filter((key) =>
        reached === undefined || compareBytes(key, reached) > 0
      );
      this.endKeys = [...endKeys, ...rest];
    }
  }

  private infoOf(part: SnapshotPart): SnapshotPartInfo {
    const { epoch } = this.options;
    return {
      key: snapshotKey(this.generation, epoch, this.partsBegun++),
      sizeBytes: part.bytes.length,
      entries: part.entries,
      sha256: part.sha256,
    };
  }

  /**
   * A reader without the index takes every part in the folder.
   * @throws UnavailableError where they cannot be deleted
   */
  private async deleteOthers(parts: readonly SnapshotPartInfo[]) {
    const { objects, signal } = this.options;
    const used = new Set(parts.map(({ key }) => key));
    const others = [...this.stored.values()].map(({ key }) => key)
      .filter((key) => !used.has(key));
    if (others.length === 0) return;
    await retry(() => objects.delete(others, { signal }), {
      ...this.options,
      policy: PUT_RETRY,
      maxTries: MAX_DELETE_TRIES,
      isTemporary: isOutage,
    });
  }
}

/** Leaves room for what is served beside a snapshot. */
class Pace {
  private begunMs: number;
  private served: number;
  /** Taken for granted until the first part tells. */
  private isBusy = true;

  constructor(
    private readonly options: Pick<
      SnapshotUploadOptions,
      "clock" | "requests" | "signal"
    >,
  ) {
    this.begunMs = options.clock.monotonicMs();
    this.served = options.requests();
  }

  /** Between the pieces of a part. */
  get pauseMs(): number {
    return this.isBusy ? BUSY_PAUSE_MS : 0;
  }

  /** After each part. */
  async rest(): Promise<void> {
    const { clock, requests, signal } = this.options;
    // Since the last part: its rest counts as well as the reading.
    this.isBusy = requests() !== this.served;
    this.served = requests();
    const restMs = this.begunMs + BUSY_SPACING_MS - clock.monotonicMs();
    if (this.isBusy && restMs > 0) await sleepUntil(clock, restMs, signal);
    this.begunMs = clock.monotonicMs();
  }
}

/** Tries until it is there, or the signal ends it. */
export async function putUntilThere(
  options: Pick<
    SnapshotUploadOptions,
    "objects" | "clock" | "random" | "logger" | "patience" | "signal"
  >,
  key: string,
  data: Bytes,
  how: Pick<PutOptions, "sha256" | "pauseMs"> = {},
): Promise<void> {
  const { objects, logger, patience, signal } = options;
  const put = () =>
    patience.run((timeoutMs) =>
      objects.put(key, data, { ...how, signal, timeoutMs })
    );
  await retry(put, {
    ...options,
    policy: PUT_RETRY,
    isTemporary: isOutage,
    onFailure(error, tries) {
      if (tries > 1) return;
      const reason = messageOf(error);
      logger.warn("A part of the snapshot is tried again.", { key, reason });
    },
  });
}
