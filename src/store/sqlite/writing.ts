/**
 * The writing side of an open file, and its recovery: it holds the session,
 * its writer and its horizon together, and when the disk fails it stops
 * acknowledging at once, finds out by itself when the disk is back, and goes
 * on from the last state that is certainly durable.
 */
import { DatabaseSync } from "node:sqlite";
import type { Bytes } from "../../common/bytes.ts";
import { messageOf, UnavailableError } from "../../common/errors.ts";
import type { AtomicWrite, WriteOutcome } from "../../protocol/messages.ts";
import type { Durability } from "../durability.ts";
import type { StoreHealth, StoreStats } from "../store.ts";
import { Checkpointer } from "./checkpointer.ts";
import { type CommittedGroup, DurableHorizon } from "./durable_horizon.ts";
import { ExpirySweeper } from "./expiry.ts";
import { GroupCommit } from "./group_commit.ts";
import {
  openWriteSession,
  type SessionOptions,
  type WriteSession,
} from "./session.ts";
import { walBytes } from "./wal.ts";

/** How often a failed disk is tried again. */
const PROBE_INTERVAL_MS = 500;
/** After a failed checkpoint, commits go on; the next attempt waits so long. */
const CHECKPOINT_RETRY_MS = 5000;

export interface WritingOptions extends SessionOptions {
  durability: Durability;
  batchTimeoutMs: number;
}

/** What belongs to one opening of the file. */
interface Current {
  session: WriteSession;
  horizon: DurableHorizon;
  writer: GroupCommit;
  sweeper: ExpirySweeper;
}

type Counts = Pick<
  StoreStats,
  | "commits"
  | "atomicWrites"
  | "groupSizes"
  | "syncSeconds"
  | "syncFailures"
  | "expiredDeleted"
>;

export class Writing {
  readonly databaseId: string;
  onDurableKeys: (keys: Iterable<Bytes>) => void = () => {};
  onForeignWrite: () => void = () => {};
  private open: Current | undefined;
  private readonly checkpointer: Checkpointer;
  private checkpointAfterMs = 0;
  private walFrames = 0;
  private failure: UnavailableError | undefined;
  private commitFailures = 0;
  private isClosing = false;
  private recovering: Promise<void> | undefined;
  /** The log is in doubt: the file has to be opened anew from its durable part. */
  private needsReopening = false;

  private constructor(
    private readonly options: WritingOptions,
    session: WriteSession,
  ) {
    this.databaseId = session.databaseId;
    this.checkpointer = new Checkpointer({
      databasePath: options.path,
      holdCommits: () => this.open?.writer.hold() ?? (() => {}),
      walFrames: () =>
        this.open?.session.walFrames() ?? { log: 0, checkpointed: 0 },
      onFailure: (message) => this.onCheckpointFailure(message),
    });
    this.open = this.begin(session);
  }

  /** @throws StartupError where the file cannot be opened or synced */
  static async open(options: WritingOptions): Promise<Writing> {
    return new Writing(options, await openDurably(options));
  }

  private begin(session: WriteSession): Current {
    const { clock, random, durability, batchTimeoutMs } = this.options;
    const horizon = new DurableHorizon({
      clock,
      durability,
      sync: () => session.wal.sync(),
      onSynced: () => writer.schedule(),
      onDurable: (groups) => this.afterDurable(groups),
      onFailure: (error) => this.fail(error, true),
    }, session.dataVersion());
    horizon.durableFrames = session.walFrames().log;
    const writer: GroupCommit = new GroupCommit(session, {
      clock,
      random,
      horizon,
      batchTimeoutMs,
      onFailure: (error) => {
        this.commitFailures++;
        this.fail(error, false);
      },
      onCommitted: (frames, earliestExpiryMs) => {
        this.walFrames = frames;
        sweeper.expect(earliestExpiryMs);
        if (clock.monotonicMs() < this.checkpointAfterMs) return;
        this.checkpointer.maybeStart(walBytes(frames, session.pageBytes));
      },
      onForeignWrite: () => {
        this.options.logger.warn(
          "Another program wrote to the database while this server had it open. Its data are kept; do not run two programs on one file.",
        );
        this.onForeignWrite();
      },
    });
    const sweeper: ExpirySweeper = new ExpirySweeper({
      clock,
      earliestExpiryMs: () =>
        session.db.isOpen ? session.earliestExpiryMs() : undefined,
      sweep: () => writer.sweep(),
    });
    return { session, horizon, writer, sweeper };
  }

