/**
 * The SQLite engine: one file, one writer, reads in the same thread. This is
 * where its parts meet; each says in its own file what it is for.
 */
import type { Bytes } from "../../common/bytes.ts";
import { type Clock, systemClock } from "../../common/clock.ts";
import { StartupError, UnavailableError } from "../../common/errors.ts";
import { type Logger, silentLogger } from "../../common/log.ts";
import { type Random, systemRandom } from "../../common/random.ts";
import { MAX_VALUE_BYTES } from "../../protocol/limits.ts";
import type {
  AtomicWrite,
  Entry,
  ReadRange,
  WriteOutcome,
} from "../../protocol/messages.ts";
import type { BackupSource } from "../backup_source.ts";
import type { LogSource } from "../log_source.ts";
import { type Durability, localDurability } from "../durability.ts";
import {
  LargeReadError,
  type Store,
  type StoreHealth,
  type StoreStats,
  type Watch,
} from "../store.ts";
import type { WatchRead } from "../key_watch.ts";
import { WatchHub } from "../watch.ts";
import { SqliteBackupSource } from "./backup_source.ts";
import { databaseFile } from "./database_file.ts";
import { ForeignCommitWatch } from "./foreign_writes.ts";
import { type InstanceLock, lockInstance } from "./instance_lock.ts";
import type { DurableHorizon } from "./durable_horizon.ts";
import { LargeReads } from "./large_reads.ts";
import { Pieces } from "./pieces.ts";
import { openReadOnlyStore } from "./read_only_store.ts";
import type { SessionOptions } from "./session.ts";
import { watchRead } from "./watch_read.ts";
import { Writing } from "./writing.ts";

export interface SqliteStoreOptions {
  /** The database file; made where it is missing, but not its folder. */
  path: string;
  clock?: Clock;
  random?: Random;
  logger?: Logger;
  durability?: Durability;
  readOnly?: boolean;
  /** Milliseconds to gather writes before a commit. Default 0. */
  batchTimeoutMs?: number;
  /** What writes may hold in memory until they are answered. Default 64 MiB. */
  maxWaitingBytes?: number;
  /** Room kept on the disk for deletions when it is full. Default: none. */
  reserveBytes?: number;
  /** Watches at once. Default 20,000. */
  maxWatches?: number;
  /** The mutation log's size while nobody reads it. Default 64 MiB. */
  maxLogBytes?: number;
  /** The lock on the file where the caller has it already; it passes over. */
  lock?: InstanceLock;
}

const DEFAULT_MAX_WATCHES = 20_000;

/** @throws StartupError where the file cannot be opened, or is in use */
export async function openSqliteStore(
  options: SqliteStoreOptions,
): Promise<Store> {
  if (options.path === "" || options.path.startsWith(":")) {
    throw new StartupError(
      `"${options.path}" names no file; this server keeps its data in one.`,
    );
  }
  const path = databaseFile(options.path);
  const session: SessionOptions = {
    path,
    clock: options.clock ?? systemClock,
    random: options.random ?? systemRandom,
    logger: options.logger ?? silentLogger,
    maxLogBytes: options.maxLogBytes,
  };
  const maxWatches = options.maxWatches ?? DEFAULT_MAX_WATCHES;
  if (options.readOnly) return openReadOnlyStore(session, maxWatches);
  const lock = options.lock ?? lockInstance(path);
  try {
    const writing = await Writing.open({
      ...session,
      notedVersion: (databaseId) => lock.notedVersion(databaseId),
      noteVersion: (databaseId, version) =>
        lock.noteVersion(databaseId, version),
      durability: options.durability ?? localDurability,
      batchTimeoutMs: options.batchTimeoutMs ?? 0,
      maxWaitingBytes: options.maxWaitingBytes,
      reserveBytes: options.reserveBytes,
    });
    return new SqliteStore(writing, path, lock, session.clock, maxWatches);
  } catch (error) {
    lock.release();
    throw error;
  }
}

class SqliteStore implements Store {
  readonly isReadOnly = false;
  readonly backupSource: BackupSource;
  readonly log: LogSource;
  private readonly hub: WatchHub;
  private readonly pieces = new Pieces();
  private readonly largeReads: LargeReads;
  private readonly foreign: ForeignCommitWatch;
  private closing: Promise<void> | undefined;

