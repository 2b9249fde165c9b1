import assert from "node:assert/strict";
import { utf8 } from "../common/bytes.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { CountedObjectStore } from "./counted.ts";
import { FaultyObjectStore } from "./faulty.ts";
import { MemoryObjectStore } from "./memory.ts";

Deno.test("requests are counted as they are billed", async () => {
  const clock = new ManualClock(0);
  const store = new CountedObjectStore(new MemoryObjectStore({ clock }), clock);
  for (let i = 0; i < 5; i++) await store.put(`a/${i}`, utf8("x"));
  const created = await store.create("b", utf8("x"));
  assert(created.written);
  assert((await store.replace("b", utf8("y"), created.tag)).written);
  assert.equal((await store.get("b"))?.tag, (await store.head("b"))?.tag);
  assert.equal((await store.getRange("b", 0, 1))?.length, 1);
  const keys: string[] = [];
  for await (const { key } of store.list("a/", { pageSize: 2 })) keys.push(key);
  assert.equal(keys.length, 5);
  await store.delete(keys);
  assert.deepEqual(store.counts, {
    put: 7,
    list: 3,
    get: 2,
    head: 1,
    delete: 1,
  });
  assert.equal(store.silence(), undefined);
});

Deno.test("a place stays the one that it is, also when it becomes one later", () => {
  const clock = new ManualClock(0);
  const inner = Object.assign(new MemoryObjectStore({ clock }), {
    placeId: undefined as string | undefined,
  });
  const store = new CountedObjectStore(inner, clock);
  assert.equal(store.placeId, undefined);
  inner.placeId = "a place";
  assert.equal(store.placeId, "a place");
});

Deno.test("what is waited for, and since when, until there is an answer", async () => {
  const clock = new ManualClock(0);
  let isSilent = true;
  const inner = new FaultyObjectStore(new MemoryObjectStore({ clock }), {
    clock,
    faults: () => isSilent ? { kind: "silence" } : undefined,
  });
  const store = new CountedObjectStore(inner, clock);
  const reading = store.get("manifest.json", { timeoutMs: 10_000 });
  clock.advance(6000);
  assert.deepEqual(store.silence(), {
    waitingFor: "reading manifest.json",
    forMs: 6000,
    lastError: undefined,
  });
  clock.advance(5000);
  await assert.rejects(reading, /took longer than 10000 ms/);
  const { waitingFor, forMs, lastError } = store.silence()!;
  assert.equal(waitingFor, "reading manifest.json");
  assert.equal(forMs, 11_000);
  assert.match(lastError!, /took longer than 10000 ms/);
  // Who does not try again does not wait.
  clock.advance(60_000);
  assert.equal(store.silence()?.forMs, 71_000);
  clock.advance(1);
  assert.equal(store.silence(), undefined);
  const again = store.get("manifest.json", { timeoutMs: 1000 });
  clock.advance(500);
  assert.equal(store.silence()?.forMs, 71_501);
  clock.advance(500);
  await assert.rejects(again);
  isSilent = false;
  assert.equal(await store.get("manifest.json"), undefined);
  assert.equal(store.silence(), undefined);
});
