/**
 * What runs in a replica's thread: the one connection that writes to the file,
 * so that neither the decoding of commits nor their transactions, nor the
 * checkpoints, hold up whoever serves requests beside it.
 *
 * Handed to the Worker as text, as the checkpointer's program is and for the
 * same reason.
 */
import type { DatabaseSync } from "node:sqlite";
import type { Bytes } from "../../common/bytes.ts";
import { InvalidRequestError, TooLargeError } from "../../common/errors.ts";
import {
  decodeLogEntries,
  decodeLogEntry,
  LAST_INDEX,
  type LogEntry,
  LogKind,
} from "../../log/entry.ts";
import {
  decodeQueueMessage,
  encodeQueueMessage,
  QUEUE_PREFIX,
  readQueueLogKey,
} from "../../log/queue_message.ts";
import { NEVER_MS } from "../../protocol/messages.ts";
import {
  ProtoReader,
  WIRE_FIXED32,
  WIRE_FIXED64,
  WIRE_LENGTH,
  WIRE_VARINT,
} from "../../protocol/protobuf.ts";
import {
  readOrder,
  readVersion,
  writeVersionstamp,
} from "../../protocol/versionstamp.ts";
import type { CommitPoint, ReplicaCommits } from "../replica_writer.ts";
import { historyRows } from "./history_pages.ts";
import type { ReplicaPosition } from "./history_tables.ts";
import { digestOf, digestOfQueue } from "./queue.ts";
import {
  BulkStatement,
  type HistoryLog,
  type ReplicaRow,
  ReplicaRows,
} from "./replica_rows.ts";

export type ReplicaRequest =
  | ({ kind: "apply" | "keep" } & ReplicaCommits)
  | { kind: "goTo"; point: CommitPoint }
  | { kind: "close" };

export type ReplicaReply =
  | { kind: "done"; entries: number; position: ReplicaPosition }
  | { kind: "progress"; done: number; total: number }
  | { kind: "failed"; message: string; isInvalid: boolean }
  | { kind: "closed" };

export interface ReplicaTask {
  path: string;
  position: ReplicaPosition;
  keepsHistory: boolean;
  table: "kv" | "kv_snapshot";
  hasQueue: boolean;
  /** Past it the log is copied back, between two transactions. */
  checkpointAtBytes: number;
  /** Past it readers are waited for, so that the log begins anew. */
  maxLogBytes: number;
}

interface Scope {
  onmessage: (event: { data: ReplicaRequest }) => void;
  postMessage(reply: ReplicaReply): void;
}

interface Tools {
  Database: typeof DatabaseSync;
  InvalidRequestError: typeof InvalidRequestError;
  decodeLogEntries: typeof decodeLogEntries;
  readOrder: typeof readOrder;
  readVersion: typeof readVersion;
  writeVersionstamp: typeof writeVersionstamp;
  ReplicaRows: typeof ReplicaRows;
  digestOfQueue: typeof digestOfQueue;
  historyRows: typeof historyRows;
  rowTools: ConstructorParameters<typeof ReplicaRows>[1];
}

