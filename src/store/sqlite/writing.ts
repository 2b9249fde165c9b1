/**
 * The writing side of an open file, and its recovery: it holds the session,
 * its writer and its horizon together, and when the disk fails it stops
 * acknowledging at once, finds out by itself when the disk is back, and goes
 * on from the last state that is certainly durable.
 */
import type { Bytes } from "../../common/bytes.ts";
import { messageOf, UnavailableError } from "../../common/errors.ts";
import type { AtomicWrite, WriteOutcome } from "../../protocol/messages.ts";
import type { Durability } from "../durability.ts";
import { LogReaders, type ReadableLog } from "../log_readers.ts";
import type { StoreHealth, StoreStats } from "../store.ts";
import { Checkpointer } from "./checkpointer.ts";
import {
  closeInDoubt,
  closeUncopied,
  type Cut,
  requireAlone,
} from "./cut_back.ts";
import { DiskReserve } from "./disk_reserve.ts";
import {
  type CommittedGroup,
  DurableHorizon,
  type Unconfirmed,
} from "./durable_horizon.ts";
import { ExpirySweeper } from "./expiry.ts";
import { ForeignWrites } from "./foreign_writes.ts";
import {
  fullDisk,
  isDiskFull,
  mayCheckpoint,
  proveRoom,
  ROOM_BYTES,
} from "./full_disk.ts";
import { GroupCommit } from "./group_commit.ts";
import type { LargeReads } from "./large_reads.ts";
import { type Counts, countsOf } from "./writing_counts.ts";
import {
  openWriteSession,
  type SessionOptions,
  type WriteSession,
} from "./session.ts";
import { StallWatch, type Waits } from "./stall_watch.ts";
import { WaitingWrites } from "./waiting_writes.ts";
import { cutLog, walBytes } from "./wal.ts";

/** How often a failed disk is tried again. */
const PROBE_INTERVAL_MS = 500;
/** A full one less often: each time the whole reserve is written. */
const ROOM_INTERVAL_MS = 2000;
/** After a failed checkpoint, commits go on; the next attempt waits so long. */
const CHECKPOINT_RETRY_MS = 5000;

export interface WritingOptions extends SessionOptions {
  /** Told now and then, of a durable one: at the start, checkpoints, the end. */
  noteVersion?(databaseId: string, version: number): void;
  durability: Durability;
  batchTimeoutMs: number;
  /** Default: see waiting_writes.ts. */
  maxWaitingBytes?: number;
  /** Room kept for deletions on a full disk; default: none. */
  reserveBytes?: number;
}

/** What belongs to one opening of the file. */
interface Current {
  session: WriteSession;
  horizon: DurableHorizon;
  writer: GroupCommit;
  sweeper: ExpirySweeper;
}

export class Writing {
  readonly databaseId: string;
  onDurableKeys: (keys: Iterable<Bytes>) => void = () => {};
  onForeignWrite: () => void = () => {};
  /** What else has the file open now and then. */
  largeReads: Pick<LargeReads, "suspend" | "resume"> | undefined;
  private open: Current | undefined;
  private readonly checkpointer: Checkpointer;
  private readonly waiting: WaitingWrites;
  private readonly stalls: StallWatch;
  private checkpointAfterMs = 0;
  private walFrames = 0;
  /** Issued by openings before the present one. */
  private highestVersion = 0;
  private readonly foreignWrites: ForeignWrites;
  private failure: UnavailableError | undefined;
  private commitFailures = 0;
  private isClosing = false;
  private isRefused = false;
  private isDiskFull = false;
  private recovering: Promise<void> | undefined;
  /** The log is in doubt: the file has to be opened anew from its durable part. */
  private needsReopening = false;
  private unconfirmed: Unconfirmed | undefined;
  /** Where the log has to end before the file may be opened again. */
  private cut: Cut | undefined;
  /** They outlive openings of the file. */
  readonly logReaders: LogReaders;

