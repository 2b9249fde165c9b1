/**
 * Keeps the write-ahead log bounded without stopping readers. The copying,
 * and the syncs it takes, happen in a Worker's thread. When a first pass has
 * caught up with all but the newest frames, commits are held for the moment
 * that a second pass takes for the rest; then the next commit begins the log
 * anew. The Worker starts with the first checkpoint, not with the server.
 */
import type { Clock } from "../../common/clock.ts";
import { messageOf } from "../../common/errors.ts";
import {
  type CheckpointReply,
  type CheckpointRequest,
  checkpointWorkerUrl,
} from "./checkpoint_worker.ts";

/** A log this long is worth a checkpoint. */
const CHECKPOINT_AT_BYTES = 8 * 1024 * 1024;
/** Frames that may be copied while commits wait: some milliseconds. */
const MAX_HELD_FRAMES = 256;
/** Passes beside running commits before commits are held all the same. */
const MAX_FREE_PASSES = 4;

/** Commits wait no longer than this; the pass then goes on beside them. */
const MAX_HOLD_MS = 5000;
/** A thread that has not answered for so long is ended. */
const MAX_PASS_MS = 600_000;
/** The same for a pass that a stop or a recovery waits for. */
const MAX_LAST_PASS_MS = 10_000;

export interface CheckpointerDeps {
  clock: Clock;
  /** The Worker's program. Default: checkpoint_worker.ts. */
  workerUrl?(): string;
  databasePath: string;
  /** Holds commits back until the returned function is called. */
  holdCommits(): () => void;
  /**
   * Frames in the log and how many are copied back, as the writer sees it: a
   * checkpoint itself reports the log as it was when it began.
   */
  walFrames(): { log: number; checkpointed: number };
  /** A checkpoint has reached the end of the log. */
  onCompleted?(): void;
  /** A checkpoint failed: the disk did not take what is in the log. */
  onFailure(message: string): void;
}

export class Checkpointer {
  /** Checkpoints that reached the end of the log. */
  completed = 0;
  private worker: Worker | undefined;
  private answer:
    | { resolve(reply: CheckpointReply): void }
    | undefined;
  private running: Promise<void> | undefined;
  private isStopped = false;
  private startAtBytes = CHECKPOINT_AT_BYTES;
  /** A pass failed in the middle: pages may be copied that it did not count. */
  isHalfCopied = false;

  constructor(private readonly deps: CheckpointerDeps) {}

  /** Called after commits; cheap while the log is short. */
  maybeStart(walBytes: number): void {
    if (walBytes < this.startAtBytes || this.running || this.isStopped) {
      // The log has begun anew, whoever copied it back.
      if (walBytes < CHECKPOINT_AT_BYTES) {
        this.startAtBytes = CHECKPOINT_AT_BYTES;
      }
      return;
    }
    // Where another program's reader is in the way, an attempt for every
    // commit would cost more than it could gain.
    this.startAtBytes = walBytes + CHECKPOINT_AT_BYTES;
    this.running = this.checkpoint().finally(() => this.running = undefined);
  }

  /** One now, or the one that runs; resolves when it has ended. */
  async now(): Promise<void> {
    if (this.isStopped) return;
    this.running ??= this.checkpoint().finally(() => this.running = undefined);
    await this.running;
  }

  private async checkpoint(): Promise<void> {
    let release: (() => void) | undefined;
    try {
      for (let pass = 0;; pass++) {
        const reply = await this.pass();
        if (reply.kind === "failed") {
          // A lock of another program's: the next commits try again.
          this.startAtBytes = CHECKPOINT_AT_BYTES;
          if (!isLocked(reply)) this.deps.onFailure(reply.message);
          return;
        }
        if (reply.kind !== "done" || this.isStopped) return;
        const { log, checkpointed } = this.deps.walFrames();
        const rest = log - checkpointed;
        // After a held pass the rest is another program's reader in the way.
        if (rest <= 0 || release) {
          if (rest <= 0) {
            this.completed++;
            this.deps.onCompleted?.();
            this.isHalfCopied = false;
          }
          return;
        }
        if (rest <= MAX_HELD_FRAMES || pass >= MAX_FREE_PASSES) {
          release = this.hold();
        }
      }
    } catch (error) {
      this.deps.onFailure(messageOf(error));
    } finally {
      release?.();
    }
  }

