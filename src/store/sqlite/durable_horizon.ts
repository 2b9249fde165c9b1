/**
 * The line between what is durable and what a power cut could still take
 * back. Commits are announced here; their writers, and readers that met
 * something newer than the line, are answered when the line has passed them.
 *
 * Invariant: whatever leaves the store is at or below `durableVersion`. The
 * worst outcome of a mistake here is an acknowledged write that is lost.
 */
import { type Bytes, byteString, compareBytes } from "../../common/bytes.ts";
import type { Clock } from "../../common/clock.ts";
import { messageOf, UnavailableError } from "../../common/errors.ts";
import { Histogram } from "../../common/histogram.ts";
import { Waiters } from "../../common/waiters.ts";
import type { ReadRange } from "../../protocol/messages.ts";
import type { Durability } from "../durability.ts";
import { MAX_SYNCS } from "./wal.ts";

/** A transaction that is committed, but perhaps not yet durable. */
export interface CommittedGroup {
  /** Of the last commit in the group; the present one where it changed nothing. */
  version: number;
  /** A sync has to begin after it before it is acknowledged. */
  hasWritten: boolean;
  /** Length of the write-ahead log behind it, and in which run of the log. */
  walFrames: number;
  walRun: number;
  /** Keys that it wrote. */
  keys: readonly Bytes[];
  /** Of these, the ones that it removed or gave an expiry. */
  removals: readonly Bytes[];
  acknowledge(): void;
  fail(error: Error): void;
}

/** What is in the file and was not confirmed when it was closed. */
export interface Unconfirmed {
  /** The newest version that is acknowledged. */
  durableVersion: number;
  /** Keys that commits above it removed, or gave an expiry. */
  removals: readonly Bytes[];
}

interface Waiting extends CommittedGroup {
  /** Of readers that met something of this group; made when the first does. */
  readers: PromiseWithResolvers<void> | undefined;
}

/**
 * Above this, as many syncs run at once as the log allows: a sync of 2 ms would
 * otherwise make every second write wait for two of them. On a faster disk
 * gathering behind a single one gives larger groups.
 */
const SLOW_SYNC_MS = 1;

export class DurableHorizon {
  durableVersion: number;
  /** Durable in the file, if not yet confirmed. */
  syncedVersion: number;
  syncFailures = 0;
  readonly syncSeconds = new Histogram([
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.1,
    1,
  ]);
  /** The part of the write-ahead log that is known to be on the disk, and in which run. */
  durableFrames = 0;
  private durableRun = 0;
  private readonly waiting: Waiting[] = [];
  /** The newest group that no sync has been started for. */
  private unsynced: CommittedGroup | undefined;
  /** When each running sync began, and each open confirmation; oldest first. */
  private readonly syncsSinceMs: number[] = [];
  private readonly confirmingSinceMs: number[] = [];
  private usualSyncMs = 0;
  private order: Promise<void> = Promise.resolve();
  private confirmations: Promise<void> = Promise.resolve();
  private failure: Error | undefined;
  private readonly untilSynced = new Waiters();
  /**
   * Keys that a commit above the line removed, or gave an expiry: a read that
   * does not find them has met that commit. Set keys need no entry; their
   * rows show the version.
   */
  private readonly removals = new Map<
    string,
    { key: Bytes; version: number }
  >();

  constructor(
    private readonly deps: {
      clock: Clock;
      durability: Durability;
      sync(): Promise<void>;
      /** A sync is done: the next commit may follow. */
      onSynced(): void;
      /** These groups are acknowledged. */
      onDurable(groups: readonly CommittedGroup[]): void;
      /** A sync failed: the end of the write-ahead log is in doubt. */
      onSyncFailure(error: UnavailableError): void;
      /** The durability refused to confirm; the log itself is on the disk. */
      onRefusal(error: UnavailableError): void;
    },
    version: number,
  ) {
    this.durableVersion = version;
    this.syncedVersion = version;
  }

  /** What the next opening of the file begins with. */
  get unconfirmed(): Unconfirmed {
    const { durableVersion, removals } = this;
    return {
      durableVersion,
      removals: [...removals.values()].map(({ key }) => key),
    };
  }

  /**
   * The file was opened anew and holds what was never acknowledged: it is
   * synced and confirmed as a commit is, and not shown before.
   */
  resume({ durableVersion, removals }: Unconfirmed): void {
    const version = this.durableVersion;
    if (version <= durableVersion) return;
    this.durableVersion = durableVersion;
    this.add({
      version,
      hasWritten: true,
      walFrames: this.durableFrames,
      walRun: 0,
      keys: [],
      removals,
      acknowledge() {},
      fail() {},
    });
  }

  /** Whether a commit made now would start on its way to the disk at once. */
  get takesCommits(): boolean {
    return this.syncsSinceMs.length <
      (this.usualSyncMs > SLOW_SYNC_MS ? MAX_SYNCS : 1);
  }

  /** Since when the disk owes an answer to an fsync, in monotonic milliseconds. */
  get syncingSinceMs(): number | undefined {
    return this.syncsSinceMs[0];
  }

  /** The same for the durability and its confirmation. */
  get confirmingSince(): number | undefined {
    return this.confirmingSinceMs[0];
  }

  /** The version of the newest commit, durable or not. */
  get committedVersion(): number {
    return this.waiting.at(-1)?.version ?? this.durableVersion;
  }

