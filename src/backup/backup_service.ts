/**
 * A database with its backup, from launch to stop: ownership first, then the
 * local file made what the history says, then the store, then shipping. What
 * happens to ownership while it runs ends here too.
 */
import { sleep } from "../common/clock.ts";
import { messageOf, UnavailableError } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { BackupSource } from "../store/backup_source.ts";
import type { EngineLock, LocalEngine } from "../store/local_engine.ts";
import type { BackupReport, Store } from "../store/store.ts";
import { BackupDurability } from "./backup_durability.ts";
import { BoundedWaits } from "./bounded_waits.ts";
import { errorKindOf } from "./error_kind.ts";
import { Generations } from "./generations.ts";
import { prepare, type Prepared, STATE } from "./launch.ts";
import { HandoverCalls, isReadyToTakeOver } from "./handover.ts";
import type { Manifest } from "./manifest.ts";
import type { EpochEnd } from "./manifest_register.ts";
import { FencedError, type Ownership } from "./ownership.ts";
import { CONFIRMATION_TIMEOUT_MS, OwnedStore } from "./owned_store.ts";
import { markOf, ownershipOptions, requireUsable } from "./preconditions.ts";
import { isCopy } from "./same_machine.ts";
import {
  type BackupServiceOptions,
  patienceOf,
  patiently,
} from "./service_options.ts";
import { Shipper } from "./shipper.ts";
import { acquireOwnership } from "./takeover.ts";
import { Verifications } from "./verifications.ts";
import type { Verification } from "./verify.ts";

const LAUNCH_RETRY_MS = 1000;
/**
 * How long a stop waits for the object store, unless its caller says otherwise;
 * what is left stays in the file.
 */
const RELEASE_TIMEOUT_MS = 10_000;

/** Ownership went to another instance. */
export interface BackupEnd {
  /** `handedOver`: asked for, with everything shipped. `fenced`: taken. */
  kind: "handedOver" | "fenced";
  sentence: string;
}

export class BackupService {
  readonly store: OwnedStore;
  /** Resolves when ownership went to another instance. */
  readonly ended: Promise<BackupEnd>;
  private readonly end = Promise.withResolvers<BackupEnd>();
  private readonly source: BackupSource;
  private readonly shipper: Shipper;
  private readonly generations: Generations;
  private readonly verifications: Verifications;
  private readonly stopped = new AbortController();
  private considering: Promise<void> | undefined;
  /** A launch that asked while another one was considered. */
  private nextAsking: string | undefined;
  private handingOver: Promise<void> | undefined;
  private closing: Promise<void> | undefined;
  private fencedBy: FencedError | undefined;

  /** Everything up to the point where requests may be answered. */
  static async open(options: BackupServiceOptions): Promise<BackupService> {
    const { engine, logger } = options;
    const lock = engine.lock();
    const calls = new HandoverCalls();
    let ownership: Ownership;
    try {
      await patiently(options, () => requireUsable(options));
      ownership = await acquireOwnership({
        ...ownershipOptions(options, calls, lock),
        onWaiting: (what) => logger.info(what),
      });
    } catch (error) {
      lock.release();
      throw error;
    }
    return await BackupService.launch(options, ownership, calls, lock);
  }

  /**
   * As the owner: makes the local file what the history says, and opens it.
   * Without success the lock and the ownership are given up.
   * @param lock of the engine; the store has it afterwards
   * @param follower keeps the file near the history's end, where there is one
   */
  static async launch(
    options: BackupServiceOptions,
    ownership: Ownership,
    calls: HandoverCalls,
    lock: EngineLock,
    follower?: TakesOver,
  ): Promise<BackupService> {
    const { objects, engine, clock, logger } = options;
    let service: BackupService | undefined;
    // A restore may take longer than a lease, and no request renews it yet.
    const keepAlive = ownership.keepAlive();
    try {
      const leap = (version: number) => ownership.leap(version);
      const { manifest, historyEnd: end } = ownership;
      const mark = markOf(options, lock);
      const before = engine.inspect();
      const prepared = await patiently(
        options,
        async () =>
          await follower?.takeOver(manifest, end?.version ?? 0, leap) ??
            // Anew each time: what was set aside before is gone from its place.
            await prepare({
              engine,
              url: objects.url,
              local: engine.inspect(),
              objects,
              manifest,
              end,
              clock,
              patience: patienceOf(options),
              progress: (done, total) =>
                options.progress?.("Restoring", done, total),
              signal: options.signal,
              announceLeap: leap,
            }),
      );
      report(prepared, logger);
      const { action } = prepared.decision;
      if (action === "new") await beginNew(engine, ownership);
      if (before && action === "use" && isCopy(before, objects.url, mark)) {
        engine.leap(await leap(Math.max(before.version, end!.version)));
      }
      const durability = new BackupDurability(options.durability);
      const inner = await engine.open(durability);
      service = new BackupService(
        options,
        ownership,
        prepared,
        durability,
        inner,
      );
      await service.begin(mark);
      const opened = service;
      calls.answer((launch) => opened.considerHandover(launch));
      return service;
    } catch (error) {
      if (service) {
        service.stop();
        await service.store.close();
      } else lock.release();
      // The next launch, here or elsewhere, need not wait for the lease.
      await ownership.release(undefined, () => true).catch(() => {});
      throw error;
    } finally {
      keepAlive.stop();
    }
  }

