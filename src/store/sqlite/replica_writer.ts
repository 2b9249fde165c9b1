/**
 * The writer of a replica's file, seen from the thread that feeds it. Opening
 * makes sure of what the file is; everything after that happens in a Worker
 * (replica_worker.ts).
 */
import type { DatabaseSync } from "node:sqlite";
import type { Clock } from "../../common/clock.ts";
import { InvalidRequestError, StartupError } from "../../common/errors.ts";
import { exists } from "../../common/files.ts";
import { type Random, randomUuid } from "../../common/random.ts";
import type {
  CommitPoint,
  ReplicaCommits,
  ReplicaWriter,
  ReplicaWriterOptions,
} from "../replica_writer.ts";
import {
  notOpened,
  openConnection,
  prepareRows,
  useWal,
} from "./connection.ts";
import {
  commitStamp,
  COMPLETED,
  CURRENT,
  getConfig,
  hasTable,
  isMadeByRustServer,
  makeHistoryTables,
  type ReplicaPosition,
  replicaPosition,
  setConfig,
} from "./history_tables.ts";
import { MutationLog } from "./mutation_log.ts";
import {
  type ReplicaReply,
  type ReplicaRequest,
  type ReplicaTask,
  replicaWorkerUrl,
} from "./replica_worker.ts";
import { bringUpToDate, makeOwnTables, schemaVersion } from "./schema.ts";
import { SELECT_DATA_VERSION } from "./foreign_rows.ts";
import { StateTable } from "./state.ts";

const CHECKPOINT_AT_BYTES = 32 * 1024 * 1024;
const MAX_LOG_BYTES = 128 * 1024 * 1024;
/** A thread that is silent for so long is ended. */
const MAX_SILENCE_MS = 1_800_000;

export interface SqliteReplicaOptions extends ReplicaWriterOptions {
  path: string;
  clock: Clock;
  random: Random;
  /** The thread's program. Default: replica_worker.ts. */
  workerUrl?(task: ReplicaTask): string;
}

/**
 * Only under the instance lock. A file that was no replica becomes one: its
 * history begins with the state that it is in.
 * @throws StartupError where there is none, or it is no state of a history
 */
export function openReplicaWriter(
  options: SqliteReplicaOptions,
): ReplicaWriter {
  const { path } = options;
  if (!exists(path)) {
    throw new StartupError(
      `${path} is not there. Nothing was made; a replica begins with a snapshot.`,
    );
  }
  const db = openConnection(path, false);
  try {
    schemaVersion(db, path, { takesViews: true });
    useWal(db, path);
    db.exec("begin immediate");
    const isRust = isMadeByRustServer(db);
    if (isRust) makeOwnTables(db);
    else bringUpToDate(db, path);
    const isNew = !hasTable(db, "tt_redo_log");
    makeHistoryTables(db);
    const state = new StateTable(db);
    const databaseId = state.getText("database_id") ??
      randomUuid(options.random);
    state.set("database_id", databaseId);
    begin(db, state, isNew, options);
    const position = replicaPosition(db, state);
    if (position === undefined) {
      throw new StartupError(
        `The first snapshot in ${path} is not complete, so it is no state that its primary had. It was not changed; finish it with the program that began it, or begin a new file.`,
      );
    }
    const written = state.getNumber("replica_version");
    if (!isRust && written !== undefined && written !== position.version) {
      throw new StartupError(
        `${path} was written to by a server since it was a replica: what it holds is no state of the history that it followed. It was not changed; begin a new file.`,
      );
    }
    const log = new MutationLog(db, state);
    log.restartAt(position.version, log.headTimeMs);
    state.set("replica_version", position.version);
    const values = state.all();
    db.exec("commit");
    const task: ReplicaTask = {
      path,
      position,
      keepsHistory: options.keepsHistory,
      table: isRust ? "kv_snapshot" : "kv",
      hasQueue: !isRust,
      checkpointAtBytes: CHECKPOINT_AT_BYTES,
      maxLogBytes: MAX_LOG_BYTES,
    };
    return new SqliteReplicaWriter(databaseId, values, task, options);
  } catch (error) {
    if (db.isTransaction) db.exec("rollback");
    throw notOpened(path, error);
  } finally {
    db.close();
  }
}

