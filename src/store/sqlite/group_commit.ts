/**
 * The one writer. Atomic writes gather while the last commit is on its way to
 * the disk and go into one transaction together; a lonely write waits for
 * nobody. Each keeps its own versionstamp, its own outcome, and is applied in
 * full or not at all, because it is evaluated before a row is touched.
 */
import type { Bytes } from "../../common/bytes.ts";
import type { Clock, Timer } from "../../common/clock.ts";
import { messageOf, UnavailableError } from "../../common/errors.ts";
import { Histogram } from "../../common/histogram.ts";
import type { Random } from "../../common/random.ts";
import {
  type AtomicWrite,
  Encoding,
  NEVER_MS,
  type WriteOutcome,
} from "../../protocol/messages.ts";
import { LAST_INDEX } from "../../log/entry.ts";
import { evaluate, type RowStamp } from "../evaluate.ts";
import { isBusy } from "./connection.ts";
import type { CommittedGroup, DurableHorizon } from "./durable_horizon.ts";
import { fullDisk, isDiskFull, noRoomAtAll, onlyDeletes } from "./full_disk.ts";
import type { WriteSession } from "./session.ts";
import type { WaitingWrite, WaitingWrites } from "./waiting_writes.ts";

/**
 * A transaction is closed at the first write past any of these, because
 * readers wait for it: so many writes, so many bytes that they produced (a
 * request of 27 KB can produce 64 MB), and so much time. The look at the clock
 * is 0.1 µs for each write, of the 15 µs or more that it takes.
 */
const MAX_GROUP_WRITES = 1024;
const MAX_GROUP_PRODUCED_BYTES = 4 * 1024 * 1024;
const MAX_GROUP_MS = 20;
/** How long another program's lock on the file is waited for. */
const MAX_BUSY_MS = 5000;
const BUSY_RETRY_MS = 2;
/** Each commit adds 1 to 9, so that no one relies on gaps or on their absence. */
const MAX_VERSION_STEP = 9;
/** Rows of one batch of expiry deletions. */
const SWEEP_ROWS = 256;

/** What a transaction has done so far. */
interface Changes {
  keys: Bytes[];
  /** Of these, the ones that are gone now, or will be by themselves. */
  removals: Bytes[];
  earliestExpiryMs: number;
  producedBytes: number;
}

export interface GroupCommitDeps {
  clock: Clock;
  random: Random;
  horizon: DurableHorizon;
  /** A transaction could not be committed; nothing of it was kept. */
  onFailure(error: UnavailableError, isDiskFull: boolean): void;
  /** Frames in the write-ahead log after a commit, and the earliest expiry set. */
  onCommitted(walFrames: number, earliestExpiryMs: number): void;
  /**
   * Another program wrote to the file while it was ours.
   * @param fileVersion what the file said then; undefined: nothing sensible
   */
  onForeignWrite(ourVersion: number, fileVersion: number | undefined): void;
  /** The highest version that this process has issued so far, if any. */
  highestVersion: number;
  /** Milliseconds to gather writes before a commit; 0: none. */
  batchTimeoutMs: number;
  waiting: WaitingWrites;
}

