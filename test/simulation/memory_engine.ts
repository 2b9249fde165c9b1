/**
 * An engine in memory, on a disk that outlives its process: what the
 * simulation puts under the real backup. It keeps the log in the real bytes.
 */
import { createHash } from "node:crypto";
import {
  type Bytes,
  byteString,
  fromUtf8,
  utf8,
} from "../../src/common/bytes.ts";
import { type Clock, sleep } from "../../src/common/clock.ts";
import { StartupError, UnavailableError } from "../../src/common/errors.ts";
import type { Random } from "../../src/common/random.ts";
import {
  decodeLogEntries,
  LAST_INDEX,
  LogEncoder,
  LogKind,
} from "../../src/log/entry.ts";
import {
  encodeSnapshotRange,
  readSnapshotRange,
} from "../../src/log/snapshot_range.ts";
import type {
  AtomicWrite,
  Entry,
  ReadRange,
  WriteOutcome,
} from "../../src/protocol/messages.ts";
import type {
  BackupSource,
  LogRow,
  SnapshotOptions,
} from "../../src/store/backup_source.ts";
import type { Durability } from "../../src/store/durability.ts";
import type {
  LocalEngine,
  ScratchDatabase,
} from "../../src/store/local_engine.ts";
import type {
  LocalDatabase,
  RestoreEnd,
  RestoreTarget,
} from "../../src/store/restore_target.ts";
import type {
  Store,
  StoreHealth,
  StoreStats,
  Watch,
} from "../../src/store/store.ts";

interface Row {
  value: Bytes;
  version: number;
}

interface Database {
  databaseId: string;
  version: number;
  floor: number;
  log: LogRow[];
  rows: Map<string, Row>;
  state: Map<string, string>;
}

/** One machine's disk. */
export class MemoryDisk {
  private static disks = 0;
  readonly identity = `disk-${MemoryDisk.disks++}`;
  database: Database | undefined;
  /** Files that were set aside. */
  aside: Database[] = [];
  /** The clock of the process that has it, which tells it from others. */
  holder: Clock | undefined;

  release(holder: Clock): void {
    if (this.holder === holder) this.holder = undefined;
  }

  /** Another program has written: the log begins anew behind that. */
  foreignCommit(): void {
    const { database } = this;
    if (database === undefined) return;
    const version = ++database.version;
    const timeMs = database.log.at(-1)?.timeMs ?? 0;
    const entries = new Uint8Array(0);
    database.floor = version;
    database.log = [{ firstVersion: version, version, timeMs, entries }];
  }
}

/** How long a commit takes to become durable. */
const SYNC_MS = 4;

export class MemoryEngine implements LocalEngine {
  constructor(
    private readonly disk: MemoryDisk,
    private readonly clock: Clock,
    private readonly random: Random,
  ) {}

  lock() {
    const { disk, clock } = this;
    if (disk.holder) throw new StartupError("locked");
    disk.holder = clock;
    const { identity } = disk;
    return { identity, release: () => disk.release(clock) };
  }

  inspect(): LocalDatabase | undefined {
    const { database } = this.disk;
    if (database === undefined) return undefined;
    const { databaseId, version, floor, log, state } = database;
    const last = log.findLast((row) => row.entries.length > 0);
    return {
      databaseId,
      version,
      contentVersion: Math.max(floor, last?.version ?? 0),
      state: (name) => state.get(name),
    };
  }

  create(): Promise<RestoreTarget> {
    if (this.disk.database) throw new StartupError("taken");
    return Promise.resolve(
      new MemoryTarget(
        new Map(),
        0,
        (database) => this.disk.database = database,
      ),
    );
  }

  catchUp(): Promise<RestoreTarget> {
    const { rows, log } = this.disk.database!;
    return Promise.resolve(
      new MemoryTarget(
        new Map(rows),
        log.at(-1)?.timeMs ?? 0,
        (database) => this.disk.database = database,
      ),
    );
  }

