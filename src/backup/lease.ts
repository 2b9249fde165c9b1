/**
 * The lease of an owner: how long it may serve without asking, by two clocks,
 * and how it is renewed while somebody asks. Where nobody does, it runs out,
 * and no request is made (docs/fencing.md).
 */
import type { Clock, Timer } from "../common/clock.ts";
import { withDeadline } from "../common/deadline.ts";
import { messageOf } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { Random } from "../common/random.ts";
import { retry } from "../common/retry.ts";
import type { ManifestRegister } from "./manifest_register.ts";
import { isOutage, type OwnerState } from "./owner_state.ts";

/**
 * A lease that cannot be renewed because the store does not answer: after this
 * long, durability `local` goes on without it.
 */
const OUTAGE_GRACE_MS = 2000;
/** How long a request waits for the lease. */
const ENSURE_TIMEOUT_MS = 2 * OUTAGE_GRACE_MS;
const RENEW_RETRY = { firstMs: 500, maxMs: 2000 };
/** The first pause is shorter where the lease is: a second try has its time. */
const RETRIES_PER_LEASE = 20;
/** It is renewed when so much of it is over: two tries still have their time. */
const RENEW_AT = 2 / 3;
/**
 * How often an owner in use looks whether another launch asks for it, at the
 * most and in parts of the lease. It serves on until it has seen that.
 */
const MAX_LOOK_MS = 2000;
const LOOKS_PER_LEASE = 5;
/** No look where another one was made in this part of that time. */
const RECENT = 0.9;
/** How often a lease that nobody asks for is kept alive. */
const KEEP_ALIVE_MS = 250;

export interface LeaseOptions {
  clock: Clock;
  random: Random;
  logger: Logger;
  state: OwnerState;
  register: Pick<
    ManifestRegister,
    "update" | "look" | "seenAtMonotonicMs" | "hasStandby"
  >;
  leaseMs: number;
  /** Goes on without a lease while the store does not answer at all. */
  servesThroughOutages: boolean;
}

/** A moment, by both clocks of the machine. */
export interface Moment {
  nowMs: number;
  monotonicMs: number;
}

export class Lease {
  /** Why the last try to renew it failed; undefined where it did not. */
  renewalError: unknown;
  private endMs = 0;
  private endMonotonicMs = 0;
  private renewAtMonotonicMs = 0;
  /** Whether anybody has asked since it was renewed. */
  private isUsed = false;
  private isStopped = false;
  private renewal: Timer | undefined;
  private renewing: Promise<void> | undefined;
  private looking: Timer | undefined;
  private isLooking = false;
  /** Why the last look got no answer. */
  private lookError: unknown;
  private watches = 0;
  private watching: Timer | undefined;
  /** Resolves when whoever waits should ask again: after each try to renew. */
  private news = Promise.withResolvers<void>();

  /** @param begun when the swap that won it was begun */
  constructor(private readonly options: LeaseOptions, begun: Moment) {
    this.begin(begun);
  }

  private begin({ nowMs, monotonicMs }: Moment): void {
    const { leaseMs, clock } = this.options;
    this.endMs = nowMs + leaseMs;
    this.endMonotonicMs = monotonicMs + leaseMs;
    this.renewAtMonotonicMs = monotonicMs + RENEW_AT * leaseMs;
    this.isUsed = false;
    if (this.isStopped) return;
    this.renewal?.stop();
    this.renewal = clock.after(
      this.renewAtMonotonicMs - clock.monotonicMs(),
      () => this.isUsed && this.renewSoon(),
    );
    this.looking ??= clock.every(this.lookMs, () => this.look());
  }

  private get lookMs(): number {
    return Math.min(MAX_LOOK_MS, this.options.leaseMs / LOOKS_PER_LEASE);
  }

  /**
   * Whether requests may be answered now: for every request, so it takes two
   * looks at clocks and nothing else. Both have to agree: one stands still
   * while the machine sleeps, the other can be set.
   */
  mayServe(): boolean {
    const { clock, state } = this.options;
    const monotonicMs = clock.monotonicMs();
    this.isUsed = true;
    if (monotonicMs >= this.renewAtMonotonicMs) this.renewSoon();
    const { kind } = state.now;
    if (kind === "ended") return false;
    return kind === "cutOff" ||
      (monotonicMs < this.endMonotonicMs && clock.nowMs() < this.endMs);
  }

  /**
   * Resolves when requests may be answered.
   * @throws FencedError
   * @throws UnavailableError where the store does not answer in time
   */
  async ensure(): Promise<void> {
    const { clock, state } = this.options;
    const untilMs = clock.monotonicMs() + ENSURE_TIMEOUT_MS;
    while (!this.mayServe()) {
      state.requireOwner();
      this.renewSoon();
      await withDeadline(
        clock,
        untilMs - clock.monotonicMs(),
        "The object store does not answer, so this instance cannot tell whether it still owns the database. Nothing of the request was applied; try again.",
        this.news.promise,
      );
    }
  }

  /** Renews it also where nobody asks, until it is stopped. */
  keepAlive(): Timer {
    const { clock, leaseMs } = this.options;
    const everyMs = Math.min(KEEP_ALIVE_MS, leaseMs / 8);
    return clock.every(everyMs, () => this.mayServe());
  }

