import assert from "node:assert/strict";
import { systemClock } from "../common/clock.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import type { ListOptions } from "../object_store/object_store.ts";
import { listSegments } from "./history.ts";
import type { Manifest, Seal } from "./manifest.ts";
import { segmentKey } from "./names.ts";
import { missingSeals, withSeals } from "./sealing.ts";

const GENERATION = "20260101t000000z-00000001-aaaa";

/** Counts what its lists show. */
class ListedStore extends MemoryObjectStore {
  listed = 0;

  override async *list(prefix: string, options?: ListOptions) {
    for await (const info of super.list(prefix, options)) {
      this.listed++;
      yield info;
    }
  }
}

function seal(epoch: number, lastTsn: number, lastVersion: number): Seal {
  return { generation: GENERATION, epoch, lastTsn, lastVersion };
}

/** Segment n of an epoch ends with version 1000 times the epoch, plus n. */
async function bucket(counts: Record<number, number>) {
  const objects = new ListedStore({ clock: systemClock });
  const key = (epoch: number, tsn: number) => {
    const version = (1000 * epoch + tsn).toString(16).padStart(16, "0");
    const stamp = `${version}00000000`;
    return segmentKey(GENERATION, { epoch, tsn, first: stamp, last: stamp });
  };
  for (const [epoch, count] of Object.entries(counts)) {
    for (let tsn = 1; tsn <= count; tsn++) {
      await objects.put(key(Number(epoch), tsn), new Uint8Array([1]));
    }
  }
  return { objects, key };
}

function manifest(epoch: number, more: Partial<Manifest> = {}): Manifest {
  return {
    databaseId: "id",
    epoch,
    owner: "me",
    leaseUntilMs: 0,
    handoverTo: null,
    generation: GENERATION,
    beganWithFile: false,
    making: [],
    deleting: [],
    archives: [],
    generations: [{
      name: GENERATION,
      startedMs: 0,
      endedMs: null,
      snapshotVersion: 7,
    }],
    seals: [],
    leapVersion: 0,
    ...more,
  };
}

Deno.test("every earlier epoch without a seal gets one, with a segment or without", async () => {
  const { objects } = await bucket({ 2: 3, 4: 2 });
  assert.deepEqual(await missingSeals(objects, manifest(5)), [
    seal(1, 0, 7),
    seal(2, 3, 2003),
    seal(3, 0, 2003),
    seal(4, 2, 4002),
  ]);
  const seals = [seal(1, 0, 7), seal(2, 3, 2003)];
  assert.deepEqual(await missingSeals(objects, manifest(5, { seals })), [
    seal(3, 0, 2003),
    seal(4, 2, 4002),
  ]);
});

Deno.test("what is sealed, or comes before the head of the log, is not listed", async () => {
  const { objects } = await bucket({ 1: 400, 2: 400 });
  const seals = [seal(1, 400, 1400)];
  const head = seal(2, 398, 2398);
  const found = await missingSeals(objects, manifest(3, { seals, head }));
  assert.deepEqual(found, [seal(2, 400, 2400)]);
  assert.equal(objects.listed, 3);
  objects.listed = 0;
  assert.deepEqual(await missingSeals(objects, manifest(3, { seals })), found);
  assert.equal(objects.listed, 400);
});

Deno.test("a listing that ends before the head of the log is a loss, for a takeover and for a reader", async () => {
  const { objects, key } = await bucket({ 1: 9 });
  const head = seal(1, 9, 1009);
  await objects.delete([key(1, 8), key(1, 9)]);
  const taken = manifest(2, { head });
  await assert.rejects(
    missingSeals(objects, taken),
    // What can be restored is what comes before the loss.
    /misses segment 8 of epoch 1 .* --at 00000000000003ef0000/,
  );
  const { history, gap } = await listSegments(objects, GENERATION, taken);
  assert.equal(history.length, 7);
  assert.equal(gap?.tsn, 8);
  // All of them are gone.
  await objects.delete(Array.from({ length: 7 }, (_, at) => key(1, at + 1)));
  await assert.rejects(missingSeals(objects, taken), /misses segment 1 /);
  // A manifest of an older server does not say how far it went.
  assert.deepEqual(await missingSeals(objects, manifest(2)), [seal(1, 0, 7)]);
});

Deno.test("a seal that is there stays", () => {
  const before = manifest(3, { seals: [seal(1, 4, 9)] });
  const after = withSeals(before, [seal(1, 5, 10), seal(2, 1, 11)]);
  assert.deepEqual(after.seals, [seal(1, 4, 9), seal(2, 1, 11)]);
  assert.equal(withSeals(after, [seal(2, 1, 11)]), after);
});