  /** @throws UnavailableError while the file is being opened anew */
  current(): Current {
    if (this.open) return this.open;
    throw this.failure ?? new UnavailableError("The database is closed.");
  }

  write(write: AtomicWrite): Promise<WriteOutcome> {
    if (this.failure) return Promise.reject(this.failure);
    return this.current().writer.write(write);
  }

  private afterDurable(groups: readonly CommittedGroup[]): void {
    this.onDurableKeys(keysOf(groups));
  }

  private onCheckpointFailure(message: string): void {
    this.checkpointAfterMs = this.options.clock.monotonicMs() +
      CHECKPOINT_RETRY_MS;
    this.options.logger.warn(
      "A checkpoint failed; writes go on in the write-ahead log, which grows until one succeeds.",
      { reason: message },
    );
  }

  // ---------------------------------------------------------------- failure

  private fail(error: Error, isLogInDoubt: boolean): void {
    this.needsReopening ||= isLogInDoubt;
    this.failure = error instanceof UnavailableError
      ? error
      : new UnavailableError(messageOf(error));
    this.open?.writer.refuse(this.failure);
    if (this.recovering || this.isClosing) return;
    this.options.logger.error("Writes are refused until the disk recovers.", {
      reason: error.message,
    });
    this.recovering = this.recover().finally(() => this.recovering = undefined);
  }

  private async recover(): Promise<void> {
    const { clock, logger } = this.options;
    while (!this.isClosing) {
      await new Promise<void>((resolve) =>
        clock.after(PROBE_INTERVAL_MS, resolve)
      );
      if (this.isClosing) return;
      try {
        if (this.needsReopening) await this.reopen();
        await this.probe();
        this.failure = undefined;
        this.current().writer.accept();
        this.onForeignWrite();
        logger.info(
          "The disk takes writes again; everything acknowledged is there.",
        );
        return;
      } catch (error) {
        logger.debug("The disk still fails.", { reason: messageOf(error) });
      }
    }
  }

  /** Commits and syncs something small. */
  private async probe(): Promise<void> {
    const { writer, session } = this.current();
    writer.probe();
    try {
      await session.wal.sync();
    } catch (error) {
      this.needsReopening = true;
      throw error;
    }
  }

  /**
   * After a failed sync nobody knows which pages of the log reached the disk,
   * and asking again can answer "all" wrongly. So the log is cut back to what
   * an earlier sync, or a checkpoint, made certain.
   */
  private async reopen(): Promise<void> {
    const { options } = this;
    await this.checkpointer.suspend();
    try {
      const { open } = this;
      if (open) {
        this.open = undefined;
        open.sweeper.stop();
        this.closed = this.countsOf(open);
        closeAndCut(open, options.path);
      }
      this.open = this.begin(await openDurably(options));
      // Writes are refused until the probe has passed.
      if (this.failure) this.open.writer.refuse(this.failure);
      this.needsReopening = false;
    } finally {
      this.checkpointer.resume();
    }
  }

  // -------------------------------------------------------------- reporting

  health(): StoreHealth {
    return this.failure
      ? { writable: false, reason: this.failure.message }
      : { writable: true };
  }

  /** What openings before the present one have counted. */
  private closed: Counts | undefined;

