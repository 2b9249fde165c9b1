import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { setImmediate } from "node:timers";
import { type Clock, systemClock } from "../common/clock.ts";
import { type Logger, silentLogger } from "../common/log.ts";
import { systemRandom } from "../common/random.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { atomic, set } from "../store/contract/support.ts";
import { SqliteLocalEngine } from "../store/sqlite/local_engine.ts";
import type { DurabilityName } from "./backup_durability.ts";
import { BackupService } from "./backup_service.ts";
import { planRestore, readSnapshotIndex } from "./history.ts";
import { ManifestStore } from "./manifest_store.ts";
import { restore } from "./restore.ts";

const HOUR_MS = 3_600_000;
const INTERVAL_MS = 10;
/** Pauses from this on are cut short. */
const LONG_MS = 1000;

/** A service over a file and a bucket whose requests the test can hold. */
class Scene implements AsyncDisposable {
  /** By which nothing has expired before the store agrees. */
  readonly storeClock: Clock = {
    ...systemClock,
    nowMs: () => systemClock.nowMs() + this.aheadMs,
  };
  readonly memory = new MemoryObjectStore({ clock: this.storeClock });
  /** Awaited before a request is passed on. */
  hold: (name: keyof ObjectStore, key: string) => Promise<void> | void =
    () => {};
  /** What the log has said. */
  readonly events: string[] = [];
  aheadMs = 0;
  /** How often the interval of shipping has passed. */
  intervals = 0;
  service!: BackupService;

  private constructor(readonly folder: string) {}

  static async open(
    durability: DurabilityName = "local",
    maxRetainedBytes = 1e9,
  ): Promise<Scene> {
    const scene = new Scene(
      await Deno.makeTempDir({ prefix: "denokv-test-" }),
    );
    const { memory } = scene;
    const view = new MemoryObjectStore({
      clock: scene.storeClock,
      sharing: memory,
    });
    const clock: Clock = {
      ...scene.storeClock,
      after: (delayMs, fire) =>
        systemClock.after(delayMs < LONG_MS ? delayMs : delayMs / 100, () => {
          fire();
          if (delayMs === INTERVAL_MS) scene.intervals++;
        }),
    };
    const log = (event: string) => void scene.events.push(event);
    const logger: Logger = {
      ...silentLogger,
      info: log,
      warn: log,
      error: log,
    };
    const objects = new Proxy<ObjectStore>(view, {
      get(target, name: keyof ObjectStore) {
        const member = target[name];
        if (typeof member !== "function") return member;
        if (name !== "put" && name !== "delete") return member.bind(target);
        return async (key: string | string[], ...rest: never[]) => {
          await scene.hold(name, `${key}`);
          return await (member as (...args: unknown[]) => Promise<void>)
            .call(target, key, ...rest);
        };
      },
    });
    scene.service = await BackupService.open({
      objects,
      engine: new SqliteLocalEngine({
        path: scene.path,
        clock: systemClock,
        random: systemRandom,
        logger,
        maxLogBytes: 1,
      }),
      clock,
      random: systemRandom,
      logger,
      durability,
      intervalMs: INTERVAL_MS,
      retentionMs: HOUR_MS,
      maxRetainedBytes,
      verifyEveryMs: 0,
      allowUnfenced: false,
    });
    await scene.until(() => scene.service.report().generation !== null);
    return scene;
  }

  get path(): string {
    return `${this.folder}/denokv.sqlite`;
  }

  async write(key: string, value = ""): Promise<number> {
    const outcome = await this.service.store.write(atomic([set(key, value)]));
    assert(outcome.status === "committed");
    return outcome.version;
  }

  /** What another program's commit does to the log. */
  foreignCommit(): void {
    const db = new DatabaseSync(this.path);
    db.exec("update data_version set version = version + 1");
    db.close();
  }

