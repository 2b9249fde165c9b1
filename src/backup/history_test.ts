import assert from "node:assert/strict";
import { systemClock } from "../common/clock.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { damageOf, listSegments } from "./history.ts";
import type { Seal } from "./manifest.ts";
import { segmentKey, segmentsPrefix } from "./names.ts";

const GENERATION = "20260101t000000z-00000001-abcd";

function keyOf(epoch: number, tsn: number): string {
  const stamp = (epoch * 100 + tsn).toString(16).padStart(16, "0") + "00000000";
  return segmentKey(GENERATION, { epoch, tsn, first: stamp, last: stamp });
}

async function holding(...keys: string[]): Promise<MemoryObjectStore> {
  const objects = new MemoryObjectStore({ clock: systemClock });
  for (const key of keys) await objects.put(key, new Uint8Array([1]));
  return objects;
}

function seal(epoch: number, lastTsn: number): Seal {
  const lastVersion = epoch * 100 + lastTsn;
  return { generation: GENERATION, epoch, lastTsn, lastVersion };
}

async function listed(objects: ObjectStore, seals: Seal[]) {
  const listing = await listSegments(objects, GENERATION, { seals, epoch: 9 });
  return { listing, numbers: listing.history.map(({ tsn }) => tsn) };
}

Deno.test("a number that is missing before a later one is a gap, also without a seal", async () => {
  const keys = [1, 2, 4].map((tsn) => keyOf(1, tsn));
  const objects = await holding(...keys, keyOf(2, 1));
  for (const seals of [[], [seal(1, 4)]]) {
    const { listing, numbers } = await listed(objects, seals);
    assert.deepEqual(numbers, [1, 2]);
    assert.deepEqual(listing.gap, { generation: GENERATION, epoch: 1, tsn: 3 });
    // Versions leap over what is behind it, too.
    assert.equal(listing.newestVersion, 201);
    assert.match(damageOf(listing, 5)!.message, /misses segment 3 of epoch 1/);
  }
});

Deno.test("the first one can be missing: the snapshot is what is left", async () => {
  const { listing } = await listed(await holding(keyOf(1, 2)), []);
  assert.match(damageOf(listing, 5)!.message, /--at 00000000000000050000`/);
});

Deno.test("what lies behind a seal is no history, and no gap before it is one", async () => {
  const keys = [keyOf(1, 1), keyOf(1, 3), keyOf(2, 1)];
  const { listing, numbers } = await listed(await holding(...keys), [
    seal(1, 1),
  ]);
  assert.deepEqual(numbers, [1, 1]);
  assert.deepEqual(listing.strays, [keyOf(1, 3)]);
  assert.equal(damageOf(listing, 5), undefined);
});

Deno.test("a listing that overtook a segment is not taken for a loss", async () => {
  const objects = await holding(...[1, 2, 3, 4].map((tsn) => keyOf(1, tsn)));
  // Two and three were put while it ran, and it showed the later ones alone.
  const racing = new Proxy<ObjectStore>(objects, {
    get(target, name: keyof ObjectStore) {
      if (name !== "list") return (target[name] as () => void).bind(target);
      return async function* (...args: Parameters<ObjectStore["list"]>) {
        for await (const info of target.list(...args)) {
          const isWhole = args[0] === segmentsPrefix(GENERATION);
          if (isWhole && [keyOf(1, 2), keyOf(1, 3)].includes(info.key)) {
            continue;
          }
          yield info;
        }
      };
    },
  });
  const { listing, numbers } = await listed(racing, []);
  assert.deepEqual(numbers, [1, 2, 3, 4]);
  assert.equal(listing.gap, undefined);
});
