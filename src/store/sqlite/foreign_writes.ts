/**
 * Another program that writes to the file while it is ours: what is said of
 * it, and how watches learn of it while nobody writes through us.
 */
import type { Clock, Timer } from "../../common/clock.ts";
import type { Logger } from "../../common/log.ts";

/** A program that goes on writing is told of so often, not at every commit. */
const WARNING_INTERVAL_MS = 10_000;

export class ForeignWrites {
  private quietUntilMs = -Infinity;

  constructor(
    private readonly clock: Clock,
    private readonly logger: Logger,
  ) {}

  /** @param fileVersion what the file said; undefined: nothing sensible */
  noteWrite(ourVersion: number, fileVersion: number | undefined): void {
    const isRollback = fileVersion === undefined || fileVersion < ourVersion;
    const nowMs = this.clock.monotonicMs();
    if (!isRollback && nowMs < this.quietUntilMs) return;
    this.quietUntilMs = nowMs + WARNING_INTERVAL_MS;
    this.logger.warn(
      isRollback
        ? "Another program put older contents into the database while this server had it open. They are kept as they are now; versions go on above the ones already given out. Stop the server before a file is restored."
        : "Another program wrote to the database while this server had it open. Its data are kept; do not run two programs on one file.",
      { ourVersion, fileVersion },
    );
  }
}

/** How often the file is looked at; one look costs 4 µs. */
const LOOK_EVERY_MS = 250;

export interface ForeignCommitWatchDeps {
  clock: Clock;
  /** SQLite's count of other connections' commits; may throw. */
  foreignCommits(): number;
  hasWatches(): boolean;
  onForeignCommit(): void;
}

/** Looks for other programs' commits, and only while there are watches. */
export class ForeignCommitWatch {
  private timer: Timer | undefined;
  private seen: number | undefined;

  constructor(private readonly deps: ForeignCommitWatchDeps) {}

  /** There is a watch, which has not looked yet. */
  begin(): void {
    if (this.timer) return;
    this.seen = this.count();
    this.timer = this.deps.clock.every(LOOK_EVERY_MS, () => this.look());
  }

  private look(): void {
    if (!this.deps.hasWatches()) return this.stop();
    const count = this.count();
    if (count === undefined || count === this.seen) return;
    this.seen = count;
    this.deps.onForeignCommit();
  }

  /** Undefined while the file is locked, or being opened anew. */
  private count(): number | undefined {
    try {
      return this.deps.foreignCommits();
    } catch {
      return undefined;
    }
  }

  stop(): void {
    this.timer?.stop();
    this.timer = undefined;
  }
}