  private constructor(
    private readonly options: BackupServiceOptions,
    private readonly ownership: Ownership,
    prepared: Prepared,
    private readonly durability: BackupDurability,
    inner: Store & { backupSource: BackupSource },
  ) {
    const { objects, clock, random, logger } = options;
    this.store = new OwnedStore(
      inner,
      ownership,
      options.durability === "s3"
        ? new BoundedWaits(clock, CONFIRMATION_TIMEOUT_MS)
        : undefined,
    );
    this.source = inner.backupSource;
    this.ended = this.end.promise;
    const { historyEnd } = ownership;
    const patience = patienceOf(options);
    this.shipper = new Shipper({
      objects,
      source: this.source,
      epoch: ownership.epoch,
      clock,
      random,
      logger,
      intervalMs: options.durability === "s3" ? 0 : options.intervalMs,
      maxRetainedBytes: options.maxRetainedBytes,
      patience,
      start: historyEnd && {
        generation: historyEnd.generation,
        tsn: 0,
        bucketVersion: prepared.bucketVersion,
        logVersion: prepared.logVersion,
      },
      onGap: () => this.generations.need("the log has moved on without it"),
      onShipped: (version) => {
        void durability.shipped(version);
        this.generations.shipped();
      },
    });
    const { source, shipper } = this;
    const { signal } = this.stopped;
    this.generations = new Generations({
      objects,
      ownership,
      source,
      shipper,
      clock,
      random,
      logger,
      patience,
      retentionMs: options.retentionMs,
      maxRetainedBytes: options.maxRetainedBytes,
      requests: () => this.store.requests,
      // With `s3`, writes wait for it.
      maxPauseMs: options.durability === "s3" ? 30_000 : 600_000,
      log: prepared.log,
      snapshotBytes: prepared.snapshotBytes,
      signal,
    });
    this.verifications = new Verifications({
      objects,
      ownership,
      source,
      shipper,
      generations: this.generations,
      scratch: () => options.engine.scratch(),
      clock,
      logger,
      everyMs: options.verifyEveryMs,
      signal,
    });
    ownership.carryHead(() => endOf(this.shipper.position));
    durability.attach({ clock, random, shipper, ownership });
    void ownership.lost.then((error) => this.fenced(error));
  }

  /** With `s3`, nothing is served before the bucket has it. */
  private async begin(mark: string): Promise<void> {
    const { ownership, shipper, source, options } = this;
    const { generation, beganWithFile } = ownership.manifest;
    await source.setState({
      [STATE.url]: options.objects.url,
      [STATE.epoch]: String(ownership.epoch),
      [STATE.owner]: ownership.owner,
      [STATE.machine]: mark,
      [STATE.place]: options.objects.placeId ?? "",
    });
    this.generations.begin();
    // Until then a blank disk may begin anew in our place.
    if (generation === null && !beganWithFile) await this.firstGeneration();
    if (options.durability === "s3") await this.shipAll();
    else shipper.synced(source.syncedVersion);
    void this.verifications.begin();
  }

  /** Nothing is tried any more where the launch is ended. */
  private async shipAll(): Promise<void> {
    const { shipper, generations, durability } = this;
    const { signal } = this.options;
    const end = () => {
      durability.refuse(new UnavailableError("The server is stopping."));
      this.stop();
    };
    signal?.addEventListener("abort", end);
    try {
      signal?.throwIfAborted();
      await generations.making;
      await shipper.drain();
      await durability.shipped(shipper.shippedVersion);
      signal?.throwIfAborted();
    } finally {
      signal?.removeEventListener("abort", end);
    }
  }

