/**
 * One database with a backup, on this machine, for the life of the process. It
 * waits as a warm standby while another instance serves the database, takes
 * over when that one is gone or hands over, serves, and is a standby again
 * when it has lost it.
 *
 * The lock of the local file is held throughout: by this, and by the store
 * while one is open.
 */
import { sleepUntil } from "../common/clock.ts";
import { withDeadline } from "../common/deadline.ts";
import {
  LocalFileError,
  messageOf,
  StartupError,
  UnavailableError,
} from "../common/errors.ts";
import { retry } from "../common/retry.ts";
import { type BackupEnd, BackupService } from "../backup/backup_service.ts";
import { errorKindOf } from "../backup/error_kind.ts";
import { HandoverBeat, HandoverCalls } from "../backup/handover.ts";
import { STATE } from "../backup/launch.ts";
import type { Manifest } from "../backup/manifest.ts";
import { FencedError, isOutage, type Ownership } from "../backup/ownership.ts";
import { ownershipOptions, requireUsable } from "../backup/preconditions.ts";
import {
  type BackupServiceOptions,
  patienceOf,
} from "../backup/service_options.ts";
import {
  Candidate,
  temporaryAtLaunch,
  waitingFor,
} from "../backup/takeover.ts";
import { localDurability } from "../store/durability.ts";
import type { EngineLock } from "../store/local_engine.ts";
import type { BackupReport, Store } from "../store/store.ts";
import { Follower } from "./follower.ts";
import { SwitchableStore } from "./switchable_store.ts";

/** How often a standby looks at the manifest. */
const POLL_MS = 500;
/** The same while it has asked for the database. */
const ASKED_POLL_MS = 100;
/** How often it asks for new segments: at first, and while there are none. */
const FOLLOW_MS = 1000;
const MAX_FOLLOW_MS = 5000;
/** A request that came to nothing is made again after this. */
const ASK_AGAIN_MS = 10_000;
/** How long what was given up for one launch is left to it. */
const YIELD_MS = 3000;
const OUTAGE_RETRY_MS = 1000;
/** A local disk that had no room is tried again after this, then less often. */
const LOCAL_RETRY_MS = { firstMs: 5000, maxMs: 20_000 };
/** A stop waits so long for the object store. */
const WITHDRAW_TIMEOUT_MS = 2000;
/** The same for a launch under way, unless its caller says otherwise. */
const LAUNCH_END_MS = 10_000;
/**
 * A word to the owner that was not taken is tried again after about this. Some
 * stores take few changes of one object, and those of the owner come first.
 */
const WORD_RETRY_MS = { first: 1000, max: 8000 };

export interface InstanceOptions extends Omit<BackupServiceOptions, "signal"> {
  /** Never asks a living owner for the database. */
  isStandby: boolean;
  /** Ends with the first loss of the database, instead of standing by. */
  endsWhenReplaced: boolean;
  /** Serves its own file alone while the object store does not answer. */
  startsInOutage: boolean;
  /** Who keeps the file until it takes over, in the place of its own. */
  predecessor?(follower: Follower): Follows;
}

/** What an instance needs of whoever keeps its file at the history's end. */
export interface Follows extends
  Pick<
    Follower,
    "isReady" | "caughtUpAtMs" | "step" | "prove" | "forget" | "takeOver"
  > {
  readonly position: { version: number } | undefined;
}

export class Instance {
  readonly store = new SwitchableStore({
    cause: "starting",
    reason: "The database is being opened; try again in a moment.",
  });
  private running: Promise<BackupEnd> | undefined;
  private onServing = () => {};
  private readonly stopped = new AbortController();
  private readonly follower: Follows;
  private lock: EngineLock | undefined;
  private service: BackupService | undefined;
  private alone: Promise<Store | undefined> | undefined;
  private hasServed = false;
  private manifest: Manifest | undefined;
  /** The object store has said who owns the database, or that nobody does. */
  private hasSeen = false;
  /** Why the last look at the object store failed, while it fails. */
  private outage: unknown;
  private followProblem: unknown;
  /** Why the local file cannot be made ready: it takes over with none. */
  private localProblem: LocalFileError | undefined;
  private localPauseMs = LOCAL_RETRY_MS.firstMs;
  private hasToldOfTakeover = false;
  private yielding: { epoch: number; untilMs: number } | undefined;
  private nextFollowMs = 0;
  private followPauseMs = FOLLOW_MS;
  private closing: Promise<void> | undefined;

