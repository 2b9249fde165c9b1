/**
 * The store of a replica: reads and watches, while its file follows. Behind it
 * is one file after another where a replica has to begin anew; a request is
 * answered out of one of them, and never out of an earlier state than the one
 * before it.
 */
import type { Bytes } from "../common/bytes.ts";
import type { Clock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import { Waiters } from "../common/waiters.ts";
import type { Entry, ReadRange, WriteOutcome } from "../protocol/messages.ts";
import type { ReplicaReader } from "../store/replica_engine.ts";
import type { Store, StoreHealth, StoreStats, Watch } from "../store/store.ts";

const STARTING =
  "This replica has no whole copy of the database yet; try again in a moment.";

export interface ReplicaStoreOptions {
  clock: Clock;
  /** Where writes are taken, where that is known. */
  primaryUrl(): string | undefined;
}

export class ReplicaStore implements Store {
  readonly isReadOnly = true;
  private reader: ReplicaReader | undefined;
  private notServed = STARTING;
  private lastReadMs = -Infinity;
  private version = 0;
  /** Reads that want a later version. */
  private readonly behind = new Waiters();
  private readonly waiting = new Set<() => void>();

  constructor(private readonly options: ReplicaStoreOptions) {}

  get primaryUrl(): string | undefined {
    return this.options.primaryUrl();
  }

  get isOpen(): boolean {
    return this.reader !== undefined;
  }

  /** From now on this file is read, which is at this version. */
  open(reader: ReplicaReader, version: number): void {
    this.reader = reader;
    this.lastReadMs = this.options.clock.monotonicMs();
    this.isAt(version);
  }

  private isAt(version: number): void {
    this.version = version;
    this.behind.reached(version);
  }

  reached(version: number, signal: AbortSignal): Promise<void> | undefined {
    this.served();
    return version <= this.version
      ? undefined
      : this.behind.wait(version, signal);
  }

  /** @returns what was read so far; its caller closes it */
  shut(): ReplicaReader | undefined {
    const { reader } = this;
    this.reader = undefined;
    return reader;
  }

  /** The file is at this version; watches are told, see `ReplicaReader`. */
  applied(keys: Iterable<Bytes> | undefined, version: number): void {
    this.reader?.applied(keys);
    this.isAt(version);
  }

  get watches(): number {
    return this.reader?.watches ?? 0;
  }

  /** Resolves at once where somebody reads, or has within `idleMs`. */
  whileUnread(idleMs: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.options;
    const isIdle = this.reader !== undefined && this.watches === 0 &&
      clock.monotonicMs() - this.lastReadMs >= idleMs;
    if (!isIdle || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const end = () => {
        this.waiting.delete(end);
        signal.removeEventListener("abort", end);
        resolve();
      };
      this.waiting.add(end);
      signal.addEventListener("abort", end);
    });
  }

  private served(): ReplicaReader {
    this.lastReadMs = this.options.clock.monotonicMs();
    for (const end of this.waiting) end();
    if (this.reader === undefined) throw new UnavailableError(this.notServed);
    return this.reader;
  }

  /** @throws UnavailableError while there is none, as everything here */
  get databaseId(): string {
    return this.served().databaseId;
  }

  read(
    ranges: readonly ReadRange[],
    maxBytes?: number,
  ): Entry[][] | Promise<Entry[][]> {
    return this.served().read(ranges, maxBytes);
  }

  // deno-lint-ignore require-await -- what it throws is the promise's
  async readLarge(ranges: readonly ReadRange[]): Promise<Entry[][]> {
    return this.served().readLarge(ranges);
  }

  write(): Promise<WriteOutcome> {
    return Promise.resolve({ status: "writeDisabled" });
  }

  watch(keys: readonly Bytes[]): Watch {
    return this.served().watch(keys);
  }

  stats(): StoreStats {
    if (this.reader === undefined) throw new UnavailableError(this.notServed);
    return this.reader.stats();
  }

  /** It is well while it serves: that it takes no writes is by choice. */
  health(): StoreHealth {
    return this.reader?.health() ?? {
      writable: false,
      cause: "starting",
      reason: this.notServed,
    };
  }

  /** @param reason what requests and watches are told, as a sentence */
  async close(reason?: string): Promise<void> {
    this.notServed = reason ?? "The server is stopping.";
    this.behind.fail(new UnavailableError(this.notServed));
    await this.shut()?.close(reason);
  }
}