  constructor(
    private readonly writing: Writing,
    path: string,
    private readonly lock: InstanceLock,
    private readonly clock: Clock,
    maxWatches: number,
  ) {
    this.backupSource = new SqliteBackupSource(writing, path, clock);
    this.log = writing.logReaders;
    this.largeReads = new LargeReads(path, clock);
    writing.largeReads = this.largeReads;
    this.hub = new WatchHub({
      clock,
      maxWatches,
      read: (keys) => this.readWatched(keys),
    });
    this.foreign = new ForeignCommitWatch({
      clock,
      foreignCommits: () => writing.current().session.foreignCommits(),
      hasWatches: () => this.hub.size > 0,
      onForeignCommit: () => this.hub.allChanged(),
    });
    writing.onDurableKeys = (keys) => this.hub.changed(keys);
    writing.onForeignWrite = () => this.hub.allChanged();
  }

  get databaseId(): string {
    return this.writing.databaseId;
  }

  read(
    ranges: readonly ReadRange[],
    maxBytes = Infinity,
  ): Entry[][] | Promise<Entry[][]> {
    const { session, horizon } = this.writing.current();
    const { reader } = session;
    reader.beginTurn();
    const nowMs = this.clock.nowMs();
    let isSettled = true;
    let leftBytes = maxBytes;
    const answer: Entry[][] = new Array(ranges.length);
    for (let i = 0; i < ranges.length; i++) {
      const range = ranges[i];
      if (range.isPoint) {
        // A value that may not be read is not even taken into memory.
        if (
          leftBytes < MAX_VALUE_BYTES &&
          reader.valueBytes(range.start) > leftBytes
        ) throw new LargeReadError();
        const row = reader.row(range.start);
        isSettled &&= horizon.isSettled(range.start, row?.version);
        if (row !== undefined) leftBytes -= row.value.length;
        answer[i] = row !== undefined && isLive(row.expireAtMs, nowMs)
          ? [{
            key: range.start,
            value: row.value,
            encoding: row.encoding,
            version: row.version,
            order: 0,
          }]
          : [];
        continue;
      }
      const { entries, sizeBytes } = this.pieces.range(
        reader,
        range,
        nowMs,
        leftBytes,
      );
      leftBytes -= sizeBytes;
      isSettled &&= isListSettled(horizon, range, entries);
      answer[i] = entries;
    }
    // What a power cut could still take back is shown when it no longer can.
    return isSettled ? answer : horizon.whenSettled().then(() => answer);
  }

  async readLarge(ranges: readonly ReadRange[]): Promise<Entry[][]> {
    const before = this.writing.current();
    const answer = await this.largeReads.read(ranges);
    // Where the file was opened anew, commits that this has seen may be gone.
    if (this.writing.current() !== before) throw this.writing.unavailable();
    const { horizon } = before;
    if (!ranges.every((range, i) => isListSettled(horizon, range, answer[i]))) {
      await horizon.whenSettled();
    }
    return answer;
  }

  private readWatched(keys: readonly Bytes[]): WatchRead | Promise<WatchRead> {
    const { session, horizon } = this.writing.current();
    session.reader.beginTurn();
    const state = watchRead(session.reader, keys, this.clock.nowMs());
    const isSettled = keys.every((key, i) =>
      horizon.isSettled(key, state.entries[i]?.version)
    );
    return isSettled ? state : horizon.whenSettled().then(() => state);
  }

  write(write: AtomicWrite): Promise<WriteOutcome> {
    if (this.closing) return Promise.reject(closed());
    return this.writing.write(write);
  }

  watch(keys: readonly Bytes[]): Watch {
    if (this.closing) throw closed();
    const watch = this.hub.watch(keys);
    this.foreign.begin();
    return watch;
  }

  stats(): StoreStats {
    return { ...this.writing.stats(), watches: this.hub.size };
  }

  health(): StoreHealth {
    if (this.closing) {
      const reason = "The server is stopping.";
      return { writable: false, cause: "stopping", reason };
    }
    return this.writing.health();
  }

  close(): Promise<void> {
    this.closing ??= (async () => {
      this.hub.fail(closed());
      this.foreign.stop();
      try {
        await this.largeReads.close();
        await this.writing.close();
      } finally {
        this.writing.logReaders.end(closed());
        this.lock.release();
      }
    })();
    return this.closing;
  }
}

/** Whether a range showed nothing that a power cut could still take back. */
function isListSettled(
  horizon: DurableHorizon,
  range: ReadRange,
  entries: readonly Entry[],
): boolean {
  for (let i = 0; i < entries.length; i++) {
    if (entries[i].version > horizon.durableVersion) return false;
  }
  return horizon.isRangeSettled(range);
}

function isLive(expireAtMs: number, nowMs: number): boolean {
  return expireAtMs < 0 || expireAtMs > nowMs;
}

function closed(): UnavailableError {
  return new UnavailableError(
    "The server is stopping and takes no more requests; nothing of this one was applied.",
  );
}