  private constructor(
    private readonly options: WritingOptions,
    session: WriteSession,
    private readonly reserve: DiskReserve,
  ) {
    this.databaseId = session.databaseId;
    this.foreignWrites = new ForeignWrites(options.clock, options.logger);
    this.logReaders = new LogReaders(
      () => this.readableLog(),
      () => options.clock.nowMs(),
    );
    this.waiting = new WaitingWrites(options.maxWaitingBytes);
    this.stalls = new StallWatch({
      clock: options.clock,
      logger: options.logger,
      waits: () => this.waits(),
      hasWaiting: () => this.waiting.count > 0,
      rejectPending: (error) => this.open?.writer.rejectPending(error),
    });
    this.checkpointer = new Checkpointer({
      clock: options.clock,
      databasePath: options.path,
      holdCommits: () => this.open?.writer.hold() ?? (() => {}),
      walFrames: () =>
        this.open?.session.walFrames() ?? { log: 0, checkpointed: 0 },
      onFailure: (message) => this.onCheckpointFailure(message),
      onCompleted: () => this.noteVersion(),
    });
    this.open = this.begin(session, session.walFrames().log);
  }

  /** @throws StartupError where the file cannot be opened or synced */
  static async open(options: WritingOptions): Promise<Writing> {
    const { path, reserveBytes = 0, random } = options;
    const reserve = new DiskReserve(`${path}-reserve`, reserveBytes, random);
    let session: WriteSession;
    try {
      session = await openDurably(options);
    } catch (error) {
      // A full disk has no room for opening either.
      if (!isDiskFull(error) || !reserve.release()) throw error;
      session = await openDurably(options);
    }
    const writing = new Writing(options, session, reserve);
    writing.noteVersion();
    void writing.makeReserve();
    return writing;
  }

  private noteVersion(): void {
    const { options, open, databaseId } = this;
    if (open) options.noteVersion?.(databaseId, open.horizon.durableVersion);
  }

  /** Beside serving: writing it may take a moment. */
  private async makeReserve(): Promise<void> {
    const { reserve, options } = this;
    if (await reserve.fill() || this.isClosing || this.isDiskFull) return;
    options.logger.warn(
      "The room that is kept for deletions on a full disk could not be had; deletions may be refused then.",
      { sizeBytes: reserve.sizeBytes, reason: reserve.problem },
    );
  }