/** Within a transaction: where the file's history begins, where it is new. */
function begin(
  db: DatabaseSync,
  state: StateTable,
  isNew: boolean,
  { keepsHistory }: ReplicaWriterOptions,
): void {
  if (isNew) {
    const row = prepareRows(db, SELECT_DATA_VERSION).get() as unknown as
      | [number | null]
      | undefined;
    setConfig(db, CURRENT, commitStamp({ version: row?.[0] ?? 0, order: 0 }));
    setConfig(db, COMPLETED, "1");
  }
  if (!keepsHistory) db.exec("delete from tt_undo_log");
  const current = getConfig(db, CURRENT);
  const hasHistory =
    db.prepare("select 1 from tt_undo_log limit 1").get() !== undefined;
  if (hasHistory || current === undefined) return;
  if (!isNew && keepsHistory && state.getText("history_floor")) return;
  state.set("history_floor", current);
  state.set("history_floor_ms", new MutationLog(db, state).headTimeMs);
}

class SqliteReplicaWriter implements ReplicaWriter {
  private readonly worker: Worker;
  private position: ReplicaPosition;
  private answer: PromiseWithResolvers<ReplicaReply> | undefined;
  private onProgress: ((done: number, total: number) => void) | undefined;
  private ended: string | undefined;

  constructor(
    readonly databaseId: string,
    private readonly values: Map<string, string>,
    task: ReplicaTask,
    private readonly options: SqliteReplicaOptions,
  ) {
    this.position = task.position;
    const { workerUrl = replicaWorkerUrl } = options;
    this.worker = new Worker(workerUrl(task), {
      type: "module",
      name: "replica",
    });
    this.worker.onmessage = (event: MessageEvent<ReplicaReply>) => {
      const { data } = event;
      if (data.kind === "progress") this.onProgress?.(data.done, data.total);
      else this.answer?.resolve(data);
    };
    this.worker.onerror = (event) => {
      event.preventDefault();
      // Its further lines show the program, which is all in the URL.
      this.end(event.message.split("\n", 1)[0].slice(0, 300));
    };
  }

  get version(): number {
    return this.position.version;
  }

  get point(): CommitPoint {
    return this.position.point;
  }

  get newestVersion(): number {
    return this.position.newestVersion;
  }

  state(name: string): string | undefined {
    return this.values.get(name);
  }

  apply(commits: ReplicaCommits): Promise<{ entries: number }> {
    return this.add("apply", commits);
  }

  keep(commits: ReplicaCommits): Promise<{ entries: number }> {
    return this.add("keep", commits);
  }

  private async add(
    kind: "apply" | "keep",
    commits: ReplicaCommits,
  ): Promise<{ entries: number }> {
    const { entries, ...rest } = commits;
    const told = await this.ask(
      { kind, entries, ...rest },
      [entries.buffer],
    );
    for (const [name, value] of Object.entries(commits.state)) {
      this.values.set(name, value);
    }
    return { entries: told };
  }

  async goTo(
    point: CommitPoint = { version: this.newestVersion, order: 0xffff },
    progress?: (done: number, total: number) => void,
  ): Promise<void> {
    this.onProgress = progress;
    try {
      await this.ask({ kind: "goTo", point });
    } finally {
      this.onProgress = undefined;
    }
  }

  async close(): Promise<void> {
    if (this.ended !== undefined) return;
    try {
      await this.answer?.promise;
      const reply = await this.reply({ kind: "close" });
      if (reply.kind === "failed") throw this.sentence(reply.message);
    } finally {
      this.end("it was closed");
    }
  }

  /** @returns how many entries there were */
  private async ask(
    request: ReplicaRequest,
    transfer: Transferable[] = [],
  ): Promise<number> {
    const reply = await this.reply(request, transfer);
    if (reply.kind === "done") {
      this.position = reply.position;
      return reply.entries;
    }
    const message = reply.kind === "failed" ? reply.message : reply.kind;
    throw reply.kind === "failed" && reply.isInvalid
      ? new InvalidRequestError(message)
      : this.sentence(message);
  }

  private async reply(
    request: ReplicaRequest,
    transfer: Transferable[] = [],
  ): Promise<ReplicaReply> {
    if (this.ended !== undefined) throw this.sentence(this.ended);
    if (this.answer) throw new Error("a replica takes one call at a time");
    const answer = this.answer = Promise.withResolvers<ReplicaReply>();
    this.worker.postMessage(request, transfer);
    const silence = this.options.clock.after(MAX_SILENCE_MS, () =>
      this.end(
        `its thread has not answered for ${MAX_SILENCE_MS / 60_000} minutes`,
      ));
    try {
      return await answer.promise;
    } finally {
      silence.stop();
      this.answer = undefined;
    }
  }

  private sentence(reason: string): StartupError {
    return new StartupError(
      `The replica ${this.options.path} could not be written: ${reason}. It is at version ${this.version}, as before; make room or mend the disk, and start again.`,
    );
  }

  /** What the thread may still do ends with the call of the system it is in. */
  private end(reason: string): void {
    this.ended ??= reason;
    this.worker.terminate();
    this.answer?.resolve({ kind: "failed", message: reason, isInvalid: false });
  }
}
