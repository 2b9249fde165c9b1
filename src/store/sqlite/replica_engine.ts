/** The SQLite file of a replica: written by one connection, read by another. */
import type { Clock } from "../../common/clock.ts";
import { messageOf } from "../../common/errors.ts";
import { exists } from "../../common/files.ts";
import type { Logger } from "../../common/log.ts";
import type { Random } from "../../common/random.ts";
import type { ReplicaEngine, ReplicaReader } from "../replica_engine.ts";
import type { ReplicaWriter } from "../replica_writer.ts";
import type { LocalDatabase, RestoreTarget } from "../restore_target.ts";
import { databaseFile } from "./database_file.ts";
import { type InstanceLock, LentLock, lockInstance } from "./instance_lock.ts";
import { openReplicaReader } from "./read_only_store.ts";
import { createRestoreTarget } from "./restore_target.ts";
import { openReplicaWriter } from "./replica_writer.ts";
import { inspectFile, removeDatabase, setAside } from "./unserved_file.ts";

export interface SqliteReplicaEngineOptions {
  path: string;
  clock: Clock;
  random: Random;
  logger: Logger;
  maxWatches: number;
  /** Whether the file can go back in time afterwards (`pitr`). */
  keepsHistory: boolean;
}

export class SqliteReplicaEngine implements ReplicaEngine {
  private readonly path: string;
  private held: InstanceLock | undefined;

  /** @throws StartupError where a link to the file leads nowhere */
  constructor(private readonly options: SqliteReplicaEngineOptions) {
    this.path = databaseFile(options.path);
  }

  get keepsHistory(): boolean {
    return this.options.keepsHistory;
  }

  lock(): InstanceLock {
    return this.held = lockInstance(this.path);
  }

  /** For whoever is to serve the file after the replica; once it is locked. */
  lendLock(): LentLock {
    return new LentLock(this.held!);
  }

  inspect(): LocalDatabase | undefined {
    return inspectFile(this.path);
  }

  /** Also removes what a former one left that was killed. */
  async create(signal?: AbortSignal): Promise<RestoreTarget> {
    await removeDatabase(this.formerPath);
    await removeDatabase(this.nextPath);
    return await createRestoreTarget(this.nextPath, {
      clock: this.options.clock,
      signal,
    });
  }

  private get nextPath(): string {
    return `${this.path}.next`;
  }

  private get formerPath(): string {
    return `${this.path}.former`;
  }

  /** The new file has no write-ahead log: it was closed. */
  install(): Promise<void> {
    const former = exists(this.path)
      ? setAside(this.path, "former")
      : undefined;
    Deno.renameSync(this.nextPath, this.path);
    return former === undefined ? Promise.resolve() : this.remove(former);
  }

  private async remove(former: string): Promise<void> {
    try {
      // Not in this turn: to remove 600 MB takes a while.
      await removeDatabase(former);
    } catch (error) {
      this.options.logger.warn("The replica's former file was not removed.", {
        path: former,
        reason: messageOf(error),
      });
    }
  }

  openReader(): ReplicaReader {
    const { path, options } = this;
    return openReplicaReader({ ...options, path }, options.maxWatches);
  }

  /** Where the file was taken back to an earlier state, it goes on first. */
  async openWriter(): Promise<ReplicaWriter> {
    const { path, options } = this;
    const writer = openReplicaWriter({ ...options, path });
    try {
      if (writer.version < writer.newestVersion) {
        options.logger.warn(
          "The file shows an earlier state than the newest one that it has. It goes forward to that one first, to follow; `pitr checkout` takes it back, and `serve --read-only` shows what it was taken to.",
          { version: writer.version, newestVersion: writer.newestVersion },
        );
        await writer.goTo();
      }
    } catch (error) {
      await writer.close();
      throw error;
    }
    return writer;
  }
}
