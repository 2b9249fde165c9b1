/**
 * Rows of the log as segments in the bucket, one put for each. A segment is put
 * again under its name and with its bytes until it is there.
 */
import type { Clock } from "../common/clock.ts";
import { messageOf } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { Random } from "../common/random.ts";
import { retry } from "../common/retry.ts";
import { encodeSegment, type Segment } from "../log/segment.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import type { Patience } from "../object_store/patience.ts";
import type { LogRow } from "../store/backup_source.ts";
import { segmentKey } from "./names.ts";

const RETRY = { firstMs: 100, maxMs: 5000 };

/** Where shipping goes on. */
export interface ShippingPoint {
  generation: string;
  /** Of the last segment of our epoch in the generation; 0 for none. */
  tsn: number;
  /** The version up to which the generation holds the history. */
  bucketVersion: number;
  /** The version up to which the log has been shipped, or need not be. */
  logVersion: number;
}

export interface SegmentUploadsOptions {
  objects: ObjectStore;
  epoch: number;
  clock: Clock;
  random: Random;
  logger: Logger;
  patience: Patience;
  /** Ends the tries. */
  signal: AbortSignal;
  /** A try has failed; another one follows. */
  onFailure(): void;
}

export class SegmentUploads {
  failures = 0;
  segments = 0;
  sizeBytes = 0;
  /** Why the last try failed, while tries fail. */
  lastError: unknown;

  constructor(private readonly options: SegmentUploadsOptions) {}

  /** Puts rows behind a point; undefined where it was stopped. */
  async put(
    point: ShippingPoint,
    rows: readonly LogRow[],
  ): Promise<ShippingPoint | undefined> {
    const last = rows[rows.length - 1];
    const { bucketVersion: previousVersion } = point;
    const segment = await encodeSegment({ rows, previousVersion });
    if (segment === undefined) return { ...point, logVersion: last.version };
    if (!await this.putSegment(point.generation, point.tsn + 1, segment)) {
      return undefined;
    }
    return {
      generation: point.generation,
      tsn: point.tsn + 1,
      bucketVersion: segment.lastVersion,
      logVersion: last.version,
    };
  }

  /** Tries until it is there; false where it was stopped before. */
  private async putSegment(
    generation: string,
    tsn: number,
    { first, last, bytes }: Segment,
  ): Promise<boolean> {
    const { objects, epoch, logger, patience, signal } = this.options;
    const key = segmentKey(generation, { epoch, tsn, first, last });
    const put = () =>
      patience.run((timeoutMs) => objects.put(key, bytes, { timeoutMs }));
    try {
      await retry(put, {
        ...this.options,
        policy: RETRY,
        // Whatever it is, the segment has to get there.
        isTemporary: () => true,
        onFailure: (error) => this.failed(error),
      });
    } catch (error) {
      if (signal.aborted) return false;
      throw error;
    }
    this.segments++;
    this.sizeBytes += bytes.length;
    if (this.lastError !== undefined) {
      this.lastError = undefined;
      logger.info("The object store takes the backup again.");
    }
    return true;
  }

  private failed(error: unknown): void {
    this.failures++;
    if (this.lastError === undefined) {
      this.options.logger.warn(
        "The backup is held up; it is tried again until it goes through, and the log waits on this machine's disk.",
        { reason: messageOf(error) },
      );
    }
    this.lastError = error;
    this.options.onFailure();
  }
}
