/**
 * A replica that becomes the owner while it runs. An instance of the database
 * asks the living owner for it, or waits for the lease of a dead one, and
 * leaves the file alone meanwhile: the replica goes on following, and is read.
 * When the database is ours the replica ends, and the instance brings the file
 * to the end that the seals say, and serves it.
 *
 * Until then a promotion can be given up, and nothing has changed here. From
 * then on this is an instance like any other.
 */
import type { Clock } from "../common/clock.ts";
import { withDeadline } from "../common/deadline.ts";
import { messageOf, StartupError } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { BackupEnd } from "../backup/backup_service.ts";
import { hexVersion, type Manifest } from "../backup/manifest.ts";
import type { Replica } from "../replica/replica.ts";
import type { Follower } from "./follower.ts";
import type { Follows, Instance } from "./instance.ts";
import { PromotableStore } from "./promotable_store.ts";

/** How long a promotion may take, beside the lease of a dead owner. */
const PROMOTION_MS = 60_000;
/** Of an owner that does not say how long its lease is. */
const OLD_LEASE_MS = 10_000;
/** For the first look at the backup. */
const LOOK_MS = 10_000;

const OWN_PROBLEMS: ReadonlySet<string> = new Set([
  "Starting",
  "Unreachable",
  "Stopped",
]);

/** What the one who asked for it is told. */
export type PromotionOutcome =
  | { kind: "promoted"; epoch: number; version: number }
  /** As long as a person changes nothing. */
  | { kind: "refused"; why: string }
  /** It may be asked for again. */
  | { kind: "failed"; why: string };

export type PromotionInstance = Pick<
  Instance,
  "store" | "report" | "durableVersions" | "close"
>;

/** One try. */
export interface Promoting {
  instance: PromotionInstance;
  start(onServing: () => void): Promise<BackupEnd>;
  /** Undefined where the place holds no backup. */
  readManifest(): Promise<Manifest | undefined>;
  /** The lock of the file is the instance's from now on. */
  passLockOn(): void;
}

interface Attempt {
  isGivenUp: boolean;
}

export interface PromotionOptions {
  replica: Pick<
    Replica,
    "store" | "databaseId" | "hasCaughtUp" | "report" | "handOver"
  >;
  /** The backup's place, for messages. */
  url: string;
  clock: Clock;
  logger: Logger;
  open(predecessor: (follower: Follower) => Follows): Promise<Promoting>;
}

export class Promotion {
  readonly store: PromotableStore;
  /** Called each time the instance serves the database. */
  onServing = () => {};
  /** Settles as the instance's life does, once the file is the instance's. */
  readonly life: Promise<BackupEnd>;
  private readonly living = Promise.withResolvers<BackupEnd>();
  private trying: Promise<PromotionOutcome> | undefined;
  private promoting: Promoting | undefined;
  private running: Promise<BackupEnd> | undefined;
  private handing: Promise<void> | undefined;
  private isStopping = false;
  /** One that was given up may still be told late that it is the owner. */
  private attempt: Attempt = { isGivenUp: false };
  private leaseMs = OLD_LEASE_MS;
  private readonly stopped = Promise.withResolvers<PromotionOutcome>();

  constructor(private readonly options: PromotionOptions) {
    this.store = new PromotableStore(options.replica.store);
    this.life = this.living.promise;
    // Whoever waits for it is told.
    this.life.catch(() => {});
  }

  /** The instance, from the moment that the file is its own. */
  get instance(): PromotionInstance | undefined {
    return this.handing && this.promoting!.instance;
  }

  /** Resolves when it is decided; one that is asked twice is one promotion. */
  promote(): Promise<PromotionOutcome> {
    this.trying ??= this.run().finally(() => this.trying = undefined);
    return Promise.race([this.trying, this.stopped.promise]);
  }

  private async run(): Promise<PromotionOutcome> {
    if (this.instance !== undefined) return this.outcome();
    const { replica, logger, url } = this.options;
    if (!replica.store.isOpen) {
      const why =
        "This replica has no whole copy of the database yet. Nothing was changed; try again when it is ready.";
      return { kind: "failed", why };
    }
    logger.info("This replica was asked to become the owner.", { backup: url });
    let outcome: PromotionOutcome;
    try {
      const attempt = this.attempt = { isGivenUp: this.isStopping };
      this.promoting = await this.options.open((follower) =>
        new ReplicaFollower(follower, this, attempt)
      );
      outcome = await this.look(this.promoting) ?? await this.tryIt();
    } catch (error) {
      outcome = { kind: "failed", why: messageOf(error) };
    }
    if (outcome.kind === "promoted") {
      const { epoch, version } = outcome;
      logger.info("This replica is the owner of the database now.", {
        epoch,
        versionstamp: hexVersion(version),
      });
      return outcome;
    }
    if (this.instance === undefined) {
      await this.promoting?.instance.close();
      this.promoting = undefined;
      outcome.why += " It goes on as a replica.";
    }
    logger.warn("This replica did not become the owner.", {
      reason: outcome.why,
    });
    return outcome;
  }

