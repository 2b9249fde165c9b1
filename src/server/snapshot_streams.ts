/**
 * A whole database on its way to a new live replica: the parts of a snapshot as
 * they are taken, then where its log goes on
 * (docs/formats/replica-stream.md).
 */
import type { Bytes } from "../common/bytes.ts";
import type { Clock } from "../common/clock.ts";
import { messageOf, TooManyError, UnavailableError } from "../common/errors.ts";
import { encodeFrame } from "../log/frames.ts";
import type { Store } from "../store/store.ts";

/** At once: each holds the write-ahead log up, and a thread. */
export const MAX_SNAPSHOT_STREAMS = 2;
/** Small enough that compressing one holds nobody up. */
const PART_BYTES = 256 * 1024;
/** What the write-ahead log may grow to while one is taken. */
const MAX_WAL_BYTES = 512 * 1024 * 1024;
/** How long the log behind one is kept for the replica to ask for. */
const HOLD_MS = 30_000;
/** A replica that takes nothing for so long is gone. */
const MAX_SILENCE_MS = 60_000;

export interface SnapshotStreamsOptions {
  clock: Clock;
  store: Store;
  /** What the log keeps meanwhile. */
  maxRetainedBytes: number;
}

export class SnapshotStreams {
  private readonly open = new Set<AbortController>();

  constructor(private readonly options: SnapshotStreamsOptions) {}

  /**
   * The body of the answer.
   * @throws TooManyError past the limit
   * @throws UnavailableError where the store has none to give
   */
  stream(deflates: boolean): ReadableStream<Bytes> {
    if (this.open.size >= MAX_SNAPSHOT_STREAMS) {
      throw new TooManyError(
        `${MAX_SNAPSHOT_STREAMS} replicas are taking their first copy, which is the limit at a time. Try again in a while.`,
      );
    }
    const ended = new AbortController();
    this.open.add(ended);
    const pipe = new TransformStream<Bytes, Bytes>(undefined, undefined, {
      highWaterMark: 0,
    });
    const out = pipe.writable.getWriter();
    // The replica is gone.
    out.closed.catch((error) => ended.abort(error));
    this.run(out, ended, deflates).finally(() => this.open.delete(ended));
    return pipe.readable;
  }

  endAll(sentence: string): void {
    for (const ended of this.open) ended.abort(new UnavailableError(sentence));
  }

  private async run(
    out: WritableStreamDefaultWriter<Bytes>,
    ended: AbortController,
    deflates: boolean,
  ): Promise<void> {
    try {
      await this.send(out, ended, deflates);
    } catch (error) {
      // In order, where the replica is still there: it learns why.
      const sentence = error instanceof UnavailableError
        ? error.message
        : `The copy failed: ${messageOf(error)}.`;
      const end = encodeFrame({ kind: "end", status: 503, sentence });
      try {
        // A replica that takes nothing more is not waited for.
        out.write(end).catch(() => {});
        out.close().catch(() => {});
      } catch {
        // It is gone.
      }
    }
  }

  private async send(
    out: WritableStreamDefaultWriter<Bytes>,
    ended: AbortController,
    deflates: boolean,
  ): Promise<void> {
    const { store, clock, maxRetainedBytes } = this.options;
    const { signal } = ended;
    const { backupSource, log } = store;
    if (backupSource === undefined || log === undefined) {
      throw new UnavailableError("This server has no database to copy.");
    }
    // From before the snapshot on, so that the log goes on behind it.
    const held = log.openLogReader({
      name: "first copy of a replica",
      afterVersion: log.durableVersion,
      maxRetainedBytes,
      maxBatchBytes: 1,
    });
    try {
      let version = 0;
      let parts = 0;
      const put = (frame: Bytes) => this.taken(out.write(frame), ended);
      const summary = await backupSource.snapshot({
        partBytes: PART_BYTES,
        maxLogBytes: MAX_WAL_BYTES,
        signal,
        onBegin: (begun) => version = begun,
        onPart: async ({ bytes }) => {
          if (parts === 0) {
            // What a replica shows was acknowledged.
            await backupSource.settled(version);
            const { databaseBytes: sizeBytes } = store.stats();
            await put(encodeFrame({ kind: "snapshot", version, sizeBytes }));
          }
          const number = parts++;
          await put(encodeFrame({ kind: "part", number, bytes }, deflates));
        },
      });
      if (parts === 0) {
        await backupSource.settled(version);
        await put(encodeFrame({ kind: "snapshot", version, sizeBytes: 0 }));
      }
      const { timeMs } = summary;
      await put(encodeFrame({ kind: "snapshotEnd", version, timeMs, parts }));
      await this.taken(out.close(), ended);
      clock.after(HOLD_MS, () => held.close());
    } catch (error) {
      held.close();
      throw error;
    }
  }

  /** Waits until the replica has taken it, for a while. */
  private async taken(
    written: Promise<void>,
    ended: AbortController,
  ): Promise<void> {
    const timer = this.options.clock.after(
      MAX_SILENCE_MS,
      () => ended.abort(new UnavailableError("The replica took nothing.")),
    );
    const { signal } = ended;
    const aborted = Promise.withResolvers<never>();
    const onAbort = () => aborted.reject(signal.reason);
    signal.addEventListener("abort", onAbort);
    try {
      signal.throwIfAborted();
      await Promise.race([written, aborted.promise]);
    } finally {
      timer.stop();
      signal.removeEventListener("abort", onAbort);
      written.catch(() => {});
    }
  }
}
