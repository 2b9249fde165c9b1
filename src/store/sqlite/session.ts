/**
 * Everything that lives as long as one opening of the file: the connection,
 * its statements, and the write-ahead log beside it. After a failed sync the
 * store closes its session and opens another.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Bytes } from "../../common/bytes.ts";
import type { Clock } from "../../common/clock.ts";
import { StartupError } from "../../common/errors.ts";
import type { Logger } from "../../common/log.ts";
import { type Random, randomUuid, uuidOf } from "../../common/random.ts";
import {
  notOpened,
  openConnection,
  prepareRows,
  useWal,
  waitNoMore,
} from "./connection.ts";
import { isMadeByRustServer, replicaPosition } from "./history_tables.ts";
import { CAN_EXPIRE, SELECT_DATA_VERSION } from "./foreign_rows.ts";
import { MutationLog } from "./mutation_log.ts";
import { QueueTables } from "./queue.ts";
import { Reader } from "./reader.ts";
import { bringUpToDate, migrate, schemaVersion } from "./schema.ts";
import { StateTable } from "./state.ts";
import { WalFile } from "./wal.ts";

export interface SessionOptions {
  path: string;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Default: see mutation_log.ts. */
  maxLogBytes?: number;
  /** A version that this database has reached, kept outside of its file. */
  notedVersion?(databaseId: string): number | undefined;
}

const OLDER_COPY =
  "The database is an older copy of itself: it was put back while the server was stopped. It is taken as it is; versions go on above the ones already given out. Backups and followers of the log have to begin with a new snapshot.";
const FOREIGN_WRITE =
  "Another program has written to the database since this server last did; all its data are kept. Backups and followers of the log have to begin with a new snapshot.";

/** Over every version that was issued after one was noted. */
const ROLLBACK_LEAP = 2 ** 32;

/** A session that only reads: what every server needs of the file. */
export class ReadSession {
  readonly reader: Reader;
  private readonly versionStatement: StatementSync;
  private readonly foreignStatement: StatementSync;
  private readonly sizeStatement: StatementSync;
  private readonly freeStatement: StatementSync;
  private readonly backlogStatement: StatementSync;
  readonly pageBytes: number;

  constructor(readonly db: DatabaseSync, { clock, logger }: SessionOptions) {
    let isTold = false;
    this.reader = new Reader(db, clock, () => {
      if (isTold) return;
      isTold = true;
      logger.warn(
        "The database holds a row that is none of Deno KV's and cannot be read. It counts as absent and stays as it is; a write to its key replaces it. Told once: denokv_unreadable_rows_total counts them.",
      );
    });
    this.versionStatement = prepareRows(
      db,
      SELECT_DATA_VERSION,
    );
    this.foreignStatement = prepareRows(db, "pragma data_version");
    this.sizeStatement = prepareRows(db, "pragma page_count");
    this.freeStatement = prepareRows(db, "pragma freelist_count");
    // The Rust server's replicas have no such index, and nothing that expires.
    this.backlogStatement = prepareRows(
      db,
      isMadeByRustServer(db)
        ? "select 0 where ? is not null"
        : `select count(*) from (select 1 from kv where expiration_ms >= 0 and expiration_ms <= ? limit ${MAX_BACKLOG})`,
    );
    this.pageBytes = first(prepareRows(db, "pragma page_size"));
  }

  /** The version of the last commit, whoever made it; 0 where none can be read. */
  dataVersion(): number {
    return this.fileVersion() ?? 0;
  }

  /** Undefined where another program has put something else in its place. */
  fileVersion(): number | undefined {
    const row = this.versionStatement.get() as unknown as
      | [number | null]
      | undefined;
    return row?.[0] ?? undefined;
  }

  /**
   * A number that differs whenever another connection, in this or any process,
   * has committed in between. Within a transaction it costs 0.3 µs.
   */
  foreignCommits(): number {
    return first(this.foreignStatement);
  }

  /** What the data take, without pages that wait for reuse. */
  databaseBytes(): number {
    const pages = first(this.sizeStatement) - first(this.freeStatement);
    return pages * this.pageBytes;
  }

  /** Pages of the file that wait for reuse. */
  freeBytes(): number {
    return first(this.freeStatement) * this.pageBytes;
  }

  /** Expired entries whose rows are still there, counted up to a bound. */
  expiryBacklog(nowMs: number): number {
    return Number(first(this.backlogStatement, nowMs));
  }

  close(): void {
    this.reader.close();
    if (this.db.isOpen) this.db.close();
  }
}

/** Counting more of a backlog would cost more than the number is worth. */
const MAX_BACKLOG = 10_000;

