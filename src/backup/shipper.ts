/**
 * Ships the mutation log: row after row, as segments, one put after the other.
 * Nothing is asked of the object store while nothing is written.
 */
import type { Clock, Timer } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { Random } from "../common/random.ts";
import { Waiters } from "../common/waiters.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import type { Patience } from "../object_store/patience.ts";
import type { BackupSource, LogRow } from "../store/backup_source.ts";
import { Rounds } from "./rounds.ts";
import { SegmentUploads, type ShippingPoint } from "./segment_uploads.ts";

/** A segment is closed at the first row past this. */
const MAX_SEGMENT_BYTES = 4 * 1024 * 1024;
/** While the file is being opened anew, it is asked again after this. */
const REOPEN_RETRY_MS = 5000;
/** From this part of the limit on, the log that waits is spoken of. */
const WARN_AT = 0.8;

export interface ShipperOptions {
  objects: ObjectStore;
  source: BackupSource;
  epoch: number;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** How far behind it may be; 0 ships at once. */
  intervalMs: number;
  /** What the log may hold for us on the local disk. */
  maxRetainedBytes: number;
  maxSegmentBytes?: number;
  patience: Patience;
  /** Undefined until there is a generation. */
  start: ShippingPoint | undefined;
  /**
   * The log has moved on without us: only a new generation helps. Told again
   * with every try to ship until there is one.
   */
  onGap(): void;
  /** Everything up to this version is in the bucket; its put is over. */
  onShipped?(version: number): void;
}

export interface ShipperStatus {
  /** Milliseconds since the oldest commit that is not shipped was made. */
  lagMs: number;
  lagBytes: number;
  segments: number;
  shippedBytes: number;
  failures: number;
  /** Why the last try failed, while tries fail. */
  lastError: unknown;
  /** How long waiting commits took to be shipped: seconds, by upper bound. */
  maxLagMs: number;
}

export class Shipper {
  private maxLagMs = 0;
  private point: ShippingPoint | undefined;
  private timer: Timer | undefined;
  private running: Promise<void> | undefined;
  private readonly stopped = new AbortController();
  /** The last step to another generation: nothing is shipped meanwhile. */
  private isMoving = false;
  private hasWarned = false;
  private behindSinceMs: number | undefined;
  /** A generation that is being made needs the log from there on. */
  private keepFrom = Infinity;
  private readonly uploads: SegmentUploads;
  private readonly rounds: Rounds;
  private readonly waiters = new Waiters();

  constructor(private readonly options: ShipperOptions) {
    this.point = options.start;
    this.uploads = new SegmentUploads({
      ...options,
      signal: this.stopped.signal,
      onFailure: () => this.checkRetained(),
    });
    this.rounds = new Rounds(options.clock, () => this.waitingBytes());
    this.retain();
  }

  /** Undefined until there is a generation. */
  get position(): Readonly<ShippingPoint> | undefined {
    return this.point;
  }

  /** Every commit up to it is in the bucket. */
  get shippedVersion(): number {
    return this.point?.logVersion ?? 0;
  }

  /** What this launch has put. */
  get shipped(): { segments: number; sizeBytes: number } {
    const { segments, sizeBytes } = this.uploads;
    return { segments, sizeBytes };
  }

  status(): ShipperStatus {
    const { failures, segments, sizeBytes, lastError } = this.uploads;
    const isBehind = this.syncedVersion() > this.shippedVersion;
    const lagMs = isBehind && this.behindSinceMs !== undefined
      ? this.options.clock.monotonicMs() - this.behindSinceMs
      : 0;
    return {
      lagMs,
      lagBytes: lagMs === 0 ? 0 : this.waitingBytes(),
      segments,
      shippedBytes: sizeBytes,
      failures,
      lastError,
      maxLagMs: Math.max(this.maxLagMs, lagMs),
    };
  }

  /** Whether everything that is not shipped has a place in the bucket. */
  hasPlace(): boolean {
    return this.point !== undefined && this.isInLog(this.point.logVersion);
  }