  leap(toVersion: number): void {
    const database = this.disk.database!;
    database.version = toVersion;
    database.log.push({
      firstVersion: toVersion,
      version: toVersion,
      timeMs: database.log.at(-1)?.timeMs ?? 0,
      entries: new Uint8Array(0),
    });
  }

  setAside(suffix: string): string {
    this.disk.aside.push(this.disk.database!);
    this.disk.database = undefined;
    return suffix;
  }

  open(durability: Durability): Promise<MemoryStore> {
    return Promise.resolve(
      new MemoryStore(this.disk, this.clock, this.random, durability),
    );
  }

  scratch(): ScratchDatabase {
    throw new Error("the simulation does not verify");
  }
}

class MemoryTarget implements RestoreTarget {
  constructor(
    private readonly rows: Map<string, Row>,
    private readonly newestMs: number,
    private readonly put: (database: Database) => void,
  ) {}

  // deno-lint-ignore require-await -- what it throws is the promise's
  async load(range: Bytes): Promise<number> {
    return readSnapshotRange(range, (key, value, _encoding, version) => {
      this.rows.set(byteString(key), { value, version });
    });
  }

  // deno-lint-ignore require-await -- what it throws is the promise's
  async apply(entries: Bytes, after: number, upTo: number) {
    let applied = 0;
    let lastVersion = after;
    for (const entry of decodeLogEntries(entries)) {
      const { version, kind, key, value } = entry;
      if (version <= after || version > upTo) continue;
      if (kind === LogKind.SET) {
        this.rows.set(byteString(key), { value, version });
      } else this.rows.delete(byteString(key));
      applied++;
      lastVersion = version;
    }
    return { applied, lastVersion };
  }

  finish(
    { databaseId, version, timeMs = 0, leapToVersion, state }: RestoreEnd,
  ): Promise<void> {
    this.put({
      databaseId,
      version: leapToVersion,
      floor: version,
      log: [{
        firstVersion: leapToVersion,
        version: leapToVersion,
        timeMs: Math.max(timeMs, this.newestMs),
        entries: new Uint8Array(0),
      }],
      rows: this.rows,
      state: new Map(Object.entries(state)),
    });
    return Promise.resolve();
  }

  discard(): Promise<void> {
    return Promise.resolve();
  }
}

class MemoryStore implements Store, BackupSource {
  readonly isReadOnly = false;
  readonly backupSource = this;
  syncedVersion: number;
  durableVersion: number;
  private failure: Error | undefined;
  private confirmations: Promise<void> = Promise.resolve();
  private waiting = 0;
  private isClosed = false;

  constructor(
    private readonly disk: MemoryDisk,
    private readonly clock: Clock,
    private readonly random: Random,
    private readonly durability: Durability,
  ) {
    this.syncedVersion = this.durableVersion = this.database.version;
  }

  private get database(): Database {
    if (this.isClosed) throw new UnavailableError("closed");
    return this.disk.database!;
  }

  get databaseId(): string {
    return this.database.databaseId;
  }

  get logFloorVersion(): number {
    return this.database.floor;
  }

  logBytesAfter(version: number): number {
    let sizeBytes = 0;
    for (const row of this.database.log) {
      if (row.version > version) sizeBytes += row.entries.length;
    }
    return sizeBytes;
  }

  readLog(version: number, maxBytes: number): LogRow[] {
    const rows: LogRow[] = [];
    let sizeBytes = 0;
    for (const row of this.database.log) {
      if (row.version <= version || row.version > this.syncedVersion) continue;
      rows.push(row);
      sizeBytes += row.entries.length;
      if (sizeBytes >= maxBytes) break;
    }
    return rows;
  }

  /** Keeps what is asked for and little more, so that gaps come up. */
  retainAfter(version: number): void {
    const { database } = this;
    const newest = database.log.at(-1);
    const kept = database.log.filter((row) =>
      row.version > version || row === newest
    );
    if (database.log.length - kept.length < 20) return;
    database.floor = Math.max(database.floor, version);
    database.log = kept;
  }