/** Stands alone: nothing outside its own text is within its reach. */
function work(tools: Tools, task: ReplicaTask, scope: Scope) {
  const LAST = 0xffff;
  const CHUNK_ROWS = 30_000;
  const CHUNK_BYTES = 16 * 1024 * 1024;
  const READERS_WAIT_MS = 5000;
  const LOCK_WAIT_MS = 5000;
  const refuse = (sentence: string): never => {
    throw new tools.InvalidRequestError(sentence);
  };
  const isAfter = (a: CommitPoint, b: CommitPoint) =>
    a.version > b.version || (a.version === b.version && a.order > b.order);

  const db = new tools.Database(task.path);
  db.exec(
    `pragma busy_timeout = ${LOCK_WAIT_MS}; pragma synchronous = normal; pragma wal_autocheckpoint = 0; pragma cache_size = -32768; pragma mmap_size = 0; pragma journal_size_limit = ${task.maxLogBytes}`,
  );
  const arrays = (sql: string) => {
    const statement = db.prepare(sql);
    (statement as unknown as { setReturnArrays(on: boolean): void })
      .setReturnArrays(true);
    return statement;
  };
  const rows = new tools.ReplicaRows(
    db,
    tools.rowTools,
    task.table,
    task.hasQueue,
  );
  let { position } = task;
  let digest = 0;
  if (task.hasQueue) {
    digest = tools.digestOfQueue((sql) =>
      arrays(sql).iterate() as Iterable<unknown>
    );
  }
  rows.queueDigest = digest;
  const pageBytes = (arrays("pragma page_size").get() as unknown as [number])[
    0
  ];
  const walFrames = arrays("pragma wal_checkpoint(noop)");
  const setState = db.prepare(
    "insert into denokv_state (k, v) values (?, ?) on conflict (k) do update set v = excluded.v",
  );
  const setConfig = db.prepare(
    "insert or replace into tt_config (k, v) values (?, ?)",
  );
  const setVersion = db.prepare(
    "update data_version set version = ?, seq = 0 where k = 0",
  );
  // One empty row stands for all: whoever follows this file's log begins with
  // a snapshot of it.
  const setLogHead = db.prepare(
    "update denokv_log set version = ?1, first_version = ?1, time_ms = max(time_ms, ?2)",
  );

  function stampHex({ version, order }: CommitPoint): string {
    return version.toString(16).padStart(16, "0") +
      order.toString(16).padStart(4, "0") + "ffff";
  }

  function stampBytes(point: CommitPoint): Bytes {
    return Uint8Array.fromHex(stampHex(point));
  }

  /** Commits that are whole, in order, and behind what the file has. */
  function newEntries(commits: ReplicaCommits): LogEntry[] {
    const { newest, newestVersion } = position;
    if (commits.afterVersion > newestVersion) {
      refuse(
        `The commits come after version ${commits.afterVersion}, but the file ends at ${newestVersion}: some are missing in between. Nothing was applied.`,
      );
    }
    const entries = tools.decodeLogEntries(commits.entries);
    let last: LogEntry | undefined;
    let first = entries.length;
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i];
      const { version, order, index, kind } = entry;
      if (
        !(Number.isSafeInteger(version) && version > 0) ||
        (kind !== 1 && kind !== 2) || !(index <= LAST)
      ) {
        refuse("An entry of the log is none. Nothing was applied.");
      }
      const begins = last === undefined || last.version !== version ||
        last.order !== order;
      const isInOrder = last === undefined ||
        (begins
          ? last.index === LAST && isAfter(entry, last)
          : index > last.index);
      if (!isInOrder) {
        refuse(
          `The entries of the log are out of order at version ${version}. Nothing was applied.`,
        );
      }
      if (first === entries.length && isAfter(entry, newest)) first = i;
      last = entry;
    }
    if (last !== undefined && last.index !== LAST) {
      refuse(
        `The last commit of the log, of version ${last.version}, is not whole. Nothing was applied.`,
      );
    }
    if (last !== undefined && last.version > commits.version) {
      refuse(
        `The commits are said to end at version ${commits.version}, but go on to ${last.version}. Nothing was applied.`,
      );
    }
    return entries.slice(first);
  }

  /** One transaction, or nothing of it. */
  function transact<T>(work: () => T): T {
    const before = position;
    db.exec("begin immediate");
    try {
      const result = work();
      db.exec("commit");
      digest = rows.queueDigest;
      return result;
    } catch (error) {
      position = before;
      rows.queueDigest = digest;
      rows.clear();
      // A full disk may have rolled it back already.
      if (db.isTransaction) db.exec("rollback");
      throw error;
    }
  }

  function addCommits(commits: ReplicaCommits, isKept: boolean): number {
    const entries = newEntries(commits);
    if (!isKept && position.version < position.newestVersion) {
      refuse(
        "The file shows an earlier state than the newest one that it has; it has to go there first. Nothing was applied.",
      );
    }
    return transact(() => {
      inChunks(rowsOf(entries, commits), (chunk) => {
        if (isKept) rows.keep(chunk);
        else rows.apply(chunk, task.keepsHistory ? "undo" : null);
      });
      const last = entries.at(-1);
      const { version, order } = last ?? position.newest;
      const newestVersion = Math.max(commits.version, position.newestVersion);
      position = {
        ...position,
        newestVersion,
        last: last === undefined ? position.last : { version, order },
        newest: newestVersion > version
          ? { version: newestVersion, order: LAST }
          : { version, order },
      };
      setState.run("replica_newest", newestVersion);
      if (!isKept) {
        const point = last === undefined ? position.point : { version, order };
        show(newestVersion, point, commits.timeMs);
      }
      for (const [name, value] of Object.entries(commits.state)) {
        setState.run(name, value);
      }
      return entries.length;
    });
  }

  function* rowsOf(
    entries: readonly LogEntry[],
    { times, timeMs }: ReplicaCommits,
  ): Generator<ReplicaRow> {
    const stamps = new Uint8Array(12 * entries.length);
    let run = 0;
    for (let i = 0; i < entries.length; i++) {
      const { version, order, index, kind, key, value } = entries[i];
      while (run < times.length && times[run].version < version) run++;
      const at = 12 * i;
      tools.writeVersionstamp(stamps, at, version, order);
      stamps[at + 10] = index >>> 8;
      stamps[at + 11] = index;
      yield {
        stamp: stamps.subarray(at, at + 12),
        timeMs: run < times.length ? times[run].timeMs : timeMs,
        key,
        value: kind === 1 ? value : null,
        encoding: entries[i].encoding,
        versionstamp: stamps.subarray(at, at + 10),
        version,
        order,
        expireAtMs: entries[i].expireAtMs,
      };
    }
  }

  /** So many that few keys are written twice, and little is held. */
  function inChunks(
    rows: Iterable<ReplicaRow>,
    take: (chunk: ReplicaRow[]) => void,
  ): void {
    let chunk: ReplicaRow[] = [];
    let bytes = 0;
    for (const row of rows) {
      chunk.push(row);
      bytes += row.key.length + (row.value?.length ?? 0);
      if (chunk.length < CHUNK_ROWS && bytes < CHUNK_BYTES) continue;
      take(chunk);
      chunk = [];
      bytes = 0;
    }
    take(chunk);
  }

  /** Within a transaction: what says which state the data are. */
  function show(version: number, point: CommitPoint, timeMs: number): void {
    position = { ...position, version, point };
    if (!task.keepsHistory) {
      position.floor = point;
      setState.run("history_floor", stampHex(point));
      setState.run("history_floor_ms", timeMs);
    }
    setVersion.run(version);
    setLogHead.run(version, timeMs);
    setState.run("log_floor", version);
    setState.run("replica_version", version);
    setState.run("replica_content", point.version);
    setConfig.run("current_snapshot_versionstamp12", stampHex(point));
    if (task.hasQueue) {
      setState.run("queue_contents", rows.queueDigest.toString(16));
    }
  }

  // --------------------------------------------------------- back and forth

  function goTo(target: CommitPoint): number {
    const { point, floor } = position;
    return isAfter(target, point)
      ? transact(() => goForward(target))
      : isAfter(point, target)
      ? transact(() => goBack(target, floor))
      : 0;
  }

  function goForward(target: CommitPoint): number {
    const { point, newest, newestVersion } = position;
    const from = stampBytes(point);
    const isAll = !isAfter(newest, target);
    const last = arrays(
      "select versionstamp12, timestamp_ms from tt_redo_log where versionstamp12 > ? and versionstamp12 <= ? and substr(versionstamp12, 11) = x'ffff' order by versionstamp12 desc limit 1",
    ).get(from, stampBytes(target)) as unknown as [Bytes, number] | undefined;
    let end = { point, timeMs: 0 };
    let done = 0;
    if (last !== undefined) {
      const to = last[0];
      end = { point: pointAt(to), timeMs: last[1] };
      done = replay("redo", "asc", from, to);
      db.prepare("delete from tt_redo_log where versionstamp12 <= ?").run(to);
    }
    // What lies behind the last entry changed nothing.
    const version = isAll ? newestVersion : end.point.version;
    if (version !== position.version || done > 0) {
      show(Math.max(version, position.version), end.point, end.timeMs);
    }
    return done;
  }

  function goBack(target: CommitPoint, floor: CommitPoint | undefined): number {
    const last = arrays(
      "select versionstamp12, timestamp_ms from tt_undo_log where versionstamp12 <= ? and substr(versionstamp12, 11) = x'ffff' order by versionstamp12 desc limit 1",
    ).get(stampBytes(target)) as unknown as [Bytes, number] | undefined;
    const end = last === undefined ? floor : pointAt(last[0]);
    if (end === undefined || isAfter(end, target)) {
      return refuse(
        floor === undefined
          ? "The file keeps no history. Nothing was changed."
          : `The history in the file begins at ${
            stampHex(floor).slice(0, 20)
          }. Nothing was changed.`,
      );
    }
    const to = stampBytes(end);
    const from = stampBytes(position.point);
    const done = replay("undo", "desc", to, from);
    db.prepare("delete from tt_undo_log where versionstamp12 > ?").run(to);
    show(end.version, end, 0);
    return done;
  }

  function pointAt(stamp: Bytes): CommitPoint {
    return {
      version: tools.readVersion(stamp, 0),
      order: tools.readOrder(stamp, 0),
    };
  }

  /** What is in one log goes into the data, and its inverse into the other. */
  function replay(
    log: HistoryLog,
    direction: "asc" | "desc",
    after: Bytes,
    upTo: Bytes,
  ): number {
    const [total] = arrays(
      `select count(*) from tt_${log}_log where versionstamp12 > ? and versionstamp12 <= ?`,
    ).get(after, upTo) as unknown as [number];
    const inverse = log === "undo" ? "redo" : task.keepsHistory ? "undo" : null;
    const found = tools.historyRows(db, log, direction, after, upTo);
    let done = 0;
    inChunks(
      found.map((row) => ({ ...row, ...pointAt(row.versionstamp) })),
      (chunk) => {
        rows.apply(chunk, inverse);
        done += chunk.length;
        scope.postMessage({ kind: "progress", done, total });
      },
    );
    return done;
  }

  // ------------------------------------------------------------ checkpoints

  let triedAtBytes = 0;

  /**
   * Beside readers at first; where they keep the log from beginning anew, new
   * ones are let in and the old ones are waited for.
   */
  function checkpoint(): void {
    const [, frames] = walFrames.get() as unknown as [number, number, number];
    const bytes = frames * pageBytes;
    if (bytes < triedAtBytes) triedAtBytes = 0;
    if (bytes < triedAtBytes + task.checkpointAtBytes) return;
    triedAtBytes = bytes;
    try {
      if (bytes < task.maxLogBytes) {
        db.exec("pragma wal_checkpoint(passive)");
        return;
      }
      db.exec(`pragma busy_timeout = ${READERS_WAIT_MS}`);
      db.exec("pragma wal_checkpoint(restart)");
    } catch {
      // The disk: the next transaction tells. Or a lock: another try follows.
    } finally {
      db.exec(`pragma busy_timeout = ${LOCK_WAIT_MS}`);
    }
  }

  function close(): void {
    // What was applied is in the write-ahead log, if nowhere else.
    const log = Deno.openSync(`${task.path}-wal`, { write: true });
    try {
      log.syncDataSync();
    } finally {
      log.close();
    }
    db.close();
  }

  function carryOut(request: ReplicaRequest): ReplicaReply {
    switch (request.kind) {
      case "close":
        close();
        return { kind: "closed" };
      case "goTo": {
        const entries = goTo(request.point);
        return { kind: "done", entries, position };
      }
      default: {
        const entries = addCommits(request, request.kind === "keep");
        // Not left to the collector, which would let many of them gather.
        request.entries.buffer.transfer(0);
        return { kind: "done", entries, position };
      }
    }
  }

  scope.onmessage = (event) => {
    try {
      scope.postMessage(carryOut(event.data));
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const isInvalid = error instanceof tools.InvalidRequestError;
      scope.postMessage({ kind: "failed", message, isInvalid });
      return;
    }
    if (db.isOpen) checkpoint();
  };
}