  /** @throws StartupError where another process has the file */
  constructor(private readonly options: InstanceOptions) {
    const { signal } = this.stopped;
    this.lock = options.engine.lock();
    const follower = new Follower({
      ...options,
      patience: patienceOf(options),
      progress: (done, total) => options.progress?.("Restoring", done, total),
      signal,
    });
    this.follower = options.predecessor?.(follower) ?? follower;
  }

  /**
   * Begins its life. Resolves when it was replaced and does not stand by.
   * @param onServing called each time requests are served from then on
   * @throws StartupError where it cannot go on
   */
  start(onServing: () => void): Promise<BackupEnd> {
    this.onServing = onServing;
    return this.running ??= this.run();
  }

  private async run(): Promise<BackupEnd> {
    const { options } = this;
    await this.answered(() =>
      requireUsable(this.serviceOptions, () => this.hasSeen = true)
    );
    for (;;) {
      const end = await this.serveOnce();
      if (end === undefined) continue;
      if (options.endsWhenReplaced || this.closing) return end;
      options.logger.warn(end.sentence);
    }
  }

  private get serviceOptions(): BackupServiceOptions {
    return { ...this.options, signal: this.stopped.signal };
  }

  /** Waits for the database, serves it, and loses it. */
  private async serveOnce(): Promise<BackupEnd | undefined> {
    const { engine } = this.options;
    const calls = new HandoverCalls();
    const lock = this.lock ??= engine.lock();
    const ownership = await this.becomeOwner(
      await this.withLocalFile(() =>
        new Candidate(ownershipOptions(this.serviceOptions, calls, lock))
      ),
    );
    this.shut(
      "starting",
      "The database is being opened; try again in a moment.",
    );
    this.lock = undefined;
    let service: BackupService;
    try {
      service = await BackupService.launch(
        this.serviceOptions,
        ownership,
        calls,
        lock,
        this.follower,
      );
    } catch (error) {
      // Another instance took over before this one served anything.
      if (error instanceof FencedError) return undefined;
      // It was given back, for others that stand by.
      if (!this.isBlockedBy(error)) throw error;
      this.tellOfTakeover();
      return undefined;
    }
    this.follower.forget();
    this.localPauseMs = LOCAL_RETRY_MS.firstMs;
    this.hasToldOfTakeover = false;
    this.service = service;
    this.hasServed = true;
    this.store.open(service.store);
    this.onServing();
    const end = await service.ended;
    this.shut("standby", standingBy(null));
    await service.close();
    this.service = undefined;
    return end;
  }

  // ------------------------------------------------------------- standing by

  private async becomeOwner(candidate: Candidate): Promise<Ownership> {
    const { clock, objects } = this.options;
    const { signal } = this.stopped;
    const beat = new HandoverBeat({ objects, clock }, candidate.launch);
    let firstEpoch: number | undefined;
    let askAtMs = 0;
    let preparedFor: string | undefined;
    const words = new Words(this.options);
    try {
      for (;;) {
        const sight = await this.answered(() => candidate.look());
        const { manifest } = sight;
        const mayTake = sight.mayTake !== undefined &&
          !this.yields(manifest, candidate.launch);
        const takes = mayTake && this.localProblem === undefined;
        if (mayTake && !takes) this.tellOfTakeover();
        // Its owner may be alive and asked nothing: what takes long is done
        // before, and the owner goes on if somebody asks it meanwhile.
        if (
          takes && sight.mayTake === "leaseOver" && manifest !== undefined &&
          !this.follower.isReady && preparedFor !== manifest.change
        ) {
          preparedFor = manifest.change;
          await this.follow(manifest, true);
          continue;
        }
        if (takes || manifest === undefined) {
          // A file that followed leaps when it takes over.
          const leaps = this.follower.position !== undefined;
          const taken = await this.answered(() =>
            candidate.take(sight, { leaps })
          );
          if (taken !== undefined) return taken;
          continue;
        }
        // Whoever took over since then has been asked, or waited longer.
        firstEpoch ??= manifest.epoch;
        const asks = !this.options.isStandby && !this.hasServed &&
          manifest.epoch === firstEpoch;
        await this.follow(manifest, asks);
        const isReady = asks && this.follower.isReady &&
          this.localProblem === undefined;
        // Of several that are ready, one is asked for, and it alone says so.
        if (isReady && manifest.handoverTo === candidate.launch) beat.start();
        else beat.stop();
        if (isReady && manifest.handoverTo === null) {
          const nowMs = clock.monotonicMs();
          if (nowMs >= askAtMs) {
            const hasAsked = await this.untilStopped(
              words.say(() => candidate.ask()),
            );
            if (hasAsked) askAtMs = nowMs + ASK_AGAIN_MS;
          }
        } else if (!asks && !manifest.standby) {
          await this.untilStopped(words.say(() => candidate.standBy()));
        }
        await sleepUntil(clock, asks ? ASKED_POLL_MS : POLL_MS, signal);
      }
    } catch (error) {
      // Nobody should hand over to a launch that is gone.
      await withDeadline(
        clock,
        WITHDRAW_TIMEOUT_MS,
        "The object store does not answer.",
        candidate.withdraw(),
      ).catch(() => {});
      throw error;
    } finally {
      beat.stop();
    }
  }

