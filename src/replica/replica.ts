/**
 * A replica: a file that follows the history of another server, and is read
 * meanwhile.
 *
 * Invariant: the file holds exactly what its position says, because both are
 * written in one transaction. What its readers see is a state that the primary
 * had; the next state that they see is the same or a later one, in the
 * primary's own order: by epoch, then by version. Where the history does not
 * go on from the file's state, another file is made beside it and takes its
 * place in one turn, when it is not behind it in that order.
 */
import type { Bytes } from "../common/bytes.ts";
import { type Clock, sleepUntil } from "../common/clock.ts";
import { withDeadline } from "../common/deadline.ts";
import {
  InvalidRequestError,
  messageOf,
  StartupError,
  UnavailableError,
} from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import { retry } from "../common/retry.ts";
import { errorKindOf } from "../backup/error_kind.ts";
import { decodeLogEntries } from "../log/entry.ts";
import { ObjectStoreRefusedError } from "../object_store/object_store.ts";
import type { EngineLock } from "../store/local_engine.ts";
import type { ReplicaEngine } from "../store/replica_engine.ts";
import type { ReplicaWriter } from "../store/replica_writer.ts";
import type { LocalDatabase } from "../store/restore_target.ts";
import type { ReplicaReport } from "../store/store.ts";
import { formatState, parseState, REPLICA_STATE } from "./position_state.ts";
import { ReplicaStore } from "./replica_store.ts";
import type { Commits, Position, Snapshot, Source } from "./source.ts";

const RETRY = { firstMs: 1000, maxMs: 10_000 };
/** While there is nothing to begin with. */
const WAIT_MS = 1000;
/** Of more entries than this, telling each watch apart costs too much. */
const MAX_TOLD_BYTES = 256 * 1024;
/** A stop waits so long for what is under way. */
const CLOSE_TIMEOUT_MS = 5000;

export interface ReplicaOptions {
  engine: ReplicaEngine;
  source: Source;
  clock: Clock;
  logger: Logger;
  progress?(doneBytes: number, totalBytes: number): void;
}

export class Replica {
  readonly store: ReplicaStore;
  /** Undefined before there is a file; known while its disk fails, too. */
  databaseId: string | undefined;
  private readonly stopped = new AbortController();
  private readonly lock: EngineLock;
  private writer: ReplicaWriter | undefined;
  private position: Position | undefined;
  private running: Promise<unknown> | undefined;
  private closing: Promise<void> | undefined;
  private caughtUpAtMs: number | undefined;
  private readonly startedAtMs: number;
  private problem: unknown;
  private waitsFor: string | undefined;
  /** What fails for good ends it, instead of being told and tried again. */
  private isOnce = false;
  /** The file was made by this, of the earliest state that there is. */
  private isNew = false;
  /** A new copy is being looked for; that is told once. */
  private isBeginningAnew = false;
  private entries = 0;
  private failures = 0;

  /** @throws StartupError where another process has the file */
  constructor(private readonly options: ReplicaOptions) {
    this.store = new ReplicaStore({
      clock: options.clock,
      primaryUrl: () => options.source.primaryUrl,
    });
    this.startedAtMs = options.clock.monotonicMs();
    this.lock = options.engine.lock();
  }

  /**
   * Follows until it is closed.
   * @param onServing called when requests are served from then on
   * @throws StartupError where it cannot begin
   */
  async start(onServing: () => void): Promise<never> {
    const running = (async (): Promise<never> => {
      await this.begin();
      if (this.isNew) await this.reachNewest();
      onServing();
      for (;;) await this.step();
    })();
    this.running = running;
    return await running;
  }

  /**
   * Begins, or goes on, and stops at the end of what there is.
   * @param onBegun called when there is a whole state
   * @returns how many entries of the log were new
   */
  async catchUp(
    onBegun: () => void,
  ): Promise<{ version: number; entries: number }> {
    this.isOnce = true;
    const running = (async () => {
      await this.begin();
      onBegun();
      while (await this.step() !== "end");
      return { version: this.position!.version, entries: this.entries };
    })();
    this.running = running;
    return await running;
  }

