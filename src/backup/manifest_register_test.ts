import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import { silentLogger } from "../common/log.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { seededRandom } from "../common/random.ts";
import { type Fault, FaultyObjectStore } from "../object_store/faulty.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
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

Deno.test("a change whose answer was lost is made once, also where somebody touched the manifest in between", async () => {
  const { clock, ownership, faults, others } = await owned();
  // The first put acts and its answer is lost; the second finds a conflict.
  faults.push({ kind: "lostAnswer", actAtMs: 0, answerAtMs: 20 });
  const changed = ownership.update((manifest) => ({
    ...manifest,
    generation: GENERATION,
    generations: [...manifest.generations, {
      name: GENERATION,
      startedMs: 1,
      endedMs: null,
      snapshotVersion: 8,
    }],
  }));
  const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
  await turn();
  clock.advance(1);
  await turn();
  const found = (await others.read())!;
  assert.equal(found.manifest.generation, GENERATION);
  const next = { ...found.manifest, handoverTo: "somebody" };
  assert.equal((await others.swap(found, next)).won, true);
  let hasSettled = false;
  const settled = changed.finally(() => hasSettled = true);
  while (!hasSettled) {
    clock.advance(10);
    await turn();
  }
  await settled;
  const { manifest } = (await others.read())!;
  assert.deepEqual(manifest.generations.map(({ name }) => name), [GENERATION]);
  assert.equal(manifest.handoverTo, "somebody");
});

Deno.test("given up in order, though another has taken over before the answer came: that is no loss", async () => {
  const { clock, ownership, faults, others } = await owned();
  const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
  const generation = {
    name: GENERATION,
    startedMs: 1,
    endedMs: null,
    snapshotVersion: 8,
  };
  let isReady = false;
  void ownership.update((manifest) => ({
    ...manifest,
    generation: GENERATION,
    generations: [generation],
  })).then(() => isReady = true);
  while (!isReady) {
    clock.advance(10);
    await turn();
  }
  let isLost = false;
  void ownership.lost.then(() => isLost = true);
  faults.push({ kind: "lostAnswer", actAtMs: 0, answerAtMs: 20 });
  const released = ownership.release({
    generation: GENERATION,
    lastTsn: 3,
    lastVersion: 20,
  });
  await turn();
  clock.advance(1);
  await turn();
  const found = (await others.read())!;
  assert.equal(found.manifest.owner, null);
  const taken = { epoch: 2, owner: "another", change: "its own" };
  const { won } = await others.swap(found, { ...found.manifest, ...taken });
  assert.equal(won, true);
  let hasSettled = false;
  const settled = released.finally(() => hasSettled = true);
  settled.catch(() => {});
  while (!hasSettled) {
    clock.advance(10);
    await turn();
  }
  await settled;
  assert.equal(isLost, false);
});
