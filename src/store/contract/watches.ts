/** Watches: the present state first, then every newer one, folded. */
import assert from "node:assert/strict";
import { UnavailableError } from "../../common/errors.ts";
import {
  type Bench,
  commit,
  del,
  eventually,
  isSettled,
  key,
  type MakePlace,
  nextTexts,
  set,
  texts,
  turns,
  type Watch,
  withBench,
} from "./support.ts";

export function watchesContract(name: string, makePlace: MakePlace): void {
  const test = (title: string, run: (bench: Bench) => Promise<void>) =>
    Deno.test(`${name}, watches: ${title}`, withBench(makePlace, run));

  test("the first state is the present one, every key changed", async (bench) => {
    const version = await bench.commit(set("a", "1"));
    const watch = bench.store.watch([key("a"), key("b"), key("a")]);
    const state = (await watch.next())!;
    assert.deepEqual(state.changed, [true, true, true]);
    assert.deepEqual(texts(state.entries), ["1", null, "1"]);
    assert.equal(state.entries[0]!.version, version);
    assert.deepEqual(state.entries[0]!.key, key("a"));
    watch.cancel();
  });

  test("a later state comes with each change, and says which keys changed", async (bench) => {
    const watch = bench.store.watch([key("a"), key("b")]);
    await watch.next();
    await bench.commit(set("a", "1"));
    assert.deepEqual(await nextTexts(watch), [["1", null], [true, false]]);
    await bench.commit(set("b", "2"));
    assert.deepEqual(await nextTexts(watch), [["1", "2"], [false, true]]);
    await bench.commit(set("a", "3"), del("b"));
    assert.deepEqual(await nextTexts(watch), [["3", null], [true, true]]);
    await bench.commit(set("a", "3"));
    const same = (await watch.next())!;
    assert.deepEqual(same.changed, [true, false], "a new versionstamp");
    watch.cancel();
  });

  test("changes of other keys, and deletions of nothing, are no news", async (bench) => {
    const watch = bench.store.watch([key("a")]);
    await watch.next();
    const next = watch.next();
    await bench.commit(set("b", "1"), set("aa", "1"), del("a"));
    assert.equal(await isSettled(next), false);
    watch.cancel();
    assert.equal(await next, null);
  });

  test("changes nobody asked for yet fold into the latest state", async (bench) => {
    const watch = bench.store.watch([key("a"), key("b")]);
    await watch.next();
    for (let i = 0; i < 100; i++) await bench.commit(set("a", `${i}`));
    await bench.commit(set("b", "last"));
    assert.deepEqual(await nextTexts(watch), [["99", "last"], [true, true]]);
    assert.equal(await isSettled(watch.next()), false);
    watch.cancel();
  });

  test("a change that was taken back before anyone asked is no news", async (bench) => {
    const watch = bench.store.watch([key("a")]);
    await watch.next();
    await bench.commit(set("a", "1"));
    await bench.commit(del("a"));
    assert.equal(await isSettled(watch.next()), false);
    watch.cancel();
  });

  test("each state is one snapshot, under writes without a pause", async (bench) => {
    const names = ["a", "b", "c"];
    const { store } = bench;
    await bench.commit(...names.map((each) => set(each, "0")));
    const watches = Array.from(
      { length: 20 },
      () => store.watch(names.map(key)),
    );
    const follow = async (watch: Watch) => {
      let last = -1;
      let states = 0;
      while (last < 300) {
        const state = (await watch.next())!;
        const seen = texts(state.entries);
        assert.equal(new Set(seen).size, 1, `one snapshot: ${seen}`);
        assert.ok(Number(seen[0]) > last, "states never go back");
        last = Number(seen[0]);
        states++;
      }
      watch.cancel();
      return states;
    };
    const followers = watches.map(follow);
    const writes = [];
    for (let i = 1; i <= 300; i++) {
      writes.push(commit(store, names.map((each) => set(each, `${i}`))));
      if (i % 4 === 0) await turns(1);
    }
    await Promise.all(writes);
    for (const states of await Promise.all(followers)) {
      assert.ok(states >= 2 && states <= 301);
    }
    assert.equal(store.stats().watches, 0);
  });

  test("a state is no older than any write acknowledged before it was asked for", async (bench) => {
    const watch = bench.store.watch([key("a")]);
    await watch.next();
    for (let i = 0; i < 100; i++) {
      await bench.commit(set("a", `${i}`));
      assert.deepEqual((await nextTexts(watch))[0], [`${i}`]);
    }
    watch.cancel();
  });

  test("thousands of watches over the same and other keys are all told", async (bench) => {
    const { store } = bench;
    const count = 3000;
    const watches = Array.from(
      { length: count },
      (_, i) => store.watch([key("all"), key(`own${i}`)]),
    );
    await Promise.all(watches.map((watch) => watch.next()));
    assert.equal(store.stats().watches, count);
    const own = nextTexts(watches[77]);
    const others = watches[78].next();
    await bench.commit(set("own77", "1"));
    assert.deepEqual(await own, [[null, "1"], [false, true]]);
    assert.equal(await isSettled(others), false);
    watches[78].cancel();
    assert.equal(await others, null);
    const rest = watches.filter((_, i) => i !== 78);
    const told = Promise.all(rest.map((watch) => watch.next()));
    await bench.commit(set("all", "2"));
    for (const state of await told) {
      assert.deepEqual(texts([state!.entries[0]]), ["2"]);
    }
    for (const watch of rest) watch.cancel();
    assert.equal(store.stats().watches, 0);
  });

  test("cancel ends a watch for good, whether or not it is waiting", async (bench) => {
    const waiting = bench.store.watch([key("a")]);
    await waiting.next();
    const next = waiting.next();
    waiting.cancel();
    assert.equal(await next, null);
    assert.equal(await waiting.next(), null);
    const fresh = bench.store.watch([key("a")]);
    fresh.cancel();
    assert.equal(await fresh.next(), null);
    const changed = bench.store.watch([key("a")]);
    await changed.next();
    await bench.commit(set("a", "1"));
    changed.cancel();
    assert.equal(await changed.next(), null);
    await eventually("no watches", () => bench.store.stats().watches === 0);
  });

  test("a watch of no key tells its empty state once", async (bench) => {
    const watch = bench.store.watch([]);
    assert.deepEqual(await watch.next(), { entries: [], changed: [] });
    const next = watch.next();
    await bench.commit(set("a", "1"));
    assert.equal(await isSettled(next), false);
    watch.cancel();
  });

  test("the closing of the store ends watches with an error", async (bench) => {
    const { store } = bench;
    const idle = store.watch([key("a")]);
    const waiting = store.watch([key("a")]);
    await waiting.next();
    const next = assert.rejects(waiting.next(), UnavailableError);
    await store.close();
    await next;
    await assert.rejects(idle.next(), UnavailableError);
  });
}
