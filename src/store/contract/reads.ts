/** Reads: ranges, their bounds, limits and order, all from one snapshot. */
import assert from "node:assert/strict";
import { compareBytes } from "../../common/bytes.ts";
import { seededRandom } from "../../common/random.ts";
import { encodeKey, type KeyPart } from "../../protocol/key.ts";
import { Encoding, type Mutation } from "../../protocol/messages.ts";
import { LargeReadError } from "../store.ts";
import {
  type Bench,
  del,
  everything,
  key,
  type MakePlace,
  point,
  range,
  set,
  texts,
  withBench,
} from "./support.ts";

export function readsContract(name: string, makePlace: MakePlace): void {
  const test = (title: string, run: (bench: Bench) => Promise<void>) =>
    Deno.test(`${name}, reads: ${title}`, withBench(makePlace, run));

  test("a range holds its start, not its end, in the order of the keys", async (bench) => {
    await bench.commit(...["c", "a", "d", "b"].map((each) => set(each, each)));
    const lists = await bench.read(
      range("b", "d"),
      range("b", "d", { reverse: true }),
      range("b", "c"),
      range("b", "b"),
      range("d", "a"),
      range("d", "a", { reverse: true }),
      range("aa", "bb"),
      everything(),
      everything({ reverse: true }),
    );
    assert.deepEqual(lists.map((list) => texts(list).join("")), [
      "bc",
      "cb",
      "b",
      "",
      "",
      "",
      "b",
      "abcd",
      "dcba",
    ]);
  });

  test("a limit takes the first entries in the order asked", async (bench) => {
    await bench.commit(..."abcde".split("").map((each) => set(each, each)));
    const limited = async (limit: number, reverse: boolean) =>
      texts((await bench.read(everything({ limit, reverse })))[0]).join("");
    assert.equal(await limited(1, false), "a");
    assert.equal(await limited(3, false), "abc");
    assert.equal(await limited(5, false), "abcde");
    assert.equal(await limited(1000, false), "abcde");
    assert.equal(await limited(1, true), "e");
    assert.equal(await limited(3, true), "edc");
  });

  test("a point read finds exactly its key", async (bench) => {
    const longer = encodeKey(["a", "b"]);
    await bench.commit(
      set("a", "1"),
      { ...set("", "2"), key: longer },
      set("a\0", "3"),
    );
    const lists = await bench.read(point("a"), point("b"), point("a\0"));
    assert.deepEqual(lists.map(texts), [["1"], [], ["3"]]);
  });

  test("entries come with the very bytes and encoding they were written with", async (bench) => {
    const values = [
      new Uint8Array(0),
      new Uint8Array([0]),
      new Uint8Array(65_536).fill(255),
      new Uint8Array([0xc3, 0x28]),
    ];
    const mutations: Mutation[] = [];
    values.forEach((value, i) => {
      mutations.push({ ...set(`b${i}`, ""), value });
      mutations.push({ ...set(`v${i}`, ""), value, encoding: Encoding.V8 });
    });
    mutations.push({
      ...set("w", ""),
      value: new Uint8Array(8).fill(9),
      encoding: Encoding.LE64,
    });
    const version = await bench.commit(...mutations);
    const expected = mutations
      .map(({ key, value, encoding }) => ({
        key,
        value,
        encoding,
        version,
        order: 0,
      }))
      .sort((a, b) => compareBytes(a.key, b.key));
    assert.deepEqual(
      (await bench.all()).map((entry) => ({ ...entry })),
      expected,
    );
  });

  test("keys of every kind and length are stored and ordered as bytes", async (bench) => {
    const parts: KeyPart[][] = [
      [new Uint8Array([0, 255])],
      ["x".repeat(2045)],
      ["x".repeat(2046)],
      ["\0"],
      [-(2n ** 70n)],
      [0n],
      [-1.5],
      [NaN],
      [false],
      [true, "a", 1n],
    ];
    const random = seededRandom(5);
    const shuffled = [...parts];
    shuffled.sort(() => random.below(3) - 1);
    await bench.commit(
      ...shuffled.map((each) => ({ ...set("", "v"), key: encodeKey(each) })),
    );
    const expected = parts.map((each) => encodeKey(each)).sort(compareBytes);
    assert.equal(expected.at(-1)!.length < 2048, true);
    assert.deepEqual(
      (await bench.all()).map((entry) => entry.key.toHex()),
      expected.map((each) => each.toHex()),
    );
    const [first] = await bench.read({
      ...point(""),
      start: expected[0],
      end: new Uint8Array([...expected[0], 0]),
    });
    assert.equal(first.length, 1);
  });

  test("a read of ten ranges, and one of none, are answered range by range", async (bench) => {
    await bench.commit(..."abc".split("").map((each) => set(each, each)));
    const lists = await bench.read(
      ...Array.from(
        { length: 10 },
        (_, i) => i % 2 ? everything() : point("b"),
      ),
    );
    assert.equal(lists.length, 10);
    lists.forEach((list, i) => {
      assert.equal(texts(list).join(""), i % 2 ? "abc" : "b");
    });
    assert.deepEqual(await bench.read(), []);
    assert.deepEqual(await bench.read(point("absent")), [[]]);
  });

  test("a range of a thousand entries is whole", async (bench) => {
    const names = Array.from(
      { length: 1500 },
      (_, i) => `k${String(i).padStart(5, "0")}`,
    );
    await bench.commit(...names.slice(0, 1000).map((each) => set(each, each)));
    await bench.commit(...names.slice(1000).map((each) => set(each, each)));
    const [forward] = await bench.read(everything({ limit: 1000 }));
    assert.deepEqual(texts(forward), names.slice(0, 1000));
    const [backward] = await bench.read(
      everything({ limit: 1000, reverse: true }),
    );
    assert.deepEqual(texts(backward), names.slice(500).reverse());
  });

  test("a write that was acknowledged is seen by every read after it", async (bench) => {
    for (let i = 0; i < 50; i++) {
      await bench.commit(set("a", `${i}`));
      assert.equal(await bench.text("a"), `${i}`);
      await bench.commit(del("a"));
      assert.equal(await bench.text("a"), undefined);
    }
  });

  test("what is handed out does not change when the entry does", async (bench) => {
    await bench.commit(set("a", "1"));
    const entry = await bench.get("a");
    await bench.commit(set("a", "2"));
    assert.deepEqual(texts([entry!]), ["1"]);
    assert.deepEqual(entry!.key, key("a"));
  });

  test("a read that takes more than it may is given up, and is the same in slices", async (bench) => {
    const value = "x".repeat(10_000);
    const names = Array.from(
      { length: 300 },
      (_, i) => `k${String(i).padStart(5, "0")}`,
    );
    for (let i = 0; i < names.length; i += 50) {
      const some = names.slice(i, i + 50);
      await bench.commit(...some.map((each) => set(each, each + value)));
    }
    const { store } = bench;
    const ranges = [
      everything({ limit: 1000 }),
      everything({ limit: 7, reverse: true }),
      range("k00010", "k00290", { limit: 250, reverse: true }),
      range("z", "zz"),
      point("k00003"),
    ];
    const whole = await store.read(ranges);
    assert.equal(whole[0].length, 300);
    await assert.rejects(
      async () => await store.read(ranges, 1_000_000),
      LargeReadError,
    );
    assert.deepEqual(await store.readLarge(ranges), whole);
    // What fits is answered as ever.
    const [some] = await store.read([everything({ limit: 20 })], 1_000_000);
    assert.equal(some.length, 20);
  });

  test("a large read is one snapshot, whatever is written while it is read", async (bench) => {
    const { store } = bench;
    const names = Array.from({ length: 64 }, (_, i) => `k${i + 100}`);
    const write = (round: number) =>
      bench.commit(
        ...names.map((each) => set(each, `${round} `.padEnd(12_000, "x"))),
      );
    await write(0);
    let isDone = false;
    let round = 0;
    const writing = (async () => {
      while (!isDone) await write(++round);
    })();
    const reads = await Promise.all(
      Array.from({ length: 5 }, () => store.readLarge([everything()])),
    );
    isDone = true;
    await writing;
    for (const [entries] of reads) {
      assert.equal(entries.length, names.length);
      const rounds = new Set(texts(entries).map((text) => parseInt(text!)));
      assert.equal(rounds.size, 1, `rounds ${[...rounds]}`);
    }
    // The next one sees what was acknowledged before it.
    const [[entry]] = await store.readLarge([everything()]);
    assert.equal(parseInt(texts([entry])[0]!), round);
  });
}
