/**
 * Watches, for any engine. A watch is told of changes only when they are
 * durable; it then reads its keys anew, in one snapshot, when its consumer
 * asks for the next state. So a slow consumer holds one flag, not a queue, and
 * gets the latest state.
 *
 * One write may concern thousands of watches. They are looked after in slices
 * of about a millisecond, other requests in between, and a key that several
 * of them watch is read once for all.
 */
import { type Bytes, byteString } from "../common/bytes.ts";
import type { Clock, Timer } from "../common/clock.ts";
import { TooManyError } from "../common/errors.ts";
import type { Entry } from "../protocol/messages.ts";
import { KeyWatch, type WatchRead } from "./key_watch.ts";
import type { Watch } from "./store.ts";

export interface WatchHubDeps {
  clock: Clock;
  read(keys: readonly Bytes[]): WatchRead | Promise<WatchRead>;
  /** Watches at once; one more is refused. */
  maxWatches: number;
}

/** What is read for watches in one go, and how many of them. */
const SLICE_BYTES = 256 * 1024;
const SLICE_WATCHES = 64;
/** The wall clock may jump: an expiry is looked for this often at least. */
const MAX_EXPIRY_WAIT_MS = 1000;

interface Shared {
  entry: Entry | null;
  expireAtMs: number;
}

export class WatchHub {
  private readonly byKey = new Map<string, Set<KeyWatch>>();
  private readonly all = new Set<KeyWatch>();
  /** Those that have a reason to look and somebody who waits for it. */
  private readonly due = new Set<KeyWatch>();
  private slice: Timer | undefined;
  private isInSlice = false;
  /**
   * Keys that others watch too, as they are in the last durable state. A
   * change takes its keys out; without any watch due there are none.
   */
  private readonly shared = new Map<string, Shared>();
  /** Reads that wait for what they saw to be durable, by all their keys. */
  private readonly pending = new Map<string, Promise<WatchRead>>();
  private expiryTimer: Timer | undefined;
  private expiryDueMs = Infinity;

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
    const watch = new KeyWatch(names, {
      read: () => this.read(keys, names),
      isDue: (watch) => this.lookSoon(watch),
      expiresAt: (dueMs) => this.expectExpiry(dueMs),
      leave: (watch) => this.leave(watch),
    });
    this.all.add(watch);
    for (const name of names) {
      const set = this.byKey.get(name);
      if (set) set.add(watch);
      else this.byKey.set(name, new Set([watch]));
    }
    return watch;
  }

  private leave(watch: KeyWatch): void {
    this.all.delete(watch);
    this.due.delete(watch);
    for (const name of watch.names) {
      const set = this.byKey.get(name);
      if (!set?.delete(watch) || set.size > 0) continue;
      this.byKey.delete(name);
      // Nobody is told of its changes any more.
      this.shared.delete(name);
    }
    if (this.all.size > 0) return;
    this.expiryTimer?.stop();
    this.expiryTimer = undefined;
    this.expiryDueMs = Infinity;
  }

  /** These keys have changed, durably: their watches look again. */
  changed(keys: Iterable<Bytes>): void {
    if (this.byKey.size === 0) return;
    const touched = new Set<KeyWatch>();
    for (const key of keys) {
      const name = byteString(key);
      const watches = this.byKey.get(name);
      if (watches === undefined) continue;
      this.shared.delete(name);
      for (const watch of watches) touched.add(watch);
    }
    if (touched.size === 0) return;
    this.pending.clear();
    this.touch(touched);
  }

  /** Anything may have changed: all watches look again. */
  allChanged(): void {
    this.shared.clear();
    this.pending.clear();
    this.touch(this.all);
  }

  /** Marks them all before the first of them looks. */
  private touch(watches: Iterable<KeyWatch>): void {
    this.isInSlice = true;
    for (const watch of watches) watch.touch();
    this.isInSlice = false;
    if (this.slice === undefined) this.lookAfterSome();
  }

  /** Ends every watch with the error. */
  fail(error: Error): void {
    for (const watch of [...this.all]) watch.fail(error);
  }

  // ----------------------------------------------------------------- slices

  private lookSoon(watch: KeyWatch): void {
    this.due.add(watch);
    // A lonely one is looked after at once.
    if (this.slice === undefined && !this.isInSlice) this.lookAfterSome();
  }

  private readonly lookAfterSome = () => {
    this.slice = undefined;
    this.isInSlice = true;
    let count = 0;
    let sizeBytes = 0;
    for (const watch of this.due) {
      this.due.delete(watch);
      sizeBytes += watch.look();
      if (++count >= SLICE_WATCHES || sizeBytes >= SLICE_BYTES) break;
    }
    this.isInSlice = false;
    if (this.due.size > 0) {
      this.slice = this.deps.clock.endOfTurn(this.lookAfterSome);
    } else this.shared.clear();
  };

  private read(
    keys: readonly Bytes[],
    names: readonly string[],
  ): WatchRead | Promise<WatchRead> {
    const known = this.sharedRead(names);
    if (known) return known;
    const together = names.join("/");
    const pending = this.pending.get(together);
    if (pending) return pending;
    const read = this.deps.read(keys);
    if (read instanceof Promise) {
      this.pending.set(together, read);
      const forget = () => {
        if (this.pending.get(together) === read) this.pending.delete(together);
      };
      read.then(forget, forget);
    } else this.share(names, read);
    return read;
  }

  /** What all of these keys are, where that is known without a read. */
  private sharedRead(names: readonly string[]): WatchRead | undefined {
    if (this.shared.size === 0) return undefined;
    const nowMs = this.deps.clock.nowMs();
    const entries: (Entry | null)[] = [];
    const expiriesMs: number[] = [];
    for (const name of names) {
      const known = this.shared.get(name);
      if (known === undefined || known.expireAtMs <= nowMs) return undefined;
      entries.push(known.entry);
      expiriesMs.push(known.expireAtMs);
    }
    return { entries, expiriesMs };
  }

  /**
   * Keeps what others watch too. A read that came without a promise showed
   * durable rows only, and whatever becomes durable later is taken out by
   * `changed`: so all that is kept belongs to one state, the last durable one.
   */
  private share(names: readonly string[], read: WatchRead): void {
    if (this.due.size === 0) return;
    names.forEach((name, i) => {
      if (this.byKey.get(name)!.size < 2) return;
      const expireAtMs = read.expiriesMs[i];
      this.shared.set(name, { entry: read.entries[i], expireAtMs });
    });
  }

  // ----------------------------------------------------------------- expiry

  private expectExpiry(dueMs: number): void {
    if (dueMs >= this.expiryDueMs) return;
    this.expiryDueMs = dueMs;
    this.expiryTimer?.stop();
    const delayMs = dueMs - this.deps.clock.nowMs();
    this.expiryTimer = this.deps.clock.after(
      Math.min(Math.max(1, delayMs), MAX_EXPIRY_WAIT_MS),
      () => this.lookForExpiries(),
    );
  }

  private lookForExpiries(): void {
    this.expiryDueMs = Infinity;
    const nowMs = this.deps.clock.nowMs();
    let nextMs = Infinity;
    const expired: KeyWatch[] = [];
    for (const watch of this.all) {
      // One that is slow to look waits with its flag set.
      if (watch.expiryMs <= nowMs) expired.push(watch);
      else nextMs = Math.min(nextMs, watch.expiryMs);
    }
    if (nextMs !== Infinity) this.expectExpiry(nextMs);
    this.touch(expired);
  }
}
