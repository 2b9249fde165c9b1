/**
 * Everything a stock client can do, against whatever `kv` it is handed: the
 * same walk in Deno and in Node. Throws at the first answer that is wrong.
 */
import assert from "node:assert/strict";

/** Kinds that both clients can write and read. */
export function values() {
  const cyclic = { name: "cyclic" };
  cyclic.self = cyclic;
  const sparse = [1, 2, 3];
  delete sparse[1];
  return [
    "text",
    "",
    "ä€😀\0",
    "x".repeat(60_000),
    0,
    -0,
    1.5,
    -(2 ** 31),
    2 ** 53,
    NaN,
    Infinity,
    0n,
    -(2n ** 100n),
    true,
    false,
    null,
    undefined,
    new Uint8Array([0, 1, 255]),
    new Uint8Array(65_536).fill(7),
    new Uint16Array([1, 65_535]),
    new Uint8Array([1, 2, 3]).buffer,
    new Date(1_700_000_000_123),
    /a+b/gi,
    new Map([["k", new Set([1n, "two"])]]),
    new Error("an error"),
    [1, "two", [3n], { four: null }],
    sparse,
    { a: { b: [undefined, -0, NaN] }, "": "empty name" },
    cyclic,
  ];
}

/** Every kind of part, in the order of the encoded keys. */
export const KEYS = [
  [new Uint8Array([])],
  [new Uint8Array([0, 255, 0])],
  [new Uint8Array([1]), "two", 3n, 4.5, false],
  [""],
  ["a"],
  ["a", "b"],
  ["a\0b"],
  ["x".repeat(1900)],
  ["ä€😀"],
  [-(2n ** 100n)],
  [-1n],
  [0n],
  [2n ** 64n],
  [-Infinity],
  [-1.5],
  [0],
  [1e300],
  [NaN],
  [false],
  [true],
];

/**
 * @param kv a fresh handle
 * @param KvU64 the client's own class
 * @param name of the client; its keys are under it
 */
export async function walk(kv, KvU64, name) {
  await singleKeys(kv, KvU64, [name, "single"]);
  await everyValue(kv, [name, "value"]);
  await everyKey(kv, [name, "key"]);
  await lists(kv, [name, "list"]);
  await atomics(kv, KvU64, [name, "atomic"]);
  await expiry(kv, [name, "expiry"]);
  await watches(kv, [name, "watch"]);
  await manyAtOnce(kv, KvU64, [name, "many"]);
  await refusals(kv, [name, "refused"]);
}

/**
 * Reads what another client left under its name, as far as this one can: the
 * clients serialize with their own V8. Node writes views in a form of its own
 * that Deno cannot read; Node 20 reads no value of a newer V8, so that only
 * bytes and KvU64 go that way.
 * @param which `plain`: all but views; `bytes`: only what is not serialized
 */
export async function readOther(kv, KvU64, name, which) {
  const all = values();
  for (let i = 0; i < all.length; i++) {
    const isBytes = all[i] instanceof Uint8Array;
    const isView = ArrayBuffer.isView(all[i]) || all[i] instanceof ArrayBuffer;
    if (isBytes || (which === "plain" && !isView)) {
      same((await kv.get([name, "value", i])).value, all[i]);
    }
  }
  if (which === "plain") {
    const prefix = [name, "list", "k"];
    const listed = await Array.fromAsync(kv.list({ prefix }));
    assert.equal(listed.length, 350);
  }
  const { value } = await kv.get([name, "many", "count"]);
  assert.ok(value instanceof KvU64);
  assert.equal(value.value, 1000n);
}

async function singleKeys(kv, KvU64, prefix) {
  const key = [...prefix, "a"];
  const absent = { key, value: null, versionstamp: null };
  same(await kv.get(key), absent);
  const first = await kv.set(key, 1);
  assert.equal(first.ok, true);
  assert.match(first.versionstamp, /^[0-9a-f]{20}$/);
  same(await kv.get(key), { key, value: 1, versionstamp: first.versionstamp });
  same(await kv.get(key, { consistency: "eventual" }), await kv.get(key));
  const second = await kv.set(key, 2);
  assert.ok(second.versionstamp > first.versionstamp);
  await kv.delete(key);
  await kv.delete(key);
  same(await kv.get(key), absent);
  await kv.set(key, new KvU64(2n ** 64n - 1n));
  const { value } = await kv.get(key);
  assert.ok(value instanceof KvU64);
  assert.equal(value.value, 2n ** 64n - 1n);
  const keys = Array.from({ length: 10 }, (_, i) => [...prefix, i]);
  for (const each of keys.slice(0, 5)) await kv.set(each, each.at(-1));
  const many = await kv.getMany(keys);
  same(many.map((entry) => entry.value), [
    0,
    1,
    2,
    3,
    4,
    ...Array(5).fill(null),
  ]);
  same(many.map((entry) => entry.key), keys);
}

