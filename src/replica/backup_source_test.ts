import assert from "node:assert/strict";
import { BackupService } from "../backup/backup_service.ts";
import { listSegments } from "../backup/history.ts";
import { encodeManifest, type Manifest } from "../backup/manifest.ts";
import { ManifestStore } from "../backup/manifest_store.ts";
import { MANIFEST_KEY, versionOf } from "../backup/names.ts";
import { systemClock } from "../common/clock.ts";
import { silentLogger } from "../common/log.ts";
import { systemRandom } from "../common/random.ts";
import { decodeLogEntries } from "../log/entry.ts";
import { CountedObjectStore } from "../object_store/counted.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import { DATA_PATIENCE, Patience } from "../object_store/patience.ts";
import { MutationType } from "../protocol/messages.ts";
import {
  MemoryDisk,
  MemoryEngine,
  textOf,
  utf8,
} from "../../test/simulation/memory_engine.ts";
import { BucketSource } from "./bucket_source.ts";
import type { Next, Position } from "./source.ts";

const clock = systemClock;
const random = systemRandom;
const { signal } = new AbortController();

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

/** An owner that writes, and a source over its backup. */
async function scene() {
  const objects = new CountedObjectStore(
    new MemoryObjectStore({ clock }),
    clock,
  );
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
  const manifests = new ManifestStore(objects, clock, random);
  const open = () =>
    new BucketSource({
      objects,
      manifests: new ManifestStore(objects, clock, random),
      clock,
      patience: new Patience({ clock, ...DATA_PATIENCE }),
      intervalMs: 1,
    });
  return {
    objects,
    service,
    open,
    manifest: async () => (await manifests.read())!.manifest,
    async replaceManifest(manifest: Manifest) {
      const nonce = random.bytes(16).toHex();
      await objects.put(MANIFEST_KEY, encodeManifest(manifest, nonce));
    },
    async write(...keys: string[]) {
      for (const key of keys) {
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
      }
    },
  };
}

/** A copy in memory: just the keys that are put in. */
function target(keys: string[]) {
  return {
    load: () => Promise.resolve(0),
    apply(entries: Uint8Array<ArrayBuffer>, after: number) {
      const found = decodeLogEntries(entries).filter((e) => e.version > after);
      keys.push(...found.map(({ key }) => textOf(key)));
      const lastVersion = found.at(-1)?.version ?? after;
      return Promise.resolve({ applied: found.length, lastVersion });
    },
  };
}

async function begun(source: BucketSource) {
  const keys: string[] = [];
  const snapshot = await source.snapshot(signal);
  assert.equal(snapshot.kind, "snapshot");
  assert(snapshot.kind === "snapshot");
  return { keys, position: await snapshot.load(target(keys)) };
}

/** Follows to the end; the keys that came, and how it ended. */
async function follow(source: BucketSource, from: Position) {
  let position = from;
  const keys: string[] = [];
  for (;;) {
    const next: Next = await source.next(position, signal);
    if (next.kind !== "commits") return { keys, position, end: next };
    for (const { key, version } of decodeLogEntries(next.entries)) {
      if (version > next.afterVersion) keys.push(textOf(key));
    }
    position = next.position;
  }
}

async function sealedBefore(
  before: Manifest,
  objects: CountedObjectStore,
): Promise<Manifest> {
  const generation = before.generation!;
  const { history } = await listSegments(objects, generation, before);
  const end = history.at(-2)!;
  const sealed: Manifest = {
    ...before,
    epoch: before.epoch + 1,
    owner: "another",
    seals: [...before.seals, {
      generation,
      epoch: before.epoch,
      lastTsn: end.tsn,
      lastVersion: versionOf(end.last),
    }],
  };
  delete sealed.head;
  return sealed;
}

