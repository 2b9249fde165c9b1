/** One watch over some keys: what it has shown, and who waits for more. */
import type { Entry } from "../protocol/messages.ts";
import type { Admission, Watch, WatchState } from "./store.ts";

/** No version at all: differs from every state a key can be in. */
const UNKNOWN_VERSION = -2;
const ABSENT = -1;

/** The present state of some keys, from one snapshot, durable. */
export interface WatchRead {
  /** One for each key; null where it is absent. */
  entries: (Entry | null)[];
  /**
   * One for each key: its expiry in milliseconds since the Unix epoch;
   * Infinity where it has none or is absent.
   */
  expiriesMs: number[];
}

/** The hub, as a watch needs it. */
export interface KeyWatchHub {
  read(): WatchRead | Promise<WatchRead>;
  /** The watch wants `look` to be called, soon. */
  isDue(watch: KeyWatch): void;
  /** One of its entries expires then. */
  expiresAt(dueMs: number): void;
  leave(watch: KeyWatch): void;
}

export class KeyWatch implements Watch {
  /** The earliest expiry of what it has seen; Infinity where there is none. */
  expiryMs = Infinity;
  private readonly seenVersions: number[];
  private readonly seenOrders: number[];
  private isDirty = true;
  private isEnded = false;
  private isFirst = true;
  private failure: Error | undefined;
  private asked: PromiseWithResolvers<WatchState | null> | undefined;
  /** Something it has read, or room for it, is being waited for. */
  private isBusy = false;
  private admission: Admission | undefined;
  /** The admission has made room for a state that is yet to be read. */
  private hasRoom = false;

  constructor(
    /** Of its keys, as the hub knows them. */
    readonly names: readonly string[],
    private readonly hub: KeyWatchHub,
  ) {
    this.seenVersions = names.map(() => UNKNOWN_VERSION);
    this.seenOrders = names.map(() => 0);
  }

  next(admission?: Admission): Promise<WatchState | null> {
    if (this.failure) return Promise.reject(this.failure);
    if (this.isEnded) return Promise.resolve(null);
    this.admission = admission;
    this.asked = Promise.withResolvers();
    const { promise } = this.asked;
    this.lookIfDue();
    return promise;
  }

  touch(): void {
    this.isDirty = true;
    this.lookIfDue();
  }

  private lookIfDue(): void {
    if (this.isDirty && this.asked && !this.isBusy && !this.isEnded) {
      this.hub.isDue(this);
    }
  }

  /**
   * Reads the keys and hands the state out where it differs.
   * @returns bytes of keys and values that were looked at
   */
  look(): number {
    if (!this.isDirty || !this.asked || this.isBusy || this.isEnded) return 0;
    this.isDirty = false;
    try {
      const read = this.hub.read();
      if (!(read instanceof Promise)) {
        this.compare(read);
        return sizeOf(read);
      }
      this.waitFor(read, (state) => this.compare(state));
    } catch (error) {
      this.fail(error as Error);
    }
    return 0;
  }

  private waitFor<T>(wait: Promise<T>, then: (value: T) => void): void {
    this.isBusy = true;
    wait.then((value) => {
      this.isBusy = false;
      then(value);
      // Something may have changed meanwhile.
      this.lookIfDue();
    }, (error) => {
      this.isBusy = false;
      this.fail(error);
    });
  }

  private compare({ entries, expiriesMs }: WatchRead): void {
    if (this.isEnded) return;
    this.expiryMs = Math.min(...expiriesMs);
    if (this.expiryMs !== Infinity) this.hub.expiresAt(this.expiryMs);
    const changed = entries.map((entry, i) =>
      (entry?.version ?? ABSENT) !== this.seenVersions[i] ||
      (entry?.order ?? 0) !== this.seenOrders[i]
    );
    if (!this.isFirst && !changed.includes(true)) {
      if (this.hasRoom) this.admission?.(null);
      this.hasRoom = false;
      return;
    }
    const wait = this.admission?.(entries);
    this.hasRoom = wait instanceof Promise;
    if (wait) {
      this.isDirty = true;
      return this.waitFor(wait, () => {});
    }
    this.isFirst = false;
    entries.forEach((entry, i) => {
      this.seenVersions[i] = entry?.version ?? ABSENT;
      this.seenOrders[i] = entry?.order ?? 0;
    });
    const asked = this.asked;
    this.asked = undefined;
    asked?.resolve({ entries, changed });
  }

  cancel(): void {
    if (this.isEnded) return;
    this.end();
    this.asked?.resolve(null);
  }

  fail(error: Error): void {
    if (this.isEnded) return;
    this.failure = error;
    this.end();
    this.asked?.reject(error);
  }

  private end(): void {
    this.isEnded = true;
    this.hub.leave(this);
  }
}

function sizeOf({ entries }: WatchRead): number {
  let size = 0;
  for (const entry of entries) {
    if (entry) size += entry.key.length + entry.value.length;
  }
  return size;
}