  // ---------------------------------------------------------------- beginning

  private async begin(): Promise<void> {
    const { engine, source, logger } = this.options;
    const local = engine.inspect();
    if (local !== undefined) {
      this.position = this.positionIn(local);
      await this.openFile();
      return;
    }
    // A copy that was cut is begun anew.
    const position = await this.patiently(async () =>
      this.build(
        await this.firstSnapshot(
          // Its log is history that the file can be taken back in.
          engine.keepsHistory ? "earliest" : "newest",
        ),
      )
    );
    await engine.install();
    this.position = position;
    this.isNew = true;
    await this.openFile();
    logger.info(
      "The first snapshot is loaded; the log is followed from here.",
      {
        source: source.url,
        version: position.version,
      },
    );
  }

  /** @throws StartupError where the file is none that followed this source */
  private positionIn(local: LocalDatabase): Position {
    const { url } = this.options.source;
    const follows = local.state(REPLICA_STATE.source);
    if (!follows) {
      throw new StartupError(
        `The database file is there and is no replica: it may hold what is nowhere else. Nothing was changed; name another file for the replica of ${url}, or move that one away.`,
      );
    }
    if (follows !== url) {
      throw new StartupError(
        `The database file is a replica of ${follows}, and this one is to follow ${url}. Nothing was changed; name another file, or move that one away.`,
      );
    }
    const position = parseState(local.state(REPLICA_STATE.position));
    if (position === undefined) {
      throw new StartupError(
        `The database file does not say how far it has followed ${url}. Nothing was changed; move it away, and it is made anew.`,
      );
    }
    return position;
  }

  /** What the source is known to have; it may go on for ever. */
  private async reachNewest(): Promise<void> {
    const wanted = this.options.source.newestVersion;
    while (this.position!.version < wanted) {
      if (await this.step() === "end") return;
    }
  }

  private async firstSnapshot(
    which: "newest" | "earliest" = "newest",
  ): Promise<Snapshot> {
    const { source, clock, logger } = this.options;
    const { signal } = this.stopped;
    for (;;) {
      const found = await source.snapshot(signal, which);
      if (found.kind === "snapshot") return found;
      if (this.waitsFor !== found.why) {
        logger.info(`${found.why} It is waited for.`, { source: source.url });
      }
      this.waitsFor = found.why;
      await sleepUntil(clock, WAIT_MS, signal);
      signal.throwIfAborted();
    }
  }

  /** A new file beside the present one. */
  private async build(snapshot: Snapshot): Promise<Position> {
    const { engine, progress } = this.options;
    const target = await engine.create(this.stopped.signal);
    try {
      const position = await snapshot.load(target, progress);
      const { version, timeMs } = position;
      await target.finish({
        databaseId: snapshot.databaseId,
        version,
        timeMs,
        leapToVersion: version,
        state: this.stateOf(position),
      });
      this.waitsFor = undefined;
      return position;
    } catch (error) {
      await target.discard();
      throw error;
    }
  }

  private stateOf(position: Position): Record<string, string> {
    return {
      [REPLICA_STATE.source]: this.options.source.url,
      [REPLICA_STATE.position]: formatState(position),
    };
  }

  private async openFile(): Promise<void> {
    const { engine } = this.options;
    this.writer = await engine.openWriter();
    this.databaseId = this.writer.databaseId;
    const { version } = this.position!;
    if (this.writer.version !== version) {
      throw new StartupError(
        `The database file is at version ${this.writer.version}, and says that it has followed its history up to ${version}: another program has written to it. Nothing was served; move it away, and it is made anew.`,
      );
    }
    this.store.open(engine.openReader(), version);
  }

