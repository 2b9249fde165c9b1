import assert from "node:assert/strict";
import { utf8 } from "../common/bytes.ts";
import { UnavailableError } from "../common/errors.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { seededRandom } from "../common/random.ts";
import { type Fault, FaultyObjectStore, seededFaults } from "./faulty.ts";
import { MemoryObjectStore } from "./memory.ts";
import { ObjectStoreRefusedError } from "./object_store.ts";

/** A store that suffers the given faults in turn, and what is below it. */
function suffering(...faults: (Fault | undefined)[]) {
  const clock = new ManualClock(1_000_000);
  const below = new MemoryObjectStore({ clock });
  const store = new FaultyObjectStore(below, {
    clock,
    faults: () => faults.shift(),
    timeoutMs: 1000,
  });
  return { clock, below, store };
}

/** Moves the clock, and lets what it set off run to its end. */
async function pass(clock: ManualClock, byMs: number): Promise<void> {
  clock.advance(byMs);
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

/** How a promise stands at present. */
async function standing(promise: Promise<unknown>): Promise<string> {
  const settled = promise.then(
    () => "answered",
    (error: unknown) => (error as Error).name,
  );
  let state = "open";
  settled.then((name) => state = name);
  for (let i = 0; i < 20; i++) await Promise.resolve();
  return state;
}

Deno.test("a slow request acts late and is answered later", async () => {
  const { clock, below, store } = suffering(
    { kind: "slow", actAtMs: 100, answerAtMs: 300 },
  );
  const put = store.put("a", utf8("x"));
  await pass(clock, 99);
  assert.equal(await below.get("a"), undefined);
  await pass(clock, 1);
  assert.ok(await below.get("a"));
  assert.equal(await standing(put), "open");
  await pass(clock, 200);
  assert.equal(await put, (await below.get("a"))!.tag);
});

Deno.test("a lost request is not carried out, a lost answer is", async () => {
  const { clock, below, store } = suffering(
    { kind: "lostRequest", answerAtMs: 10 },
    { kind: "lostAnswer", actAtMs: 0, answerAtMs: 10 },
  );
  const lost = store.create("a", utf8("1"));
  const unheard = store.create("b", utf8("2"));
  const rejects = [
    assert.rejects(lost, UnavailableError),
    assert.rejects(unheard, UnavailableError),
  ];
  await pass(clock, 0);
  await pass(clock, 10);
  await Promise.all(rejects);
  assert.equal(await below.get("a"), undefined);
  assert.ok(await below.get("b"));
});

Deno.test("a request acts after its caller was told that it failed", async () => {
  const { clock, below, store } = suffering(
    { kind: "lostAnswer", actAtMs: 3000, answerAtMs: 10 },
  );
  const data = utf8("mine");
  const put = assert.rejects(store.put("a", data), UnavailableError);
  await pass(clock, 10);
  await put;
  // The caller may use its buffer again.
  data.fill(0);
  assert.equal(await below.get("a"), undefined);
  await pass(clock, 2990);
  assert.deepEqual((await below.get("a"))!.data, utf8("mine"));
});

Deno.test("silence ends at the time limit, and may still act", async () => {
  const { clock, below, store } = suffering(
    { kind: "silence" },
    { kind: "silence", actAtMs: 2000 },
  );
  const never = store.put("a", utf8("1"));
  const later = store.put("b", utf8("2"), { timeoutMs: 500 });
  const rejects = [
    assert.rejects(never, UnavailableError),
    assert.rejects(later, UnavailableError),
  ];
  await pass(clock, 500);
  assert.equal(await standing(later), "UnavailableError");
  assert.equal(await standing(never), "open");
  await pass(clock, 500);
  await Promise.all(rejects);
  await pass(clock, 5000);
  assert.equal(await below.get("a"), undefined);
  assert.ok(await below.get("b"));
});

Deno.test("refused is final, and the next request goes well", async () => {
  const { store } = suffering({ kind: "refused" }, undefined);
  await assert.rejects(store.get("a"), ObjectStoreRefusedError);
  assert.equal(await store.get("a"), undefined);
  assert.equal(store.requests, 2);
});

Deno.test("the same seed gives the same faults", async () => {
  const rates = {
    slow: 200,
    lostRequest: 100,
    lostAnswer: 100,
    silence: 100,
    refused: 50,
    maxDelayMs: 50,
  };
  const told = async (seed: number) => {
    const clock = new ManualClock(0);
    const lines: string[] = [];
    const store = new FaultyObjectStore(new MemoryObjectStore({ clock }), {
      clock,
      faults: seededFaults(seededRandom(seed), rates),
      onFault: ({ number, operation, key }, fault) =>
        lines.push(`${number} ${operation} ${key} ${JSON.stringify(fault)}`),
      timeoutMs: 100,
    });
    for (let i = 0; i < 400; i++) {
      const put = store.put(`k/${i}`, utf8("x")).catch(() => {});
      await pass(clock, 100);
      await put;
    }
    return lines;
  };
  const first = await told(7);
  assert.deepEqual(await told(7), first);
  assert.notDeepEqual(await told(8), first);
  // 550 of 1000 requests, give or take.
  assert.ok(first.length > 170 && first.length < 270, `${first.length}`);
  for (const kind of Object.keys(rates).slice(0, 5)) {
    assert.ok(first.some((line) => line.includes(`"${kind}"`)), kind);
  }
});