  /** @returns why it cannot be, where that shows at once */
  private async look(
    { readManifest }: Promoting,
  ): Promise<PromotionOutcome | undefined> {
    const { clock, url, replica } = this.options;
    const late = `${url} does not answer.`;
    const manifest = await withDeadline(clock, LOOK_MS, late, readManifest());
    const refused = (why: string) => ({ kind: "refused", why }) as const;
    if (manifest === undefined) {
      return refused(
        `${url} holds no backup of this program: without a manifest.json a database has no owner. Nothing was changed; \`restore\` makes a database of its own out of it.`,
      );
    }
    if (manifest.databaseId !== replica.databaseId) {
      return refused(
        `${url} is the backup of another database (${manifest.databaseId}) than this replica's (${replica.databaseId}). Nothing was changed; start it with the backup of its primary.`,
      );
    }
    if (manifest.generation === null) {
      return refused(
        `The first snapshot in ${url} is not complete: what its owner has is in that one's file alone. Nothing was changed.`,
      );
    }
    this.leaseMs = manifest.leaseMs ?? OLD_LEASE_MS;
    return undefined;
  }

  private async tryIt(): Promise<PromotionOutcome> {
    const { instance, start } = this.promoting!;
    const served = Promise.withResolvers<void>();
    const running = this.running = start(() => {
      served.resolve();
      this.onServing();
    });
    running.catch(() => {});
    const withinMs = PROMOTION_MS + 2 * this.leaseMs;
    const late = Promise.withResolvers<"late">();
    const timer = this.options.clock.after(
      withinMs,
      () => late.resolve("late"),
    );
    try {
      const first = await Promise.race([served.promise, running, late.promise]);
      if (first !== "late") return this.outcome();
    } finally {
      timer.stop();
    }
    if (this.instance !== undefined) return this.outcome();
    this.attempt.isGivenUp = true;
    const { lastError } = instance.report();
    return {
      kind: "failed",
      why: `The database could not be had within ${
        Math.round(withinMs / 1000)
      } s: ${lastError ?? "its owner did not hand it over."}`,
    };
  }

  /** Of an instance that has the file. */
  private outcome(): PromotionOutcome {
    const { instance } = this;
    const health = this.store.health();
    if (instance !== undefined && health.writable) {
      const version = instance.durableVersions().local;
      return { kind: "promoted", epoch: instance.report().epoch, version };
    }
    const reason = health.writable ? "" : ` ${health.reason}`;
    return {
      kind: "failed",
      why:
        `This is no replica any more, and does not serve the database at present.${reason}`,
    };
  }

  // -------------------------------------------------------------- handing over

  get isReady(): boolean {
    const { replica } = this.options;
    return replica.hasCaughtUp && !OWN_PROBLEMS.has(replica.report().state);
  }

  get version(): number {
    return this.options.replica.report().version;
  }

  get isHandedOver(): boolean {
    return this.handing !== undefined;
  }

  /** @throws StartupError where the promotion was given up meanwhile */
  handOver(attempt: Attempt): Promise<void> {
    if (attempt.isGivenUp) {
      throw new StartupError("The promotion was given up.");
    }
    return this.handing ??= this.runHandOver();
  }

  private async runHandOver(): Promise<void> {
    const { instance, passLockOn } = this.promoting!;
    this.living.resolve(this.running!);
    this.store.use(instance.store);
    await this.options.replica.handOver();
    passLockOn();
  }

  // ----------------------------------------------------------------------- end

  /** Nobody waits for a promotion any more; one under way is given up. */
  stop(): void {
    this.attempt.isGivenUp = this.isStopping = true;
    const why = this.instance === undefined
      ? "The server is stopping. The replica did not become the owner."
      : "The server is stopping while it becomes the owner. The next start on its file with --backup goes on.";
    this.stopped.resolve({ kind: "failed", why });
  }

  /** Resolves when the file is either the replica's or the instance's. */
  async ended(): Promise<void> {
    await this.handing?.catch(() => {});
  }
}

/** Leaves the file to its replica until the instance has the database. */
class ReplicaFollower implements Follows {
  constructor(
    private readonly follower: Follower,
    private readonly promotion: Promotion,
    private readonly attempt: Attempt,
  ) {}

  get position(): { version: number } | undefined {
    return this.promotion.isHandedOver
      ? this.follower.position
      : this.promotion;
  }

  get isReady(): boolean {
    return this.promotion.isHandedOver
      ? this.follower.isReady
      : this.promotion.isReady;
  }

  get caughtUpAtMs(): number | undefined {
    return this.follower.caughtUpAtMs;
  }

  forget(): void {
    this.follower.forget();
  }

  async step(manifest: Manifest): Promise<number> {
    return this.promotion.isHandedOver ? await this.follower.step(manifest) : 0;
  }

  async prove(manifest: Manifest): Promise<void> {
    if (this.promotion.isHandedOver) await this.follower.prove(manifest);
  }

  async takeOver(
    ...args: Parameters<Follower["takeOver"]>
  ): ReturnType<Follower["takeOver"]> {
    await this.promotion.handOver(this.attempt);
    return await this.follower.takeOver(...args);
  }
}
