/**
 * With an interval of 0, writers go in lockstep with the segments: those whose
 * answers one brings write again a moment after the next one has left, and
 * each segment has only half of them. So the next one waits for nearly all who
 * were at it, for the time of some puts at the most (docs/decisions/shipping.md
 * has what it brings).
 */
import type { Clock } from "../common/clock.ts";
import type { LogRow } from "../store/backup_source.ts";

const ROUND_PART = 0.95;
/** The longest wait: of some puts, or, where they take long, of one. */
const ROUND_PUTS = 3;
const LONG_PUTS_MS = 20;
/**
 * After a wait in vain so many segments have none behind them, its own
 * included; after the next one twice as many.
 */
const FIRST_UNROUNDED = 1;
const MAX_UNROUNDED = 64;

export class Rounds {
  /** What the next segment waits for; undefined: it leaves at once. */
  private round: { bytes: number; untilMs: number } | undefined;
  private unrounded = { next: FIRST_UNROUNDED, left: 0 };

  constructor(
    private readonly clock: Clock,
    /** How much of the log is not shipped. */
    private readonly waitingBytes: () => number,
  ) {}

  /** How long the next segment still waits for its writers. */
  waitMs(): number {
    const { round } = this;
    if (round === undefined) return 0;
    if (this.isGathered(round.bytes)) return 0;
    return round.untilMs - this.clock.monotonicMs();
  }

  private isGathered(roundBytes: number): boolean {
    return this.waitingBytes() >= ROUND_PART * roundBytes;
  }

  /** A segment of these rows is there; `aheadBytes` waited when it was begun. */
  begin(rows: readonly LogRow[], aheadBytes: number, tookMs: number): void {
    const { unrounded } = this;
    // A lonely writer waits for nobody.
    const isShared = rows.length > 1 || rows[0].firstVersion < rows[0].version;
    if (unrounded.left > 0) unrounded.left--;
    this.round = isShared && unrounded.left === 0
      ? {
        bytes: aheadBytes + this.waitingBytes(),
        untilMs: this.clock.monotonicMs() +
          Math.min(ROUND_PUTS * tookMs, Math.max(tookMs, LONG_PUTS_MS)),
      }
      : undefined;
  }

  /** A segment leaves, perhaps before its writers were there. */
  end(): void {
    const { round, unrounded } = this;
    this.round = undefined;
    if (round === undefined) return;
    if (this.isGathered(round.bytes)) {
      unrounded.next = Math.max(unrounded.next / 2, FIRST_UNROUNDED);
    } else {
      unrounded.left = unrounded.next;
      unrounded.next = Math.min(2 * unrounded.next, MAX_UNROUNDED);
    }
  }
}
