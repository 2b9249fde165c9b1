/**
 * The store that the server asks from its start to its end. Behind it is a
 * database while this instance serves one; before, between and after that
 * there is none, and every request is told why.
 */
import type { Bytes } from "../common/bytes.ts";
import { UnavailableError } from "../common/errors.ts";
import type {
  AtomicWrite,
  Entry,
  ReadRange,
  WriteOutcome,
} from "../protocol/messages.ts";
import type { BackupSource } from "../store/backup_source.ts";
import type { LogSource } from "../store/log_source.ts";
import type {
  NotWritableCause,
  Store,
  StoreHealth,
  StoreStats,
  Watch,
} from "../store/store.ts";

/** Why nothing is served; `reason` is a sentence. */
export interface NotServed {
  cause: NotWritableCause;
  reason: string;
}

export class SwitchableStore implements Store {
  readonly isReadOnly = false;
  private inner: Store | undefined;

  constructor(private notServed: NotServed) {}

  /** From now on this database is served. */
  open(store: Store): void {
    this.inner = store;
  }

  /** From now on nothing is served, or still nothing, for this reason. */
  shut(notServed: NotServed): void {
    this.inner = undefined;
    this.notServed = notServed;
  }

  private served(): Store {
    if (this.inner === undefined) {
      throw new UnavailableError(this.notServed.reason);
    }
    return this.inner;
  }

  /** @throws UnavailableError while there is none, as everything here */
  get databaseId(): string {
    return this.served().databaseId;
  }

  get backupSource(): BackupSource | undefined {
    return this.inner?.backupSource;
  }

  /** Readers of it end with the database that is behind this at present. */
  get log(): LogSource | undefined {
    return this.inner?.log;
  }

  read(
    ranges: readonly ReadRange[],
    maxBytes?: number,
  ): Entry[][] | Promise<Entry[][]> {
    return this.served().read(ranges, maxBytes);
  }

  readLarge(ranges: readonly ReadRange[]): Promise<Entry[][]> {
    return this.inner?.readLarge(ranges) ??
      Promise.reject(new UnavailableError(this.notServed.reason));
  }

  write(write: AtomicWrite): Promise<WriteOutcome> {
    return this.inner?.write(write) ??
      Promise.reject(new UnavailableError(this.notServed.reason));
  }

  watch(keys: readonly Bytes[]): Watch {
    return this.served().watch(keys);
  }

  stats(): StoreStats {
    return this.served().stats();
  }

  health(): StoreHealth {
    return this.inner?.health() ?? { writable: false, ...this.notServed };
  }

  close(): Promise<void> {
    return this.inner?.close() ?? Promise.resolve();
  }
}