  /** Resolves when there is one, or when the service has ended without. */
  private async firstGeneration(): Promise<void> {
    const { ownership, generations, options } = this;
    const abort = () => this.abortWork();
    options.signal?.addEventListener("abort", abort);
    try {
      while (ownership.manifest.generation === null) {
        options.signal?.throwIfAborted();
        if (this.stopped.signal.aborted) return;
        await (generations.making ?? sleep(options.clock, LAUNCH_RETRY_MS));
      }
    } finally {
      options.signal?.removeEventListener("abort", abort);
    }
  }

  /** A new generation now, or the one that is being made. */
  snapshot(): Promise<{ generation: string }> {
    return this.generations.ask();
  }

  /** @throws StartupError where the backup is not as the database is */
  verify(): Promise<Verification> {
    return this.verifications.verify();
  }

  // ------------------------------------------------------------- its end

  /**
   * Another launch asks for the database. It is handed over only to one that
   * is seen to be alive and ready; until then this one serves.
   */
  private considerHandover(launch: string): void {
    if (this.considering) {
      this.nextAsking = launch;
      return;
    }
    this.considering = this.answerHandover(launch).finally(() => {
      this.considering = undefined;
      const next = this.nextAsking;
      this.nextAsking = undefined;
      if (next !== undefined) this.considerHandover(next);
    });
  }

  private async answerHandover(launch: string): Promise<void> {
    const { logger } = this.options;
    const { signal } = this.stopped;
    await this.shipBeforeHandover();
    const isReady = await isReadyToTakeOver(this.options, launch, signal);
    if (signal.aborted) return;
    if (isReady) return await this.handOver();
    logger.warn(
      "Another instance asked for this database and was not heard of since; this one goes on serving it.",
      { launch },
    );
    await this.ownership.declineHandover(launch).catch((error) => {
      // A fenced instance ends for that reason; in an outage it asks anew.
      logger.debug("The request was not taken back.", {
        reason: messageOf(error),
      });
    });
  }

  /**
   * What takes long, such as the first snapshot, is done while requests are
   * served: little is left when they no longer are.
   */
  private async shipBeforeHandover(): Promise<void> {
    const { generations, shipper, ownership } = this;
    // Nobody else may need the lease meanwhile.
    const keepAlive = ownership.keepAlive();
    try {
      await generations.ensurePlace("another instance asks for the database");
      await shipper.drain();
    } finally {
      keepAlive.stop();
    }
  }

  /** Stops answering, ships the rest, gives ownership up. */
  private handOver(): Promise<void> {
    this.handingOver ??= (async () => {
      const { logger } = this.options;
      logger.info("Another instance asks for this database; handing it over.");
      const error = new UnavailableError(
        "The database is being handed over to another instance; nothing of the request was applied, try again.",
      );
      this.store.refuse(error);
      try {
        await this.release();
        this.end.resolve({
          kind: "handedOver",
          sentence:
            "Another instance asked for this database and has it now; everything was shipped.",
        });
      } catch (error) {
        if (error instanceof FencedError) return;
        logger.error("The hand-over failed.", { reason: messageOf(error) });
        this.end.resolve({
          kind: "fenced",
          sentence:
            `Another instance asked for this database, and it could not be handed over in order (${
              messageOf(error)
            }). Everything acknowledged is in the local file.`,
        });
      }
    })();
    return this.handingOver;
  }

  private async release(giveUp?: () => boolean): Promise<void> {
    const { source, generations } = this;
    const why = "the database is given up";
    // With `s3`, what is to settle may wait for a generation.
    await Promise.all([source.settle(), generations.ensurePlace(why)]);
    // Without one to ship to, the bucket would have nothing of it.
    await generations.ensurePlace(why);
    this.abortWork();
    await this.generations.making;
    await this.shipper.drain();
    if (this.source.syncedVersion > this.shipper.shippedVersion) {
      throw new UnavailableError("not everything could be shipped");
    }
    await this.ownership.release(endOf(this.shipper.position), giveUp);
  }

  private fenced(error: FencedError): void {
    this.fencedBy = error;
    this.store.refuse(error);
    this.durability.refuse(error);
    this.stop();
    this.options.logger.error("Ownership is lost.", { reason: error.message });
    this.end.resolve({ kind: "fenced", sentence: error.message });
  }

  private abortWork(): void {
    this.stopped.abort(new UnavailableError("The server is stopping."));
  }

  private stop(): void {
    this.abortWork();
    this.shipper.stop();
    // Whatever is still waited for: the next owner need not wait for us.
    this.ownership.stop();
  }

  /**
   * In order: what is written is shipped and the ownership given up, as far as
   * the object store answers; then the file is closed. The object store is
   * its caller's to close.
   */
  close(releaseTimeoutMs = RELEASE_TIMEOUT_MS): Promise<void> {
    return this.closing ??= this.runClose(releaseTimeoutMs);
  }