  // ---------------------------------------------------------------- following

  private async step(): Promise<"end" | "more"> {
    const { source, clock } = this.options;
    const { signal } = this.stopped;
    return await this.patiently(async () => {
      const next = await source.next(this.position!, signal);
      signal.throwIfAborted();
      this.waitsFor = next.kind === "notYet" ? next.why : undefined;
      if (next.kind !== "beginAnew") this.isBeginningAnew = false;
      if (next.kind === "commits") {
        await this.apply(next);
        // While its primary writes without a pause it never sees an end.
        const { newestVersion } = source;
        if (newestVersion > 0 && next.position.version >= newestVersion) {
          this.caughtUpAtMs = clock.monotonicMs();
        }
        return "more";
      }
      if (next.kind === "beginAnew") {
        await this.beginAnew(next.why);
        return "more";
      }
      if (next.kind === "notYet") return "more";
      this.caughtUpAtMs = clock.monotonicMs();
      return "end";
    });
  }

  private async apply(commits: Commits): Promise<void> {
    const { entries, afterVersion, times, position } = commits;
    const isWatched = this.store.watches > 0;
    const told = isWatched ? this.toldKeys(entries) : [];
    this.writer ??= await this.options.engine.openWriter();
    try {
      const applied = await this.writer.apply({
        entries,
        afterVersion,
        version: position.version,
        timeMs: position.timeMs,
        times,
        state: this.stateOf(position),
      });
      this.entries += applied.entries;
    } catch (error) {
      // Nothing of it is in the file; a writer whose disk failed is begun anew.
      await this.writer.close().catch(() => {});
      this.writer = undefined;
      if (!(error instanceof InvalidRequestError)) throw error;
      throw new StartupError(
        `The log of ${this.options.source.url} cannot be applied behind ${this.position?.place}: ${error.message} What this replica has is served.`,
      );
    }
    this.position = position;
    // A watch that began meanwhile may have read the state before.
    const isKnown = isWatched || this.store.watches === 0;
    this.store.applied(isKnown ? told : undefined, position.version);
  }

  /** The keys that watches are told of; before the bytes are given away. */
  private toldKeys(entries: Bytes): Bytes[] | undefined {
    if (entries.length > MAX_TOLD_BYTES) return undefined;
    return decodeLogEntries(entries).map(({ key }) => key.slice());
  }

  /** The old file is read until the new one takes its place, in one turn. */
  private async beginAnew(why: string): Promise<void> {
    const { engine, source, logger } = this.options;
    if (!this.isBeginningAnew) {
      logger.warn(
        "The history does not go on from this replica's state, which is served until a new copy is made.",
        { reason: why, source: source.url },
      );
    }
    this.isBeginningAnew = true;
    const snapshot = await this.firstSnapshot();
    if (snapshot.databaseId !== this.databaseId) {
      snapshot.drop?.();
      throw new StartupError(
        `${source.url} holds another database (${snapshot.databaseId}) than this replica (${this.databaseId}). What this replica has is served; name the right source, or move the replica's file away, and it is made anew.`,
      );
    }
    if (snapshot.state && this.isOlder(snapshot.state)) {
      // Of a large one, each try would take all.
      snapshot.drop?.();
      throw this.onlyOlder();
    }
    const position = await this.build(snapshot);
    if (this.isOlder(position)) throw this.onlyOlder();
    await this.writer?.close();
    this.writer = undefined;
    const former = this.store.shut();
    // Its connections are closed at once; reads under way end on their own.
    const closed = former?.close(
      "This replica has a new copy of the database; ask again.",
    );
    let removed: Promise<void> | undefined;
    try {
      removed = engine.install();
      this.position = position;
    } finally {
      this.store.open(engine.openReader(), this.position!.version);
    }
    await closed;
    await removed;
    this.isBeginningAnew = false;
    this.writer = await engine.openWriter();
    logger.info("The new copy is served, and its log is followed.", {
      version: position.version,
    });
  }

