import assert from "node:assert/strict";
import { type Bytes, utf8 } from "../common/bytes.ts";
import { systemClock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { Encoding, type Entry } from "../protocol/messages.ts";
import type { Watch } from "./store.ts";
import type { WatchRead } from "./key_watch.ts";
import { WatchHub } from "./watch.ts";

/** Data of which only versions and expiries matter, and a hub over them. */
class Bench {
  readonly clock = new ManualClock(1000);
  reads = 0;
  /** Set: reads are answered when the test resolves what they wait for. */
  held: (() => void)[] | undefined;
  failure: Error | undefined;
  private readonly rows = new Map<
    string,
    { version: number; expireAtMs: number }
  >();
  readonly hub: WatchHub;

  constructor(maxWatches = 100) {
    const { clock } = this;
    this.hub = new WatchHub({
      clock,
      maxWatches,
      read: (keys) => this.read(keys),
    });
  }

  private read(keys: readonly Bytes[]): WatchRead | Promise<WatchRead> {
    this.reads++;
    if (this.failure) throw this.failure;
    // As of now, whenever it is handed out: one snapshot.
    const expiriesMs: number[] = [];
    const entries = keys.map((key): Entry | null => {
      const row = this.rows.get(String(key));
      const isLive = row && row.expireAtMs > this.clock.nowMs();
      expiriesMs.push(isLive ? row.expireAtMs : Infinity);
      if (!isLive) return null;
      return {
        key,
        value: utf8(`${row.version}`),
        encoding: Encoding.BYTES,
        version: row.version,
        order: 0,
      };
    });
    const state = { entries, expiriesMs };
    if (!this.held) return state;
    return new Promise((resolve) => this.held!.push(() => resolve(state)));
  }

  /** Sets keys to a version; null deletes. Tells the hub. */
  change(
    changes: Record<string, number | null>,
    expireAtMs = Infinity,
  ): void {
    const keys = Object.keys(changes).map(utf8);
    for (const [name, version] of Object.entries(changes)) {
      if (version === null) this.rows.delete(String(utf8(name)));
      else this.rows.set(String(utf8(name)), { version, expireAtMs });
    }
    this.hub.changed(keys);
  }

  watch(...names: string[]): Watch {
    return this.hub.watch(names.map(utf8));
  }
}

/** The versions of the next state, null for what is absent, and the changes. */
async function next(watch: Watch) {
  const state = await watch.next();
  return state &&
    [state.entries.map((entry) => entry && entry.version), state.changed];
}

async function isPending(promise: Promise<unknown>): Promise<boolean> {
  let isSettled = false;
  promise.then(() => isSettled = true, () => isSettled = true);
  for (let i = 0; i < 10; i++) await Promise.resolve();
  return !isSettled;
}

Deno.test("the first state comes at once, all of it changed; then only changes", async () => {
  const bench = new Bench();
  bench.change({ a: 1 });
  const watch = bench.watch("a", "b");
  assert.deepEqual(await next(watch), [[1, null], [true, true]]);
  const second = next(watch);
  assert.ok(await isPending(second));
  bench.change({ c: 5 });
  assert.ok(await isPending(second));
  bench.change({ b: 2 });
  assert.deepEqual(await second, [[1, 2], [false, true]]);
  bench.change({ a: null });
  assert.deepEqual(await next(watch), [[null, 2], [true, false]]);
});

Deno.test("a consumer that does not ask costs no reads, and gets the latest state", async () => {
  const bench = new Bench();
  const watch = bench.watch("a", "b");
  await watch.next();
  assert.equal(bench.reads, 1);
  for (let version = 1; version <= 1000; version++) {
    bench.change({ a: version });
  }
  assert.equal(bench.reads, 1);
  assert.deepEqual(await next(watch), [[1000, null], [true, false]]);
  assert.equal(bench.reads, 2);
});

Deno.test("what was changed and changed back is no state of its own", async () => {
  const bench = new Bench();
  const watch = bench.watch("a");
  await watch.next();
  bench.change({ a: 1 });
  bench.change({ a: null });
  const pending = next(watch);
  assert.ok(await isPending(pending));
  // Deleted and set again under a new versionstamp: that is news.
  bench.change({ a: 3 });
  assert.deepEqual(await pending, [[3], [true]]);
});

Deno.test("an entry's expiry is a change, from its very millisecond on", async () => {
  const bench = new Bench();
  bench.change({ a: 1 }, 1500);
  bench.change({ b: 2 }, 1700);
  const watch = bench.watch("a", "b");
  assert.deepEqual(await next(watch), [[1, 2], [true, true]]);
  const second = next(watch);
  bench.clock.advance(499);
  assert.ok(await isPending(second));
  bench.clock.advance(1);
  assert.deepEqual(await second, [[null, 2], [true, false]]);
  // Nobody asks while the other expires.
  bench.clock.advance(10_000);
  assert.deepEqual(await next(watch), [[null, null], [false, true]]);
});

Deno.test("an expiry that is put off is no change at its old time", async () => {
  const bench = new Bench();
  bench.change({ a: 1 }, 1500);
  const watch = bench.watch("a");
  await watch.next();
  const second = next(watch);
  bench.change({ a: 2 }, 9000);
  assert.deepEqual(await second, [[2], [true]]);
  const third = next(watch);
  bench.clock.advance(7999);
  assert.ok(await isPending(third));
  bench.clock.advance(1);
  assert.deepEqual(await third, [[null], [true]]);
});

Deno.test("a key that is watched twice, and watched by many", async () => {
  const bench = new Bench();
  const watches = [bench.watch("a", "a"), bench.watch("a"), bench.watch("b")];
  for (const watch of watches) await watch.next();
  const states = watches.map(next);
  bench.change({ a: 1 });
  assert.deepEqual(await states[0], [[1, 1], [true, true]]);
  assert.deepEqual(await states[1], [[1], [true]]);
  assert.ok(await isPending(states[2]));
  bench.hub.allChanged();
  assert.ok(await isPending(states[2]), "looked again, nothing new");
  for (const watch of watches) watch.cancel();
  assert.equal(await states[2], null);
  assert.equal(bench.hub.size, 0);
  // Nothing is left that a change would find.
  const { reads } = bench;
  bench.change({ a: 2, b: 2 });
  assert.equal(bench.reads, reads);
});

Deno.test("a change while a read is on its way is looked at afterwards", async () => {
  const bench = new Bench();
  bench.held = [];
  const watch = bench.watch("a");
  const first = next(watch);
  assert.equal(bench.held.length, 1);
  bench.change({ a: 1 });
  // One read at a time for each watch.
  assert.equal(bench.held.length, 1);
  bench.held.shift()!();
  assert.deepEqual(await first, [[null], [true]]);
  const second = next(watch);
  assert.equal(bench.held.length, 1);
  bench.held.shift()!();
  assert.deepEqual(await second, [[1], [true]]);

  // The same when the read that is on its way finds nothing new.
  const third = next(watch);
  bench.hub.allChanged();
  bench.change({ a: 2 });
  assert.equal(bench.held.length, 1);
  bench.held.shift()!();
  for (let i = 0; i < 10; i++) await Promise.resolve();
  assert.equal(bench.held.length, 1);
  bench.held.shift()!();
  assert.deepEqual(await third, [[2], [true]]);
  watch.cancel();
});

Deno.test("cancel while a read is on its way ends the watch with null", async () => {
  const bench = new Bench();
  bench.held = [];
  const watch = bench.watch("a");
  const first = next(watch);
  watch.cancel();
  assert.equal(await first, null);
  bench.held.shift()!();
  assert.equal(await watch.next(), null);
  assert.equal(bench.hub.size, 0);
});

Deno.test("a failed read ends the watch with its error", async () => {
  const bench = new Bench();
  const watch = bench.watch("a");
  await watch.next();
  const second = assert.rejects(watch.next(), /the disk is gone/);
  bench.failure = new UnavailableError("the disk is gone");
  bench.change({ a: 1 });
  await second;
  await assert.rejects(watch.next(), /the disk is gone/);
  assert.equal(bench.hub.size, 0);
  watch.cancel();
});

Deno.test("the end of the hub ends watches that wait and those that do not", async () => {
  const bench = new Bench();
  const idle = bench.watch("a");
  const waiting = bench.watch("a");
  await waiting.next();
  const pending = assert.rejects(waiting.next(), /over/);
  bench.hub.fail(new UnavailableError("over"));
  await pending;
  await assert.rejects(idle.next(), /over/);
  assert.equal(bench.hub.size, 0);
});

Deno.test("a watch too many is refused; a cancelled one makes room, once", () => {
  const bench = new Bench(2);
  const first = bench.watch("a");
  bench.watch("a");
  assert.throws(() => bench.watch("b"), UnavailableError);
  first.cancel();
  first.cancel();
  assert.equal(bench.hub.size, 1);
  bench.watch("b");
  assert.throws(() => bench.watch("c"), UnavailableError);
});

/** Resolves after some turns of the event loop: slices take one each. */
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    await new Promise<void>((resolve) => systemClock.endOfTurn(resolve));
  }
}

