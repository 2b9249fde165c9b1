/** What is said of another program that writes to the file while it is ours. */
import type { Clock } from "../../common/clock.ts";
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