function first(statement: StatementSync, ...values: number[]): number {
  const row = statement.get(...values) as unknown as [number] | undefined;
  return row?.[0] ?? 0;
}

/** A session that also writes. */
export class WriteSession extends ReadSession {
  readonly databaseId: string;
  readonly state: StateTable;
  readonly log: MutationLog;
  readonly queue: QueueTables;
  readonly wal: WalFile;
  readonly beginStatement: StatementSync;
  readonly commitStatement: StatementSync;
  readonly rollbackStatement: StatementSync;
  /** Takes the version of the last commit in the transaction. */
  readonly advance: StatementSync;
  private readonly updateStatement: StatementSync;
  private readonly upsertStatement: StatementSync;
  private readonly deleteStatement: StatementSync;
  private readonly expiredStatement: StatementSync;
  private readonly earliestStatement: StatementSync;
  private readonly walStatement: StatementSync;
  /** What the state says of whose this database is, as it was last set. */
  private readonly identity = new Map<string, string>();

  constructor(db: DatabaseSync, private readonly options: SessionOptions) {
    super(db, options);
    this.beginStatement = db.prepare("begin immediate");
    this.commitStatement = db.prepare("commit");
    this.rollbackStatement = db.prepare("rollback");
    this.advance = db.prepare(
      "update data_version set version = ? where k = 0",
    );
    // An update that leaves the expiry as it is does not touch the expiry
    // index: 9 µs for a key that exists, against 15 µs for an upsert.
    this.updateStatement = db.prepare(
      "update kv set v = ?, v_encoding = ?, version = ?, seq = 0 where k = ? and expiration_ms = ?",
    );
    this.upsertStatement = db.prepare(
      "insert into kv (k, v, v_encoding, version, seq, expiration_ms) values (?, ?, ?, ?, 0, ?) on conflict (k) do update set v = excluded.v, v_encoding = excluded.v_encoding, version = excluded.version, seq = 0, expiration_ms = excluded.expiration_ms",
    );
    this.deleteStatement = db.prepare("delete from kv where k = ?");
    this.expiredStatement = prepareRows(
      db,
      `select k from kv where ${CAN_EXPIRE} and expiration_ms <= ? order by expiration_ms limit ?`,
    );
    this.earliestStatement = prepareRows(
      db,
      `select expiration_ms from kv where ${CAN_EXPIRE} order by expiration_ms limit 1`,
    );
    this.walStatement = prepareRows(db, "pragma wal_checkpoint(noop)");
    this.state = new StateTable(db);
    this.log = new MutationLog(db, this.state, options.maxLogBytes);
    this.queue = new QueueTables(db, options.random);
    this.databaseId = this.openHistory();
    this.wal = new WalFile(`${options.path}-wal`);
  }

  /**
   * Compares the file with the trace of our last commit, and notes a gap in
   * the log where another program has used the file since.
   */
  private openHistory(): string {
    this.db.exec("begin immediate");
    const { state, log } = this;
    for (const [name, value] of state.identity()) {
      this.identity.set(name, value);
    }
    let id = this.identity.get("database_id");
    const version = this.fileVersion();
    const noted = Math.max(
      (id && this.options.notedVersion?.(id)) || 0,
      // A replica that was taken back in time has seen later ones.
      state.getNumber("replica_newest") ?? 0,
    );
    const isOlder = version !== undefined && version < noted;
    const isForeign = version !== log.headVersion || !log.isSound ||
      (state.getText("queue_contents") ?? "0") !== this.queue.contents;
    if (isOlder || isForeign) {
      const ourVersion = Math.max(log.headVersion, noted);
      this.noteGap(isOlder ? noted + ROLLBACK_LEAP : noted);
      if (id !== undefined) {
        this.options.logger.warn(
          isOlder ? OLDER_COPY : FOREIGN_WRITE,
          { ourVersion, version },
        );
      }
    }
    if (id === undefined) {
      id = randomUuid(this.options.random);
      this.setState("database_id", id);
    }
    this.db.exec("commit");
    this.committed();
    return id;
  }

  /** Within a transaction: a value that outlives another program's rollback. */
  setState(name: string, value: string): void {
    this.state.set(name, value);
    this.identity.set(name, value);
  }

  /**
   * Whether version, log and id are as our last commit left them. Programs that
   * keep tables of their own in the file (Litestream does), or begin its
   * write-ahead log anew, touch nothing of this.
   */
  isAsLeft(version: number): boolean {
    try {
      return this.fileVersion() === version && this.log.isAsLeft() &&
        this.state.getText("database_id") === this.databaseId;
    } catch {
      // A table is missing, say.
      return false;
    }
  }

