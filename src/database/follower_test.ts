import assert from "node:assert/strict";
import { BackupService } from "../backup/backup_service.ts";
import { listSegments } from "../backup/history.ts";
import { ManifestStore } from "../backup/manifest_store.ts";
import type { Manifest } from "../backup/manifest.ts";
import { versionOf } from "../backup/names.ts";
import { systemClock } from "../common/clock.ts";
import { silentLogger } from "../common/log.ts";
import { systemRandom } from "../common/random.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import { DATA_PATIENCE, Patience } from "../object_store/patience.ts";
import { MutationType } from "../protocol/messages.ts";
import {
  MemoryDisk,
  MemoryEngine,
  textOf,
  utf8,
} from "../../test/simulation/memory_engine.ts";
import { Follower } from "./follower.ts";

const clock = systemClock;
const random = systemRandom;

/** The clock's timers alone would let the process end. */
function test(name: string, body: () => Promise<void>): void {
  Deno.test(name, async () => {
    const awake = setInterval(() => {}, 1000);
    try {
      await body();
    } finally {
      clearInterval(awake);
    }
  });
}

/** An owner that writes, and another machine that follows it. */
async function scene() {
  const objects = new MemoryObjectStore({ clock });
  const service = await BackupService.open({
    objects,
    engine: new MemoryEngine(new MemoryDisk(), clock, random),
    clock,
    random,
    logger: silentLogger,
    durability: "s3",
    intervalMs: 0,
    retentionMs: 3_600_000,
    maxRetainedBytes: 1e9,
    verifyEveryMs: 0,
    allowUnfenced: true,
  });
  const disk = new MemoryDisk();
  const follow = () =>
    new Follower({
      engine: new MemoryEngine(disk, clock, random),
      objects,
      clock,
      logger: silentLogger,
      patience: new Patience({ clock, ...DATA_PATIENCE }),
      signal: new AbortController().signal,
    });
  const manifests = new ManifestStore(objects, clock, random);
  return {
    objects,
    service,
    disk,
    follow,
    manifest: async () => (await manifests.read())!.manifest,
    async write(key: string) {
      const outcome = await service.store.write({
        checks: [],
        enqueues: [],
        mutations: [{
          type: MutationType.SET,
          key: utf8(key),
          value: utf8(key),
          encoding: 3,
          expireAtMs: -1,
          sumMin: null,
          sumMax: null,
          sumClamp: false,
        }],
      });
      assert.equal(outcome.status, "committed");
    },
    keys: () =>
      [...disk.database!.rows.values()].map(({ value }) => textOf(value))
        .sort(),
  };
}

test("a file follows segment by segment, over a change of generation, and after a restart", async () => {
  const { service, write, follow, manifest, keys, disk } = await scene();
  await write("a");
  const follower = follow();
  assert.equal(follower.isReady, false);
  await follower.step(await manifest());
  assert.ok(follower.isReady);
  assert.deepEqual(keys(), ["a"]);
  await write("b");
  await write("c");
  assert.equal(await follower.step(await manifest()), 2);
  assert.deepEqual(keys(), ["a", "b", "c"]);
  await service.snapshot();
  await write("d");
  // As another launch with the same file.
  const again = follow();
  await again.step(await manifest());
  assert.deepEqual(keys(), ["a", "b", "c", "d"]);
  assert.deepEqual(disk.aside, []);
  assert.equal(again.position?.generation, (await manifest()).generation);
  await service.close();
});

test("a segment that turns out to be behind its epoch's seal is not kept: the file is set aside", async () => {
  const { objects, service, write, follow, manifest, keys, disk } =
    await scene();
  for (const key of ["a", "b", "late"]) await write(key);
  const before = await manifest();
  const follower = follow();
  await follower.step(before);
  assert.deepEqual(keys(), ["a", "b", "late"]);
  // Another launch took over, and its listing did not show the last one.
  const generation = before.generation!;
  const { history } = await listSegments(objects, generation, before);
  const end = history.at(-2)!;
  const taken: Manifest = {
    ...before,
    epoch: before.epoch + 1,
    owner: "another",
  };
  delete taken.head;
  // Until its seal is there, nothing is known.
  assert.equal(await follower.step(taken), 0);
  assert.deepEqual(keys(), ["a", "b", "late"]);
  const sealed: Manifest = {
    ...taken,
    seals: [...taken.seals, {
      generation,
      epoch: before.epoch,
      lastTsn: end.tsn,
      lastVersion: versionOf(end.last),
    }],
  };
  await follower.step(sealed);
  assert.deepEqual(keys(), ["a", "b"]);
  assert.equal(disk.aside.length, 1);
  await service.close();
});

test("a file that was written to after it followed does not follow any more", async () => {
  const { service, write, follow, manifest, keys, disk } = await scene();
  await write("a");
  await follow().step(await manifest());
  // Served without its backup meanwhile.
  disk.database!.version += 5;
  await write("b");
  await follow().step(await manifest());
  assert.equal(disk.aside.length, 1);
  assert.deepEqual(keys(), ["a", "b"]);
  await service.close();
});
