import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import { UnavailableError } from "../common/errors.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { seededRandom } from "../common/random.ts";
import { type Fault, FaultyObjectStore } from "../object_store/faulty.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import type { Manifest } from "./manifest.ts";
import { ManifestStore } from "./manifest_store.ts";

const MANIFEST: Manifest = {
  databaseId: "an id",
  epoch: 3,
  owner: "me",
  leaseUntilMs: 5,
  handoverTo: null,
  generation: "g",
  beganWithFile: false,
  making: [],
  deleting: [],
  archives: [{ key: "archives/x.json", endedMs: 900 }],
  generations: [{
    name: "g",
    startedMs: 1,
    endedMs: null,
    snapshotVersion: 26,
  }],
  seals: [{ generation: "g", epoch: 2, lastTsn: 4, lastVersion: 2 ** 40 }],
  leapVersion: 2 ** 33,
};

function stores(faults: (Fault | undefined)[]) {
  const clock = new ManualClock(0);
  const memory = new MemoryObjectStore({ clock });
  const faulty = new FaultyObjectStore(memory, {
    clock,
    faults: () => faults.shift(),
    timeoutMs: 100,
  });
  const store = new ManifestStore(faulty, clock, seededRandom(1));
  const calm = new ManifestStore(memory, clock, seededRandom(2));
  /** Lets time pass until the promise has settled. */
  async function passing<T>(promise: Promise<T>): Promise<T> {
    let hasSettled = false;
    const settled = promise.finally(() => hasSettled = true);
    settled.catch(() => {});
    while (!hasSettled) {
      clock.advance(10);
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    return await settled;
  }
  return { store, calm, passing };
}

Deno.test("a swap whose answer was lost is known to have won", async () => {
  const { store, calm, passing } = stores([
    { kind: "lostAnswer", actAtMs: 0, answerAtMs: 20 },
  ]);
  const { won } = await passing(store.swap(undefined, MANIFEST));
  assert.equal(won, true);
  assert.deepEqual((await calm.read())!.manifest, MANIFEST);
});

Deno.test("a swap that acts after its caller was told that it failed acts once", async () => {
  const { store, passing } = stores([
    { kind: "lostAnswer", actAtMs: 500, answerAtMs: 10 },
  ]);
  const first = await passing(store.swap(undefined, MANIFEST));
  assert.equal(first.won, true);
  const next = { ...MANIFEST, epoch: 4 };
  const second = await passing(store.swap(first.current, next));
  assert.equal(second.won, true);
});

Deno.test("of two that swap one version, one wins, and the other sees whose it is", async () => {
  const { store, calm, passing } = stores([
    { kind: "lostRequest", answerAtMs: 10 },
  ]);
  const first = await calm.swap(undefined, MANIFEST);
  const theirs = { ...MANIFEST, owner: "another", epoch: 4 };
  const losing = store.swap(first.current, { ...MANIFEST, epoch: 9 });
  assert.equal((await calm.swap(first.current, theirs)).won, true);
  const { won, current } = await passing(losing);
  assert.equal(won, false);
  assert.equal(current!.manifest.owner, "another");
});

Deno.test("a caller may give up, and then does not know", async () => {
  const { store, passing } = stores([{ kind: "lostRequest", answerAtMs: 10 }]);
  await assert.rejects(
    passing(store.swap(undefined, MANIFEST, () => true)),
    UnavailableError,
  );
});
