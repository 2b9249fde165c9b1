/**
 * The engine's store, for as long as this instance owns the history. Requests
 * pass while the lease runs; the first one after a pause waits for its renewal.
 */
import type { Bytes } from "../common/bytes.ts";
import type { UnavailableError } from "../common/errors.ts";
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

/** What this needs of an {@linkcode Ownership}. */
export interface Gate {
  /** Cheap: asked before every request. */
  mayServe(): boolean;
  ensure(): Promise<void>;
}

export class OwnedStore implements Store {
  readonly isReadOnly = false;
  /** How many reads and writes there were. */
  requests = 0;
  private refusal: UnavailableError | undefined;

  constructor(private readonly inner: Store, private readonly gate: Gate) {}

  get databaseId(): string {
    return this.inner.databaseId;
  }

  get backupSource(): BackupSource | undefined {
    return this.inner.backupSource;
  }

  /** From now on reads and writes are answered with this error. */
  refuse(error: UnavailableError): void {
    this.refusal ??= error;
  }

  read(
    ranges: readonly ReadRange[],
    maxBytes?: number,
  ): Entry[][] | Promise<Entry[][]> {
    this.requests++;
    if (this.refusal === undefined && this.gate.mayServe()) {
      return this.inner.read(ranges, maxBytes);
    }
    return this.ready().then(() => this.inner.read(ranges, maxBytes));
  }

  async readLarge(ranges: readonly ReadRange[]): Promise<Entry[][]> {
    const entries = await this.inner.readLarge(ranges);
    // It took a while: what is shown has to be this instance's to show.
    await this.ready();
    return entries;
  }

  write(write: AtomicWrite): Promise<WriteOutcome> {
    this.requests++;
    if (this.refusal === undefined && this.gate.mayServe()) {
      return this.inner.write(write);
    }
    return this.ready().then(() => this.inner.write(write));
  }

  private async ready(): Promise<void> {
    if (this.refusal) throw this.refusal;
    await this.gate.ensure();
    if (this.refusal) throw this.refusal;
  }

  watch(keys: readonly Bytes[]): Watch {
    if (this.refusal) throw this.refusal;
    const watch = this.inner.watch(keys);
    const ready = () => this.ready();
    return {
      async next(admission?: Admission): Promise<WatchState | null> {
        // A watch keeps no lease alive by itself, but shows nothing without.
        const state = await watch.next(admission);
        if (state !== null) await ready();
        return state;
      },
      cancel: () => watch.cancel(),
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
    return this.inner.health();
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}
