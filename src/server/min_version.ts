/**
 * Reading one's own writes from a replica: a read that names a versionstamp is
 * answered out of a state that has it, or with 503.
 */
import type { Clock } from "../common/clock.ts";
import { InvalidRequestError, UnavailableError } from "../common/errors.ts";
import type { Store } from "../store/store.ts";

export const MIN_VERSION_HEADER = "x-denokv-min-versionstamp";

/** How long a read waits for a replica to have it. */
export const MAX_WAIT_MS = 5000;
/** Reads that wait at once; past that, who comes is told to come again. */
const MAX_WAITING = 4096;

export class MinVersions {
  private waiting = 0;

  constructor(
    private readonly store: Pick<Store, "log" | "reached" | "stats">,
    private readonly clock: Clock,
  ) {}

  /**
   * A promise where it has to be waited for.
   * @throws InvalidRequestError where the header holds no versionstamp
   * @throws UnavailableError where it does not come in time
   */
  ready(request: Request): Promise<void> | undefined {
    const header = request.headers.get(MIN_VERSION_HEADER);
    if (header === null) return undefined;
    const version = versionOf(header);
    const { store } = this;
    if (store.reached === undefined) {
      const newest = store.log?.durableVersion ?? store.stats().durableVersion;
      if (version <= newest) return undefined;
      throw notYet(header, "Another server may have it.");
    }
    const { signal, timer } = this.limit();
    const reached = store.reached(version, signal);
    if (reached === undefined) {
      timer.stop();
      return undefined;
    }
    if (this.waiting >= MAX_WAITING) {
      timer.stop();
      reached.catch(() => {});
      throw notYet(header, "Too many reads wait for one already.");
    }
    return this.wait(reached, timer, header);
  }

  private limit() {
    const controller = new AbortController();
    const timer = this.clock.after(MAX_WAIT_MS, () => controller.abort());
    return { signal: controller.signal, timer };
  }

  private async wait(
    reached: Promise<void>,
    timer: { stop(): void },
    header: string,
  ): Promise<void> {
    this.waiting++;
    try {
      await reached;
    } catch {
      throw notYet(header, `It has been waited for ${MAX_WAIT_MS / 1000} s.`);
    } finally {
      this.waiting--;
      timer.stop();
    }
  }
}

function versionOf(header: string): number {
  if (!/^[0-9a-f]{20}$/i.test(header)) {
    throw new InvalidRequestError(
      `${MIN_VERSION_HEADER} takes a versionstamp, as the answer to a write has it: 20 hexadecimal digits.`,
    );
  }
  return Number(BigInt("0x" + header.slice(0, 16)));
}

function notYet(header: string, more: string): UnavailableError {
  return new UnavailableError(
    `This server does not have version ${header} yet. ${more} Try again, or read where it was written.`,
  );
}