  /** What was given up for a launch that asked is that one's, for a moment. */
  private yields(manifest: Manifest | undefined, launch: string): boolean {
    if (!manifest || manifest.owner !== null) return false;
    const { handoverTo, epoch } = manifest;
    if (handoverTo === null || handoverTo === launch) return false;
    const nowMs = this.options.clock.monotonicMs();
    if (this.yielding?.epoch !== epoch) {
      this.yielding = { epoch, untilMs: nowMs + YIELD_MS };
    }
    return nowMs < this.yielding.untilMs;
  }

  /** Brings the file nearer to the history's end, where it is time to. */
  private async follow(manifest: Manifest, isEager: boolean): Promise<void> {
    const { clock, logger } = this.options;
    if (this.manifest?.epoch !== manifest.epoch) {
      logger.info(
        "Another instance serves this database; this one follows its backup.",
        { epoch: manifest.epoch, asksForIt: isEager },
      );
    }
    this.manifest = manifest;
    if (this.localProblem === undefined) {
      this.shut("standby", standingBy(manifest.ownerUrl));
    }
    const isUrgent = isEager && this.localProblem === undefined;
    if (!isUrgent && clock.monotonicMs() < this.nextFollowMs) return;
    try {
      const segments = await this.follower.step(manifest);
      if (this.localProblem !== undefined) {
        await this.follower.prove(manifest);
        this.unblock();
      }
      this.followPauseMs = segments > 0
        ? FOLLOW_MS
        : Math.min(2 * this.followPauseMs, MAX_FOLLOW_MS);
      this.followProblem = undefined;
    } catch (error) {
      this.stopped.signal.throwIfAborted();
      if (this.isBlockedBy(error)) return;
      if (!isOutage(error) && !(error instanceof StartupError)) throw error;
      this.followPauseMs = MAX_FOLLOW_MS;
      if (this.followProblem === undefined) {
        logger.error("The backup cannot be followed at present.", {
          reason: messageOf(error),
        });
      }
      this.followProblem = error;
    }
    this.nextFollowMs = clock.monotonicMs() + this.followPauseMs;
  }

  // ----------------------------------------------------------- a full disk

  /**
   * Whether it is for the local disk that this does not go on. Who stands by
   * waits for room then, and says so; a first start ends and says so.
   */
  private isBlockedBy(error: unknown): boolean {
    const { clock, logger } = this.options;
    if (!(error instanceof LocalFileError) || this.closing) return false;
    if (!this.hasServed && this.manifest === undefined) return false;
    if (this.localProblem === undefined) {
      logger.error(
        "The local disk does not take the database; this instance stands by until it does, and leaves the database to others.",
        { reason: messageOf(error) },
      );
    }
    this.localProblem = error;
    this.shut(
      "disk",
      "The disk of this instance is full or does not take the database: it cannot take over until there is room. Nothing was applied; ask the instance that serves the database.",
    );
    this.nextFollowMs = clock.monotonicMs() + this.localPauseMs;
    this.localPauseMs = Math.min(2 * this.localPauseMs, LOCAL_RETRY_MS.maxMs);
    return true;
  }

