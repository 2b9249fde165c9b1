/** Reading a whole file beside its writer, in a thread of its own. */
import { UnavailableError } from "../../common/errors.ts";
import type {
  DatabaseDigest,
  SnapshotOptions,
  SnapshotSummary,
} from "../backup_source.ts";
import {
  type SnapshotReply,
  type SnapshotRequest,
  type SnapshotTask,
  snapshotWorkerUrl,
} from "./snapshot_worker.ts";

/** Parts of a digest are never handed out; it is the same for any size. */
const DIGEST_PART_BYTES = 1024 * 1024;

class SnapshotThread {
  private readonly worker: Worker;
  private answer = Promise.withResolvers<SnapshotReply>();
  /** Rejects when the signal ends it. */
  readonly aborted = Promise.withResolvers<never>();

  constructor(task: SnapshotTask, private readonly signal?: AbortSignal) {
    signal?.throwIfAborted();
    this.aborted.promise.catch(() => {});
    this.worker = new Worker(snapshotWorkerUrl(task), {
      type: "module",
      name: "snapshot",
    });
    this.worker.onmessage = (event: MessageEvent<SnapshotReply>) =>
      this.answer.resolve(event.data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      // Its further lines show the program, which is all in the URL.
      const message = event.message.split("\n", 1)[0].slice(0, 300);
      this.answer.resolve({ kind: "failed", message });
    };
    signal?.addEventListener("abort", this.onAbort);
  }

  private readonly onAbort = () => this.aborted.reject(this.signal!.reason);

  /** @throws UnavailableError where the file could not be read */
  async ask(request: SnapshotRequest): Promise<SnapshotReply> {
    this.signal?.throwIfAborted();
    this.answer = Promise.withResolvers();
    this.worker.postMessage(request);
    const reply = await this.unlessAborted(this.answer.promise);
    if (reply.kind === "failed") {
      throw new UnavailableError(
        `The database could not be read as a whole: ${reply.message}. It was not changed.`,
      );
    }
    return reply;
  }

  unlessAborted<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.aborted.promise]);
  }

  /** The connection goes with the thread. */
  end(): void {
    this.signal?.removeEventListener("abort", this.onAbort);
    this.worker.terminate();
  }
}

/** @param options.settled resolves when the version may be handed out */
export async function snapshotFile(
  path: string,
  options: SnapshotOptions & {
    settled(version: number): Promise<void>;
    /** Rows of other programs that cannot be read are not in it. */
    onLeftOut(rows: number): void;
    nowMs(): number;
  },
): Promise<SnapshotSummary> {
  const { partBytes, splitKeys = [], signal } = options;
  const thread = new SnapshotThread(
    { path, partBytes, handsOut: true },
    signal,
  );
  try {
    const begun = await thread.ask({ kind: "begin", splitKeys });
    if (begun.kind !== "begun") throw new TypeError(begun.kind);
    await thread.unlessAborted(options.settled(begun.version));
    const { version, head } = begun;
    // A new file's row has no time, and another program's commit has no row.
    const timeMs = version === head.version && head.timeMs > 0
      ? head.timeMs
      : Math.max(head.timeMs, options.nowMs());
    options.onBegin(version);
    for (;;) {
      const pauseMs = options.pauseMs?.() ?? 0;
      const reply = await thread.ask({ kind: "more", pauseMs });
      if (reply.kind === "part") {
        // An upload may take long: the thread ends without it.
        await thread.unlessAborted(options.onPart(reply));
      } else if (reply.kind === "end") {
        const { entries, queueMessages, sizeBytes, unreadable } = reply;
        if (unreadable > 0) options.onLeftOut(unreadable);
        return { version, timeMs, entries, queueMessages, sizeBytes };
      }
    }
  } finally {
    thread.end();
  }
}

/**
 * What a file's contents come to. The sum does not depend on the version, nor
 * on when expired rows are deleted where none are.
 * @throws UnavailableError where the file cannot be read
 */
export async function digestFile(
  path: string,
  signal?: AbortSignal,
): Promise<DatabaseDigest> {
  const task = { path, partBytes: DIGEST_PART_BYTES, handsOut: false };
  const thread = new SnapshotThread(task, signal);
  try {
    const begun = await thread.ask({ kind: "begin", splitKeys: [] });
    const end = await thread.ask({ kind: "more", pauseMs: 0 });
    if (begun.kind !== "begun" || end.kind !== "end") {
      throw new TypeError(end.kind);
    }
    const { entries, queueMessages, sha256 } = end;
    return { version: begun.version, entries, queueMessages, sha256 };
  } finally {
    thread.end();
  }
}
