/**
 * Requests that were refused for their secret: counted, and told in the log
 * now and then, however many there are.
 */
import type { Clock } from "../common/clock.ts";
import type { Logger } from "../common/log.ts";

/** At most one line of the log in this time. */
const LOG_EVERY_MS = 10_000;

export class Denials {
  /** Without any secret. */
  missing = 0;
  /** With one that opens nothing. */
  wrong = 0;
  private loggedWrong = 0;
  private loggedMs = -Infinity;

  constructor(
    private readonly clock: Clock,
    private readonly logger: Logger,
  ) {}

  /** @param from names the client; asked only for a line of the log */
  count(hasSecret: boolean, from: () => string): void {
    if (!hasSecret) {
      this.missing++;
      return;
    }
    this.wrong++;
    const now = this.clock.monotonicMs();
    if (now - this.loggedMs < LOG_EVERY_MS) return;
    this.logger.warn("A wrong secret was sent.", {
      from: from(),
      sinceLastLine: this.wrong - this.loggedWrong,
    });
    this.loggedMs = now;
    this.loggedWrong = this.wrong;
  }
}