  private unblock(): void {
    this.localProblem = undefined;
    this.options.logger.info("The local disk takes the database again.");
  }

  private tellOfTakeover(): void {
    if (this.hasToldOfTakeover) return;
    this.hasToldOfTakeover = true;
    this.options.logger.error(
      "Nobody serves the database, and this instance cannot take over: its local disk does not take it. Make room there.",
      { reason: messageOf(this.localProblem) },
    );
  }

  /** @param work looks at the local file */
  private withLocalFile<T>(work: () => T): Promise<T> {
    return retry(() => new Promise<T>((resolve) => resolve(work())), {
      clock: this.options.clock,
      policy: LOCAL_RETRY_MS,
      signal: this.stopped.signal,
      isTemporary: (error) => this.isBlockedBy(error),
    });
  }

  // ------------------------------------------------------------- an outage

  /** Until the object store answers; requests are told of it meanwhile. */
  private async answered<T>(work: () => Promise<T>): Promise<T> {
    const { clock, logger } = this.options;
    const startedMs = clock.monotonicMs();
    const isTemporary = temporaryAtLaunch(clock);
    try {
      return await this.untilStopped(retry(work, {
        clock,
        policy: { firstMs: OUTAGE_RETRY_MS, maxMs: OUTAGE_RETRY_MS },
        signal: this.stopped.signal,
        // Who was let in before waits until it is again.
        isTemporary: (error) =>
          isTemporary(error) ||
          (this.hasServed || this.manifest !== undefined) && isOutage(error),
        onFailure: (error) => {
          if (this.outage === undefined) {
            logger.warn(waitingFor(error), { reason: messageOf(error) });
          }
          this.outage = error;
          if (this.alone) return;
          this.shut(
            "backup",
            "The object store does not answer, so it is not known whether this instance may serve the database. Nothing was applied; it is tried until it answers.",
          );
          const afterMs = clock.monotonicMs() - startedMs;
          if (this.mayServeAlone(afterMs)) this.alone = this.serveAlone();
        },
      }));
    } finally {
      this.outage = undefined;
      await this.endAlone();
    }
  }

