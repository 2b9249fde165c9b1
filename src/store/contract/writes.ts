/** Atomic writes: every mutation, check and outcome, end to end. */
import assert from "node:assert/strict";
import { type Bytes, compareBytes, utf8 } from "../../common/bytes.ts";
import { encodeKey } from "../../protocol/key.ts";
import { Encoding, MutationType, NEVER_MS } from "../../protocol/messages.ts";
import { decodeV8Number, encodeV8Number } from "../../protocol/v8_number.ts";
import { versionstampHex } from "../../protocol/versionstamp.ts";
import {
  atomic,
  type Bench,
  check,
  committed,
  del,
  key,
  le64,
  type MakePlace,
  mutation,
  set,
  sum,
  texts,
  turns,
  u64,
  withBench,
} from "./support.ts";

const { SET, SUM, MIN, MAX, SET_SUFFIX_VERSIONSTAMPED_KEY } = MutationType;

export function writesContract(name: string, makePlace: MakePlace): void {
  const test = (title: string, run: (bench: Bench) => Promise<void>) =>
    Deno.test(`${name}, writes: ${title}`, withBench(makePlace, run));

  test("mutations of one write are applied in their order", async (bench) => {
    await bench.commit(
      set("a", "1"),
      set("a", "2"),
      set("b", "1"),
      del("b"),
      del("c"),
      set("c", "1"),
      del("never there"),
    );
    assert.deepEqual(texts(await bench.all()), ["2", "1"]);
    const version = await bench.commit(del("a"), set("a", "3"));
    assert.equal((await bench.get("a"))!.version, version);
  });

  test("a failed check applies nothing and names every failed check", async (bench) => {
    const version = await bench.commit(set("a", "1"));
    const outcome = await bench.store.write(atomic(
      [set("a", "2"), del("a"), set("b", "x")],
      [
        check("a", version),
        check("a", null),
        check("b", null),
        check("a", version - 1),
        check("b", version),
      ],
    ));
    assert.deepEqual(outcome, {
      status: "checkFailed",
      failedChecks: [1, 3, 4],
    });
    assert.deepEqual(texts(await bench.all()), ["1"]);
  });

  test("a check compares the whole versionstamp, also one too large for any commit", async (bench) => {
    const version = await bench.commit(set("a", "1"));
    for (
      const stamp of [
        { version, order: 1 },
        { version: 0, order: 0 },
        { version: 2 ** 63, order: 0 },
        { version: version + 2 ** 32, order: 0 },
      ]
    ) {
      const outcome = await bench.store.write(
        atomic([], [{ key: key("a"), ...stamp }]),
      );
      assert.equal(outcome.status, "checkFailed");
    }
  });

  test("a deleted key passes the check for absence, and a new one has a new versionstamp", async (bench) => {
    const version = await bench.commit(set("a", "1"));
    await bench.commit(del("a"));
    assert.equal(
      (await bench.store.write(atomic([], [check("a", version)]))).status,
      "checkFailed",
    );
    const again = committed(
      await bench.store.write(atomic([set("a", "1")], [check("a", null)])),
    );
    assert.ok(again > version);
  });

  test("a hundred checks and a thousand mutations are one write", async (bench) => {
    const names = Array.from({ length: 1000 }, (_, i) => `k${i}`);
    const version = await bench.commit(...names.map((each) => set(each, "1")));
    const outcome = await bench.store.write(atomic(
      names.map((each) => set(each, "2")),
      names.slice(0, 100).map((each) => check(each, version)),
    ));
    const all = await bench.all();
    assert.equal(all.length, 1000);
    for (const entry of all) assert.equal(entry.version, committed(outcome));
  });

  test("the largest keys and values are stored whole", async (bench) => {
    const longest = encodeKey(["k".repeat(2046)]);
    const value = new Uint8Array(65_536).map((_, i) => i * 7);
    await bench.commit({ ...set("", ""), key: longest, value });
    const [entry] = await bench.all();
    assert.deepEqual([entry.key, entry.value], [longest, value]);
  });

  test("a versionstamped key ends in the write's own versionstamp, and orders by it", async (bench) => {
    const { store } = bench;
    const suffixed = (at: Bytes, text: string) =>
      mutation(SET_SUFFIX_VERSIONSTAMPED_KEY, "", {
        key: at,
        value: utf8(text),
      });
    const outcomes = await Promise.all(
      Array.from(
        { length: 20 },
        (_, i) => store.write(atomic([suffixed(key("log"), `${i}`)])),
      ),
    );
    const all = await bench.all();
    assert.deepEqual(texts(all), outcomes.map((_, i) => `${i}`));
    all.forEach((entry, i) => {
      const stamp = versionstampHex(committed(outcomes[i]), 0);
      assert.deepEqual(entry.key, encodeKey(["log", stamp]));
      assert.equal(entry.version, committed(outcomes[i]));
    });
    const expiring = bench.clock.nowMs() + 10;
    const version = await bench.commit(
      { ...suffixed(new Uint8Array(0), "bare"), expireAtMs: expiring },
      suffixed(key("log"), "first"),
      suffixed(key("log"), "second"),
    );
    const bare = encodeKey([versionstampHex(version, 0)]);
    const found = (await bench.all()).find((entry) =>
      compareBytes(entry.key, bare) === 0
    );
    assert.deepEqual(texts([found!]), ["bare"]);
    assert.equal((await bench.all()).length, 22);
    bench.clock.advance(10);
    assert.equal((await bench.all()).length, 21);
  });

  test("sums, minima and maxima of KvU64 are kept as 8 bytes", async (bench) => {
    const top = 2n ** 64n - 1n;
    await bench.commit(
      u64(SUM, "sum", 5n),
      u64(SET, "wrap", top),
      u64(MIN, "min", 5n),
      u64(MAX, "max", 5n),
    );
    await bench.commit(
      u64(SUM, "sum", 3n),
      u64(SUM, "wrap", 2n),
      u64(MIN, "min", 3n),
      u64(MIN, "min", 9n),
      u64(MAX, "max", 9n),
      u64(MAX, "max", 3n),
    );
    const values = (await bench.all()).map((entry) => {
      assert.equal(entry.encoding, Encoding.LE64);
      return entry.value;
    });
    assert.deepEqual(values, [le64(9n), le64(3n), le64(8n), le64(1n)]);
  });

  test("sums of numbers and bigints are kept V8-serialized", async (bench) => {
    const number = async (name: string) => {
      const entry = (await bench.get(name))!;
      assert.equal(entry.encoding, Encoding.V8);
      return decodeV8Number(entry.value);
    };
    await bench.commit(sum("n", 1.5), sum("b", 2n ** 70n));
    await bench.commit(sum("n", 2), sum("b", -1n));
    assert.equal(await number("n"), 3.5);
    assert.equal(await number("b"), 2n ** 70n - 1n);
    const bounds = { sumMin: encodeV8Number(0), sumMax: encodeV8Number(10) };
    const outcome = await bench.store.write(atomic([sum("n", 7, bounds)]));
    assert.equal(outcome.status, "refused");
    await bench.commit(sum("n", 7, { ...bounds, sumClamp: true }));
    assert.equal(await number("n"), 10);
    await bench.commit(u64(SET, "u", 1n));
    await bench.commit(sum("u", 2n));
    assert.deepEqual((await bench.get("u"))!.value, le64(3n));
  });

  test("a hundred sums started together all count", async (bench) => {
    const { store } = bench;
    const outcomes = [];
    for (let i = 0; i < 100; i++) {
      outcomes.push(store.write(atomic([u64(SUM, "n", 1n), sum("m", 1)])));
      if (i % 10 === 0) await turns(1);
    }
    for (const outcome of await Promise.all(outcomes)) committed(outcome);
    assert.deepEqual((await bench.get("n"))!.value, le64(100n));
    assert.equal(decodeV8Number((await bench.get("m"))!.value), 100);
  });

  test("of many writes with the same check, one is committed", async (bench) => {
    const version = await bench.commit(set("a", "0"));
    const outcomes = await Promise.all(
      Array.from(
        { length: 50 },
        (_, i) =>
          bench.store.write(atomic([set("a", `${i}`)], [check("a", version)])),
      ),
    );
    const winners = outcomes.filter(({ status }) => status === "committed");
    assert.equal(winners.length, 1);
    assert.equal(
      (await bench.get("a"))!.version,
      committed(winners[0]),
    );
  });

  test("a refusal is a sentence that says nothing was applied", async (bench) => {
    await bench.commit(set("a", "text"));
    for (const bad of [sum("a", 1), u64(MAX, "a", 1n), u64(SUM, "a", 1n)]) {
      const outcome = await bench.store.write(atomic([set("b", "x"), bad]));
      assert.equal(outcome.status, "refused");
      assert.match(
        (outcome as { message: string }).message,
        /nothing of the write was applied\.$/,
      );
    }
    assert.deepEqual(texts(await bench.all()), ["text"]);
  });

  test("queue messages are taken with the write, or not at all", async (bench) => {
    const message = {
      payload: encodeV8Number(1),
      deadlineMs: bench.clock.nowMs(),
      keysIfUndelivered: [key("lost")],
      backoffScheduleMs: [10],
    };
    const outcome = await bench.store.write(
      atomic([set("a", "1")], [], [message, message]),
    );
    const version = committed(outcome);
    assert.equal((await bench.get("a"))!.version, version);
    const failed = await bench.store.write(
      atomic([], [check("a", null)], [message]),
    );
    assert.equal(failed.status, "checkFailed");
    assert.equal((await bench.all()).length, 1, "messages are no entries");
    await bench.reopen();
    assert.equal((await bench.all()).length, 1);
  });

  test("the requests handed in are not kept: a caller may reuse its bytes", async (bench) => {
    const value = utf8("before");
    const at = key("a");
    await bench.store.write(
      atomic([{ ...set("a", ""), key: at, value, expireAtMs: NEVER_MS }]),
    );
    value.fill(0);
    at.fill(0);
    assert.equal(await bench.text("a"), "before");
  });
}