  async snapshot(options: SnapshotOptions) {
    const { version, log } = this.database;
    const timeMs = log.at(-1)?.timeMs || this.clock.nowMs();
    const rows = [...this.database.rows].sort(([a], [b]) => a < b ? -1 : 1);
    while (this.syncedVersion < version) await sleep(this.clock, SYNC_MS);
    options.onBegin(version);
    let sizeBytes = 0;
    for (let i = 0; i < rows.length; i += 8) {
      options.signal?.throwIfAborted();
      await sleep(this.clock, 1);
      const part = rows.slice(i, i + 8);
      const bytes = encodeSnapshotRange(part.map(([name, row]) => [
        Uint8Array.fromHex(name),
        row.value,
        3,
        row.version,
        0,
        -1,
      ]));
      sizeBytes += bytes.length;
      const endKey = Uint8Array.fromHex(part[part.length - 1][0]);
      const sha256 = createHash("sha256").update(bytes).digest("hex");
      await options.onPart({ bytes, entries: part.length, endKey, sha256 });
    }
    const entries = rows.length;
    return { version, timeMs, entries, queueMessages: 0, sizeBytes };
  }

  digest(): never {
    throw new Error("the simulation does not verify");
  }

  getState(name: string): string | undefined {
    return this.database.state.get(name);
  }

  async setState(values: Record<string, string>): Promise<void> {
    for (const [name, value] of Object.entries(values)) {
      this.database.state.set(name, value);
    }
    await sleep(this.clock, SYNC_MS);
  }

  async settle(): Promise<void> {
    while (this.waiting > 0) await sleep(this.clock, SYNC_MS);
  }

  settled(): Promise<void> {
    return this.settle();
  }

  read(ranges: readonly ReadRange[]): Entry[][] {
    if (this.failure) throw this.failure;
    return ranges.map(({ start }) => {
      const row = this.database.rows.get(byteString(start));
      return row === undefined || row.version > this.durableVersion ? [] : [{
        key: start,
        value: row.value,
        encoding: 3,
        version: row.version,
        order: 0,
      }];
    });
  }

  readLarge(ranges: readonly ReadRange[]): Promise<Entry[][]> {
    return Promise.resolve(this.read(ranges));
  }

  async write(write: AtomicWrite): Promise<WriteOutcome> {
    if (this.failure) throw this.failure;
    const { database } = this;
    const version = database.version + 1 + this.random.below(9);
    const encoder = new LogEncoder();
    const { mutations } = write;
    mutations.forEach(({ key, value }, i) => {
      const index = i === mutations.length - 1 ? LAST_INDEX : i;
      encoder.append(version, 0, index, key, value, 3, -1);
      database.rows.set(byteString(key), { value, version });
    });
    database.version = version;
    database.log.push({
      firstVersion: version,
      version,
      timeMs: Math.max(this.clock.nowMs(), database.log.at(-1)?.timeMs ?? 0),
      entries: encoder.bytes.slice(),
    });
    this.waiting++;
    try {
      await sleep(this.clock, SYNC_MS);
      this.syncedVersion = Math.max(this.syncedVersion, version);
      const confirmed = Promise.resolve(this.durability.confirm(version));
      confirmed.catch(() => {});
      this.confirmations = this.confirmations.then(() => confirmed).then(
        () => {
          this.durableVersion = Math.max(this.durableVersion, version);
        },
        (error) => {
          this.failure ??= error;
        },
      );
      await this.confirmations;
      if (this.failure) throw this.failure;
      return { status: "committed", version, order: 0 };
    } finally {
      this.waiting--;
    }
  }

  watch(): Watch {
    throw new UnavailableError("the simulation does not watch");
  }

  stats(): StoreStats {
    throw new UnavailableError("the simulation does not count");
  }

  health(): StoreHealth {
    return { writable: true };
  }

  close(): Promise<void> {
    this.disk.release(this.clock);
    this.isClosed = true;
    this.failure ??= new UnavailableError("closed");
    return Promise.resolve();
  }
}

export function textOf(value: Bytes): string {
  return fromUtf8(value) ?? "";
}

export { byteString, utf8 };
