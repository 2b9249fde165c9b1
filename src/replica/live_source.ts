/**
 * A live replica's source: the primary's stream, and a bucket behind it for
 * when the primary is away, or its log no longer reaches back to the replica.
 * Each hands out the same history, so the replica goes from one to the other
 * at any position.
 */
import type { Clock, Timer } from "../common/clock.ts";
import { messageOf } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { Next, Position, Snapshot, Source } from "./source.ts";
import { StreamGoneError, type StreamSource } from "./stream_source.ts";

/** How often the stream is tried again while the bucket is followed. */
const STREAM_RETRY_MS = 5000;

export interface LiveSourceOptions {
  stream: StreamSource;
  /** Absent: the stream alone. */
  bucket?: Source;
  clock: Clock;
  logger: Logger;
}

export class LiveSource implements Source {
  via: "stream" | "bucket" = "stream";
  private retryAtMs = 0;
  /** The stream has moved on: the bucket has to be at its end first. */
  private isBehind = false;
  private isAtEnd = false;

  constructor(private readonly options: LiveSourceOptions) {}

  get url(): string {
    return this.options.stream.url;
  }

  get primaryUrl(): string {
    return this.options.stream.primaryUrl;
  }

  get newestVersion(): number {
    const { stream, bucket } = this.options;
    return Math.max(stream.newestVersion, bucket?.newestVersion ?? 0);
  }

  async snapshot(
    signal: AbortSignal,
    which?: "newest" | "earliest",
  ): Promise<Snapshot | Extract<Next, { kind: "notYet" }>> {
    const { stream, bucket } = this.options;
    if (bucket === undefined) return await stream.snapshot(signal);
    try {
      const snapshot = await stream.snapshot(signal);
      this.use("stream");
      return snapshot;
    } catch (error) {
      signal.throwIfAborted();
      this.use("bucket", error);
      return await bucket.snapshot(signal, which);
    }
  }

  async next(position: Position, signal: AbortSignal): Promise<Next> {
    const { stream, bucket, clock } = this.options;
    if (bucket === undefined) return await this.streamAlone(position, signal);
    const isDue = clock.monotonicMs() >= this.retryAtMs &&
      (!this.isBehind || this.isAtEnd);
    if (this.via === "stream" || isDue) {
      try {
        const next = await stream.next(position, signal);
        this.use("stream");
        return next;
      } catch (error) {
        signal.throwIfAborted();
        this.isBehind = error instanceof StreamGoneError;
        this.isAtEnd = false;
        this.retryAtMs = clock.monotonicMs() + STREAM_RETRY_MS;
        this.use("bucket", error);
      }
    }
    return await this.fromBucket(bucket, position, signal);
  }

  /** At the bucket's end, the stream is tried again before it looks for long. */
  private async fromBucket(
    bucket: Source,
    position: Position,
    signal: AbortSignal,
  ): Promise<Next> {
    const { clock } = this.options;
    const ended = new AbortController();
    const end = () => ended.abort(signal.reason);
    let isRetry = false;
    let timer: Timer | undefined;
    if (this.isAtEnd) {
      const inMs = Math.max(0, this.retryAtMs - clock.monotonicMs());
      timer = clock.after(inMs, () => {
        isRetry = true;
        ended.abort();
      });
    }
    signal.addEventListener("abort", end);
    try {
      const next = await bucket.next(position, ended.signal);
      this.isAtEnd = next.kind === "end" || next.kind === "notYet";
      return next;
    } catch (error) {
      signal.throwIfAborted();
      if (!isRetry) throw error;
      // Nothing new is known of it: as it was.
      return { kind: "notYet", why: "The primary's stream is tried again." };
    } finally {
      timer?.stop();
      signal.removeEventListener("abort", end);
    }
  }

  private async streamAlone(
    position: Position,
    signal: AbortSignal,
  ): Promise<Next> {
    try {
      return await this.options.stream.next(position, signal);
    } catch (error) {
      if (!(error instanceof StreamGoneError)) throw error;
      return { kind: "beginAnew", why: error.message };
    }
  }

  private use(via: "stream" | "bucket", why?: unknown): void {
    if (this.via === via) return;
    this.via = via;
    const { logger, stream, bucket } = this.options;
    if (via === "stream") {
      this.isBehind = this.isAtEnd = false;
      logger.info("The primary's stream is followed again.", {
        source: stream.url,
      });
      return;
    }
    logger.warn(
      "The primary's stream cannot be followed; its backup is, until it can.",
      { reason: messageOf(why), source: stream.url, backup: bucket?.url },
    );
  }

  async close(): Promise<void> {
    await this.options.stream.close();
    await this.options.bucket?.close();
  }
}
