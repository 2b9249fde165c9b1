/**
 * The store of a replica that may become the owner: first the replica's, and
 * from one turn to the next the owner's.
 */
import type { Bytes } from "../common/bytes.ts";
import type {
  AtomicWrite,
  Entry,
  ReadRange,
  WriteOutcome,
} from "../protocol/messages.ts";
import type { BackupSource } from "../store/backup_source.ts";
import type { LogSource } from "../store/log_source.ts";
import type { Store, StoreHealth, StoreStats, Watch } from "../store/store.ts";

export class PromotableStore implements Store {
  constructor(private inner: Store) {}

  /** From now on requests go there. */
  use(store: Store): void {
    this.inner = store;
  }

  get databaseId(): string {
    return this.inner.databaseId;
  }

  get isReadOnly(): boolean {
    return this.inner.isReadOnly;
  }

  get primaryUrl(): string | undefined {
    return this.inner.primaryUrl;
  }

  get backupSource(): BackupSource | undefined {
    return this.inner.backupSource;
  }

  get log(): LogSource | undefined {
    return this.inner.log;
  }

  /** Absent for an owner, which shows whatever was acknowledged. */
  get reached(): Store["reached"] {
    return this.inner.reached?.bind(this.inner);
  }

  read(
    ranges: readonly ReadRange[],
    maxBytes?: number,
  ): Entry[][] | Promise<Entry[][]> {
    return this.inner.read(ranges, maxBytes);
  }

  readLarge(ranges: readonly ReadRange[]): Promise<Entry[][]> {
    return this.inner.readLarge(ranges);
  }

  write(write: AtomicWrite): Promise<WriteOutcome> {
    return this.inner.write(write);
  }

  watch(keys: readonly Bytes[]): Watch {
    return this.inner.watch(keys);
  }

  stats(): StoreStats {
    return this.inner.stats();
  }

  health(): StoreHealth {
    return this.inner.health();
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}