  /** Whether the log holds everything after the version. */
  private isInLog(version: number): boolean {
    try {
      return this.options.source.logFloorVersion <= version;
    } catch (error) {
      // The file is being opened anew, and keeps its log.
      if (error instanceof UnavailableError) return true;
      throw error;
    }
  }

  private get isStopped(): boolean {
    return this.stopped.signal.aborted;
  }

  /** Commits up to `version` are durable locally. */
  synced(version: number): void {
    if (version <= this.shippedVersion || this.isStopped) return;
    this.behindSinceMs ??= this.options.clock.monotonicMs();
    if (this.running || this.isMoving || !this.point) return;
    const { intervalMs, clock } = this.options;
    const waitMs = intervalMs === 0 ? this.rounds.waitMs() : intervalMs;
    if (waitMs <= 0) this.shipSoon();
    else this.timer ??= clock.after(waitMs, () => this.shipSoon());
  }

  private shipSoon(): void {
    this.timer?.stop();
    this.timer = undefined;
    if (this.running || this.isStopped || this.isMoving || !this.point) return;
    this.rounds.end();
    const before = this.shippedVersion;
    this.running = this.shipAll().finally(() => {
      this.running = undefined;
      if (this.syncedVersion() <= this.shippedVersion) {
        this.behindSinceMs = undefined;
      }
      // What was written meanwhile waits for its own interval.
      if (this.shippedVersion > before) this.synced(this.syncedVersion());
    });
  }

  /** 0 while the file is being opened anew. */
  private syncedVersion(): number {
    try {
      return this.options.source.syncedVersion;
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
      this.timer ??= this.options.clock.after(
        REOPEN_RETRY_MS,
        () => this.shipSoon(),
      );
      return 0;
    }
  }

  /** Resolves when the bucket has everything up to `version`. */
  whenShipped(version: number): Promise<void> {
    if (version <= this.shippedVersion) return Promise.resolve();
    return this.waiters.wait(version);
  }

  /** Ships what is there, now, and resolves when it is in the bucket. */
  async drain(): Promise<void> {
    await this.shipTo(this.syncedVersion());
    await this.running;
  }

  /**
   * Ships at once, until everything up to `version` is in the bucket.
   * @returns false where that came to nothing: it was stopped, the log has a
   *   gap, or the file is being opened anew
   */
  async shipTo(version: number): Promise<boolean> {
    while (!this.isStopped && this.shippedVersion < version) {
      const before = this.shippedVersion;
      this.shipSoon();
      if (this.running === undefined) break;
      await this.running;
      if (this.shippedVersion === before) break;
    }
    return this.shippedVersion >= version;
  }

  /**
   * Up to what is there now: what comes meanwhile waits for its own interval,
   * so that an object holds many commits.
   */
  private async shipAll(): Promise<void> {
    const { clock, intervalMs } = this.options;
    const target = this.syncedVersion();
    while (this.shippedVersion < target && !this.isStopped && !this.isMoving) {
      const rows = this.nextRows();
      if (rows.length === 0) return;
      const startedMs = clock.monotonicMs();
      const aheadBytes = intervalMs === 0 ? this.waitingBytes() : 0;
      const point = await this.uploads.put(this.point!, rows);
      if (point === undefined || this.isStopped) return;
      this.point = point;
      const nowMs = clock.monotonicMs();
      if (intervalMs === 0) {
        this.rounds.begin(rows, aheadBytes, nowMs - startedMs);
      }
      if (this.behindSinceMs !== undefined) {
        this.maxLagMs = Math.max(this.maxLagMs, nowMs - this.behindSinceMs);
        // The commits that came during the put are the oldest ones now.
        const isBehind = this.syncedVersion() > point.logVersion;
        this.behindSinceMs = isBehind ? startedMs : undefined;
      }
      this.advanced();
    }
  }

