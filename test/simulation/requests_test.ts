/**
 * What a backup asks of the object store in an hour of use, by the real code
 * in virtual time: each request costs money.
 */
import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import type { DurabilityName } from "../../src/backup/backup_durability.ts";
import { BackupService } from "../../src/backup/backup_service.ts";
import { silentLogger } from "../../src/common/log.ts";
import { ManualClock } from "../../src/common/manual_clock.ts";
import { seededRandom } from "../../src/common/random.ts";
import {
  CountedObjectStore,
  type RequestCounts,
} from "../../src/object_store/counted.ts";
import { FaultyObjectStore } from "../../src/object_store/faulty.ts";
import { MemoryObjectStore } from "../../src/object_store/memory.ts";
import type { Store } from "../../src/store/store.ts";
import { atomic, point, set } from "../../src/store/contract/support.ts";
import { MemoryDisk, MemoryEngine } from "./memory_engine.ts";

const HOUR_S = 3600;
const STEP_MS = 20;
const ANSWER_MS = 15;
/** Of a lease of 10 s, two thirds of which are over each time. */
const RENEWALS = 3600 / (10 * 2 / 3);

/** The requests of an hour in which `use` is called once a second. */
async function hourOf(
  durability: DurabilityName,
  use: (store: Store, second: number) => unknown,
): Promise<RequestCounts> {
  const clock = new ManualClock(1_700_000_000_000);
  const random = seededRandom(1);
  const objects = new CountedObjectStore(
    new FaultyObjectStore(new MemoryObjectStore({ clock }), {
      clock,
      faults: () => ({
        kind: "slow",
        actAtMs: ANSWER_MS / 2,
        answerAtMs: ANSWER_MS,
      }),
    }),
    clock,
  );
  const passing = async (ms: number) => {
    for (let at = 0; at < ms; at += STEP_MS) {
      clock.advance(STEP_MS);
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  };
  let service: BackupService | undefined;
  const opening = BackupService.open({
    objects,
    engine: new MemoryEngine(new MemoryDisk(), clock, random),
    clock,
    random,
    logger: silentLogger,
    durability,
    intervalMs: 1000,
    retentionMs: 7 * 24 * 3_600_000,
    maxRetainedBytes: 1e9,
    verifyEveryMs: 0,
    allowUnfenced: false,
  }).then((opened) => service = opened);
  while (service === undefined) await passing(STEP_MS);
  await opening;
  await passing(60_000);
  const before = { ...objects.counts };
  for (let second = 0; second < HOUR_S; second++) {
    void Promise.resolve(use(service.store, second)).catch(() => {});
    await passing(1000);
  }
  const { counts } = objects;
  return {
    put: counts.put - before.put,
    list: counts.list - before.list,
    get: counts.get - before.get,
    head: counts.head - before.head,
    delete: counts.delete - before.delete,
  };
}

const write = (store: Store, second: number) =>
  store.write(atomic([set("a", `${second}`)]));

Deno.test("s3, a write a second: two requests for a segment, and the renewals", async () => {
  const counts = await hourOf("s3", write);
  assert.ok(counts.put <= HOUR_S + RENEWALS + 10, JSON.stringify(counts));
  assert.ok(counts.head <= HOUR_S + 10, JSON.stringify(counts));
  assert.deepEqual([counts.get, counts.list, counts.delete], [0, 0, 0]);
});

Deno.test("local, a write a second: one request for a segment, the renewals, and a look every other second", async () => {
  const counts = await hourOf("local", write);
  assert.ok(counts.put <= HOUR_S + RENEWALS + 10, JSON.stringify(counts));
  assert.ok(counts.head <= HOUR_S / 2, JSON.stringify(counts));
  assert.deepEqual([counts.get, counts.list, counts.delete], [0, 0, 0]);
});

Deno.test("a read a second: the renewals, and a look every other second", async () => {
  for (const durability of ["s3", "local"] as const) {
    const counts = await hourOf(
      durability,
      (store) => store.read([point("a")]),
    );
    assert.ok(counts.put <= RENEWALS + 10, JSON.stringify(counts));
    assert.ok(counts.head <= HOUR_S / 2, JSON.stringify(counts));
    assert.deepEqual([counts.get, counts.list, counts.delete], [0, 0, 0]);
  }
});

Deno.test("nothing is asked while nobody asks anything", async () => {
  const counts = await hourOf("local", () => {});
  assert.deepEqual(Object.values(counts), [0, 0, 0, 0, 0]);
});