Deno.test("a write that concerns many watches reads each key once, and lets others in between", async () => {
  const bench = new Bench(10_000);
  const watches = Array.from({ length: 1000 }, () => bench.watch("a", "b"));
  const first = watches.map((watch) => watch.next());
  await Promise.all(first);
  bench.reads = 0;
  let told = 0;
  const states = watches.map((watch) => next(watch).then(() => told++));
  bench.change({ a: 1 });
  await Promise.resolve().then(() => {});
  assert.ok(told > 0, "the first ones at once");
  await turns(1);
  assert.ok(told < 1000, `${told} in one turn`);
  await Promise.all(states);
  assert.equal(bench.reads, 1);
  // The next change is read again.
  const again = watches.map(next);
  bench.change({ b: 5 });
  for (const state of await Promise.all(again)) {
    assert.deepEqual(state, [[1, 5], [false, true]]);
  }
  assert.equal(bench.reads, 2);
});

Deno.test("a change in the middle of the slices is seen by all that come after it", async () => {
  const bench = new Bench(10_000);
  const watches = Array.from({ length: 300 }, () => bench.watch("a", "b"));
  for (const watch of watches) await watch.next();
  const states = watches.map(next);
  bench.change({ a: 1, b: 1 });
  await turns(1);
  bench.change({ a: 2 });
  bench.change({ b: 2 });
  const seen = await Promise.all(states);
  assert.deepEqual(seen[0], [[1, 1], [true, true]]);
  assert.deepEqual(seen.at(-1), [[2, 2], [true, true]]);
  for (const state of seen) {
    // One state, never a part of another.
    assert.ok(
      [[1, 1], [2, 2]].some((one) => String(one) === String(state![0])),
    );
  }
});