  /** A request that hangs does not hold a stop up. */
  private async untilStopped<T>(work: Promise<T>): Promise<T> {
    const { signal } = this.stopped;
    const stopped = Promise.withResolvers<never>();
    const stop = () => stopped.reject(signal.reason);
    signal.addEventListener("abort", stop);
    try {
      return await Promise.race([work, stopped.promise]);
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  private mayServeAlone(outageMs: number): boolean {
    const { options } = this;
    if (!options.startsInOutage || this.hasSeen) return false;
    if (outageMs < OUTAGE_RETRY_MS) return false;
    const local = options.engine.inspect();
    // A file that only followed, or never had this backup, is not the newest.
    return local !== undefined && Boolean(local.state(STATE.owner)) &&
      local.state(STATE.url) === options.objects.url;
  }

  private async serveAlone(): Promise<Store | undefined> {
    const { options } = this;
    try {
      const store = await options.engine.open(localDurability);
      this.lock = undefined;
      // All of it is to be shipped when the object store answers.
      const { backupSource } = store;
      backupSource.retainAfter(
        backupSource.logFloorVersion,
        options.maxRetainedBytes,
      );
      this.store.open(store);
      options.logger.warn(
        "The object store does not answer, and --start-in-outage is given: the database is served from its local file alone. What is written is on this machine's disk alone until the object store answers; if another instance took over before, it is set aside.",
      );
      this.onServing();
      return store;
    } catch (error) {
      options.logger.error("The local file cannot be served.", {
        reason: messageOf(error),
      });
      return undefined;
    }
  }

  private async endAlone(): Promise<void> {
    const store = await this.alone;
    this.alone = undefined;
    if (store === undefined) return;
    this.shut(
      "starting",
      "The object store answers again, and the database is opened with its backup; try again in a moment.",
    );
    await store.close();
    this.lock = this.options.engine.lock();
  }

  // --------------------------------------------------------------- reporting

  private shut(
    cause: "starting" | "standby" | "backup" | "disk",
    reason: string,
  ): void {
    this.store.shut({ cause, reason });
  }

  durableVersions(): { local: number; bucket: number } {
    if (this.service) return this.service.durableVersions();
    const version = this.follower.position?.version ?? 0;
    return { local: version, bucket: version };
  }

  snapshot(): Promise<{ generation: string }> {
    if (this.service) return this.service.snapshot();
    return Promise.reject(
      new UnavailableError(
        "This instance does not serve the database at present; ask the one that does.",
      ),
    );
  }

  report(): BackupReport {
    if (this.service) return this.service.report();
    const { local, bucket } = this.durableVersions();
    const { caughtUpAtMs } = this.follower;
    const { manifest, outage, followProblem, options } = this;
    const error = outage ?? this.localProblem ?? followProblem;
    return {
      durability: options.durability,
      state: outage !== undefined
        ? "Unreachable"
        : manifest
        ? "Standby"
        : "Starting",
      epoch: manifest?.epoch ?? 0,
      generation: manifest?.generation ?? null,
      localVersion: local,
      bucketVersion: bucket,
      lagMs: 0,
      maxLagMs: 0,
      lagBytes: 0,
      segments: 0,
      shippedBytes: 0,
      failures: 0,
      lastError: error === undefined ? undefined : messageOf(error),
      lastErrorKind: error === undefined ? undefined : errorKindOf(error),
      clockSkewMs: undefined,
      verifiedAgeMs: undefined,
      verifyFailure: undefined,
      verifyFailureKind: undefined,
      followedAgeMs: caughtUpAtMs &&
        Math.round(options.clock.monotonicMs() - caughtUpAtMs),
    };
  }

  // --------------------------------------------------------------------- end

  /**
   * In order: a service ships what is written and gives the ownership up, as
   * far as the object store answers; a standby takes its request back.
   */
  close(releaseTimeoutMs?: number): Promise<void> {
    return this.closing ??= this.runClose(releaseTimeoutMs);
  }

  private async runClose(releaseTimeoutMs?: number): Promise<void> {
    await this.service?.close(releaseTimeoutMs);
    this.stopped.abort(
      new StartupError("The server was asked to stop before it had started."),
    );
    // A service that was closed in order does not say that it has ended.
    if (this.service === undefined) await this.launchEnded(releaseTimeoutMs);
    this.lock?.release();
    await this.options.objects.close();
  }

  /** A launch that waits for the object store may not end at all. */
  private async launchEnded(withinMs = LAUNCH_END_MS): Promise<void> {
    const { clock, logger } = this.options;
    const ended = this.running?.catch(() => {}) ?? Promise.resolve();
    const late =
      "The object store does not answer, so what the start had begun there was left as it is; the next start goes on.";
    await withDeadline(clock, withinMs, late, ended.then(() => {}))
      .catch((error) => logger.warn(messageOf(error)));
  }
}

/** What a standby writes into the manifest: nothing that anything waits for. */
class Words {
  private notBeforeMs = 0;
  private pauseMs = WORD_RETRY_MS.first;

  constructor(
    private readonly options: Pick<InstanceOptions, "clock" | "random">,
  ) {}

  /** @returns whether it was taken; where it was not, a later call tries again */
  async say(word: () => Promise<boolean>): Promise<boolean> {
    const { clock, random } = this.options;
    if (clock.monotonicMs() < this.notBeforeMs) return false;
    let isTaken = false;
    try {
      isTaken = await word();
    } catch (error) {
      if (!isOutage(error)) throw error;
    }
    const { first, max } = WORD_RETRY_MS;
    const halfMs = this.pauseMs / 2;
    this.notBeforeMs = clock.monotonicMs() + halfMs +
      random.below(this.pauseMs);
    this.pauseMs = isTaken ? first : Math.min(2 * this.pauseMs, max);
    return isTaken;
  }
}

function standingBy(ownerUrl: string | null | undefined): string {
  return `Another instance serves this database${
    ownerUrl ? ` at ${ownerUrl}` : ""
  }. This one stands by and takes over when that one is gone; nothing was applied.`;
}
