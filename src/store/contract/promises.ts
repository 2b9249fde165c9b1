/** Promises 2, 3, 5 and 6, and the store's life from opening to close. */
import assert from "node:assert/strict";
import { UnavailableError } from "../../common/errors.ts";
import { encodeV8Number } from "../../protocol/v8_number.ts";
import {
  atomic,
  type Bench,
  check,
  commit,
  committed,
  del,
  HeldDurability,
  key,
  type MakePlace,
  point,
  set,
  type StoreSettings,
  sum,
  texts,
  turns,
  withBench,
} from "./support.ts";

const unavailable = (error: unknown) =>
  error instanceof UnavailableError && /\.$/.test(error.message);

export function promisesContract(name: string, makePlace: MakePlace): void {
  const test = (
    title: string,
    run: (bench: Bench) => void | Promise<void>,
    settings?: Partial<StoreSettings>,
  ) => Deno.test(`${name}, ${title}`, withBench(makePlace, run, settings));

  test("promise 2: a write that fails inside a group touches nothing", async (bench) => {
    const { store } = bench;
    await bench.commit(set("text", "t"), set("a", "old"));
    const outcomes = await Promise.all([
      store.write(atomic([set("good1", "x")])),
      store.write(atomic([set("a", "bad"), del("text"), sum("a", 1)])),
      store.write(atomic([set("b", "bad")], [check("a", null)])),
      store.write(atomic([set("b", "bad"), sum("text", 1n)])),
      store.write(atomic([set("good2", "x")])),
    ]);
    assert.deepEqual(outcomes.map((outcome) => outcome.status), [
      "committed",
      "refused",
      "checkFailed",
      "refused",
      "committed",
    ]);
    const values = new Map(
      (await bench.all()).map((entry) => [
        entry.key.toHex(),
        texts([entry])[0],
      ]),
    );
    assert.deepEqual(
      values,
      new Map([
        [key("a").toHex(), "old"],
        [key("good1").toHex(), "x"],
        [key("good2").toHex(), "x"],
        [key("text").toHex(), "t"],
      ]),
    );
  });

  test("promise 2: no read sees a part of a write, however many share a commit", async (bench) => {
    const { store } = bench;
    const names = ["a", "m", "z"];
    const writes = [];
    for (let i = 0; i < 200; i++) {
      writes.push(
        commit(store, names.map((each) => set(each, `${i}`))),
      );
      if (i % 3 === 0) {
        const lists = await bench.read(...names.map(point));
        const seen = new Set(lists.map((list) => texts(list)[0]));
        assert.equal(seen.size, 1, `a read saw ${[...seen]}`);
      }
    }
    await Promise.all(writes);
    assert.equal(await bench.text("a"), "199");
  });

  test("promise 2: writes started together are applied one after the other, in order", async ({ store }) => {
    const outcomes = await Promise.all([
      store.write(atomic([set("a", "1")], [check("a", null)])),
      store.write(atomic([set("a", "2")], [check("a", null)])),
      store.write(atomic([sum("n", 1)])),
      store.write(atomic([sum("n", 1, {
        sumMax: encodeV8Number(1),
      })])),
    ]);
    assert.deepEqual(outcomes.map((outcome) => outcome.status), [
      "committed",
      "checkFailed",
      "committed",
      "refused",
    ]);
  });

  test("promise 3: versionstamps increase from write to write, also over empty ones and when opened again", async (bench) => {
    let last = 0;
    for (let round = 0; round < 5; round++) {
      const { store } = bench;
      for (let i = 0; i < 10; i++) {
        const write = i % 3 === 0
          ? atomic([])
          : i % 3 === 1
          ? atomic([], [check("absent", null)])
          : atomic([set("a", `${round} ${i}`)]);
        const version = committed(await store.write(write));
        assert.ok(version > last, `${version} after ${last}`);
        last = version;
      }
      assert.equal((await bench.get("a"))!.version < last, true);
      await bench.reopen();
    }
  });

  test("promise 3: each write of a group has a versionstamp of its own, in the order they were started", async (bench) => {
    const { store } = bench;
    const versions = await Promise.all(
      Array.from({ length: 200 }, (_, i) => commit(store, [set(`k${i}`, "x")])),
    );
    for (let i = 1; i < versions.length; i++) {
      assert.ok(versions[i] > versions[i - 1]);
    }
    const entry = await bench.get("k77");
    assert.equal(entry!.version, versions[77]);
    assert.ok(bench.store.stats().groupSizes.sum >= 200);
  });

  test("promise 3: what a write sets carries the write's versionstamp", async (bench) => {
    const version = await bench.commit(set("a", "1"), sum("n", 5));
    for (const entry of await bench.all()) {
      assert.deepEqual([entry.version, entry.order], [version, 0]);
    }
    const later = await bench.commit(sum("n", 1));
    assert.equal((await bench.get("a"))!.version, version);
    assert.equal((await bench.get("n"))!.version, later);
  });

  test("promise 5: the log's head is the last durable commit, whatever it did", async (bench) => {
    const head = () => bench.store.stats().log.headVersion;
    let version = await bench.commit(set("a", "1"));
    assert.equal(head(), version);
    version = await bench.commit(del("a"));
    assert.equal(head(), version);
    version = await bench.commit(sum("n", 1));
    assert.equal(head(), version);
    const sizeBytes = bench.store.stats().log.sizeBytes;
    await bench.commit(set("big", "x".repeat(10_000)));
    assert.ok(bench.store.stats().log.sizeBytes >= sizeBytes + 10_000);
    assert.equal(bench.store.stats().durableVersion, head());
    const last = head();
    await bench.reopen();
    assert.equal(head(), last);
    assert.ok(bench.store.stats().log.floorVersion < last);
  });

  const held = new HeldDurability();
  test(
    "promise 6: a write past the limit of waiting writes is refused with a sentence, and the others go on",
    async ({ store }) => {
      held.hold();
      // Neither the number nor the size of what waits may grow without end.
      const text = "x".repeat(32_768);
      const writes: Promise<unknown>[] = [];
      let refused: unknown;
      for (let i = 0; i < 8192 && refused === undefined; i++) {
        writes.push(
          store.write(atomic([set("a", text)])).catch((error) => {
            refused = error;
          }),
        );
        if (i % 64 === 0) await turns(1);
      }
      assert.ok(unavailable(refused), String(refused));
      assert.ok(writes.length > 16, `${writes.length} writes`);
      held.release();
      await Promise.all(writes);
      await commit(store, [set("after", "x")]);
    },
    { durability: held },
  );

  test(
    "promise 6: a watch past the limit is refused with a sentence, and a cancelled one makes room",
    ({ store }) => {
      const watches = Array.from({ length: 5 }, () => store.watch([key("a")]));
      assert.throws(() => store.watch([key("a")]), unavailable);
      assert.equal(store.stats().watches, 5);
      watches[2].cancel();
      watches[2].cancel();
      assert.equal(store.stats().watches, 4);
      watches.push(store.watch([key("a")]));
      assert.throws(() => store.watch([key("a")]), unavailable);
      for (const watch of watches) watch.cancel();
      assert.equal(store.stats().watches, 0);
    },
    { maxWatches: 5 },
  );

  test("the database id is a lowercase UUID that stays with the database", async (bench) => {
    const { databaseId } = bench.store;
    assert.match(
      databaseId,
      /^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
    await bench.reopen();
    assert.equal(bench.store.databaseId, databaseId);
  });

  test("close finishes the writes it has, refuses new ones, ends watches, and may be called twice", async (bench) => {
    const { store } = bench;
    const watch = store.watch([key("a")]);
    await watch.next();
    const next = assert.rejects(async () => {
      // A frame of the last write may still come first.
      while (await watch.next() !== null);
    }, unavailable);
    const write = store.write(atomic([set("a", "last")]));
    const closing = store.close();
    await assert.rejects(store.write(atomic([set("b", "x")])), unavailable);
    committed(await write);
    await Promise.all([closing, store.close(), next]);
    await bench.open();
    assert.equal(await bench.text("a"), "last");
    assert.equal(await bench.text("b"), undefined);
  });

  test("a store opened for reading alone answers reads and refuses every write as disabled", async (bench) => {
    await bench.commit(set("a", "1"), set("b", "2", bench.clock.nowMs() + 100));
    await bench.reopen({ readOnly: true });
    const { store, clock } = bench;
    assert.equal(store.isReadOnly, true);
    assert.deepEqual(texts(await bench.all()), ["1", "2"]);
    for (
      const write of [
        atomic([set("a", "x")]),
        atomic([], [check("a", null)]),
        atomic([]),
      ]
    ) {
      assert.deepEqual(await store.write(write), { status: "writeDisabled" });
    }
    const watch = store.watch([key("a")]);
    assert.deepEqual(texts((await watch.next())!.entries), ["1"]);
    watch.cancel();
    clock.advance(100);
    assert.deepEqual(texts(await bench.all()), ["1"]);
    await bench.reopen();
    assert.equal(bench.store.isReadOnly, false);
    await bench.commit(set("a", "2"));
  });

  test("the numbers say what happened", async (bench) => {
    const { store } = bench;
    await bench.commit(set("a", "text"));
    await store.write(atomic([set("b", "x")], [check("a", null)]));
    await store.write(atomic([sum("a", 1)]));
    const stats = store.stats();
    assert.deepEqual(stats.atomicWrites, {
      committed: 1,
      checkFailed: 1,
      refused: 1,
    });
    assert.ok(stats.commits >= 1);
    assert.ok(stats.databaseBytes > 0);
    assert.equal(stats.commitFailures + stats.syncFailures, 0);
    for (const { bounds, counts } of [stats.groupSizes, stats.syncSeconds]) {
      assert.equal(counts.length, bounds.length + 1);
    }
    assert.deepEqual(store.health(), { writable: true });
  });
}