/**
 * The URL of a Worker that carries the task out. The text of each function that
 * it gets may name others and constants: those are given to it as well.
 */
export function replicaWorkerUrl(task: ReplicaTask): string {
  const constants = {
    LAST_INDEX,
    LogKind,
    MORE_FIELDS_THAN_BYTES: 2 ** 30 - 1,
    NEVER_MS,
    QUEUE_PREFIX,
    WIRE_FIXED32,
    WIRE_FIXED64,
    WIRE_LENGTH,
    WIRE_VARINT,
  };
  const texts = [
    InvalidRequestError,
    TooLargeError,
    ProtoReader,
    readVersion,
    readOrder,
    writeVersionstamp,
    decodeLogEntry,
    decodeLogEntries,
    readQueueLogKey,
    decodeQueueMessage,
    encodeQueueMessage,
    digestOf,
    digestOfQueue,
    BulkStatement,
    ReplicaRows,
    historyRows,
  ].map((each) => each.toString());
  const source = `import { DatabaseSync } from "node:sqlite";
${
    Object.entries(constants).map(([name, value]) =>
      `const ${name} = ${JSON.stringify(value)};`
    ).join("\n")
  }
const EMPTY_BYTES = new Uint8Array(0);
${texts.join("\n")}
function malformed() {
  throw new InvalidRequestError("Bytes of the log are not those of entries. Nothing was applied.");
}
const tooManyFields = malformed;
(${work.toString()})({ Database: DatabaseSync, InvalidRequestError, decodeLogEntries, readOrder, readVersion, writeVersionstamp, ReplicaRows, digestOfQueue, historyRows, rowTools: { readQueueLogKey, decodeQueueMessage, encodeQueueMessage, digestOf, BulkStatement } }, ${
    JSON.stringify(task)
  }, self);`;
  return "data:application/javascript," + encodeURIComponent(source);
}
