import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { UnavailableError } from "../../common/errors.ts";
import { ManualClock } from "../../common/manual_clock.ts";
import {
  atomic,
  check,
  commit,
  del,
  eventually,
  HeldDurability,
  isSettled,
  point,
  set,
  START_MS,
  sum,
  texts,
  turns,
} from "../contract/support.ts";
import { decodeV8Number } from "../../protocol/v8_number.ts";
import type { Store } from "../store.ts";
import { openSqliteStore, type SqliteStoreOptions } from "./store.ts";

async function withStore(
  options: Partial<SqliteStoreOptions>,
  run: (store: Store, path: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  try {
    const path = `${folder}/denokv.sqlite`;
    const store = await openSqliteStore({ path, ...options });
    try {
      await run(store, path);
    } finally {
      await store.close();
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const many = <T>(length: number, make: (i: number) => T): T[] =>
  Array.from({ length }, (_, i) => make(i));
const count = (list: readonly number[]) => list.reduce((a, b) => a + b, 0);

Deno.test("writes that come together share a commit; a lonely one waits for nobody", () =>
  withStore({ clock: new ManualClock(START_MS) }, async (store) => {
    const { commits } = store.stats();
    await commit(store, [set("a", "1")]);
    assert.equal(store.stats().commits, commits + 1);
    const versions = await Promise.all(
      Array.from({ length: 100 }, (_, i) => commit(store, [set(`k${i}`, "x")])),
    );
    assert.equal(store.stats().commits, commits + 2);
    assert.equal(new Set(versions).size, 100);
    const { groupSizes } = store.stats();
    assert.equal(groupSizes.sum, 101);
    assert.equal(count(groupSizes.counts), 2);
  }));

Deno.test("a group ends at its limits of writes and of bytes; the rest follows", () =>
  withStore({ clock: new ManualClock(START_MS) }, async (store) => {
    await Promise.all(many(3000, (i) => commit(store, [set(`k${i}`, "x")])));
    assert.equal(store.stats().commits, 3, "1024 + 1024 + 952");
    const text = "x".repeat(65_000);
    const large = Array.from(
      { length: 200 },
      (_, i) => commit(store, [set(`k${i}`, text)]),
    );
    await Promise.all(large);
    // 13 MB, in groups of some more than 4 MiB.
    assert.equal(store.stats().commits, 3 + 4);
  }));

Deno.test("a group ends at what its writes produce, however little was sent", () =>
  withStore({ clock: new ManualClock(START_MS) }, async (store) => {
    const names = Array.from({ length: 500 }, (_, i) => `n${i}`);
    const large = 2n ** 7900n;
    await commit(store, names.map((name) => sum(name, large)));
    const { commits, groupSizes } = store.stats();
    // Each sends some 10 KB and writes 500 values of 990 bytes.
    const versions = await Promise.all(
      Array.from(
        { length: 40 },
        () => commit(store, names.map((name) => sum(name, 1n))),
      ),
    );
    assert.deepEqual(versions, versions.toSorted((a, b) => a - b));
    assert.equal(store.stats().commits, commits + 5, "4 MiB are 9 of them");
    assert.equal(store.stats().groupSizes.sum, groupSizes.sum + 40);
    const [[entry]] = await store.read([point("n7")]);
    assert.equal(decodeV8Number(entry.value), large + 40n);
  }));

Deno.test("a group ends when it has taken its time; readers come in between", async () => {
  /** Every look at it finds another millisecond gone. */
  class BusyClock extends ManualClock {
    #looks = 0;
    override monotonicMs(): number {
      return this.#looks++;
    }
  }
  await withStore({ clock: new BusyClock(START_MS) }, async (store) => {
    await commit(store, [set("a", "x")]);
    const { commits } = store.stats();
    let answered = 0;
    const writes = Array.from(
      { length: 100 },
      (_, i) => commit(store, [set(`k${i}`, "x")]).then(() => answered++),
    );
    // The first group is answered while the others still wait.
    await Promise.race(writes);
    assert.ok(answered <= 20, `${answered}`);
    assert.deepEqual(texts((await store.read([point("a")]))[0]), ["x"]);
    await Promise.all(writes);
    assert.equal(store.stats().commits, commits + 5);
  });
});

Deno.test("at most so many writes wait; one more is refused and applied nowhere", async () => {
  const durability = new HeldDurability();
  const maxWaitingBytes = 256 * 1024 * 1024;
  await withStore({ durability, maxWaitingBytes }, async (store) => {
    durability.hold();
    const writes: Promise<number>[] = [];
    for (let i = 0; i < 16_384; i++) {
      writes.push(commit(store, [set("a", "x")]));
    }
    await assert.rejects(
      store.write(atomic([set("refused", "x")])),
      (error) => error instanceof UnavailableError && /\.$/.test(error.message),
    );
    assert.deepEqual(store.health(), { writable: true });
    durability.release();
    await Promise.all(writes);
    await commit(store, [set("a", "last")]);
    assert.deepEqual(await store.read([point("refused")]), [[]]);
  });
});

Deno.test("what waiting writes hold is counted, whatever of it is kept", async () => {
  const durability = new HeldDurability();
  const maxWaitingBytes = 8 * 1024 * 1024;
  await withStore({ durability, maxWaitingBytes }, async (store) => {
    await commit(store, [set("a", "x")]);
    assert.equal(store.stats().waitingBytes, 0);
    durability.hold();
    // A body that is held whole, and a thousand deletions that are more than
    // their keys.
    const bodies = [
      { ...atomic([set("b", "x")]), heldBytes: 1024 * 1024 },
      atomic(Array.from({ length: 1000 }, (_, i) => del(`${i}`))),
      { ...atomic([]), checks: many(100, () => check("a", null)) },
    ];
    for (const body of bodies) {
      const taken: Promise<unknown>[] = [];
      let refusal: unknown;
      while (refusal === undefined && taken.length < 10_000) {
        const write = store.write(body);
        const isTaken = store.stats().waitingWrites > taken.length;
        if (isTaken) taken.push(write);
        else refusal = await write.catch((error) => error);
      }
      assert.ok(refusal instanceof UnavailableError);
      assert.match(refusal.message, /Nothing of this one was applied/);
      const { waitingBytes, waitingWrites } = store.stats();
      assert.ok(waitingBytes <= maxWaitingBytes);
      assert.ok(waitingBytes > maxWaitingBytes / 2);
      assert.equal(waitingWrites, taken.length);
      durability.release();
      await Promise.all(taken);
      assert.equal(store.stats().waitingBytes, 0);
      assert.equal(store.stats().waitingWrites, 0);
      durability.hold();
    }
    assert.equal(store.stats().refusedWrites, 3);
    durability.release();
  });
});

Deno.test("closing waits for the last answer without a turn of the loop", async () => {
  class CountingClock extends ManualClock {
    turns = 0;
    override endOfTurn(fire: () => void) {
      this.turns++;
      return super.endOfTurn(fire);
    }
  }
  const clock = new CountingClock(START_MS);
  const durability = new HeldDurability();
  await withStore({ clock, durability }, async (store) => {
    durability.hold();
    const write = commit(store, [set("a", "x")]);
    await eventually("the commit", () => store.stats().commits === 1);
    const before = clock.turns;
    const closing = store.close();
    await turns(100);
    assert.equal(await isSettled(closing), false);
    assert.equal(clock.turns, before);
    durability.release();
    await Promise.all([write, closing]);
  });
});

Deno.test("a gathering time holds writes back together, and no longer", async () => {
  const clock = new ManualClock(START_MS);
  await withStore({ clock, batchTimeoutMs: 10 }, async (store) => {
    const first = commit(store, [set("a", "1")]);
    clock.advance(9);
    const second = commit(store, [set("b", "1")]);
    assert.equal(await isSettled(Promise.race([first, second])), false);
    clock.advance(1);
    await Promise.all([first, second]);
    assert.equal(store.stats().commits, 1);
  });
});

/** Another process that locks the database until its input ends. */
async function lockElsewhere(path: string) {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      `import { DatabaseSync } from "node:sqlite";
       const db = new DatabaseSync(Deno.args[0]);
       db.exec("pragma busy_timeout = 5000; begin immediate");
       console.log("locked");
       for await (const _ of Deno.stdin.readable);
       db.exec("rollback");
       db.close();`,
      path,
    ],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  await reader.read();
  return {
    async release() {
      await child.stdin.close();
      while (!(await reader.read()).done);
      assert.ok((await child.status).success);
    },
  };
}

Deno.test("another process's lock delays writes, and fails none", () =>
  withStore({}, async (store, path) => {
    await commit(store, [set("a", "1")]);
    const lock = await lockElsewhere(path);
    const writes = [
      commit(store, [set("a", "2")]),
      commit(store, [set("b", "2")], [check("b", null)]),
    ];
    // 200 ms, in which the writer has tried some hundred times.
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.equal(await isSettled(Promise.race(writes)), false);
    assert.deepEqual(texts((await store.read([point("a")]))[0]), ["1"]);
    assert.deepEqual(store.health(), { writable: true });
    await lock.release();
    await Promise.all(writes);
    assert.deepEqual(texts((await store.read([point("b")]))[0]), ["2"]);
    assert.equal(store.stats().commitFailures, 0);
    assert.equal(store.stats().commits, 2);
  }));

Deno.test("a lock that is never given back fails writes after a while, until it is", async () => {
  const clock = new ManualClock(START_MS);
  await withStore({ clock }, async (store, path) => {
    await commit(store, [set("a", "1")]);
    const other = new DatabaseSync(path);
    other.exec("begin immediate");
    const first = store.write(atomic([set("a", "2")]));
    const rejected = assert.rejects(
      first,
      (error) =>
        error instanceof UnavailableError &&
        /locked.*Nothing of these writes was kept/.test(error.message),
    );
    await turns();
    for (let ms = 0; ms < 4900; ms += 2) clock.advance(2);
    assert.equal(await isSettled(first), false);
    for (let ms = 0; ms < 200; ms += 2) clock.advance(2);
    await rejected;
    assert.equal(store.health().writable, false);
    await assert.rejects(
      store.write(atomic([set("a", "3")])),
      UnavailableError,
    );
    assert.deepEqual(texts((await store.read([point("a")]))[0]), ["1"]);

    other.exec("rollback");
    other.close();
    await eventually("writes again", () => {
      clock.advance(100);
      return store.health().writable;
    });
    await commit(store, [set("a", "4")]);
    assert.equal(store.stats().commitFailures, 1);
  });
});
