/** Promise 4: an entry is gone from the very millisecond of its expiry. */
import assert from "node:assert/strict";
import { MutationType } from "../../protocol/messages.ts";
import {
  atomic,
  type Bench,
  check,
  commit,
  eventually,
  everything,
  isSettled,
  key,
  le64,
  type MakePlace,
  nextTexts,
  point,
  range,
  set,
  START_MS,
  sum,
  texts,
  turns,
  u64,
  withBench,
} from "./support.ts";

const SOON_MS = START_MS + 1000;
const HOUR_MS = 3_600_000;

export function expiryContract(name: string, makePlace: MakePlace): void {
  const test = (title: string, run: (bench: Bench) => Promise<void>) =>
    Deno.test(`${name}, promise 4: ${title}`, withBench(makePlace, run));

  test("reads show an entry until the millisecond before its expiry, and not from then on", async (bench) => {
    await bench.commit(set("a", "1", SOON_MS), set("b", "2"));
    const reads = () =>
      bench.read(
        point("a"),
        everything(),
        everything({ reverse: true }),
        range("a", "b"),
        range("a", "b", { limit: 1 }),
      );
    bench.clock.advance(999);
    assert.deepEqual((await reads()).map(texts), [
      ["1"],
      ["1", "2"],
      ["2", "1"],
      ["1"],
      ["1"],
    ]);
    bench.clock.advance(1);
    assert.deepEqual((await reads()).map(texts), [[], ["2"], ["2"], [], []]);
    bench.clock.advance(HOUR_MS);
    assert.deepEqual((await reads()).map(texts), [[], ["2"], ["2"], [], []]);
  });

  test("a limited range is filled with living entries, however many expired ones lie between", async (bench) => {
    const dead = Array.from(
      { length: 300 },
      (_, i) => set(`m${i}`, "dead", SOON_MS),
    );
    await bench.commit(set("a", "1"), ...dead, set("x", "2"), set("y", "3"));
    bench.clock.advance(1000);
    const lists = await bench.read(
      everything({ limit: 2 }),
      everything({ limit: 3, reverse: true }),
    );
    assert.deepEqual(lists.map(texts), [["1", "2"], ["3", "2", "1"]]);
  });

  test("checks count an expired entry as absent", async (bench) => {
    const version = await bench.commit(set("a", "1", SOON_MS));
    const status = async (stamp: number | null) =>
      (await bench.store.write(atomic([], [check("a", stamp)]))).status;
    bench.clock.advance(999);
    assert.equal(await status(version), "committed");
    assert.equal(await status(null), "checkFailed");
    bench.clock.advance(1);
    assert.equal(await status(version), "checkFailed");
    assert.equal(await status(null), "committed");
  });

  test("sums begin anew once the old value has expired, without its expiry", async (bench) => {
    await bench.commit(
      { ...sum("n", 5), expireAtMs: SOON_MS },
      { ...u64(MutationType.SUM, "u", 5n), expireAtMs: SOON_MS },
      set("text", "t", SOON_MS),
    );
    bench.clock.advance(999);
    await bench.commit(sum("n", 1), u64(MutationType.SUM, "u", 1n));
    assert.deepEqual((await bench.get("u"))!.value, le64(6n));
    bench.clock.advance(1);
    assert.deepEqual(await bench.all(), [], "a sum keeps the expiry");
    await bench.commit(
      sum("n", 1),
      u64(MutationType.MAX, "u", 2n),
      sum("text", 1),
    );
    assert.deepEqual((await bench.get("u"))!.value, le64(2n));
    bench.clock.advance(HOUR_MS);
    assert.equal((await bench.all()).length, 3);
  });

  test("an entry whose expiry has passed when it is written is never seen", async (bench) => {
    await bench.commit(set("a", "old"), set("b", "old"));
    const watch = bench.store.watch([key("a")]);
    await watch.next();
    await bench.commit(set("a", "1", START_MS), set("b", "1", 1));
    assert.deepEqual(await bench.all(), []);
    assert.deepEqual(await nextTexts(watch), [[null], [true]]);
    watch.cancel();
    await bench.commit(set("a", "2"));
    assert.equal(await bench.text("a"), "2");
  });

  test("a later write decides the expiry: longer, shorter, or never", async (bench) => {
    await bench.commit(
      set("longer", "1", SOON_MS),
      set("shorter", "1", SOON_MS + 5000),
      set("never", "1", SOON_MS),
    );
    await bench.commit(
      set("longer", "2", SOON_MS + 500),
      set("shorter", "2", SOON_MS),
      set("never", "2"),
    );
    bench.clock.advance(1000);
    assert.equal(await bench.text("longer"), "2");
    assert.equal(await bench.text("shorter"), undefined);
    bench.clock.advance(500);
    assert.equal(await bench.text("longer"), undefined);
    bench.clock.advance(HOUR_MS);
    await turns();
    assert.equal(await bench.text("never"), "2");
  });

  test("an expiry beyond all clocks is not mistaken for one that has passed", async (bench) => {
    await bench.commit(
      set("a", "1", Number.MAX_SAFE_INTEGER),
      set("b", "1", START_MS + 2 ** 40),
    );
    const watch = bench.store.watch([key("a"), key("b")]);
    await watch.next();
    bench.clock.advance(HOUR_MS);
    assert.equal((await bench.all()).length, 2);
    assert.equal(await isSettled(watch.next()), false);
    watch.cancel();
  });

  test("a watch hands out an expiry in its millisecond, once", async (bench) => {
    await bench.commit(set("a", "1", SOON_MS), set("b", "2"));
    const watch = bench.store.watch([key("a"), key("b")]);
    assert.deepEqual((await nextTexts(watch))[0], ["1", "2"]);
    const next = nextTexts(watch);
    bench.clock.advance(999);
    assert.equal(await isSettled(next), false);
    bench.clock.advance(1);
    assert.deepEqual(await next, [[null, "2"], [true, false]]);
    const after = watch.next();
    bench.clock.advance(HOUR_MS);
    await eventually(
      "the deletion",
      () => bench.store.stats().expiredDeleted === 1,
    );
    assert.equal(await isSettled(after), false, "the deletion is no change");
    watch.cancel();
  });

  test("a watch follows an expiry that is moved", async (bench) => {
    await bench.commit(set("a", "1", SOON_MS));
    const watch = bench.store.watch([key("a")]);
    await watch.next();
    await bench.commit(set("a", "2", SOON_MS + 1000));
    assert.deepEqual(await nextTexts(watch), [["2"], [true]]);
    const next = nextTexts(watch);
    bench.clock.advance(1000);
    assert.equal(await isSettled(next), false);
    bench.clock.advance(1000);
    assert.deepEqual(await next, [[null], [true]]);
    watch.cancel();
  });

  test("a first watch state taken after the expiry shows nothing", async (bench) => {
    await bench.commit(set("a", "1", SOON_MS));
    bench.clock.advance(1000);
    const watch = bench.store.watch([key("a")]);
    assert.deepEqual(await nextTexts(watch), [[null], [true]]);
    watch.cancel();
  });

  test("expired rows are deleted by commits of their own, and logged", async (bench) => {
    const count = 2500;
    for (let i = 0; i < count; i += 500) {
      await bench.commit(
        ...Array.from(
          { length: 500 },
          (_, j) => set(`k${i + j}`, "x", SOON_MS),
        ),
      );
    }
    const version = await bench.commit(set("stays", "x"));
    bench.clock.advance(1000);
    assert.ok(bench.store.stats().expiryBacklog > 0);
    await untilDeleted(bench, count);
    assert.equal(bench.store.stats().expiryBacklog, 0);
    await eventually("the log's head is durable", () => {
      const { log, durableVersion } = bench.store.stats();
      return log.headVersion === durableVersion;
    });
    const { durableVersion } = bench.store.stats();
    assert.ok(durableVersion > version, "deletions are commits");
    const later = await bench.commit(set("later", "x"));
    assert.ok(later > durableVersion);
    assert.equal((await bench.get("stays"))!.version, version);
  });

  test("a deletion takes nothing before its time", async (bench) => {
    const name = (i: number) => `k${String(i).padStart(4, "0")}`;
    for (let i = 0; i < 3000; i += 1000) {
      await bench.commit(
        ...Array.from(
          { length: 1000 },
          (_, j) => set(name(i + j), `${i + j}`, SOON_MS + i + j),
        ),
      );
    }
    bench.clock.advance(999);
    for (let expired = 0; expired < 3000; expired += 7) {
      const [first] = await bench.read(everything({ limit: 1 }));
      assert.deepEqual(texts(first), [`${expired}`]);
      bench.clock.advance(7);
      await turns(2);
    }
  });

  test("an entry written anew before its row was deleted is not taken with it", async (bench) => {
    await bench.commit(
      ...Array.from({ length: 100 }, (_, i) => set(`k${i}`, "old", SOON_MS)),
    );
    bench.clock.advance(1000);
    await bench.commit(
      ...Array.from({ length: 50 }, (_, i) => set(`k${i}`, "new")),
    );
    await untilDeleted(bench, 50);
    assert.equal((await bench.all()).length, 50);
  });

  test("what expired while the store was closed is gone when it is opened, and deleted", async (bench) => {
    await bench.commit(set("a", "1", SOON_MS), set("b", "2", SOON_MS + 5000));
    await bench.store.close();
    bench.clock.advance(1000);
    await bench.open();
    assert.deepEqual(texts(await bench.all()), ["2"]);
    await untilDeleted(bench, 1);
    bench.clock.advance(5000);
    assert.deepEqual(await bench.all(), []);
    await untilDeleted(bench, 2);
  });

  test("writes go on while many rows are being deleted", async (bench) => {
    for (let i = 0; i < 4; i++) {
      await bench.commit(
        ...Array.from(
          { length: 1000 },
          (_, j) => set(`k${i} ${j}`, "x", SOON_MS),
        ),
      );
    }
    bench.clock.advance(1000);
    let last = 0;
    for (let i = 0; i < 200; i++) {
      bench.clock.advance(10);
      const version = await commit(bench.store, [sum("n", 1)]);
      assert.ok(version > last);
      last = version;
    }
    await untilDeleted(bench, 4000);
    assert.equal((await bench.all()).length, 1);
  });
}

/** Moves the clock on, as time does, until so many rows have been deleted. */
async function untilDeleted(bench: Bench, count: number): Promise<void> {
  await eventually(`${count} rows deleted`, () => {
    bench.clock.advance(100);
    return bench.store.stats().expiredDeleted >= count;
  });
  assert.equal(bench.store.stats().expiredDeleted, count);
}