async function everyValue(kv, prefix) {
  const all = values();
  for (let i = 0; i < all.length; i++) {
    const key = [...prefix, i];
    await kv.set(key, all[i]);
    same((await kv.get(key)).value, all[i]);
  }
}

async function everyKey(kv, prefix) {
  for (const key of KEYS) await kv.set([...prefix, ...key], key.length);
  for (const key of KEYS) {
    const entry = await kv.get([...prefix, ...key]);
    same(entry.key, [...prefix, ...key]);
    same(entry.value, key.length);
  }
  const listed = await Array.fromAsync(kv.list({ prefix }));
  same(listed.map((entry) => entry.key.slice(prefix.length)), KEYS);
}

async function lists(kv, prefix) {
  const count = 350;
  const key = (i) => [...prefix, "k", i];
  for (let i = 0; i < count; i += 50) {
    const write = kv.atomic();
    for (let j = i; j < i + 50; j++) write.set(key(j), j);
    assert.equal((await write.commit()).ok, true);
  }
  const list = async (selector, options) => {
    const entries = await Array.fromAsync(kv.list(selector, options));
    for (const entry of entries) assert.equal(entry.key.at(-1), entry.value);
    return entries.map((entry) => entry.value);
  };
  const all = Array.from({ length: count }, (_, i) => i);
  const of = { prefix: [...prefix, "k"] };
  same(await list(of), all);
  same(await list(of, { reverse: true }), all.toReversed());
  same(await list(of, { batchSize: 7, limit: 20 }), all.slice(0, 20));
  same(await list(of, { batchSize: 500 }), all);
  same(await list(of, { consistency: "eventual", limit: 3 }), [0, 1, 2]);
  same(await list({ ...of, start: key(340) }), all.slice(340));
  same(await list({ ...of, end: key(10) }), all.slice(0, 10));
  same(await list({ start: key(5), end: key(9) }), [5, 6, 7, 8]);
  same(
    await list({ start: key(5), end: key(9) }, { reverse: true, limit: 2 }),
    [8, 7],
  );
  // The prefix itself is no part of its list. (In reverse @deno/kv
  // forgets that, so forward only.)
  await kv.set([...prefix, "k"], "not listed");
  same(await list(of, { limit: 2 }), [0, 1]);
  await kv.delete([...prefix, "k"]);
  for (const reverse of [false, true]) {
    const paged = [];
    let cursor;
    while (paged.length < count) {
      const page = kv.list(of, { limit: 60, reverse, cursor, batchSize: 25 });
      for await (const entry of page) paged.push(entry.value);
      cursor = page.cursor;
    }
    same(paged, reverse ? all.toReversed() : all);
  }
}

async function atomics(kv, KvU64, prefix) {
  const [a, b, n] = ["a", "b", "n"].map((each) => [...prefix, each]);
  const created = await kv.atomic()
    .check({ key: a, versionstamp: null })
    .set(a, 1).set(b, 1).commit();
  assert.equal(created.ok, true);
  same(
    await kv.atomic().check({ key: a, versionstamp: null }).set(a, 2).commit(),
    { ok: false },
  );
  const { versionstamp } = await kv.get(a);
  assert.equal(versionstamp, created.versionstamp);
  const swapped = await kv.atomic()
    .check({ key: a, versionstamp }, { key: b, versionstamp })
    .delete(b).set(a, 3).commit();
  assert.equal(swapped.ok, true);
  same((await kv.getMany([a, b])).map((entry) => entry.value), [3, null]);

  await kv.atomic().sum(n, 2n ** 64n - 1n).commit();
  await kv.atomic().sum(n, 3n).commit();
  assert.equal((await kv.get(n)).value.value, 2n);
  await kv.atomic().min(n, 5n).max([...prefix, "max"], 5n).commit();
  await kv.atomic().min(n, 1n).max([...prefix, "max"], 9n).commit();
  assert.equal((await kv.get(n)).value.value, 1n);
  assert.equal((await kv.get([...prefix, "max"])).value.value, 9n);
  await kv.atomic()
    .mutate({ type: "sum", key: n, value: new KvU64(10n) })
    .mutate({ type: "set", key: b, value: "b" }, { type: "delete", key: a })
    .commit();
  assert.equal((await kv.get(n)).value.value, 11n);

  const text = [...prefix, "text"];
  await kv.set(text, "no number");
  await assert.rejects(
    kv.atomic().set(a, "never").sum(text, 1n).commit(),
    /nothing of the write was applied/,
  );
  assert.equal((await kv.get(a)).value, null);

  const checks = Array.from({ length: 100 }, (_, i) => ({
    key: [...prefix, "check", i],
    versionstamp: null,
  }));
  const many = kv.atomic().check(...checks);
  for (let i = 0; i < 900; i++) many.set([...prefix, "mutation", i], i);
  assert.equal((await many.commit()).ok, true);
  same((await kv.get([...prefix, "mutation", 899])).value, 899);
  assert.equal((await kv.atomic().commit()).ok, true);
}

