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