test("what was listed before another took over is not handed out: it may be no history", async () => {
  const { objects, service, open, write, manifest, replaceManifest } =
    await scene();
  await write("a", "b");
  const source = open();
  const { position } = await begun(source);
  assert.equal((await follow(source, position)).end.kind, "end");
  // A fenced owner's segment, behind the seal that the next owner has made;
  // the source knows the manifest from before that.
  await write("late");
  await replaceManifest(await sealedBefore(await manifest(), objects));
  const { keys, end } = await follow(source, position);
  assert.deepEqual(keys, []);
  assert.equal(end.kind, "end");
  await service.close().catch(() => {});
});

test("generations are followed by themselves, and one without a segment is entered once", async () => {
  const { service, open, write } = await scene();
  await write("a");
  const source = open();
  const { position } = await begun(source);
  await write("b");
  await service.snapshot();
  const entered = await follow(source, position);
  assert.deepEqual(entered.keys, ["b"]);
  // What is at its end in the former generation is at the next one's start.
  const again = await follow(source, entered.position);
  assert.notEqual(
    again.position.place.split(" ")[1],
    position.place.split(" ")[1],
  );
  await write("c");
  assert.deepEqual((await follow(open(), again.position)).keys, ["c"]);
  await service.close();
});

test("a generation that was deleted while nobody looked is begun anew, and is no damage", async () => {
  const { objects, service, open, write, manifest, replaceManifest } =
    await scene();
  await write("a", "b");
  const source = open();
  const { position } = await begun(source);
  assert.equal((await follow(source, position)).end.kind, "end");
  const former = (await manifest()).generation!;
  await write("c");
  await service.snapshot();
  const now = await manifest();
  await replaceManifest({
    ...now,
    generations: now.generations.filter(({ name }) => name !== former),
    seals: now.seals.filter(({ generation }) => generation !== former),
  });
  const gone: string[] = [];
  for await (const { key } of objects.list(`${former}/`)) gone.push(key);
  await objects.delete(gone);
  assert.equal((await follow(source, position)).end.kind, "beginAnew");
  await service.close().catch(() => {});
});

test("a place is found by a version: in the middle of a segment, ahead of the bucket, and not behind a seal", async () => {
  const { objects, service, open, write, manifest, replaceManifest } =
    await scene();
  await write("a", "b", "c");
  const { generation, ...rest } = await manifest();
  const { history } = await listSegments(objects, generation!, {
    ...rest,
  });
  const at = (version: number): Position => ({
    version,
    timeMs: 0,
    epoch: 0,
    place: "stream",
  });
  const first = versionOf(history[0].last);
  assert.deepEqual((await follow(open(), at(first))).keys, ["b", "c"]);
  const last = versionOf(history.at(-1)!.last);
  // The primary has handed out what is not in the bucket yet.
  const source = open();
  const ahead = await follow(source, at(last + 5));
  assert.equal(ahead.end.kind, "end");
  await write("d", "e", "f", "g", "h", "i", "j");
  const more = await follow(source, ahead.position);
  assert.equal(more.end.kind, "end");
  assert.equal(more.keys.at(-1), "j");
  await replaceManifest(await sealedBefore(await manifest(), objects));
  const lost = more.position.version;
  assert.equal((await follow(open(), at(lost))).end.kind, "beginAnew");
  assert.equal((await follow(open(), at(first))).end.kind, "end");
  await service.close().catch(() => {});
});

test("where the owner's lease has run out nothing is listed, and a change is seen", async () => {
  const { objects, service, open, write, manifest, replaceManifest } =
    await scene();
  await write("a");
  const source = open();
  let { position } = await begun(source);
  await service.close();
  await replaceManifest({ ...await manifest(), leaseMs: 1 });
  ({ position } = await follow(source, position));
  await new Promise((resolve) => setTimeout(resolve, 50));
  ({ position } = await follow(source, position));
  const before = { ...objects.counts };
  for (let i = 0; i < 5; i++) {
    assert.equal((await follow(source, position)).end.kind, "end");
  }
  assert.equal(objects.counts.list - before.list, 0);
  assert.equal(objects.counts.head - before.head, 5);
  // Whoever serves next changes the manifest.
  await replaceManifest({ ...await manifest(), leaseMs: 60_000 });
  await follow(source, position);
  await follow(source, position);
  assert.ok(objects.counts.list > before.list);
});
