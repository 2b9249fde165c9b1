/**
 * The engine's store, for as long as this instance owns the history. Requests
 * pass while the lease runs; the first one after a pause waits for its renewal.
 */
import type { Bytes } from "../common/bytes.ts";
import type { Timer } from "../common/clock.ts";
import { messageOf, type UnavailableError } from "../common/errors.ts";
import type {
  AtomicWrite,
  Entry,
  ReadRange,
  WriteOutcome,
} from "../protocol/messages.ts";
import type { BackupSource } from "../store/backup_source.ts";
import type {
  Admission,
  Store,
  StoreHealth,
  StoreStats,
  Watch,
  WatchState,
} from "../store/store.ts";
import type { BoundedWaits } from "./bounded_waits.ts";
import { OwnedLog } from "./owned_log.ts";

/** What this needs of an {@linkcode Ownership}. */
export interface Gate {
  /** Cheap: asked before every request. */
  mayServe(): boolean;
  ensure(): Promise<void>;
  /** Looks who owns it, now and then, also where nobody asks. */
  watch(): Timer;
  /** Looks, where nobody has for a lease. */
  lookIfOld(): void;
  /** Why requests are refused at present, where the store does not answer. */
  readonly trouble: unknown;
}

/** How long a request waits for the backup's confirmation. */
export const CONFIRMATION_TIMEOUT_MS = 20_000;

const UNCONFIRMED_WRITE = `The backup has not confirmed the write within ${
  CONFIRMATION_TIMEOUT_MS / 1000
} s. It is on this machine's disk and may still take effect; nobody sees it before the backup has it. Read before you try again.`;
const UNCONFIRMED_READ =
  `What was asked for holds a write that the backup has not confirmed within ${
    CONFIRMATION_TIMEOUT_MS / 1000
  } s, so it is not shown. Try again.`;

export class OwnedStore implements Store {
  readonly isReadOnly = false;
  /** How many reads and writes there were. */
  requests = 0;
  private refusal: UnavailableError | undefined;
  private readonly watches = new Set<Watch>();
  readonly log: OwnedLog | undefined;

  /** @param waits for confirmations, where the backup has to confirm */
  constructor(
    private readonly inner: Store,
    private readonly gate: Gate,
    private readonly waits?: BoundedWaits,
  ) {
    this.log = inner.log && new OwnedLog(inner.log, {
      ready: () => this.ready(),
      watch: () => gate.watch(),
    });
  }

  get databaseId(): string {
    return this.inner.databaseId;
  }

  get backupSource(): BackupSource | undefined {
    return this.inner.backupSource;
  }

  /** From now on reads and writes are answered with this error; watches and log readers end. */
  refuse(error: UnavailableError): void {
    this.refusal ??= error;
    for (const watch of this.watches) watch.cancel();
    this.log?.refuse(error);
  }

  read(
    ranges: readonly ReadRange[],
    maxBytes?: number,
  ): Entry[][] | Promise<Entry[][]> {
    this.requests++;
    if (this.refusal === undefined && this.gate.mayServe()) {
      return this.readNow(ranges, maxBytes);
    }
    return this.ready().then(() => this.readNow(ranges, maxBytes));
  }

  private readNow(
    ranges: readonly ReadRange[],
    maxBytes?: number,
  ): Entry[][] | Promise<Entry[][]> {
    const found = this.inner.read(ranges, maxBytes);
    return this.waits === undefined || !(found instanceof Promise)
      ? found
      : this.waits.run(found, UNCONFIRMED_READ);
  }

  async readLarge(ranges: readonly ReadRange[]): Promise<Entry[][]> {
    const reading = this.inner.readLarge(ranges);
    // It may take long by itself; it is ended where the backup is what it
    // waits for.
    const isStuck = () => {
      const health = this.health();
      return !health.writable && health.cause === "backup";
    };
    const entries =
      await (this.waits?.run(reading, UNCONFIRMED_READ, isStuck) ??
        reading);
    // It took a while: what is shown has to be this instance's to show.
    await this.ready();
    return entries;
  }

  write(write: AtomicWrite): Promise<WriteOutcome> {
    this.requests++;
    if (this.refusal === undefined && this.gate.mayServe()) {
      return this.writeNow(write);
    }
    return this.ready().then(() => this.writeNow(write));
  }

  private writeNow(write: AtomicWrite): Promise<WriteOutcome> {
    const written = this.inner.write(write);
    return this.waits?.run(written, UNCONFIRMED_WRITE) ?? written;
  }

  private async ready(): Promise<void> {
    if (this.refusal) throw this.refusal;
    await this.gate.ensure();
    if (this.refusal) throw this.refusal;
  }

  watch(keys: readonly Bytes[]): Watch {
    if (this.refusal) throw this.refusal;
    const watch = this.inner.watch(keys);
    this.watches.add(watch);
    const looks = this.gate.watch();
    return {
      next: async (admission?: Admission): Promise<WatchState | null> => {
        // A watch keeps no lease alive by itself, but shows nothing without.
        const state = await watch.next(admission);
        if (state !== null) await this.ready();
        else if (this.refusal) throw this.refusal;
        return state;
      },
      cancel: () => {
        looks.stop();
        this.watches.delete(watch);
        watch.cancel();
      },
    };
  }

  stats(): StoreStats {
    return this.inner.stats();
  }

  health(): StoreHealth {
    if (this.refusal) {
      const reason = this.refusal.message;
      return { writable: false, cause: "ownership", reason };
    }
    // Whoever asks for it wants to know: an idle owner makes no looks.
    this.gate.lookIfOld();
    const { trouble } = this.gate;
    if (trouble === undefined) return this.inner.health();
    return {
      writable: false,
      cause: "backup",
      reason:
        `The object store does not answer, so this instance cannot tell whether it still owns the database, and answers no requests until it does (${
          messageOf(trouble)
        }). Everything acknowledged is kept.`,
    };
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}