  /** @param certainFrames how much of the log is known to be on the disk */
  private begin(session: WriteSession, certainFrames: number): Current {
    session.log.retentions = this.logReaders.retentions;
    const { clock, random, durability, batchTimeoutMs } = this.options;
    const horizon = new DurableHorizon({
      clock,
      durability,
      sync: () => session.wal.sync(),
      onSynced: () => writer.schedule(),
      onDurable: (groups) => this.afterDurable(groups),
      onSyncFailure: (error) => this.fail(error, true),
      onRefusal: (error) => this.refuseForGood(error),
    }, session.dataVersion());
    horizon.durableFrames = certainFrames;
    const writer: GroupCommit = new GroupCommit(session, {
      clock,
      random,
      horizon,
      batchTimeoutMs,
      waiting: this.waiting,
      onFailure: (error, isDiskFull) => {
        this.commitFailures++;
        if (isDiskFull) this.diskIsFull(error);
        else this.fail(error, false);
      },
      onCommitted: (frames, earliestExpiryMs) => {
        this.walFrames = frames;
        sweeper.expect(earliestExpiryMs);
        if (clock.monotonicMs() < this.checkpointAfterMs) return;
        const bytes = walBytes(frames, session.pageBytes);
        if (this.isDiskFull && !mayCheckpoint(bytes, this.reserve)) return;
        this.checkpointer.maybeStart(bytes);
      },
      onForeignWrite: (ourVersion, fileVersion) => {
        this.foreignWrites.noteWrite(ourVersion, fileVersion);
        this.onForeignWrite();
      },
      highestVersion: this.highestVersion,
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

  unavailable(): UnavailableError {
    return this.failure ?? new UnavailableError("The database was reopened.");
  }

  /** How long the write-ahead log is, as of the last commit. */
  get walBytes(): number {
    const pageBytes = this.open?.session.pageBytes ?? 0;
    return walBytes(this.walFrames, pageBytes);
  }

  /**
   * Copies the write-ahead log back, where it can be.
   * @returns whether the next commit begins it anew, beside new readers too
   */
  async checkpoint(): Promise<boolean> {
    const { clock } = this.options;
    if (this.isDiskFull || clock.monotonicMs() < this.checkpointAfterMs) {
      return false;
    }
    await this.checkpointer.now();
    const { log, checkpointed } = this.current().session.walFrames();
    return log === checkpointed;
  }

  private readableLog(): ReadableLog {
    const { session: { log }, horizon } = this.current();
    return {
      floorVersion: log.floorVersion,
      durableVersion: horizon.durableVersion,
      rows: (version, upTo, maxBytes) => log.readUpTo(version, upTo, maxBytes),
      isInRow: (version, timeMs) => log.isInRow(version, timeMs),
      bytesAfter: (version) => log.bytesAfter(version),
      timeAfter: (version) => log.timeAfter(version),
    };
  }

  /** @throws UnavailableError where the disk does not take them */
  async putState(values: Record<string, string>): Promise<void> {
    const { writer, session } = this.current();
    try {
      writer.putState(values);
      await session.wal.sync();
    } catch (error) {
      throw new UnavailableError(
        `The database did not take a note of its own: ${
          messageOf(error)
        }. Its data are not touched.`,
      );
    }
  }

  /** No more deletions of its own; what is committed is confirmed. */
  async settle(): Promise<void> {
    const { sweeper, horizon } = this.current();
    sweeper.stop();
    await this.waiting.whenNone();
    await horizon.whenSettled();
  }

  write(write: AtomicWrite): Promise<WriteOutcome> {
    if (this.failure && !(this.isDiskFull && this.open)) {
      return Promise.reject(this.failure);
    }
    const outcome = this.current().writer.write(write);
    this.stalls.expect();
    return outcome;
  }

  private waits(): Waits {
    const { writer, horizon } = this.open ?? {};
    return {
      sync: horizon?.syncingSinceMs,
      checkpoint: writer?.waits.checkpoint,
      lock: writer?.waits.lock,
      confirmation: horizon?.confirmingSince,
    };
  }

  private afterDurable(groups: readonly CommittedGroup[]): void {
    this.onDurableKeys(keysOf(groups));
    this.logReaders.durable(this.open?.horizon.durableVersion ?? 0);
  }

  /** Of a snapshot. */
  noteLeftOut(rows: number): void {
    this.options.logger.warn(
      "The backup leaves out rows that are none of Deno KV's: another program wrote them into the database, and they cannot be read.",
      { rows },
    );
  }

  private onCheckpointFailure(message: string): void {
    // Now, while the log is still short enough for the reserve.
    if (isDiskFull(message)) this.diskIsFull(fullDisk());
    this.checkpointAfterMs = this.options.clock.monotonicMs() +
      CHECKPOINT_RETRY_MS;
    this.options.logger.warn(
      "A checkpoint failed; writes go on in the write-ahead log, which grows until one succeeds.",
      { reason: message },
    );
  }

  // ---------------------------------------------------------------- failure

  private fail(error: UnavailableError, isLogInDoubt: boolean): void {
    this.needsReopening ||= isLogInDoubt;
    this.failure = error;
    this.refuse(error);
    this.startRecovering("Writes are refused until the disk recovers.");
  }

  /** Deletions are taken, for which there is the reserve. */
  private diskIsFull(error: UnavailableError): void {
    this.reserve.release();
    if (this.isDiskFull || this.isRefused) return;
    this.isDiskFull = true;
    this.failure = error;
    this.refuse(error);
    this.startRecovering(
      "Writes are refused until there is room on the disk; deletions are taken.",
    );
  }

  private refuse(error: UnavailableError): void {
    if (this.isDiskFull && !this.needsReopening) {
      this.open?.writer.refuseAllButDeletions(error);
    } else this.open?.writer.refuse(error);
  }

  private startRecovering(message: string): void {
    if (this.recovering || this.isClosing) return;
    this.options.logger.error(message, { reason: this.failure?.message });
    this.recovering = this.recover().finally(() => this.recovering = undefined);
  }

  /** Whoever decides what counts as durable has said no: only a new start asks again. */
  private refuseForGood(error: UnavailableError): void {
    this.isRefused = true;
    this.failure = error;
    this.logReaders.end(error);
    this.open?.writer.refuse(error);
    const reason = error.message;
    this.options.logger.error(
      "Writes are refused until the server is started anew.",
      { reason },
    );
  }

  private async recover(): Promise<void> {
    const { clock, logger } = this.options;
    while (!this.isClosing && !this.isRefused) {
      await new Promise<void>((resolve) =>
        clock.after(
          this.isDiskFull ? ROOM_INTERVAL_MS : PROBE_INTERVAL_MS,
          resolve,
        )
      );
      if (this.isClosing || this.isRefused) return;
      try {
        if (this.needsReopening) await this.reopen();
        const wasFull = this.isDiskFull;
        await this.probe();
        if (this.isRefused) return;
        // What failed meanwhile, the probe has not tried.
        if (this.needsReopening || this.isDiskFull !== wasFull) continue;
        this.failure = undefined;
        // It stands then; more of it would take the room that is there.
        if (!this.isDiskFull) void this.makeReserve();
        this.isDiskFull = false;
        this.current().writer.accept();
        this.onForeignWrite();
        logger.info(
          "The disk takes writes again; everything acknowledged is there.",
        );
        return;
      } catch (error) {
        const reason = messageOf(error);
        if (isDiskFull(error)) {
          // Before it is opened anew nothing is taken, deletions neither.
          if (this.needsReopening) this.reserve.release();
          else this.diskIsFull(fullDisk());
        }
        if (
          error instanceof UnavailableError && reason !== this.failure?.message
        ) {
          this.failure = error;
          logger.error("Writes are still refused.", { reason });
        } else logger.debug("The disk still fails.", { reason });
      }
    }
  }

  /** Commits and syncs a write of a usual size. */
  private async probe(): Promise<void> {
    const { writer, session } = this.current();
    const sync = async () => {
      try {
        await session.wal.sync();
      } catch (error) {
        this.needsReopening = true;
        throw error;
      }
    };
    if (!this.isDiskFull) {
      writer.probe(ROOM_BYTES);
      return sync();
    }
    await proveRoom({
      session,
      writer,
      sync,
      reserve: this.reserve,
      walBytes: walBytes(session.walFrames().log, session.pageBytes),
      emptyLog: () => this.checkpointer.byCaller(() => writer.emptyLog()),
    });
  }

  /**
   * Goes back to what is certain. The file is closed, cut and opened in one
   * go, so that reads hardly notice; where that fails, or the sync that has to
   * follow, it is done again.
   */
  private async reopen(): Promise<void> {
    const { options, checkpointer } = this;
    if (this.open) await checkpointer.repair();
    await checkpointer.suspend();
    await this.largeReads?.suspend();
    try {
      if (this.isClosing) return;
      const { open } = this;
      if (open) {
        requireAlone(open.session);
        // On a full disk the file might not be opened again; as it is, it can
        // still be read.
        open.writer.probe(0);
        this.cut = closeInDoubt(
          open.session,
          options.path,
          open.writer.certainFrames,
        );
        this.open = undefined;
        this.unconfirmed = open.horizon.unconfirmed;
        this.highestVersion = open.writer.highestVersion;
        open.sweeper.stop();
        this.closed = countsOf(open, this.closed);
      }
      if (this.cut) cutLog(this.cut);
      const session = openWriteSession(options);
      this.open = this.begin(session, this.cut?.frames ?? 0);
      if (this.unconfirmed) this.open.horizon.resume(this.unconfirmed);
      this.unconfirmed = undefined;
      // Writes are refused until the probe has passed.
      if (this.failure) this.open.writer.refuse(this.failure);
      await session.wal.sync();
      this.cut = undefined;
      this.needsReopening = false;
      this.logReaders.reopened();
      if (this.failure) this.refuse(this.failure);
    } finally {
      checkpointer.resume();
      this.largeReads?.resume();
    }
  }

  // -------------------------------------------------------------- reporting

  health(): StoreHealth {
    if (this.failure) {
      const cause = this.isDiskFull ? "full" : "disk";
      return { writable: false, cause, reason: this.failure.message };
    }
    const stall = this.stalls.present();
    if (stall === undefined) return { writable: true };
    return { writable: false, cause: stall.cause, reason: stall.sentence };
  }

  /** What openings before the present one have counted. */
  private closed: Counts | undefined;

  private syncPendingMs({ syncingSinceMs }: DurableHorizon): number {
    return syncingSinceMs === undefined
      ? 0
      : this.options.clock.monotonicMs() - syncingSinceMs;
  }

  stats(): Omit<StoreStats, "watches"> {
    const current = this.current();
    const { session, horizon } = current;
    return {
      ...countsOf(current, this.closed),
      durableVersion: horizon.durableVersion,
      commitFailures: this.commitFailures,
      checkpoints: this.checkpointer.completed,
      databaseBytes: session.databaseBytes(),
      walBytes: walBytes(this.walFrames, session.pageBytes),
      expiryBacklog: session.expiryBacklog(this.options.clock.nowMs()),
      syncPendingSeconds: this.syncPendingMs(horizon) / 1000,
      reserveBytes: this.reserve.heldBytes,
      waitingWrites: this.waiting.count,
      waitingBytes: this.waiting.heldBytes,
      refusedWrites: this.waiting.refused,
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
    // As long as writes are waited for, what holds them up is told.
    if (!this.failure || this.isDiskFull) await this.waiting.whenNone();
    this.stalls.stop();
    await this.reserve.settled();
    await this.checkpointer.suspend();
    this.noteVersion();
    this.open = undefined;
    if (this.needsReopening) return this.closeAndCut(open);
    try {
      // Off this thread first: a disk that hangs would hang in SQLite's own
      // syncs below, and nothing could end the process in time any more.
      await open.session.wal.sync();
      // Closing does this only where no other program has the file open.
      open.session.reader.endTurn();
      open.session.db.exec("pragma wal_checkpoint(passive)");
    } catch (error) {
      this.options.logger.warn(
        "The write-ahead log stays beside the database until the next start; nothing is lost.",
        { reason: messageOf(error) },
      );
    } finally {
      open.session.close();
    }
  }

  private closeAndCut({ session, writer }: Current): void {
    const { path } = this.options;
    try {
      if (this.checkpointer.isHalfCopied) {
        throw new Error("a checkpoint is still incomplete");
      }
      requireAlone(session);
      cutLog(closeInDoubt(session, path, writer.certainFrames));
    } catch (error) {
      session.close();
      this.options.logger.warn(
        "The write-ahead log still ends in writes that were not acknowledged; the next start may show them.",
        { reason: messageOf(error) },
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
    closeUncopied(session, options.path);
    throw error;
  }
}

function* keysOf(groups: readonly CommittedGroup[]): Iterable<Bytes> {
  for (const { keys } of groups) yield* keys;
}