  private isOlder({ epoch, version }: Pick<Position, "epoch" | "version">) {
    const has = this.position!;
    return epoch < has.epoch ||
      epoch === has.epoch && version < has.version;
  }

  private onlyOlder(): StartupError {
    return new StartupError(
      `The newest whole state in ${this.options.source.url} is older than what this replica has. What it has is served, and it is looked for a newer one; where an older copy of the database was put back, move the replica's file away, and it is made anew.`,
    );
  }

  // ----------------------------------------------------------------- problems

  /** Until it works: what fails is told once, and what is there is served. */
  private async patiently<T>(work: () => Promise<T>): Promise<T> {
    const { clock, logger, source } = this.options;
    const isServing = this.store.isOpen && !this.isOnce;
    const done = await retry(work, {
      clock,
      policy: RETRY,
      signal: this.stopped.signal,
      // Before it serves, what a person has to change ends the start.
      isTemporary: (error) =>
        error instanceof UnavailableError ||
        isServing &&
          (error instanceof StartupError ||
            error instanceof ObjectStoreRefusedError),
      onFailure: (error) => {
        this.failures++;
        if (messageOf(this.problem) !== messageOf(error)) {
          logger.error("The history cannot be followed at present.", {
            reason: messageOf(error),
            source: source.url,
          });
        }
        this.problem = error;
      },
    });
    if (this.problem !== undefined) {
      logger.info("The history is followed again.", { source: source.url });
    }
    this.problem = undefined;
    return done;
  }

  // ---------------------------------------------------------------- reporting

  /** It had all that its source showed, at least once. */
  get hasCaughtUp(): boolean {
    return this.caughtUpAtMs !== undefined;
  }

  report(): ReplicaReport {
    const { source, clock } = this.options;
    const { position, problem, waitsFor } = this;
    const version = position?.version ?? 0;
    const kind = problem === undefined ? undefined : errorKindOf(problem);
    const sinceMs = this.caughtUpAtMs ?? this.startedAtMs;
    return {
      source: source.url,
      via: source.via,
      state: !this.store.isOpen
        ? "Starting"
        : kind === "unreachable"
        ? "Unreachable"
        : kind !== undefined
        ? "Stopped"
        : waitsFor !== undefined
        ? "Waiting"
        : "Following",
      version,
      timeMs: position?.timeMs ?? 0,
      lagMs: Math.round(clock.monotonicMs() - sinceMs),
      lagVersions: Math.max(0, source.newestVersion - version),
      primaryUrl: source.primaryUrl,
      entries: this.entries,
      failures: this.failures,
      lastError: problem === undefined ? undefined : messageOf(problem),
      lastErrorKind: kind,
    };
  }

  // ---------------------------------------------------------------------- end

  /**
   * Ends it for whoever serves the file from then on; the lock stays with this
   * process. It is at the state that was shown last.
   */
  handOver(): Promise<void> {
    return this.closing ??= this.runHandOver();
  }

  private async runHandOver(): Promise<void> {
    this.stopped.abort(new StartupError("The replica becomes the owner."));
    // Nothing of it may be written any more: no time limit.
    await this.running?.catch(() => {});
    await this.writer?.close();
    await this.store.close(
      "This replica becomes the owner of the database; ask again in a moment.",
    );
    await this.options.source.close();
  }

  close(): Promise<void> {
    return this.closing ??= this.runClose();
  }

  private async runClose(): Promise<void> {
    const { clock, source } = this.options;
    this.stopped.abort(new StartupError("The replica was stopped."));
    const ended = this.running?.catch(() => {}) ?? Promise.resolve();
    await withDeadline(clock, CLOSE_TIMEOUT_MS, "late", ended).catch(() => {});
    await this.writer?.close();
    await this.store.close();
    this.lock.release();
    await source.close();
  }
}
