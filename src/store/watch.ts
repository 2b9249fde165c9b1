/**
 * Watches, for any engine. A watch is told of changes only when they are
 * durable; it then reads its keys anew, in one snapshot, when its consumer
 * asks for the next state. So a slow consumer holds one flag, not a queue, and
 * gets the latest state.
 */
import { type Bytes, byteString } from "../common/bytes.ts";
import type { Clock, Timer } from "../common/clock.ts";
import { TooManyError } from "../common/errors.ts";
import type { Entry } from "../protocol/messages.ts";
import type { Watch, WatchState } from "./store.ts";

/** The present state of some keys, from one snapshot, durable. */
export interface WatchRead {
  /** One for each key; null where it is absent. */
  entries: (Entry | null)[];
  /** The earliest expiry among the entries; Infinity where there is none. */
  nextExpiryMs: number;
}

export interface WatchHubDeps {
  clock: Clock;
  read(keys: readonly Bytes[]): WatchRead | Promise<WatchRead>;
  /** Watches at once; one more is refused. */
  maxWatches: number;
}

export class WatchHub {
  private readonly byKey = new Map<string, Set<KeyWatch>>();
  private readonly all = new Set<KeyWatch>();

  constructor(private readonly deps: WatchHubDeps) {}

  get size(): number {
    return this.all.size;
  }

  /** @throws TooManyError past the limit of watches */
  watch(keys: readonly Bytes[]): Watch {
    if (this.all.size >= this.deps.maxWatches) {
      throw new TooManyError(
        `This server has ${this.deps.maxWatches} watches open, which is its limit. Nothing is watched by this one; close others or raise --max-watches.`,
      );
    }
    const names = keys.map(byteString);
    const watch = new KeyWatch(keys, this.deps, () => {
      this.all.delete(watch);
      for (const name of names) {
        const set = this.byKey.get(name);
        if (set?.delete(watch) && set.size === 0) this.byKey.delete(name);
      }
    });
    this.all.add(watch);
    for (const name of names) {
      const set = this.byKey.get(name);
      if (set) set.add(watch);
      else this.byKey.set(name, new Set([watch]));
    }
    return watch;
  }

  /** These keys have changed, durably: their watches look again. */
  changed(keys: Iterable<Bytes>): void {
    if (this.byKey.size === 0) return;
    const touched = new Set<KeyWatch>();
    for (const key of keys) {
      const watches = this.byKey.get(byteString(key));
      if (watches) { for (const watch of watches) touched.add(watch); }
    }
    for (const watch of touched) watch.touch();
  }

  /** Anything may have changed: all watches look again. */
  allChanged(): void {
    for (const watch of this.all) watch.touch();
  }

  /** Ends every watch with the error. */
  fail(error: Error): void {
    for (const watch of [...this.all]) watch.fail(error);
  }
}

/** No version at all: differs from every state a key can be in. */
const UNKNOWN_VERSION = -2;
const ABSENT = -1;

class KeyWatch implements Watch {
  private readonly seenVersions: number[];
  private readonly seenOrders: number[];
  private isDirty = true;
  private isEnded = false;
  private isFirst = true;
  private failure: Error | undefined;
  private asked: PromiseWithResolvers<WatchState | null> | undefined;
  private isReading = false;
  private timer: Timer | undefined;

  constructor(
    private readonly keys: readonly Bytes[],
    private readonly deps: WatchHubDeps,
    private readonly leave: () => void,
  ) {
    this.seenVersions = keys.map(() => UNKNOWN_VERSION);
    this.seenOrders = keys.map(() => 0);
  }

  next(): Promise<WatchState | null> {
    if (this.failure) return Promise.reject(this.failure);
    if (this.isEnded) return Promise.resolve(null);
    this.asked = Promise.withResolvers();
    const { promise } = this.asked;
    this.look();
    return promise;
  }

  touch(): void {
    this.isDirty = true;
    this.look();
  }

  /** Reads the keys, if there is reason to and someone waits for it. */
  private look(): void {
    if (!this.isDirty || !this.asked || this.isReading || this.isEnded) return;
    this.isDirty = false;
    try {
      const read = this.deps.read(this.keys);
      if (!(read instanceof Promise)) return this.compare(read);
      this.isReading = true;
      read.then((state) => {
        this.isReading = false;
        this.compare(state);
        // Something may have changed while the read was on its way.
        this.look();
      }, (error) => {
        this.isReading = false;
        this.fail(error);
      });
    } catch (error) {
      this.fail(error as Error);
    }
  }

  private compare({ entries, nextExpiryMs }: WatchRead): void {
    if (this.isEnded) return;
    this.timer?.stop();
    this.timer = undefined;
    if (nextExpiryMs !== Infinity) {
      const delayMs = nextExpiryMs - this.deps.clock.nowMs();
      this.timer = this.deps.clock.after(Math.max(1, delayMs), () => {
        this.timer = undefined;
        this.touch();
      });
    }
    let differs = this.isFirst;
    const changed = entries.map((entry, i) => {
      const version = entry?.version ?? ABSENT;
      const order = entry?.order ?? 0;
      const isNew = version !== this.seenVersions[i] ||
        order !== this.seenOrders[i];
      this.seenVersions[i] = version;
      this.seenOrders[i] = order;
      differs ||= isNew;
      return isNew;
    });
    if (!differs) return;
    this.isFirst = false;
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
    this.timer?.stop();
    this.leave();
  }
}