export class GroupCommit {
  commits = 0;
  readonly outcomes = { committed: 0, checkFailed: 0, refused: 0 };
  expiredDeleted = 0;
  readonly groupSizes = new Histogram([1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
  private readonly pending: WaitingWrite[] = [];
  private scheduled: Timer | undefined;
  private holds = 0;
  private heldSinceMs: number | undefined;
  private refusal: UnavailableError | undefined;
  /** Writes that only delete are taken all the same. */
  private takesDeletions = false;
  private busySinceMs: number | undefined;
  /** Of the last commit in the file. */
  private version: number;
  /** The highest one ever issued or seen: what the next goes on from. */
  highestVersion: number;
  private foreignCommits: number;
  private walRun = 0;
  private walFrames = 0;

  constructor(
    private readonly session: WriteSession,
    private readonly deps: GroupCommitDeps,
  ) {
    this.version = session.dataVersion();
    this.highestVersion = Math.max(this.version, deps.highestVersion);
    this.foreignCommits = session.foreignCommits();
    this.walFrames = session.walFrames().log;
  }

  /** From now on every write is refused with this error, the waiting ones too. */
  refuse(error: UnavailableError): void {
    this.refusal = error;
    this.takesDeletions = false;
    this.rejectPending(error);
  }

  /** The same, but what only deletes is taken. */
  refuseAllButDeletions(error: UnavailableError): void {
    this.refusal = error;
    this.takesDeletions = true;
    const { pending } = this;
    const deletions = pending.filter(({ write }) => onlyDeletes(write));
    const others = pending.filter(({ write }) => !onlyDeletes(write));
    pending.splice(0, pending.length, ...deletions);
    for (const item of others) this.deps.waiting.reject(item, error);
  }

  /** Writes that are in no transaction yet are answered with this. */
  rejectPending(error: UnavailableError): void {
    const { waiting } = this.deps;
    for (const item of this.pending.splice(0)) waiting.reject(item, error);
  }

  /** Resolves like `Store.write`. */
  write(write: AtomicWrite): Promise<WriteOutcome> {
    return this.add(write);
  }

  /** Deletes a batch of expired rows; resolves with how many there were. */
  async sweep(): Promise<number> {
    const before = this.expiredDeleted;
    await this.add(null);
    return this.expiredDeleted - before;
  }

  private add(write: AtomicWrite | null): Promise<WriteOutcome> {
    if (this.refusal && !(this.takesDeletions && onlyDeletes(write))) {
      return Promise.reject(this.refusal);
    }
    return this.deps.waiting.admit(write, this.enter);
  }

  private readonly enter = (item: WaitingWrite) => {
    this.pending.push(item);
    this.schedule();
  };

  /** Arranges the next commit, if there is anything for it and it may start. */
  schedule(): void {
    if (
      this.scheduled || this.holds > 0 || this.pending.length === 0 ||
      !this.deps.horizon.takesCommits
    ) return;
    const { clock, batchTimeoutMs } = this.deps;
    this.scheduled = batchTimeoutMs > 0
      ? clock.after(batchTimeoutMs, this.flush)
      : clock.endOfTurn(this.flush);
  }

  /** Holds commits back until the returned function is called. */
  hold(): () => void {
    if (this.holds++ === 0) this.heldSinceMs = this.deps.clock.monotonicMs();
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      if (--this.holds === 0) this.heldSinceMs = undefined;
      this.schedule();
    };
  }

  private readonly flush = () => {
    this.scheduled = undefined;
    if (this.holds > 0 || !this.deps.horizon.takesCommits) return;
    const group = this.takeGroup();
    if (group.length === 0) {
      // Those that waited for a lock have been refused meanwhile.
      this.busySinceMs = undefined;
      return;
    }
    try {
      this.commit(group);
      this.busySinceMs = undefined;
    } catch (error) {
      if (this.rollBack() && isBusy(error) && this.waitForLock(group)) return;
      this.failed(group, error);
    }
    this.schedule();
  };

  private takeGroup(): WaitingWrite[] {
    const { pending } = this;
    return pending.length <= MAX_GROUP_WRITES
      ? pending.splice(0)
      : pending.splice(0, MAX_GROUP_WRITES);
  }

  /** Takes what it has no room for out of the group, back into the queue. */
  private commit(group: WaitingWrite[]): void {
    const { session, deps } = this;
    session.reader.endTurn();
    session.beginStatement.run();
    const nowMs = deps.clock.nowMs();
    const ourVersion = this.version;
    const foreignCommits = session.foreignCommits();
    const isForeign = foreignCommits !== this.foreignCommits &&
      !session.isAsLeft(ourVersion);
    if (!isForeign) this.foreignCommits = foreignCommits;
    const fileVersion = isForeign ? session.fileVersion() : this.version;
    // The other program's commits are taken as they are.
    const before = isForeign
      ? session.noteGap(this.highestVersion)
      : this.version;
    const changes: Changes = {
      keys: [],
      removals: [],
      earliestExpiryMs: Infinity,
      producedBytes: 0,
    };
    const endMs = deps.clock.monotonicMs() + MAX_GROUP_MS;
    let version = before;
    let swept = 0;
    let enqueued = false;
    for (let i = 0; i < group.length; i++) {
      const item = group[i];
      const next = 1 + deps.random.below(MAX_VERSION_STEP) +
        Math.max(version, this.highestVersion);
      if (item.write === null) {
        const count = this.deleteExpired(next, nowMs, changes);
        if (count > 0) version = next;
        swept += count;
        item.outcome = { status: "committed", version: next, order: 0 };
      } else if (this.apply(item, item.write, next, nowMs, changes)) {
        version = next;
        enqueued ||= item.write.enqueues.length > 0;
      }
      if (
        changes.producedBytes >= MAX_GROUP_PRODUCED_BYTES ||
        deps.clock.monotonicMs() >= endMs
      ) this.pending.unshift(...group.splice(i + 1));
    }
    const hasWritten = version !== before || isForeign;
    if (!hasWritten) {
      // Nothing changed: no commit, but its answers wait for what it read.
      session.rollbackStatement.run();
    } else {
      session.log.writeAll(nowMs);
      session.advance.run(version);
      if (enqueued) {
        session.state.set("queue_contents", session.queue.contents);
      }
      session.commitStatement.run();
      session.committed();
      this.version = this.highestVersion = version;
      this.foreignCommits = foreignCommits;
      this.commits++;
      this.expiredDeleted += swept;
    }
    this.groupSizes.observe(group.length);
    const frames = this.measureWal();
    deps.horizon.add(this.committedGroup(group, changes, hasWritten));
    if (hasWritten) deps.onCommitted(frames, changes.earliestExpiryMs);
    if (isForeign) deps.onForeignWrite(ourVersion, fileVersion);
  }

  /** Evaluates a write and applies it; whether it advanced the version. */
  private apply(
    item: WaitingWrite,
    write: AtomicWrite,
    version: number,
    nowMs: number,
    changes: Changes,
  ): boolean {
    const { session } = this;
    const { reader } = session;
    const live = <T extends RowStamp>(row: T | undefined): T | undefined =>
      row === undefined || (row.expireAtMs >= 0 && row.expireAtMs <= nowMs)
        ? undefined
        : row;
    const result = evaluate(
      write,
      version,
      0,
      nowMs,
      (key) => live(reader.row(key)),
      (key) => live(reader.stamp(key)),
    );
    if (result.status !== "ok") {
      item.outcome = result;
      return false;
    }
    changes.producedBytes += result.producedBytes;
    const { log } = session;
    let left = result.effects.length + result.enqueues.length;
    for (let i = 0; i < result.effects.length; i++) {
      const effect = result.effects[i];
      const { key, value, encoding, expireAtMs } = effect;
      if (value === null) session.delete(key);
      else session.set(key, value, encoding, version, expireAtMs);
      const index = --left === 0 ? LAST_INDEX : i;
      log.encoder.append(version, 0, index, key, value, encoding, expireAtMs);
      // Not the effect itself: its value would be held until the sync.
      changes.keys.push(key);
      if (value === null) changes.removals.push(key);
      else if (expireAtMs !== NEVER_MS) {
        changes.removals.push(key);
        if (expireAtMs < changes.earliestExpiryMs) {
          changes.earliestExpiryMs = expireAtMs;
        }
      }
    }
    for (const message of result.enqueues) {
      const { key, value } = session.queue.add(message);
      const index = --left === 0
        ? LAST_INDEX
        : result.effects.length + result.enqueues.length - left - 1;
      log.encoder.append(
        version,
        0,
        index,
        key,
        value,
        Encoding.BYTES,
        NEVER_MS,
      );
    }
    log.endCommit(version, nowMs);
    item.outcome = { status: "committed", version, order: 0 };
    return true;
  }

  private deleteExpired(
    version: number,
    nowMs: number,
    changes: Changes,
  ): number {
    const { session } = this;
    const keys = session.expiredKeys(nowMs, SWEEP_ROWS);
    keys.forEach((key, i) => {
      session.delete(key);
      const index = i === keys.length - 1 ? LAST_INDEX : i;
      session.log.encoder.append(version, 0, index, key, null, 0, NEVER_MS);
      changes.keys.push(key);
      changes.removals.push(key);
      changes.producedBytes += key.length;
    });
    if (keys.length > 0) session.log.endCommit(version, nowMs);
    return keys.length;
  }

  private committedGroup(
    group: WaitingWrite[],
    { keys, removals }: Changes,
    hasWritten: boolean,
  ): CommittedGroup {
    const { waiting } = this.deps;
    return {
      version: this.version,
      hasWritten,
      walFrames: this.walFrames,
      walRun: this.walRun,
      keys,
      removals,
      acknowledge: () => {
        for (const item of group) {
          const { outcome } = item;
          if (outcome === undefined) continue;
          if (item.write !== null) this.count(outcome);
          waiting.resolve(item, outcome);
        }
      },
      fail: (error) => {
        for (const item of group) waiting.reject(item, error);
      },
    };
  }

  private count(outcome: WriteOutcome): void {
    if (outcome.status !== "writeDisabled") this.outcomes[outcome.status]++;
  }

  /** Learns the log's length, and whether this commit began it anew. */
  private measureWal(): number {
    const { log } = this.session.walFrames();
    if (this.session.wal.hasBegunAnew() || log < this.walFrames) this.walRun++;
    this.walFrames = log;
    return log;
  }

  /** Frames of the log, as it stands now, that a sync has made certain. */
  get certainFrames(): number {
    return this.deps.horizon.certainFrames(this.walRun);
  }

  /** Puts the group back for another try; false where it has waited enough. */
  private waitForLock(group: WaitingWrite[]): boolean {
    const { clock } = this.deps;
    const nowMs = clock.monotonicMs();
    this.busySinceMs ??= nowMs;
    if (nowMs - this.busySinceMs > MAX_BUSY_MS) {
      this.busySinceMs = undefined;
      return false;
    }
    this.pending.unshift(...group);
    this.scheduled = clock.after(BUSY_RETRY_MS, this.flush);
    return true;
  }

  /** False where not even that is to be had: nobody may be left waiting. */
  private rollBack(): boolean {
    try {
      this.session.rollback();
      return true;
    } catch {
      return false;
    }
  }

  private failed(group: WaitingWrite[], cause: unknown): void {
    const isFull = isDiskFull(cause);
    // There is a reserve for deletions: they are tried once more.
    const again = isFull && !this.takesDeletions
      ? group.filter(({ write }) => onlyDeletes(write))
      : [];
    const error = this.failureOf(cause);
    for (const item of group) {
      if (!again.includes(item)) this.deps.waiting.reject(item, error);
    }
    this.pending.unshift(...again);
    this.deps.onFailure(error, isFull);
  }

  private failureOf(cause: unknown): UnavailableError {
    if (isDiskFull(cause)) {
      return this.takesDeletions ? noRoomAtAll() : fullDisk();
    }
    const reason = isBusy(cause)
      ? `another program has held it locked for ${MAX_BUSY_MS / 1000} s`
      : messageOf(cause);
    return new UnavailableError(
      `The database could not commit (${reason}). Nothing of these writes was kept; everything acknowledged before is.`,
    );
  }

  /**
   * A commit of its own that puts so many bytes into the log, to learn whether
   * the disk takes writes.
   * @throws whatever SQLite says where it does not
   */
  probe(sizeBytes: number): void {
    const { session, deps } = this;
    session.reader.endTurn();
    session.beginStatement.run();
    try {
      session.state.set("probed_ms", deps.clock.nowMs());
      if (sizeBytes > 0) session.state.setRoom(sizeBytes);
      session.commitStatement.run();
      if (sizeBytes > 0) session.state.removeRoom();
    } catch (error) {
      session.rollback();
      throw error;
    } finally {
      this.measureWal();
    }
  }

  /**
   * Copies the log back and gives its room to the file system, as far as other
   * connections let it; on this thread, and only while the disk is full.
   * @throws whatever SQLite says where the database file has no room for it
   */
  emptyLog(): void {
    const { db, reader } = this.session;
    reader.endTurn();
    db.exec("pragma wal_checkpoint(truncate)");
    this.measureWal();
  }

  /** A transaction of its own for a few values of the state. */
  putState(values: Record<string, string>): void {
    const { session } = this;
    session.reader.endTurn();
    try {
      session.beginStatement.run();
      for (const [name, value] of Object.entries(values)) {
        session.setState(name, value);
      }
      session.commitStatement.run();
      session.committed();
    } catch (error) {
      session.rollback();
      throw error;
    }
    this.measureWal();
  }

  /** Since when writes wait for these, in monotonic milliseconds. */
  get waits(): { checkpoint: number | undefined; lock: number | undefined } {
    // Without a write that waits, nobody looks whether it is over.
    if (this.pending.length === 0) {
      return { checkpoint: undefined, lock: undefined };
    }
    return { checkpoint: this.heldSinceMs, lock: this.busySinceMs };
  }

  /** Writes are taken again. */
  accept(): void {
    this.refusal = undefined;
    this.takesDeletions = false;
  }
}