  async until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }

  async isShipped(): Promise<void> {
    const { service } = this;
    await this.until(() => {
      const { localVersion, bucketVersion } = service.report();
      return bucketVersion >= localVersion;
    });
  }

  async manifest() {
    const { memory } = this;
    const manifests = new ManifestStore(memory, systemClock, systemRandom);
    return (await manifests.read())!.manifest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.service.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

for (const durability of ["local", "s3"] as const) {
  Deno.test(`${durability}: a gap that comes while old generations are tidied up is not forgotten`, async () => {
    await using scene = await Scene.open(durability);
    const first = await scene.write("first");
    await scene.isShipped();
    await scene.service.snapshot();
    scene.aheadMs = 2 * HOUR_MS;
    const held = Promise.withResolvers<void>();
    const isHeld = Promise.withResolvers<void>();
    scene.hold = (name) => {
      if (name !== "delete") return;
      isHeld.resolve();
      return held.promise;
    };
    const asked = scene.service.snapshot();
    await isHeld.promise;
    const { generation } = scene.service.report();
    scene.foreignCommit();
    const { intervals } = scene;
    const written = scene.write("behind the gap");
    // The gap has been met; nothing can be shipped.
    await scene.until(() => scene.service.report().state === "Behind");
    await scene.until(() => durability === "s3" || scene.intervals > intervals);
    assert.equal(scene.service.report().generation, generation);
    held.resolve();
    await asked;
    await written;
    await scene.isShipped();
    assert.notEqual(scene.service.report().generation, generation);
    const { generations } = await scene.manifest();
    assert.equal(generations.at(-1)!.missingAfterVersion, first);
  });
}

Deno.test("every version that was acknowledged is in one generation, with local too", async () => {
  await using scene = await Scene.open("local");
  const versions: number[] = [];
  for (let round = 0; round < 4; round++) {
    // Nothing of these is shipped by itself when the generation begins.
    for (let i = 0; i < 6; i++) {
      versions.push(await scene.write(`${round} ${i}`));
    }
    const asked = scene.service.snapshot();
    for (let i = 6; i < 9; i++) {
      versions.push(await scene.write(`${round} ${i}`));
    }
    await asked;
  }
  await scene.isShipped();
  const manifest = await scene.manifest();
  assert.equal(manifest.generations.length, 5);
  for (const { missingAfterVersion } of manifest.generations) {
    assert.equal(missingAfterVersion, null);
  }
  const { memory } = scene;
  for (const [i, version] of versions.entries()) {
    const engine = new SqliteLocalEngine({
      path: `${scene.folder}/${i}.sqlite`,
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
    });
    const target = await engine.create();
    const point = { kind: "version", version } as const;
    const plan = await planRestore(memory, manifest, point);
    await restore({ objects: memory, plan, target, clock: systemClock });
    await target.finish({
      databaseId: manifest.databaseId,
      version,
      leapToVersion: version,
      state: {},
    });
    const db = new DatabaseSync(`${scene.folder}/${i}.sqlite`);
    const row = db.prepare(
      "select count(*) as entries, max(version) as newest from kv",
    ).get()!;
    db.close();
    assert.deepEqual({ ...row }, { entries: i + 1, newest: version });
  }
});

Deno.test("a snapshot that was given up goes on with the parts that are there", async () => {
  await using scene = await Scene.open("local", 2e7);
  const value = "x".repeat(60_000);
  // Far more than is on its way at once.
  for (let i = 100; i < 400; i++) await scene.write(`key ${i}`, value);
  await scene.isShipped();
  const puts: string[] = [];
  const held = Promise.withResolvers<void>();
  scene.hold = (name, key) => {
    if (name !== "put" || !key.includes("/snapshots/")) return;
    puts.push(key);
    if (puts.length > 3) return held.promise;
  };
  const asked = scene.service.snapshot();
  await scene.until(() => puts.length > 3);
  const isGivenUp = () =>
    scene.events.some((event) => /snapshot .* is given up/.test(event));
  // In the last part alone, so that the first ones stay as they are.
  while (!isGivenUp()) await scene.write("key 399", value);
  held.resolve();
  const { generation } = await asked;
  assert.equal(new Set(puts).size, puts.length, "each name is put once");
  const { parts } = await readSnapshotIndex(scene.memory, generation);
  const keys = parts.map(({ key }) => key);
  assert.deepEqual(keys.slice(0, 3), puts.slice(0, 3));
  const lying: string[] = [];
  for await (const { key } of scene.memory.list(`${generation}/snapshots/`)) {
    lying.push(key);
  }
  assert.deepEqual(lying, keys.toSorted(), "and nothing else is there");
  const verification = await scene.service.verify();
  assert.equal(verification.isCompared, true);
  assert.equal(verification.entries, 300);
});
