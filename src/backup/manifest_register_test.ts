import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import { silentLogger } from "../common/log.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { seededRandom } from "../common/random.ts";
import { type Fault, FaultyObjectStore } from "../object_store/faulty.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import type { Manifest } from "./manifest.ts";
import { ManifestStore } from "./manifest_store.ts";
import { acquireOwnership } from "./takeover.ts";

const GENERATION = "20260101t000000z-00000001-aaaa";

/** An owner whose swaps of the manifest can be made to lose their answers. */
async function owned() {
  const clock = new ManualClock(1_700_000_000_000);
  const memory = new MemoryObjectStore({ clock });
  const faults: Fault[] = [];
  const objects = new FaultyObjectStore(memory, {
    clock,
    faults: ({ operation, key }) =>
      operation === "replace" && key === "manifest.json"
        ? faults.shift()
        : undefined,
  });
  const ownership = await acquireOwnership({
    objects,
    clock,
    random: seededRandom(1),
    logger: silentLogger,
    servesThroughOutages: true,
    onHandoverRequested() {},
  });
  const others = new ManifestStore(memory, clock, seededRandom(2));
  return { clock, ownership, faults, others };
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Begins the history's first generation. */
function withGeneration(manifest: Manifest): Manifest {
  return {
    ...manifest,
    generation: GENERATION,
    generations: [...manifest.generations, {
      name: GENERATION,
      startedMs: 1,
      endedMs: null,
      snapshotVersion: 8,
    }],
  };
}

/** Lets time pass until a change is made. */
async function passing<T>(clock: ManualClock, change: Promise<T>): Promise<T> {
  let hasSettled = false;
  const settled = change.finally(() => hasSettled = true);
  settled.catch(() => {});
  while (!hasSettled) {
    clock.advance(10);
    await turn();
  }
  return await settled;
}

Deno.test("a change whose answer was lost is made once, also where somebody touched the manifest in between", async () => {
  const { clock, ownership, faults, others } = await owned();
  // The first put acts and its answer is lost; the second finds a conflict.
  faults.push({ kind: "lostAnswer", actAtMs: 0, answerAtMs: 20 });
  const changed = ownership.update(withGeneration);
  await turn();
  clock.advance(1);
  await turn();
  const found = (await others.read())!;
  assert.equal(found.manifest.generation, GENERATION);
  const next = { ...found.manifest, handoverTo: "somebody" };
  assert.equal((await others.swap(found, next)).won, true);
  await passing(clock, changed);
  const { manifest } = (await others.read())!;
  assert.deepEqual(manifest.generations.map(({ name }) => name), [GENERATION]);
  assert.equal(manifest.handoverTo, "somebody");
});

Deno.test("a hand-over whose answer was lost is one, also when the other has gone on", async () => {
  const { clock, ownership, faults, others } = await owned();
  await ownership.update(withGeneration);
  let isLost = false;
  void ownership.lost.then(() => isLost = true);
  faults.push({ kind: "lostAnswer", actAtMs: 0, answerAtMs: 20 });
  const end = { generation: GENERATION, lastTsn: 3, lastVersion: 40 };
  const released = ownership.release(end);
  await turn();
  clock.advance(1);
  await turn();
  const found = (await others.read())!;
  assert.equal(found.manifest.owner, null);
  const next = { ...found.manifest, owner: "another", epoch: 2, change: "x" };
  assert.equal((await others.swap(found, next)).won, true);
  await passing(clock, released);
  assert.equal(isLost, false);
  await assert.rejects(
    ownership.confirmOwned(),
    /has handed the database over/,
  );
});

Deno.test("a takeover during a hand-over fences, where it has not all that was shipped", async () => {
  const { clock, ownership, faults, others } = await owned();
  await ownership.update(withGeneration);
  faults.push({ kind: "lostRequest", answerAtMs: 20 });
  const end = { generation: GENERATION, lastTsn: 3, lastVersion: 40 };
  const released = ownership.release(end);
  await turn();
  const found = (await others.read())!;
  const next = {
    ...found.manifest,
    owner: "another",
    epoch: 2,
    change: "x",
    seals: [{ generation: GENERATION, epoch: 1, lastTsn: 2, lastVersion: 30 }],
  };
  assert.equal((await others.swap(found, next)).won, true);
  await assert.rejects(passing(clock, released), /has taken over/);
  assert.match((await ownership.lost).message, /has taken over/);
});

Deno.test("every change says how far the log goes, and nothing is written where nothing changes", async () => {
  const { ownership, others } = await owned();
  await ownership.update(withGeneration);
  ownership.carryHead(() => ({
    generation: GENERATION,
    lastTsn: 7,
    lastVersion: 99,
  }));
  const before = (await others.read())!;
  await ownership.update((manifest) => manifest);
  assert.equal((await others.read())!.tag, before.tag);
  await ownership.update((manifest) => ({ ...manifest, leaseUntilMs: 5 }));
  const { manifest } = (await others.read())!;
  assert.deepEqual(manifest.head, {
    generation: GENERATION,
    epoch: 1,
    lastTsn: 7,
    lastVersion: 99,
  });
});