  private async runClose(releaseTimeoutMs: number): Promise<void> {
    const { clock, logger } = this.options;
    this.store.refuse(new UnavailableError("The server is stopping."));
    let isLate = false;
    const late = Promise.withResolvers<void>();
    const timer = clock.after(releaseTimeoutMs, () => {
      isLate = true;
      late.resolve();
    });
    const released = this.handingOver ??
      this.release(() => isLate).catch((error) => {
        if (error instanceof FencedError) return;
        logger.warn("The ownership of the backup was not given up.", {
          reason: messageOf(error),
        });
      });
    await Promise.race([released, late.promise]);
    timer.stop();
    if (isLate) {
      logger.warn(
        "The object store does not answer; what it lacks is in the local file and is shipped at the next start.",
      );
    }
    this.durability.refuse(new UnavailableError("The server is stopping."));
    this.stop();
    await this.store.close();
  }

  // -------------------------------------------------------------- reporting

  /** For every REST answer: two numbers, and no look at the database. */
  durableVersions(): { local: number; bucket: number } {
    return {
      local: this.localVersion(),
      bucket: this.durability.name === "s3"
        ? this.durability.confirmedVersion
        : this.shipper.shippedVersion,
    };
  }

  private seenLocalVersion = 0;

  /** The last one that was seen, while the file is being opened anew. */
  private localVersion(): number {
    try {
      this.seenLocalVersion = this.source.syncedVersion;
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
    }
    return this.seenLocalVersion;
  }

  report(): BackupReport {
    const { ownership } = this;
    const { verifiedAtMs, failure } = this.verifications;
    const { local, bucket } = this.durableVersions();
    const shipping = this.shipper.status();
    const nowMs = this.options.clock.nowMs();
    const error = this.fencedBy ?? shipping.lastError ??
      this.durability.lastError ?? ownership.renewalError;
    return {
      durability: this.durability.name,
      state: this.stopped.signal.aborted
        ? "Stopped"
        : error !== undefined
        ? "Unreachable"
        : !this.generations.hasPlace() ||
            shipping.lagMs > 2 * this.options.intervalMs + 1000
        ? "Behind"
        : "Active",
      epoch: ownership.epoch,
      generation: ownership.manifest.generation,
      localVersion: local,
      bucketVersion: bucket,
      lagMs: Math.round(shipping.lagMs),
      maxLagMs: Math.round(shipping.maxLagMs),
      lagBytes: shipping.lagBytes,
      segments: shipping.segments,
      shippedBytes: shipping.shippedBytes,
      failures: shipping.failures,
      clockSkewMs: ownership.clockSkewMs,
      lastError: error === undefined ? undefined : messageOf(error),
      lastErrorKind: error === undefined ? undefined : errorKindOf(error),
      verifiedAgeMs: verifiedAtMs && Math.max(0, nowMs - verifiedAtMs),
      verifyFailure: failure === undefined ? undefined : messageOf(failure),
      verifyFailureKind: failure === undefined
        ? undefined
        : errorKindOf(failure),
    };
  }
}

/** How far the log is in the bucket. */
function endOf(position: Shipper["position"]): EpochEnd | undefined {
  return position && {
    generation: position.generation,
    lastTsn: position.tsn,
    lastVersion: position.bucketVersion,
  };
}

/** An empty database, whose versions nobody before us can have issued. */
async function beginNew(
  engine: LocalEngine,
  ownership: Ownership,
): Promise<void> {
  const { databaseId, epoch } = ownership.manifest;
  const leapToVersion = epoch === 1 ? 0 : await ownership.leap(0);
  const target = await engine.create();
  await target.finish({ databaseId, version: 0, leapToVersion, state: {} });
}

/** A file that is near the history's end already (`database/follower.ts`). */
export interface TakesOver {
  /** @returns undefined where the file does not follow that history */
  takeOver(
    manifest: Manifest,
    endVersion: number,
    announceLeap: (version: number) => Promise<number>,
  ): Promise<Prepared | undefined>;
}

function report({ decision, asideName, restored }: Prepared, logger: Logger) {
  if (asideName !== undefined && decision.action === "setAside") {
    logger.warn(
      "The local file does not belong to the backup's history and was set aside; it is kept.",
      { reason: decision.why, keptAs: asideName },
    );
  }
  if (restored) {
    logger.info(
      decision.action === "catchUp"
        ? "The local file was brought up to date from the backup."
        : "Restored from the backup.",
      { ...restored },
    );
  }
}