async function expiry(kv, prefix) {
  const key = [...prefix, "a"];
  const untilMs = Date.now() + 500;
  await kv.set(key, "soon gone", { expireIn: 500 });
  const stays = [...prefix, "b"];
  await kv.atomic().set(stays, "stays", { expireIn: 3_600_000 }).commit();
  const { value } = await kv.get(key);
  assert.ok(value === "soon gone" || Date.now() >= untilMs);
  // The watch says when it is gone: no polling, and no sweep to wait for.
  const states = kv.watch([key]).getReader();
  let seen = (await states.read()).value[0];
  if (seen.value !== null) seen = (await states.read()).value[0];
  assert.equal(seen.value, null);
  const lateMs = Date.now() - untilMs;
  assert.ok(lateMs >= 0 && lateMs < 400, `gone ${lateMs} ms after its time`);
  await states.cancel();
  assert.equal((await kv.get(key)).value, null);
  same(
    (await Array.fromAsync(kv.list({ prefix }))).map((entry) => entry.value),
    ["stays"],
  );
}

async function watches(kv, prefix) {
  const [a, b] = ["a", "b"].map((each) => [...prefix, each]);
  await kv.set(a, 0);
  const states = kv.watch([a, b]).getReader();
  const next = async () =>
    (await states.read()).value.map((entry) => entry.value);
  same(await next(), [0, null]);
  await kv.set(b, "b");
  same(await next(), [0, "b"]);
  await kv.atomic().set(a, 1).delete(b).commit();
  same(await next(), [1, null]);
  for (let i = 2; i <= 50; i++) await kv.set(a, i);
  let last = 1;
  while (last < 50) {
    const [now] = await next();
    assert.ok(now > last, "states never go back");
    last = now;
  }
  await states.cancel();
}

async function manyAtOnce(kv, KvU64, prefix) {
  const numbers = Array.from({ length: 1000 }, (_, i) => i);
  const count = [...prefix, "count"];
  const commits = await Promise.all(
    numbers.map((i) =>
      kv.atomic().set([...prefix, "k", i], i).sum(count, 1n).commit()
    ),
  );
  assert.ok(commits.every((commit) => commit.ok));
  assert.equal(new Set(commits.map((each) => each.versionstamp)).size, 1000);
  const entries = await Promise.all(
    numbers.map((i) => kv.get([...prefix, "k", i])),
  );
  same(entries.map((entry) => entry.value), numbers);
  same(
    entries.map((entry) => entry.versionstamp),
    commits.map((commit) => commit.versionstamp),
  );
  const { value } = await kv.get(count);
  assert.ok(value instanceof KvU64);
  assert.equal(value.value, 1000n);
}

/** The clients refuse these themselves; what they let through, we refuse. */
async function refusals(kv, prefix) {
  const big = new Uint8Array(65_537);
  await assert.rejects(async () => await kv.set([...prefix, "v"], big));
  await assert.rejects(
    async () => await kv.set([...prefix, "x".repeat(2048)], 1),
  );
  await assert.rejects(async () => await kv.set([], 1));
  assert.equal((await Array.fromAsync(kv.list({ prefix }))).length, 0);
}

function same(actual, expected) {
  assert.deepStrictEqual(actual, expected);
}