  /**
   * Looks once a lease, also where nobody asks, until it is stopped: for
   * those who wait for something to change, and would wait for ever where
   * another instance has taken over.
   */
  watch(): Timer {
    const { clock, leaseMs } = this.options;
    this.watches++;
    this.watching ??= clock.every(leaseMs, () => this.lookIfOld());
    let isOpen = true;
    return {
      stop: () => {
        if (!isOpen) return;
        isOpen = false;
        if (--this.watches > 0) return;
        this.watching?.stop();
        this.watching = undefined;
      },
    };
  }

  /** Begins a look where the last one is older than the lease. */
  lookIfOld(): void {
    const { clock, register, leaseMs } = this.options;
    const ageMs = clock.monotonicMs() - register.seenAtMonotonicMs;
    if (ageMs >= RECENT * leaseMs) this.lookNow();
  }

  private lookNow(): void {
    const { kind } = this.options.state.now;
    if (kind === "ended" || kind === "releasing") return this.stop();
    // A store that falls silent is asked once, not again and again.
    if (this.isLooking || this.renewing) return;
    this.isLooking = true;
    this.options.register.look()
      .then(() => this.lookError = undefined)
      .catch((error) => this.lookError = error)
      .finally(() => this.isLooking = false);
  }

  /**
   * Why requests are refused at present, where it is for lack of an answer:
   * the lease has run out, and it is not served on without one.
   */
  get trouble(): unknown {
    const { clock, servesThroughOutages, state } = this.options;
    if (servesThroughOutages || state.now.kind !== "owner") return undefined;
    const isRunning = clock.monotonicMs() < this.endMonotonicMs &&
      clock.nowMs() < this.endMs;
    return isRunning ? undefined : this.renewalError ?? this.lookError;
  }

  /** Nothing by itself any more, and no renewal: it runs out. */
  stop(): void {
    this.isStopped = true;
    this.watching?.stop();
    this.renewal?.stop();
    this.looking?.stop();
    this.looking = undefined;
  }

  /**
   * While it runs, a look now and then for a launch that waits. When it has
   * run out, whoever waits need not ask.
   */
  private look(): void {
    const { clock, register } = this.options;
    const monotonicMs = clock.monotonicMs();
    if (monotonicMs >= this.endMonotonicMs) {
      this.looking?.stop();
      this.looking = undefined;
      return;
    }
    // Who stands by cannot tell an owner that nobody asks from a dead one.
    if (register.hasStandby) this.mayServe();
    // A renewal or an acknowledgement is a look too.
    const ageMs = monotonicMs - register.seenAtMonotonicMs;
    if (ageMs >= RECENT * this.lookMs) this.lookNow();
  }

  /** Only for who asks: an owner that nobody asks anything lets it run out. */
  private renewSoon(): void {
    const { kind } = this.options.state.now;
    if (this.renewing || this.isStopped || kind === "ended") return;
    this.renewing = this.renew().finally(() => {
      this.renewing = undefined;
      this.tellNews();
    });
    // Whoever asks hears of it by the state.
    this.renewing.catch(() => {});
  }

  private tellNews(): void {
    this.news.resolve();
    this.news = Promise.withResolvers();
  }

  private async renew(): Promise<void> {
    const { clock, random, state, logger, leaseMs } = this.options;
    let reason = "no answer at all";
    let hasFailed = false;
    // By a timer: in an outage a request may neither fail nor be answered.
    const leftMs = Math.min(
      this.endMonotonicMs - clock.monotonicMs(),
      this.endMs - clock.nowMs(),
    );
    const outage = clock.after(
      Math.max(leftMs, OUTAGE_GRACE_MS),
      () => this.serveOn(reason),
    );
    try {
      await retry(() => this.tryRenew(), {
        clock,
        random,
        policy: {
          ...RENEW_RETRY,
          firstMs: Math.min(RENEW_RETRY.firstMs, leaseMs / RETRIES_PER_LEASE),
        },
        isTemporary: (error) =>
          isOutage(error) && state.now.kind !== "releasing",
        onFailure: (error, tries) => {
          this.renewalError = error;
          reason = messageOf(error);
          if (tries === 1) {
            logger.warn("The lease of the backup was not renewed; trying on.", {
              reason,
            });
          }
          hasFailed = true;
          this.tellNews();
        },
      });
      state.reconnect();
      if (hasFailed) logger.info("The object store answers again.");
    } finally {
      outage.stop();
    }
  }

  private async tryRenew(): Promise<void> {
    const { clock, leaseMs, register } = this.options;
    let begun: Moment | undefined;
    await register.update((manifest) => {
      begun = { nowMs: clock.nowMs(), monotonicMs: clock.monotonicMs() };
      return { ...manifest, leaseUntilMs: begun.nowMs + leaseMs };
    }, () => true);
    this.begin(begun!);
    this.renewalError = undefined;
    this.lookError = undefined;
  }

  /**
   * Goes on without a lease, where that is wanted. The tries go on, too: when
   * the outage ends, someone may have taken over.
   */
  private serveOn(reason: string): void {
    const { servesThroughOutages, state, clock, logger } = this.options;
    if (!servesThroughOutages || state.now.kind !== "owner") return;
    state.cutOff(clock.nowMs());
    logger.warn(
      "The object store does not answer. Requests are served on; what is written is on this machine's disk alone until it does.",
      { reason },
    );
    this.tellNews();
  }
}
