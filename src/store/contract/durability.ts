/** Promise 1: acknowledged means durable, and nothing else is ever shown. */
import assert from "node:assert/strict";
import { UnavailableError } from "../../common/errors.ts";
import { Encoding, MutationType } from "../../protocol/messages.ts";
import type { Entry } from "../../protocol/messages.ts";
import {
  atomic,
  type Bench,
  check,
  commit,
  committed,
  del,
  eventually,
  everything,
  HeldDurability,
  isSettled,
  type MakePlace,
  nextTexts,
  point,
  range,
  set,
  sum,
  texts,
  turns,
  withBench,
} from "./support.ts";

export function durabilityContract(name: string, makePlace: MakePlace): void {
  const test = (
    title: string,
    run: (bench: Bench, durability: HeldDurability) => Promise<void>,
  ) => {
    Deno.test(`${name}, promise 1: ${title}`, async () => {
      const durability = new HeldDurability();
      await withBench(makePlace, async (bench) => {
        try {
          await run(bench, durability);
        } finally {
          durability.release();
        }
      }, { durability })();
    });
  };

  test(
    "a write is acknowledged when its durability confirms it, not before",
    async ({ store }, durability) => {
      durability.hold();
      const write = store.write(atomic([set("a", "1")]));
      await durability.isAsked();
      assert.equal(await isSettled(write), false);
      durability.release();
      const version = committed(await write);
      assert.ok(durability.asked.some((asked) => asked >= version));
      assert.ok(store.stats().durableVersion >= version);
    },
  );

  test(
    "durability is asked about ever larger versions, and about every one acknowledged",
    async ({ store }, durability) => {
      for (let round = 0; round < 20; round++) {
        const versions = await Promise.all(
          Array.from(
            { length: 10 },
            (_, i) => commit(store, [set(`k${i}`, "x")]),
          ),
        );
        const asked = durability.asked.at(-1)!;
        for (const version of versions) assert.ok(version <= asked);
      }
      for (let i = 1; i < durability.asked.length; i++) {
        assert.ok(durability.asked[i] > durability.asked[i - 1]);
      }
    },
  );

  // What stands before, while and after a change is not confirmed; a read may
  // wait, or show what is durable, but never the change.
  const shows = (
    title: string,
    change: Parameters<typeof atomic>[0],
    read: (bench: Bench) => Promise<Entry[][]>,
    before: string[][],
    after: string[][],
  ) =>
    test(
      `${title} is not shown before it is confirmed`,
      async (bench, durability) => {
        await bench.commit(set("a", "old"), set("c", "other"));
        durability.hold();
        const write = bench.store.write(atomic(change));
        await durability.isAsked();
        const during = read(bench);
        if (await isSettled(during)) {
          assert.deepEqual((await during).map(texts), before);
        }
        durability.release();
        await write;
        await during;
        assert.deepEqual((await read(bench)).map(texts), after);
      },
    );
  shows(
    "a new entry, read by its key,",
    [set("b", "new")],
    (bench) => bench.read(point("b")),
    [[]],
    [["new"]],
  );
  shows(
    "a new entry, read in a range,",
    [set("b", "new")],
    (bench) => bench.read(everything()),
    [["old", "other"]],
    [["old", "new", "other"]],
  );
  shows(
    "a changed entry, read by its key,",
    [set("a", "new")],
    (bench) => bench.read(point("a")),
    [["old"]],
    [["new"]],
  );
  shows(
    "a deletion, read by its key,",
    [del("a")],
    (bench) => bench.read(point("a")),
    [["old"]],
    [[]],
  );
  shows(
    "a deletion, read in a range,",
    [del("a")],
    (bench) => bench.read(range("a", "b"), point("c")),
    [["old"], ["other"]],
    [[], ["other"]],
  );
  shows(
    "a deletion that lets a limited range reach further",
    [del("a")],
    (bench) => bench.read(everything({ limit: 1 })),
    [["old"]],
    [["other"]],
  );

  test(
    "a read of what has not changed is answered while a confirmation is held back",
    async (bench, durability) => {
      await bench.commit(set("a", "old"));
      durability.hold();
      const write = bench.store.write(atomic([set("b", "new")]));
      await durability.isAsked();
      const read = bench.read(point("a"));
      assert.ok(await isSettled(read));
      assert.deepEqual((await read).map(texts), [["old"]]);
      durability.release();
      await write;
    },
  );

  test(
    "a watch hands out nothing before it is confirmed",
    async ({ store }, durability) => {
      await commit(store, [set("a", "old")]);
      const watch = store.watch([point("a").start, point("b").start]);
      assert.deepEqual((await nextTexts(watch))[0], ["old", null]);
      durability.hold();
      const write = store.write(atomic([set("a", "new")]));
      await durability.isAsked();
      const next = nextTexts(watch);
      const late = store.watch([point("a").start]);
      const first = nextTexts(late);
      assert.equal(await isSettled(next), false);
      if (await isSettled(first)) {
        assert.deepEqual((await first)[0], ["old"]);
      }
      durability.release();
      await write;
      assert.deepEqual(await next, [["new", null], [true, false]]);
      await eventually("the newest state", async () => {
        const [[text]] = await first;
        return text === "new" || (await nextTexts(late))[0][0] === "new";
      });
      watch.cancel();
      late.cancel();
    },
  );

  test(
    "the answer of a failed check waits for the commit it saw",
    async ({ store }, durability) => {
      durability.hold();
      const first = store.write(atomic([set("a", "1")]));
      await durability.isAsked();
      const second = store.write(atomic([set("b", "2")], [check("a", null)]));
      assert.equal(await isSettled(second), false);
      durability.release();
      await first;
      assert.deepEqual(await second, {
        status: "checkFailed",
        failedChecks: [0],
      });
    },
  );

  test(
    "the refusal of a sum waits for the commit it saw",
    async ({ store }, durability) => {
      durability.hold();
      const first = store.write(atomic([set("a", "text")]));
      await durability.isAsked();
      const second = store.write(atomic([sum("a", 1)]));
      assert.equal(await isSettled(second), false);
      durability.release();
      await first;
      assert.equal((await second).status, "refused");
    },
  );

  test(
    "writes go on being gathered while a confirmation is held back, and all are answered",
    async ({ store }, durability) => {
      durability.hold();
      const writes = [];
      for (let i = 0; i < 50; i++) {
        writes.push(commit(store, [set(`k${i}`, "x"), sum("n", 1)]));
        await turns(1);
      }
      assert.equal(await isSettled(Promise.race(writes)), false);
      durability.release();
      const versions = await Promise.all(writes);
      assert.equal(new Set(versions).size, 50);
    },
  );

  test(
    "a confirmation that is refused fails every waiting request and stops writes, with its sentence",
    async (bench, durability) => {
      const { store } = bench;
      await bench.commit(set("a", "old"));
      const watch = store.watch([point("a").start]);
      await watch.next();
      durability.hold();
      const first = store.write(atomic([set("a", "new")]));
      await durability.isAsked();
      const second = store.write(atomic([set("b", "new")]));
      const next = watch.next();
      const unavailable = (error: unknown) => error instanceof UnavailableError;
      const refused = [
        assert.rejects(first, unavailable),
        assert.rejects(second, unavailable),
      ];
      durability.fail(new Error("Another instance owns this history now."));
      await Promise.all(refused);
      const health = store.health();
      assert.equal(health.writable, false);
      assert.match(
        (health as { reason: string }).reason,
        /Another instance owns this history now\./,
      );
      await assert.rejects(store.write(atomic([set("c", "x")])), unavailable);
      // Time does not heal it: whoever lost ownership stays out of service.
      for (let i = 0; i < 20; i++) {
        bench.clock.advance(1000);
        await turns();
      }
      assert.deepEqual(store.health(), health);
      await assert.rejects(store.write(atomic([set("c", "x")])), unavailable);
      // The watch may end or stay silent; it shows nothing that was refused.
      next.then(
        (state) => assert.ok(state === null, "a refused write was handed out"),
        (error) => assert.ok(unavailable(error), String(error)),
      );
      await turns();
      watch.cancel();
      const read = bench.read(point("a")).catch(() => [[]]);
      if (await isSettled(read)) {
        assert.notDeepEqual((await read).map(texts), [["new"]]);
      }
    },
  );

  test("everything acknowledged is there when the database is opened again", async (bench) => {
    const { store } = bench;
    await Promise.all(
      Array.from({ length: 100 }, (_, i) =>
        commit(store, [
          set(`k${i}`, `v${i}`),
          sum("n", 1n),
          { ...set(`u${i}`, "12345678"), encoding: Encoding.LE64 },
        ])),
    );
    await bench.commit(del("k7"), {
      ...set("suffixed", "s"),
      type: MutationType.SET_SUFFIX_VERSIONSTAMPED_KEY,
    });
    const before = await bench.all();
    assert.equal(before.length, 201);
    await bench.reopen();
    assert.deepEqual(await bench.all(), before);
  });
}