  private advanced(): void {
    this.retain();
    this.waiters.reached(this.shippedVersion);
    this.options.onShipped?.(this.shippedVersion);
  }

  private nextRows(): LogRow[] {
    if (!this.hasPlace()) {
      this.options.onGap();
      return [];
    }
    return this.readLog(this.shippedVersion);
  }

  /** Nothing while the file is being opened anew. */
  private readLog(version: number): LogRow[] {
    const { source, maxSegmentBytes = MAX_SEGMENT_BYTES } = this.options;
    try {
      return source.readLog(version, maxSegmentBytes);
    } catch (error) {
      if (error instanceof UnavailableError) return [];
      throw error;
    }
  }

  private retain(): void {
    const { source, maxRetainedBytes } = this.options;
    const version = Math.min(this.keepFrom, this.shippedVersion);
    source.retainAfter(version, maxRetainedBytes);
    this.hasWarned = false;
  }

  /** 0 while the file is being opened anew. */
  private waitingBytes(): number {
    try {
      return this.options.source.logBytesAfter(this.shippedVersion);
    } catch (error) {
      if (error instanceof UnavailableError) return 0;
      throw error;
    }
  }

  private checkRetained(): void {
    const { maxRetainedBytes, logger } = this.options;
    const waitingBytes = this.waitingBytes();
    if (this.hasWarned || waitingBytes < WARN_AT * maxRetainedBytes) return;
    this.hasWarned = true;
    logger.error(
      "The log that waits for the backup has nearly reached its limit. Past it, its oldest part is dropped and the backup begins anew with a whole snapshot when the object store is back; no data of the database is lost.",
      { waitingBytes, limitBytes: maxRetainedBytes },
    );
  }

  // ------------------------------------------------------------ generations

  /** Keeps the log from `version` on, shipped or not; Infinity: no longer. */
  keepLogFrom(version: number): void {
    this.keepFrom = version;
    this.retain();
  }

  /**
   * Copies the log from a snapshot on into its generation's folder, and calls
   * `change` when the folder holds all that the present one holds; nothing is
   * shipped while it runs. When it resolves, shipping goes on in the folder,
   * and everything up to the snapshot counts as shipped.
   *
   * @param change gets where the present generation ends
   * @returns false where shipping was stopped, or the log has a gap
   */
  async moveTo(
    generation: string,
    snapshotVersion: number,
    change: (end: ShippingPoint | undefined) => Promise<void>,
  ): Promise<boolean> {
    let point: ShippingPoint | undefined = {
      generation,
      tsn: 0,
      bucketVersion: snapshotVersion,
      logVersion: snapshotVersion,
    };
    // Most of it beside the shipping, so that it is held for little.
    point = await this.copy(point, this.shippedVersion);
    if (point === undefined) return false;
    this.isMoving = true;
    try {
      await this.running;
      point = await this.copy(point, this.shippedVersion);
      if (point === undefined) return false;
      await change(this.point);
      this.point = point;
      this.keepFrom = Infinity;
      this.advanced();
      return true;
    } finally {
      this.isMoving = false;
      this.behindSinceMs = undefined;
      this.synced(this.syncedVersion());
    }
  }

  /** @returns undefined where it was stopped, or the log has a gap */
  private async copy(
    from: ShippingPoint,
    upTo: number,
  ): Promise<ShippingPoint | undefined> {
    let point: ShippingPoint | undefined = from;
    while (point && point.logVersion < upTo) {
      if (!this.isInLog(point.logVersion)) return undefined;
      const rows = this.readLog(point.logVersion)
        .filter((row) => row.version <= upTo);
      if (rows.length === 0) return undefined;
      point = await this.uploads.put(point, rows);
    }
    return point;
  }

  /** Nothing is put any more; what waits stays in the log. */
  stop(): void {
    const reason = new UnavailableError("Shipping has stopped.");
    this.stopped.abort(reason);
    this.waiters.fail(reason);
    this.timer?.stop();
  }
}
