/**
 * `--read-only`: a file that another program may be writing. It shows what
 * that program has committed; what is durable is that program's business.
 */
import type { Bytes } from "../../common/bytes.ts";
import type { Clock } from "../../common/clock.ts";
import { UnavailableError } from "../../common/errors.ts";
import { Histogram } from "../../common/histogram.ts";
import type {
  Entry,
  ReadRange,
  WriteOutcome,
} from "../../protocol/messages.ts";
import { LargeReads } from "./large_reads.ts";
import { Pieces } from "./pieces.ts";
import type { ReplicaReader } from "../replica_engine.ts";
import type { Store, StoreHealth, StoreStats, Watch } from "../store.ts";
import type { WatchRead } from "../key_watch.ts";
import { WatchHub } from "../watch.ts";
import { unlessBusy } from "./connection.ts";
import { ForeignCommitWatch } from "./foreign_writes.ts";
import type { Reader } from "./reader.ts";
import {
  openReadSession,
  type ReadSession,
  type SessionOptions,
} from "./session.ts";
import { watchRead } from "./watch_read.ts";

/** @throws StartupError where the file cannot be read */
export function openReadOnlyStore(
  options: SessionOptions,
  maxWatches: number,
): Store {
  const { session, databaseId } = openReadSession(options);
  const { clock, path } = options;
  return new ReadOnlyStore(session, databaseId, clock, path, maxWatches);
}

/**
 * The same where this process itself writes to the file, and tells what it
 * wrote: a replica.
 * @throws StartupError where the file cannot be read
 */
export function openReplicaReader(
  options: SessionOptions,
  maxWatches: number,
): ReplicaReader {
  const { session, databaseId } = openReadSession(options);
  const { clock, path } = options;
  return new ReadOnlyStore(session, databaseId, clock, path, maxWatches, true);
}

const STOPPING = "The server is stopping; nothing of the data was changed.";

class ReadOnlyStore implements ReplicaReader {
  readonly isReadOnly = true;
  private readonly hub: WatchHub;
  private readonly pieces = new Pieces();
  private readonly largeReads: LargeReads;
  private readonly foreign: ForeignCommitWatch;

  constructor(
    private readonly session: ReadSession,
    readonly databaseId: string,
    private readonly clock: Clock,
    path: string,
    maxWatches: number,
    /** Whoever writes to the file says so. */
    private readonly isTold = false,
  ) {
    this.largeReads = new LargeReads(path, clock);
    this.hub = new WatchHub({
      clock,
      maxWatches,
      read: (keys) => this.readWatched(keys),
    });
    this.foreign = new ForeignCommitWatch({
      clock,
      foreignCommits: () => session.foreignCommits(),
      hasWatches: () => this.hub.size > 0,
      onForeignCommit: () => this.hub.allChanged(),
    });
  }

  read(ranges: readonly ReadRange[], maxBytes = Infinity): Entry[][] {
    return this.inTurn((reader) => {
      const nowMs = this.clock.nowMs();
      let leftBytes = maxBytes;
      return ranges.map((range) => {
        const piece = this.pieces.range(reader, range, nowMs, leftBytes);
        leftBytes -= piece.sizeBytes;
        return piece.entries;
      });
    });
  }

  readLarge(ranges: readonly ReadRange[]): Promise<Entry[][]> {
    return this.largeReads.read(ranges);
  }

  /** @throws UnavailableError where another program has the file locked */
  private inTurn<T>(read: (reader: Reader) => T): T {
    const { reader } = this.session;
    try {
      reader.beginTurn();
      return read(reader);
    } catch (error) {
      throw unlessBusy(error);
    } finally {
      // The next read may come after another program's commit, and has to see
      // it.
      reader.endTurn();
    }
  }

  private readWatched(keys: readonly Bytes[]): WatchRead {
    return this.inTurn((reader) => watchRead(reader, keys, this.clock.nowMs()));
  }

  write(): Promise<WriteOutcome> {
    return Promise.resolve({ status: "writeDisabled" });
  }

  watch(keys: readonly Bytes[]): Watch {
    const watch = this.hub.watch(keys);
    if (!this.isTold) this.foreign.begin();
    return watch;
  }

  get watches(): number {
    return this.hub.size;
  }

  applied(keys: Iterable<Bytes> | undefined): void {
    if (keys === undefined) this.hub.allChanged();
    else this.hub.changed(keys);
  }

  /** A server that takes no writes by choice is healthy. */
  health(): StoreHealth {
    return { writable: true };
  }

  stats(): StoreStats {
    const none = new Histogram([]).snapshot();
    return {
      durableVersion: this.session.dataVersion(),
      commits: 0,
      atomicWrites: { committed: 0, checkFailed: 0, refused: 0 },
      groupSizes: none,
      syncSeconds: none,
      syncFailures: 0,
      commitFailures: 0,
      syncPendingSeconds: 0,
      checkpoints: 0,
      waitingWrites: 0,
      waitingBytes: 0,
      refusedWrites: 0,
      reserveBytes: 0,
      watches: this.hub.size,
      databaseBytes: this.session.databaseBytes(),
      walBytes: 0,
      expiryBacklog: this.session.expiryBacklog(this.clock.nowMs()),
      expiredDeleted: 0,
      unreadableRows: this.session.reader.unreadableRows,
      log: { floorVersion: 0, headVersion: 0, sizeBytes: 0 },
    };
  }

  async close(reason = STOPPING): Promise<void> {
    this.foreign.stop();
    this.hub.fail(new UnavailableError(reason));
    if (this.session.db.isOpen) this.session.close();
    await this.largeReads.close();
  }
}