  /** Takes a committed group and answers it when it is durable. */
  add(group: CommittedGroup): void {
    if (this.failure) return group.fail(this.failure);
    if (
      !group.hasWritten && group.version <= this.durableVersion &&
      this.waiting.length === 0
    ) {
      // Nothing was written, and nothing unsettled was met.
      return group.acknowledge();
    }
    for (const key of group.removals) {
      this.removals.set(byteString(key), { key, version: group.version });
    }
    // A group that changed nothing waits for the commits that it may have met.
    const isNew = group.hasWritten || group.version > this.committedVersion;
    this.waiting.push(Object.assign(group, { readers: undefined }));
    if (!isNew) return;
    this.unsynced = group;
    this.startSync();
  }

  private startSync(): void {
    const target = this.unsynced;
    if (target === undefined || !this.takesCommits) return;
    this.unsynced = undefined;
    const startedMs = this.deps.clock.monotonicMs();
    this.syncsSinceMs.push(startedMs);
    const synced = this.deps.sync();
    // A failure is dealt with in order, below; until then it is no crash.
    synced.catch(() => {});
    // In order: a later sync that succeeds says nothing of an earlier one.
    this.order = this.order.then(() => synced).then(
      () => this.onSynced(target, startedMs),
      (error) => this.syncFailed(error),
    );
  }

  private onSynced(target: CommittedGroup, startedMs: number): void {
    if (this.failure) return;
    this.syncsSinceMs.shift();
    const tookMs = this.deps.clock.monotonicMs() - startedMs;
    this.syncSeconds.observe(tookMs / 1000);
    this.usualSyncMs += (tookMs - this.usualSyncMs) / 8;
    if (target.walRun >= this.durableRun) {
      this.durableRun = target.walRun;
      this.durableFrames = target.walFrames;
    }
    if (target.version > this.syncedVersion) {
      this.syncedVersion = target.version;
      this.untilSynced.reached(target.version);
    }
    this.startSync();
    this.deps.onSynced();
    const confirmed = this.deps.durability.confirm(target.version);
    if (confirmed === undefined && this.confirmingSinceMs.length === 0) {
      return this.acknowledge(target.version);
    }
    this.confirmLater(target.version, confirmed);
  }

  private confirmLater(version: number, confirmed: void | Promise<void>): void {
    this.confirmingSinceMs.push(this.deps.clock.monotonicMs());
    const answer = Promise.resolve(confirmed);
    answer.catch(() => {});
    this.confirmations = this.confirmations.then(() => answer).then(
      () => {
        this.confirmingSinceMs.shift();
        if (!this.failure) this.acknowledge(version);
      },
      (error) => {
        if (this.failure) return;
        const refusal = error instanceof UnavailableError
          ? error
          : new UnavailableError(messageOf(error));
        this.fail(refusal);
        this.deps.onRefusal(refusal);
      },
    );
  }

  private acknowledge(version: number): void {
    if (version > this.durableVersion) this.durableVersion = version;
    let count = 0;
    const { waiting } = this;
    // Groups that changed nothing share their predecessor's version.
    while (count < waiting.length && waiting[count].version <= version) {
      count++;
    }
    const done = waiting.splice(0, count);
    if (waiting.length === 0) this.removals.clear();
    else {
      for (const [name, removal] of this.removals) {
        if (removal.version <= version) this.removals.delete(name);
      }
    }
    for (const group of done) {
      group.acknowledge();
      group.readers?.resolve();
    }
    this.deps.onDurable(done);
  }

  /** Frames of this run of the log that are on the disk; none of a later one. */
  certainFrames(walRun: number): number {
    return walRun === this.durableRun ? this.durableFrames : 0;
  }

  private syncFailed(cause: unknown): void {
    if (this.failure) return;
    this.syncFailures++;
    const error = new UnavailableError(
      `The disk did not make the last writes durable (${
        messageOf(cause)
      }). They were not acknowledged and may be lost; everything acknowledged is kept.`,
    );
    this.fail(error);
    this.deps.onSyncFailure(error);
  }

  /** Fails everything that waits, and whatever comes. */
  private fail(error: UnavailableError): void {
    this.failure = error;
    this.untilSynced.fail(error);
    this.syncsSinceMs.length = 0;
    this.confirmingSinceMs.length = 0;
    for (const group of this.waiting.splice(0)) {
      group.fail(error);
      group.readers?.reject(error);
    }
  }

  // ------------------------------------------------------------ for readers

  /**
   * Whether a row of this version, or the absence of this key, may be shown
   * now.
   */
  isSettled(key: Bytes, version: number | undefined): boolean {
    if (version !== undefined) return version <= this.durableVersion;
    return this.removals.size === 0 || !this.removals.has(byteString(key));
  }

  /** Whether no removal that is not durable yet lies in the range. */
  isRangeSettled(range: ReadRange): boolean {
    if (this.removals.size === 0) return true;
    for (const { key } of this.removals.values()) {
      if (
        compareBytes(key, range.start) >= 0 && compareBytes(key, range.end) < 0
      ) return false;
    }
    return true;
  }

  /**
   * Resolves when everything committed so far is durable.
   * @throws UnavailableError where it will not be
   */
  whenSettled(): Promise<void> {
    const newest = this.waiting.at(-1);
    if (newest === undefined) {
      return this.failure ? Promise.reject(this.failure) : Promise.resolve();
    }
    newest.readers ??= Promise.withResolvers();
    return newest.readers.promise;
  }

  /**
   * Resolves when everything committed so far is on the disk, confirmed or not.
   * @throws UnavailableError where it will not be
   */
  whenSynced(): Promise<void> {
    if (this.failure) return Promise.reject(this.failure);
    const version = this.committedVersion;
    return version <= this.syncedVersion
      ? Promise.resolve()
      : this.untilSynced.wait(version);
  }
}
