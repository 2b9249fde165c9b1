/**
 * A restore's thread, seen from the one that feeds it: what is handed over and
 * not yet in the file is bounded, and a thread that is gone is an error.
 */
import type { Clock, Timer } from "../../common/clock.ts";
import { UnavailableError } from "../../common/errors.ts";
import type { RestoreBatch } from "./restore_table.ts";
import {
  type RestoreReply,
  type RestoreRequest,
  type RestoreTask,
  restoreWorkerUrl,
} from "./restore_worker.ts";

/**
 * Handed over and not yet in the file: enough that the thread never waits for
 * the next part while one is at hand.
 */
const MAX_UNDER_WAY_BYTES = 3 * 1024 * 1024;
/**
 * A thread that is silent for so long is ended. The longest silence is the
 * making of the index with the commit: 30 s for 100 GB on a usual disk.
 */
const MAX_SILENCE_MS = 1_800_000;

export interface RestoreThreadOptions {
  clock: Clock;
  /** Ends it at once; its reason is what is thrown. */
  signal?: AbortSignal;
  /** The thread's program. Default: restore_worker.ts. */
  workerUrl?(task: RestoreTask): string;
}

export class RestoreThread {
  private readonly worker: Worker;
  /** Sizes of what was handed over and not answered, in order. */
  private readonly underWay: number[] = [];
  private underWayBytes = 0;
  private failure: unknown;
  private hasFailed = false;
  private queueContents: string | undefined;
  private change = Promise.withResolvers<void>();
  private silence: Timer | undefined;

  constructor(
    task: RestoreTask,
    private readonly options: RestoreThreadOptions,
  ) {
    const { signal, workerUrl = restoreWorkerUrl } = options;
    signal?.throwIfAborted();
    this.worker = new Worker(workerUrl(task), {
      type: "module",
      name: "restore",
    });
    this.worker.onmessage = (event: MessageEvent<RestoreReply>) =>
      this.onReply(event.data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      // Its further lines show the program, which is all in the URL.
      const reason = event.message.split("\n", 1)[0].slice(0, 300);
      this.fail(new Error(`its thread has ended (${reason})`));
    };
    signal?.addEventListener("abort", this.onAbort);
  }

  private readonly onAbort = () => this.fail(this.options.signal!.reason);

  /**
   * Hands rows over, and their bytes with them. Resolves when there is room for
   * the next ones.
   * @throws whatever kept the thread from writing these or earlier ones
   */
  async put(batch: RestoreBatch): Promise<void> {
    const sizeBytes = batch.bytes.length + batch.rows.byteLength;
    this.send(batch, sizeBytes, [batch.bytes.buffer, batch.rows.buffer]);
    while (this.underWayBytes > MAX_UNDER_WAY_BYTES) await this.changed();
    this.throwIfFailed();
  }

  /**
   * Everything is in the file, and the thread's connection is closed.
   * @returns what its queue holds (`QueueTables.contents`)
   */
  async finish(): Promise<string> {
    this.send({ kind: "finish" }, 0, []);
    while (this.queueContents === undefined) await this.changed();
    return this.queueContents;
  }

  private send(
    request: RestoreRequest,
    sizeBytes: number,
    transfer: Transferable[],
  ): void {
    this.throwIfFailed();
    this.worker.postMessage(request, transfer);
    this.underWay.push(sizeBytes);
    this.underWayBytes += sizeBytes;
    this.silence ??= this.startSilence();
  }

  private startSilence(): Timer {
    const { clock } = this.options;
    return clock.after(MAX_SILENCE_MS, () =>
      this.fail(
        new UnavailableError(
          `its thread has not answered for ${MAX_SILENCE_MS / 60_000} minutes`,
        ),
      ));
  }

  private onReply(reply: RestoreReply): void {
    if (reply.kind === "failed") return this.fail(new Error(reply.message));
    if (reply.kind === "finished") this.queueContents = reply.queueContents;
    this.underWayBytes -= this.underWay.shift() ?? 0;
    this.silence?.stop();
    this.silence = this.underWay.length > 0 ? this.startSilence() : undefined;
    this.wake();
  }

  private fail(error: unknown): void {
    if (!this.hasFailed) this.failure = error;
    this.hasFailed = true;
    this.end();
    this.wake();
  }

  private wake(): void {
    this.change.resolve();
    this.change = Promise.withResolvers();
  }

  private async changed(): Promise<void> {
    this.throwIfFailed();
    await this.change.promise;
    this.throwIfFailed();
  }

  private throwIfFailed(): void {
    if (this.hasFailed) throw this.failure;
  }

  /** What it may still do ends with the call of the system that it is in. */
  end(): void {
    this.options.signal?.removeEventListener("abort", this.onAbort);
    this.silence?.stop();
    this.worker.terminate();
  }
}
