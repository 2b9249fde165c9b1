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
import { type Effect, evaluate, type Row } from "../evaluate.ts";
import { isBusy } from "./connection.ts";
import type { CommittedGroup, DurableHorizon } from "./durable_horizon.ts";
import type { WriteSession } from "./session.ts";

/** Writes that may wait for their answer at once, in number and in bytes. */
const MAX_WAITING_WRITES = 16_384;
const MAX_WAITING_BYTES = 64 * 1024 * 1024;
/** A transaction is closed at the first write past either: readers wait for it. */
const MAX_GROUP_WRITES = 1024;
const MAX_GROUP_BYTES = 4 * 1024 * 1024;
/** How long another program's lock on the file is waited for. */
const MAX_BUSY_MS = 5000;
const BUSY_RETRY_MS = 2;
/** Each commit adds 1 to 9, so that no one relies on gaps or on their absence. */
const MAX_VERSION_STEP = 9;
/** Rows of one batch of expiry deletions. */
const SWEEP_ROWS = 256;

/** A write that waits; `write` null stands for a batch of expiry deletions. */
interface Pending {
  write: AtomicWrite | null;
  sizeBytes: number;
  resolve(outcome: WriteOutcome): void;
  reject(error: Error): void;
  outcome: WriteOutcome | undefined;
}

export interface GroupCommitDeps {
  clock: Clock;
  random: Random;
  horizon: DurableHorizon;
  /** A transaction could not be committed; nothing of it was kept. */
  onFailure(error: Error): void;
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
}

