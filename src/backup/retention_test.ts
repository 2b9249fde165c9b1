import assert from "node:assert/strict";
import { systemClock } from "../common/clock.ts";
import { silentLogger } from "../common/log.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import type { Manifest } from "./manifest.ts";
import { applyRetention } from "./retention.ts";

const DAY_MS = 24 * 3_600_000;
const PRESENT = "20260101t000000z-00000005-aaaa";
const UNNAMED = "20250101t000000z-00000001-bbbb";
const OURS = "20260110t000000z-00000005-cccc";
const FENCED = "20260105t000000z-00000004-dddd";
const YOUNG = "20260109t230000z-00000004-eeee";

Deno.test("only what the manifest names is deleted: unfinished generations, and no other folder", async () => {
  const objects = new MemoryObjectStore({ clock: systemClock });
  const all = [PRESENT, UNNAMED, OURS, FENCED, YOUNG];
  for (const name of all) {
    await objects.put(`${name}/differential`, new Uint8Array([1]));
  }
  await objects.put("archives/unnamed.json", new Uint8Array([1]));
  const folders = async () => {
    const found = [];
    for await (const { key } of objects.list("")) found.push(key.split("/")[0]);
    return found;
  };
  let manifest: Manifest = {
    databaseId: "id",
    epoch: 5,
    owner: "owner",
    leaseUntilMs: 0,
    handoverTo: null,
    generation: PRESENT,
    beganWithFile: false,
    making: [OURS, FENCED, YOUNG],
    // One that is history is kept, whatever brought its name there.
    deleting: [PRESENT],
    archives: [],
    generations: [
      { name: PRESENT, startedMs: 0, endedMs: null, snapshotVersion: 0 },
    ],
    seals: [],
    leapVersion: 0,
  };
  const deleted = await applyRetention({
    objects,
    ownership: {
      epoch: 5,
      get manifest() {
        return manifest;
      },
      update(change) {
        return Promise.resolve(manifest = change(manifest));
      },
    },
    clock: { ...systemClock, nowMs: () => Date.parse("2026-01-10T01:00:00Z") },
    logger: silentLogger,
    retentionMs: DAY_MS,
  });
  assert.deepEqual(deleted.sort(), [FENCED, OURS]);
  assert.deepEqual(await folders(), [
    UNNAMED,
    PRESENT,
    YOUNG,
    "archives",
  ]);
  // What a fenced owner began an hour ago waits for its day.
  assert.deepEqual(manifest.making, [YOUNG]);
  assert.deepEqual(manifest.deleting, []);
});

/** Three generations, each whole when the store's clock said so. */
async function threeGenerations(wholeAtMs: readonly number[]) {
  const clock = { ...systemClock };
  const objects = new MemoryObjectStore({ clock });
  const names = ["1", "2", "3"].map((day) =>
    `2026010${day}t000000z-00000005-aaaa`
  );
  for (const [at, name] of names.entries()) {
    clock.nowMs = () => wholeAtMs[at];
    await objects.put(`${name}/differential`, new Uint8Array([1]));
    await objects.put(`${name}/logs/1`, new Uint8Array([1]));
  }
  await objects.put("manifest.json", new Uint8Array([1]));
  return { clock, objects, names };
}

/** What a pass deletes, by a clock of its own. */
async function deletedBy(
  objects: MemoryObjectStore,
  names: readonly string[],
  endedMs: readonly number[],
  nowMs: number,
): Promise<string[]> {
  let manifest: Manifest = {
    databaseId: "id",
    epoch: 5,
    owner: "owner",
    leaseUntilMs: 0,
    handoverTo: null,
    generation: names[2],
    beganWithFile: false,
    making: [],
    deleting: [],
    archives: [],
    generations: names.map((name, at) => ({
      name,
      startedMs: 0,
      endedMs: endedMs[at] ?? null,
      snapshotVersion: at,
    })),
    seals: [],
    leapVersion: 0,
  };
  return await applyRetention({
    objects,
    ownership: {
      epoch: 5,
      get manifest() {
        return manifest;
      },
      update(change) {
        return Promise.resolve(manifest = change(manifest));
      },
    },
    clock: { ...systemClock, nowMs: () => nowMs },
    logger: silentLogger,
    retentionMs: 7 * DAY_MS,
  });
}

const NOW_MS = Date.parse("2026-01-20T00:00:00Z");

Deno.test("a clock that is 8 days ahead deletes nothing that is within the retention", async () => {
  const whole = [NOW_MS - 9 * DAY_MS, NOW_MS - 2 * DAY_MS, NOW_MS - DAY_MS];
  const { clock, objects, names } = await threeGenerations(whole);
  clock.nowMs = () => NOW_MS;
  const ended = whole.slice(1);
  const ahead = NOW_MS + 8 * DAY_MS;
  assert.deepEqual(await deletedBy(objects, names, ended, ahead), []);
  // When the store says so too, they go.
  clock.nowMs = () => NOW_MS + 8 * DAY_MS;
  const gone = await deletedBy(objects, names, ended, ahead);
  assert.deepEqual(gone, names.slice(0, 2));
});

Deno.test("a generation that ended while a clock was behind stays as long as any other", async () => {
  const whole = [NOW_MS - 9 * DAY_MS, NOW_MS - 2 * DAY_MS, NOW_MS - DAY_MS];
  const { clock, objects, names } = await threeGenerations(whole);
  clock.nowMs = () => NOW_MS;
  // By their owner's word they ended a month ago.
  const ended = [NOW_MS - 30 * DAY_MS, NOW_MS - 29 * DAY_MS];
  assert.deepEqual(await deletedBy(objects, names, ended, NOW_MS), []);
  // The second one's snapshot was whole 7 days ago, so the first one goes.
  clock.nowMs = () => NOW_MS + 5 * DAY_MS + 1;
  const gone = await deletedBy(objects, names, ended, NOW_MS + 9 * DAY_MS);
  assert.deepEqual(gone, names.slice(0, 1));
});