  /** Commits held back, but not for ever. */
  private hold(): () => void {
    const release = this.deps.holdCommits();
    const timer = this.deps.clock.after(MAX_HOLD_MS, release);
    return () => {
      timer.stop();
      release();
    };
  }

  private async pass(): Promise<CheckpointReply> {
    const reply = await this.ask({ kind: "checkpoint" }, MAX_PASS_MS);
    if (reply.kind === "failed" && !isLocked(reply)) {
      this.isHalfCopied ||= reply.hasBegun;
    }
    return reply;
  }

  /**
   * Before the log is cut: a pass that failed may have left newer pages in the
   * database than it counted, so one has to reach the log's end first.
   * @throws Error where the disk does not let it
   */
  async repair(): Promise<void> {
    await this.running;
    if (!this.isHalfCopied) return;
    const reply = await this.pass();
    if (reply.kind === "failed") throw new Error(reply.message);
    const { log, checkpointed } = this.deps.walFrames();
    if (checkpointed < log) throw new Error("a checkpoint is still incomplete");
    this.isHalfCopied = false;
  }

  /** One on the caller's thread; what it leaves half done is repaired as well. */
  byCaller(checkpoint: () => void): void {
    this.isHalfCopied = true;
    checkpoint();
    this.isHalfCopied = false;
  }

  private async ask(
    request: CheckpointRequest,
    timeoutMs: number,
  ): Promise<CheckpointReply> {
    this.worker ??= this.startWorker();
    const { promise, resolve } = Promise.withResolvers<CheckpointReply>();
    this.answer = { resolve };
    this.worker.postMessage(request);
    const timer = this.deps.clock.after(timeoutMs, () =>
      this.giveUp(
        `its thread has not answered for ${timeoutMs / 1000} s and was ended`,
      ));
    try {
      return await promise;
    } finally {
      timer.stop();
    }
  }

  private startWorker(): Worker {
    const url = this.deps.workerUrl?.() ??
      checkpointWorkerUrl(this.deps.databasePath);
    const worker = new Worker(url, { type: "module", name: "checkpointer" });
    worker.onmessage = (event: MessageEvent<CheckpointReply>) => {
      if (worker === this.worker) this.answer?.resolve(event.data);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      // Its further lines show the program, which is all in the URL.
      const reason = event.message.split("\n", 1)[0].slice(0, 300);
      if (worker === this.worker) this.giveUp(reason);
    };
    return worker;
  }

  /**
   * The next request starts another thread. What this one may still do ends
   * with the call of the system that it is in; until then the file counts as
   * open elsewhere.
   */
  private giveUp(message: string): void {
    this.worker?.terminate();
    this.worker = undefined;
    this.answer?.resolve({ kind: "failed", message, hasBegun: true });
  }

  /**
   * Waits for a running checkpoint and closes the Worker's connection. Begins
   * anew with the next `maybeStart` after `resume`.
   */
  async suspend(): Promise<void> {
    this.isStopped = true;
    if (this.running) {
      const timer = this.deps.clock.after(
        MAX_LAST_PASS_MS,
        () => this.giveUp("a stop does not wait for it any longer"),
      );
      await this.running;
      timer.stop();
    }
    if (!this.worker) return;
    await this.ask({ kind: "close" }, MAX_LAST_PASS_MS);
    this.worker?.terminate();
    this.worker = undefined;
  }

  resume(): void {
    this.isStopped = false;
  }
}

function isLocked({ message }: { message: string }): boolean {
  return /locked/.test(message);
}