export class GroupCommit {
  commits = 0;
  readonly outcomes = { committed: 0, checkFailed: 0, refused: 0 };
  expiredDeleted = 0;
  readonly groupSizes = new Histogram([1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
  private readonly pending: Pending[] = [];
  private waitingWrites = 0;
  private waitingBytes = 0;
  private scheduled: Timer | undefined;
  private holds = 0;
  private refusal: UnavailableError | undefined;
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
    for (const item of this.pending.splice(0)) this.settleWith(item, error);
  }

  /** Resolves like `Store.write`. */
  write(write: AtomicWrite): Promise<WriteOutcome> {
    return this.add(write, sizeOf(write));
  }

  /** Deletes a batch of expired rows; resolves with how many there were. */
  async sweep(): Promise<number> {
    const before = this.expiredDeleted;
    await this.add(null, 0);
    return this.expiredDeleted - before;
  }

  private add(
    write: AtomicWrite | null,
    sizeBytes: number,
  ): Promise<WriteOutcome> {
    if (this.refusal) return Promise.reject(this.refusal);
    if (
      this.waitingWrites >= MAX_WAITING_WRITES ||
      this.waitingBytes + sizeBytes > MAX_WAITING_BYTES
    ) {
      return Promise.reject(
        new UnavailableError(
          "More writes are waiting than this server keeps in memory. Nothing of this one was applied; send it again.",
        ),
      );
    }
    this.waitingWrites++;
    this.waitingBytes += sizeBytes;
    return new Promise((resolve, reject) => {
      this.pending.push({
        write,
        sizeBytes,
        resolve,
        reject,
        outcome: undefined,
      });
      this.schedule();
    });
  }

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
    this.holds++;
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.holds--;
      this.schedule();
    };
  }

  private readonly flush = () => {
    this.scheduled = undefined;
    if (this.holds > 0 || !this.deps.horizon.takesCommits) return;
    const group = this.takeGroup();
    if (group.length === 0) return;
    try {
      this.commit(group);
      this.busySinceMs = undefined;
    } catch (error) {
      this.session.rollback();
      if (isBusy(error) && this.waitForLock(group)) return;
      this.failed(group, error);
    }
    this.schedule();
  };

  private takeGroup(): Pending[] {
    let count = 0;
    let bytes = 0;
    const { pending } = this;
    while (
      count < pending.length && count < MAX_GROUP_WRITES &&
      bytes < MAX_GROUP_BYTES
    ) bytes += pending[count++].sizeBytes;
    return count === pending.length
      ? pending.splice(0)
      : pending.splice(0, count);
  }

  private commit(group: Pending[]): void {
    const { session, deps } = this;
    session.reader.endTurn();
    session.beginStatement.run();
    const nowMs = deps.clock.nowMs();
    const ourVersion = this.version;
    const foreignCommits = session.foreignCommits();
    const isForeign = foreignCommits !== this.foreignCommits;
    const fileVersion = isForeign ? session.fileVersion() : this.version;
    // The other program's commits are taken as they are.
    const before = isForeign
      ? session.noteGap(this.highestVersion)
      : this.version;
    const effects: Effect[] = [];
    let version = before;
    let swept = 0;
    let enqueued = false;
    for (const item of group) {
      const next = 1 + deps.random.below(MAX_VERSION_STEP) +
        Math.max(version, this.highestVersion);
      if (item.write === null) {
        const count = this.deleteExpired(next, nowMs, effects);
        if (count > 0) version = next;
        swept += count;
        item.outcome = { status: "committed", version: next, order: 0 };
      } else if (this.apply(item, item.write, next, nowMs, effects)) {
        version = next;
        enqueued ||= item.write.enqueues.length > 0;
      }
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
    deps.horizon.add(this.committedGroup(group, effects, hasWritten));
    if (hasWritten) deps.onCommitted(frames, earliestExpiry(effects));
    if (isForeign) deps.onForeignWrite(ourVersion, fileVersion);
  }

  /** Evaluates a write and applies it; whether it advanced the version. */
  private apply(
    item: Pending,
    write: AtomicWrite,
    version: number,
    nowMs: number,
    effects: Effect[],
  ): boolean {
    const { session } = this;
    const readRow = (key: Bytes): Row | undefined => {
      const row = session.reader.row(key);
      return row === undefined ||
          (row.expireAtMs >= 0 && row.expireAtMs <= nowMs)
        ? undefined
        : row;
    };
    const result = evaluate(write, version, 0, nowMs, readRow);
    if (result.status !== "ok") {
      item.outcome = result;
      return false;
    }
    const { log } = session;
    let left = result.effects.length + result.enqueues.length;
    for (let i = 0; i < result.effects.length; i++) {
      const effect = result.effects[i];
      const { key, value, encoding, expireAtMs } = effect;
      if (value === null) session.delete(key);
      else session.set(key, value, encoding, version, expireAtMs);
      const index = --left === 0 ? LAST_INDEX : i;
      log.encoder.append(version, 0, index, key, value, encoding, expireAtMs);
      effects.push(effect);
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
    effects: Effect[],
  ): number {
    const { session } = this;
    const keys = session.expiredKeys(nowMs, SWEEP_ROWS);
    keys.forEach((key, i) => {
      session.delete(key);
      const index = i === keys.length - 1 ? LAST_INDEX : i;
      session.log.encoder.append(version, 0, index, key, null, 0, NEVER_MS);
      effects.push({
        key,
        value: null,
        encoding: Encoding.BYTES,
        expireAtMs: NEVER_MS,
      });
    });
    if (keys.length > 0) session.log.endCommit(version, nowMs);
    return keys.length;
  }

  private committedGroup(
    group: Pending[],
    effects: Effect[],
    hasWritten: boolean,
  ): CommittedGroup {
    return {
      version: this.version,
      hasWritten,
      walFrames: this.walFrames,
      walRun: this.walRun,
      effects,
      acknowledge: () => {
        for (const item of group) {
          const { outcome } = item;
          if (outcome === undefined) continue;
          if (item.write !== null) this.count(outcome);
          this.release(item);
          item.resolve(outcome);
        }
      },
      fail: (error) => {
        for (const item of group) this.settleWith(item, error);
      },
    };
  }

  private count(outcome: WriteOutcome): void {
    if (outcome.status !== "writeDisabled") this.outcomes[outcome.status]++;
  }

  private release(item: Pending): void {
    this.waitingWrites--;
    this.waitingBytes -= item.sizeBytes;
  }

  private settleWith(item: Pending, error: Error): void {
    this.release(item);
    item.reject(error);
  }

  /** Learns the log's length, and whether this commit began it anew. */
  private measureWal(): number {
    const { log } = this.session.walFrames();
    if (log < this.walFrames) this.walRun++;
    this.walFrames = log;
    return log;
  }

  /** Frames of the log, as it stands now, that a sync has made certain. */
  get certainFrames(): number {
    return this.deps.horizon.certainFrames(this.walRun);
  }

  /** Puts the group back for another try; false where it has waited enough. */
  private waitForLock(group: Pending[]): boolean {
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

  private failed(group: Pending[], cause: unknown): void {
    const error = new UnavailableError(
      `The database could not commit (${
        messageOf(cause)
      }). Nothing of these writes was kept; everything acknowledged before is.`,
    );
    for (const item of group) this.settleWith(item, error);
    this.deps.onFailure(error);
  }

  /**
   * A small commit of its own, to learn whether the disk takes writes again.
   * @throws whatever SQLite says where it does not
   */
  probe(): void {
    const { session, deps } = this;
    session.reader.endTurn();
    session.beginStatement.run();
    try {
      session.state.set("probed_ms", deps.clock.nowMs());
      session.commitStatement.run();
    } catch (error) {
      session.rollback();
      throw error;
    }
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

  /** Writes are taken again. */
  accept(): void {
    this.refusal = undefined;
  }

  get isIdle(): boolean {
    return this.pending.length === 0 && this.waitingWrites === 0;
  }
}

/** What a write holds in memory while it waits, about. */
function sizeOf(write: AtomicWrite): number {
  let size = 0;
  for (const { key, value } of write.mutations) {
    size += key.length + value.length;
  }
  for (const { payload } of write.enqueues) size += payload.length;
  return size;
}

/** The earliest expiry that the effects set; Infinity where there is none. */
function earliestExpiry(effects: readonly Effect[]): number {
  let earliest = Infinity;
  for (const { expireAtMs } of effects) {
    if (expireAtMs >= 0 && expireAtMs < earliest) earliest = expireAtMs;
  }
  return earliest;
}