  private countsOf({ writer, horizon }: Current): Counts {
    const present: Counts = {
      commits: writer.commits,
      atomicWrites: { ...writer.outcomes },
      groupSizes: writer.groupSizes.snapshot(),
      syncSeconds: horizon.syncSeconds.snapshot(),
      syncFailures: horizon.syncFailures,
      expiredDeleted: writer.expiredDeleted,
    };
    return this.closed ? addCounts(this.closed, present) : present;
  }

  stats(): Omit<StoreStats, "watches"> {
    const current = this.current();
    const { session, horizon } = current;
    return {
      ...this.countsOf(current),
      durableVersion: horizon.durableVersion,
      commitFailures: this.commitFailures,
      checkpoints: this.checkpointer.completed,
      databaseBytes: session.databaseBytes(),
      walBytes: walBytes(this.walFrames, session.pageBytes),
      expiryBacklog: session.expiryBacklog(this.options.clock.nowMs()),
      log: {
        floorVersion: session.log.floorVersion,
        headVersion: session.log.headVersion,
        sizeBytes: session.log.sizeBytes,
      },
    };
  }

  // ----------------------------------------------------------------- ending

  /** Finishes what waits, checkpoints, and closes the file. */
  async close(): Promise<void> {
    this.isClosing = true;
    const { open } = this;
    if (!open) {
      await this.checkpointer.suspend();
      return;
    }
    open.sweeper.stop();
    if (!this.failure) await this.drained(open);
    await this.checkpointer.suspend();
    this.open = undefined;
    if (this.needsReopening) return closeAndCut(open, this.options.path);
    // Closing the last connection copies the log into the database.
    open.session.close();
  }

  private async drained({ writer, horizon }: Current): Promise<void> {
    while (!writer.isIdle || !horizon.isIdle) {
      if (this.failure) return;
      writer.schedule();
      await new Promise<void>((resolve) =>
        this.options.clock.endOfTurn(resolve)
      );
    }
  }
}

/** Opens the file; what it shows is durable when this resolves. */
async function openDurably(options: SessionOptions): Promise<WriteSession> {
  const session = openWriteSession(options);
  try {
    // A server that was killed may have left commits that no sync has covered.
    await session.wal.sync();
    return session;
  } catch (error) {
    session.close();
    throw error;
  }
}

/**
 * Closes every connection without letting the last one checkpoint the part of
 * the log that is in doubt, and cuts that part off.
 */
function closeAndCut({ session, horizon }: Current, path: string): void {
  session.reader.endTurn();
  // What a checkpoint has copied back, it synced first.
  const frames = Math.max(
    horizon.durableFrames,
    session.walFrames().checkpointed,
  );
  // A read-only connection that is closed last neither checkpoints nor
  // deletes the log.
  const guard = new DatabaseSync(path, { readOnly: true });
  guard.prepare("select version from data_version").all();
  session.db.close();
  guard.close();
  session.wal.cut(frames, session.pageBytes);
  session.close();
}

function* keysOf(groups: readonly CommittedGroup[]): Iterable<Bytes> {
  for (const group of groups) {
    for (const effect of group.effects) yield effect.key;
  }
}

function addCounts(a: Counts, b: Counts): Counts {
  const histogram = (x: Counts["groupSizes"], y: Counts["groupSizes"]) => ({
    bounds: y.bounds,
    counts: y.counts.map((count, i) => count + x.counts[i]),
    sum: x.sum + y.sum,
  });
  return {
    commits: a.commits + b.commits,
    atomicWrites: {
      committed: a.atomicWrites.committed + b.atomicWrites.committed,
      checkFailed: a.atomicWrites.checkFailed + b.atomicWrites.checkFailed,
      refused: a.atomicWrites.refused + b.atomicWrites.refused,
    },
    groupSizes: histogram(a.groupSizes, b.groupSizes),
    syncSeconds: histogram(a.syncSeconds, b.syncSeconds),
    syncFailures: a.syncFailures + b.syncFailures,
    expiredDeleted: a.expiredDeleted + b.expiredDeleted,
  };
}