Deno.test("reads that wait for the same are one, until something changes", async () => {
  const bench = new Bench();
  const watches = [bench.watch("a"), bench.watch("a"), bench.watch("a", "b")];
  for (const watch of watches) await watch.next();
  bench.held = [];
  const states = watches.map(next);
  bench.change({ a: 1 });
  assert.equal(bench.held.length, 2, "one for each set of keys");
  const late = bench.watch("a");
  const lateState = next(late);
  assert.equal(bench.held.length, 2);
  bench.change({ a: 2 });
  const later = next(bench.watch("a"));
  assert.equal(bench.held.length, 3, "what has changed is read anew");
  bench.held.pop()!();
  assert.deepEqual(await later, [[2], [true]]);
  const held = bench.held.splice(0);
  bench.held = undefined;
  for (const answer of held) answer();
  assert.deepEqual(await states[0], [[1], [true]]);
  assert.deepEqual(await states[2], [[1, null], [true, false]]);
  assert.deepEqual(await lateState, [[1], [true]]);
  assert.deepEqual(await next(late), [[2], [true]]);
});

Deno.test("a consumer without room holds a flag, and gets the latest state when there is", async () => {
  const bench = new Bench();
  bench.change({ a: 1 });
  const watch = bench.watch("a");
  const room = Promise.withResolvers<void>();
  const asked: (number | null)[] = [];
  const state = watch.next((entries) => {
    asked.push(entries && (entries[0]?.version ?? null));
    return asked.length === 1 ? room.promise : undefined;
  });
  assert.deepEqual(asked, [1]);
  const { reads } = bench;
  bench.change({ a: 2 });
  bench.change({ a: 3 });
  assert.equal(bench.reads, reads, "nothing is read while it waits");
  room.resolve();
  assert.equal((await state)!.entries[0]!.version, 3);
  assert.deepEqual(asked, [1, 3]);
  // One that is cancelled while it waits is gone.
  bench.change({ a: 4 });
  const never = watch.next(() => new Promise<void>(() => {}));
  watch.cancel();
  assert.equal(await never, null);
  assert.equal(bench.hub.size, 0);
});

Deno.test("a key that nobody watched while it changed is read anew, also between slices", async () => {
  const bench = new Bench(10_000);
  const pair = [bench.watch("a"), bench.watch("a")];
  const many = Array.from({ length: 300 }, () => bench.watch("b"));
  for (const watch of [...pair, ...many]) await watch.next();
  const states = [...pair, ...many].map(next);
  bench.change({ a: 1, b: 1 });
  // The first slice has read `a`; the others are still to come.
  for (const watch of pair) watch.cancel();
  bench.change({ a: 2 });
  assert.deepEqual(await next(bench.watch("a")), [[2], [true]]);
  await Promise.all(states);
});

Deno.test("a consumer that waited for room is told where there is nothing to hand out any more", async () => {
  const bench = new Bench();
  const watch = bench.watch("a");
  await watch.next();
  const room = Promise.withResolvers<void>();
  const asked: unknown[] = [];
  const state = watch.next((entries) => {
    asked.push(entries && entries[0]?.version);
    return asked.length === 1 ? room.promise : undefined;
  });
  bench.change({ a: 1 });
  bench.change({ a: null });
  room.resolve();
  assert.ok(await isPending(state));
  assert.deepEqual(asked, [1, null]);
  bench.change({ a: 2 });
  assert.equal((await state)!.entries[0]!.version, 2);
  assert.deepEqual(asked, [1, null, 2]);
});

Deno.test("a clock that is set forward makes entries expire within a second", async () => {
  const bench = new Bench();
  const dayMs = 86_400_000;
  bench.change({ a: 1 }, bench.clock.nowMs() + 2 * dayMs);
  const watch = bench.watch("a");
  await watch.next();
  const state = next(watch);
  bench.clock.advance(10_000);
  assert.ok(await isPending(state));
  bench.clock.jump(3 * dayMs);
  bench.clock.advance(1000);
  assert.deepEqual(await state, [[null], [true]]);
});