  /**
   * Within a transaction: a version of our own stands for what the other
   * program did, and the log begins anew behind it. The file may be an older
   * one now, or another database: the version is above every one that was
   * issued or seen, and the tables and the names that are ours are put back.
   * @param above the highest version that this process has issued
   */
  noteGap(above: number): number {
    bringUpToDate(this.db, this.options.path);
    const version = 1 + this.options.random.below(9) +
      Math.max(above, this.dataVersion(), this.log.headVersion);
    this.db.prepare(
      "insert into data_version (k, version) values (0, ?) on conflict (k) do update set version = excluded.version",
    ).run(version);
    this.log.restartAt(version, this.options.clock.nowMs());
    this.queue.reload();
    this.state.set("queue_contents", this.queue.contents);
    for (const [name, value] of this.identity) this.state.set(name, value);
    return version;
  }

  /** The transaction is in the file. */
  committed(): void {
    this.log.committed();
    this.queue.committed();
  }

  /** Leaves a transaction that failed, wherever it stands. */
  rollback(): void {
    if (this.db.isTransaction) this.rollbackStatement.run();
    this.log.rolledBack();
    this.queue.rolledBack();
  }

  set(
    key: Bytes,
    value: Bytes,
    encoding: number,
    version: number,
    expireAtMs: number,
  ): void {
    const { changes } = this.updateStatement.run(
      value,
      encoding,
      version,
      key,
      expireAtMs,
    );
    if (changes !== 0) return;
    this.upsertStatement.run(key, value, encoding, version, expireAtMs);
  }

  delete(key: Bytes): void {
    this.deleteStatement.run(key);
  }

  /** Keys whose expiry has passed, at most `limit`. */
  expiredKeys(nowMs: number, limit: number): Bytes[] {
    const rows = this.expiredStatement.all(nowMs, limit) as unknown as [
      Bytes,
    ][];
    return rows.map((row) => row[0]);
  }

  /** The earliest expiry of any row, in milliseconds since the Unix epoch. */
  earliestExpiryMs(): number | undefined {
    const row = this.earliestStatement.get() as unknown as
      | [number]
      | undefined;
    return row?.[0];
  }

  /** Frames in the log and how many are copied back; not within a commit. */
  walFrames(): { log: number; checkpointed: number } {
    // SQLite does not tell within a transaction, not even one that reads.
    this.reader.endTurn();
    const row = this.walStatement.get() as unknown as [number, number, number];
    return { log: row[1], checkpointed: row[2] };
  }

  override close(): void {
    super.close();
    this.wal.close();
  }
}

/** @throws StartupError where the file cannot be opened or is not ours */
export function openWriteSession(options: SessionOptions): WriteSession {
  const { path } = options;
  const db = openConnection(path, false);
  try {
    // A file that is not ours is not even put into another journal mode.
    schemaVersion(db, path);
    useWal(db, path);
    migrate(db, path);
    const session = new WriteSession(db, options);
    waitNoMore(db);
    return session;
  } catch (error) {
    db.close();
    throw notOpened(path, error);
  }
}

/**
 * For `--read-only`: the file is taken as it is.
 * @throws StartupError where it cannot be read
 */
export function openReadSession(
  options: SessionOptions,
): { session: ReadSession; databaseId: string } {
  const { path } = options;
  const db = openConnection(path, true);
  try {
    if (schemaVersion(db, path, { takesViews: true }) < 3) {
      throw new StartupError(
        `${path} has an older schema and cannot be brought up to date read-only. It was not changed; open it once without --read-only.`,
      );
    }
    if (
      isMadeByRustServer(db) && replicaPosition(db, undefined) === undefined
    ) {
      throw new StartupError(
        `The first snapshot in ${path} is not complete: it is no state that its primary had. It was not changed; finish it with the program that began it.`,
      );
    }
    const session = new ReadSession(db, options);
    const databaseId = storedId(db) ?? idOfPath(path);
    waitNoMore(db);
    return { session, databaseId };
  } catch (error) {
    db.close();
    throw notOpened(path, error);
  }
}

function storedId(db: DatabaseSync): string | undefined {
  const table = db.prepare(
    "select 1 from sqlite_schema where name = 'denokv_state'",
  ).get();
  return table && new StateTable(db).getText("database_id");
}

/**
 * A file that no denokv server of ours has ever written has no id, and a
 * reader cannot give it one: one made of its path is the same at every start.
 */
function idOfPath(path: string): string {
  const bytes = new Uint8Array(16);
  const text = new TextEncoder().encode(path);
  for (let i = 0; i < text.length; i++) {
    bytes[i % 16] = Math.imul(bytes[i % 16] ^ text[i], 167) + i;
  }
  return uuidOf(bytes, 8);
}
