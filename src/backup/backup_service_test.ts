import assert from "node:assert/strict";
import { dirname } from "node:path";
import { backup, DatabaseSync } from "node:sqlite";
import { clearInterval, setImmediate, setInterval } from "node:timers";
import { fromUtf8 } from "../common/bytes.ts";
import { UnavailableError } from "../common/errors.ts";
import { type Logger, silentLogger } from "../common/log.ts";
import { type Clock, systemClock } from "../common/clock.ts";
import { systemRandom } from "../common/random.ts";
import { FaultyObjectStore } from "../object_store/faulty.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import {
  type ObjectStore,
  ObjectStoreRefusedError,
} from "../object_store/object_store.ts";
import { atomic, point, set } from "../store/contract/support.ts";
import { SqliteLocalEngine } from "../store/sqlite/local_engine.ts";
import { withArchives } from "./archive.ts";
import { BackupService } from "./backup_service.ts";
import { planRestore } from "./history.ts";
import { ManifestStore } from "./manifest_store.ts";
import { applyRetention, expiredGenerations } from "./retention.ts";
import { bucketStatus } from "./status.ts";

const HOUR_MS = 3_600_000;

/** A bucket that can be switched off. */
function bucket(clock = systemClock) {
  const memory = new MemoryObjectStore({ clock });
  const state = {
    isDown: false,
    error: new UnavailableError("the bucket is down") as Error,
  };
  // The service closes its own view; the objects stay.
  const view = new MemoryObjectStore({ clock, sharing: memory });
  const objects = new Proxy<ObjectStore>(view, {
    get(target, name: keyof ObjectStore) {
      const member = target[name];
      if (typeof member !== "function" || name === "close" || name === "list") {
        return typeof member === "function" ? member.bind(target) : member;
      }
      return (...args: never[]) =>
        state.isDown
          ? Promise.reject(state.error)
          : (member as (...args: never[]) => unknown).apply(target, args);
    },
  });
  return { objects, memory, state };
}

async function serving(
  path: string,
  objects: ObjectStore,
  more: {
    maxRetainedBytes?: number;
    logger?: Logger;
    verifyEveryMs?: number;
    clock?: Clock;
    Engine?: typeof SqliteLocalEngine;
  } = {},
): Promise<BackupService> {
  const { logger = silentLogger, clock = systemClock } = more;
  const { Engine = SqliteLocalEngine } = more;
  return await BackupService.open({
    objects,
    engine: new Engine({
      path,
      clock: systemClock,
      random: systemRandom,
      logger,
      // So that only what the backup needs is kept.
      maxLogBytes: 1,
    }),
    clock,
    random: systemRandom,
    logger,
    durability: "local",
    intervalMs: 10,
    retentionMs: HOUR_MS,
    maxRetainedBytes: more.maxRetainedBytes ?? 1e9,
    verifyEveryMs: more.verifyEveryMs ?? 0,
    allowUnfenced: false,
  });
}

async function inFolder(work: (path: string) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  // The clock's own timers let the process end, and so the test, while a
  // renewal of the lease is on its way.
  const alive = setInterval(() => {}, 1000);
  try {
    await work(`${folder}/denokv.sqlite`);
  } finally {
    clearInterval(alive);
    await Deno.remove(folder, { recursive: true });
  }
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise<void>((resolve) => setImmediate(resolve));
}

Deno.test("past the limit of what may wait, the backup begins anew and is whole", () =>
  inFolder(async (path) => {
    const { objects, state } = bucket();
    const events: string[] = [];
    const log = (event: string) => void events.push(event);
    const logger = { ...silentLogger, warn: log, error: log, info: log };
    const service = await serving(path, objects, {
      maxRetainedBytes: 3e6,
      logger,
    });
    await until(() => service.report().generation !== null);
    const { generation } = service.report();
    state.isDown = true;
    const value = "x".repeat(60_000);
    for (let i = 0; i < 150; i++) {
      await service.store.write(atomic([set(`key ${i}`, value)]));
    }
    // Trimming comes in batches, behind the limit.
    assert.ok(service.store.stats().log.sizeBytes < 6e6);
    await until(() => events.some((event) => /nearly reached/.test(event)));
    state.isDown = false;
    await until(() => service.report().generation !== generation);
    const verification = await service.verify();
    assert.equal(verification.entries, 150);
    assert.equal(verification.isCompared, true);
    assert.equal(service.report().state, "Active");
    await service.close();
  }));

Deno.test("a verification finds a backup that is not as the database is", () =>
  inFolder(async (path) => {
    const { objects, memory } = bucket();
    const service = await serving(path, objects);
    await service.store.write(atomic([set("a", "1")]));
    await until(() => service.report().generation !== null);
    assert.equal((await service.verify()).entries, 1);
    await service.store.write(atomic([set("a", "2")]));
    await service.verify();
    for await (const { key } of memory.list("")) {
      if (!key.includes("/logs/")) continue;
      const { data } = (await memory.get(key))!;
      data[data.length - 40] ^= 1;
      await memory.put(key, data);
    }
    await assert.rejects(service.verify(), /cannot be used: its checksum/);
    assert.match(service.report().verifyFailure!, /cannot be used/);
    assert.equal(service.report().verifyFailureKind, "damaged");
    await service.close();
  }));

Deno.test("what is wrong with the backup has a name that says nothing of the provider", () =>
  inFolder(async (path) => {
    const { objects, memory, state } = bucket();
    const service = await serving(path, objects);
    await until(() => service.report().state === "Active");
    assert.equal(service.report().lastErrorKind, undefined);
    let count = 0;
    const kindIs = async (kind: string | undefined) => {
      await service.store.write(atomic([set("a", `${count++}`)]));
      await until(() => service.report().lastErrorKind === kind);
    };
    state.isDown = true;
    await kindIs("unreachable");
    state.error = new ObjectStoreRefusedError("s3://secret was refused.");
    await kindIs("denied");
    assert.match(service.report().lastError!, /s3:\/\/secret/);
    state.error = new TypeError("odd");
    await kindIs("other");
    state.isDown = false;
    await kindIs(undefined);
    await memory.delete(["manifest.json"]);
    await until(() => service.report().lastErrorKind === "conflict");
    await service.close();
  }));

Deno.test("segments that go through while the manifest cannot be read do not each ask for it", () =>
  inFolder(async (path) => {
    const { memory } = bucket();
    let isUnreadable = false;
    let looks = 0;
    const objects = new FaultyObjectStore(memory, {
      clock: systemClock,
      faults({ operation, key }) {
        if (key !== "manifest.json" || !isUnreadable) return;
        if (operation === "head") looks++;
        return { kind: "lostRequest", answerAtMs: 0 };
      },
    });
    const service = await serving(path, objects);
    await until(() => service.report().state === "Active");
    isUnreadable = true;
    const before = service.report().segments;
    for (let i = 0; service.report().segments < before + 100; i++) {
      await service.store.write(atomic([set("a", `${i}`)]));
      const { segments } = service.report();
      await until(() => service.report().segments > segments);
    }
    // One a second while the lease runs, and those with growing pauses.
    assert.ok(looks < 40, `${looks} looks for 100 segments`);
    isUnreadable = false;
    await service.close();
  }));

Deno.test("the schedule of verifications goes on over launches", () =>
  inFolder(async (path) => {
    const { memory } = bucket();
    const launch = () =>
      serving(
        path,
        new MemoryObjectStore({ clock: systemClock, sharing: memory }),
        { verifyEveryMs: 24 * HOUR_MS, clock },
      );
    // Timers of a minute and more, and how to let one of them fire.
    const long: { delayMs: number; fire(): void }[] = [];
    let elapsedMs = 0;
    const clock: Clock = {
      ...systemClock,
      nowMs: () => systemClock.nowMs() + elapsedMs,
      after(delayMs, fire) {
        if (delayMs < 60_000) return systemClock.after(delayMs, fire);
        long.push({ delayMs, fire });
        return { stop() {} };
      },
    };
    const first = await launch();
    await until(() => long.length === 1);
    // Never verified: soon after the launch.
    assert.equal(long[0].delayMs, 60_000);
    assert.equal(first.report().verifiedAgeMs, undefined);
    await first.store.write(atomic([set("a", "1")]));
    long[0].fire();
    await until(() => long.length === 2);
    assert.equal(long[1].delayMs, 24 * HOUR_MS);
    assert.ok(first.report().verifiedAgeMs! < HOUR_MS);
    await first.close();

    elapsedMs = 20 * HOUR_MS;
    const second = await launch();
    await until(() => long.length === 3);
    assert.ok(second.report().verifiedAgeMs! >= 20 * HOUR_MS);
    assert.ok(long[2].delayMs <= 4 * HOUR_MS);
    assert.ok(long[2].delayMs > 3 * HOUR_MS);
    await second.close();

    elapsedMs = 30 * HOUR_MS;
    const third = await launch();
    await until(() => long.length === 4);
    assert.equal(long[3].delayMs, 60_000);
    await third.close();
  }));

Deno.test("what a killed verification left is removed at the next launch", () =>
  inFolder(async (path) => {
    const { objects } = bucket();
    const names = () => [...Deno.readDirSync(dirname(path))].map((f) => f.name);
    for (const end of [".verify", ".verify.restoring", ".verify-wal"]) {
      await Deno.writeTextFile(path + end, "left over");
    }
    const service = await serving(path, objects);
    assert.deepEqual(names().filter((name) => /verify/.test(name)), []);
    await service.verify();
    assert.deepEqual(names().filter((name) => /verify/.test(name)), []);
    await service.close();
  }));

Deno.test("a new generation takes over, and the old one can still be restored", () =>
  inFolder(async (path) => {
    const { objects, memory } = bucket();
    const service = await serving(path, objects);
    await until(() => service.report().generation !== null);
    for (let i = 0; i < 3; i++) {
      await service.store.write(atomic([set(`${i}`, "x")]));
      await service.snapshot();
    }
    await service.close();
    const status = await bucketStatus(memory, systemClock, systemRandom);
    assert.equal(status?.generations, 4);
    assert.equal(status?.ownership, "released");
    assert.deepEqual(status?.strays, []);
  }));

Deno.test("the manifest stays small, and every generation can be restored until it expires", () =>
  inFolder(async (path) => {
    const clock = { ...systemClock };
    const { objects, memory } = bucket(clock);
    const service = await serving(path, objects, { clock });
    await until(() => service.report().generation !== null);
    const versions: number[] = [];
    const names = [service.report().generation!];
    for (let i = 0; i < 120; i++) {
      const write = await service.store.write(atomic([set(`${i}`, "x")]));
      assert.equal(write.status, "committed");
      versions.push(write.status === "committed" ? write.version : 0);
      names.push((await service.snapshot()).generation);
    }
    const manifests = new ManifestStore(memory, clock, systemRandom);
    const { manifest } = (await manifests.read())!;
    assert.ok(manifest.generations.length < 48);
    assert.ok((await memory.get("manifest.json"))!.data.length < 20_000);
    assert.ok(manifest.archives.length > 1);
    const whole = await withArchives(memory, manifest);
    assert.deepEqual(whole.generations.map(({ name }) => name), names);
    const status = await bucketStatus(memory, clock, systemRandom);
    assert.equal(status?.generations, names.length);
    for (const i of [0, 1, 30, 60, 100, 119]) {
      const point = { kind: "version", version: versions[i] } as const;
      const plan = await planRestore(memory, manifest, point);
      assert.equal(plan.generation, names[i + 1]);
    }
    // All but the present one expire at once, with their archives.
    clock.nowMs = () => systemClock.nowMs() + 2 * HOUR_MS;
    const { generation } = await service.snapshot();
    const left = new Set<string>();
    for await (const { key } of memory.list("")) left.add(key.split("/")[0]);
    assert.deepEqual(
      [...left].filter((name) => name !== "manifest.json").sort(),
      [names.at(-1), generation].sort(),
    );
    await service.close();
  }));

Deno.test("retention deletes what no recovery needs, and finishes what was begun", () =>
  inFolder(async (path) => {
    const clock = { ...systemClock };
    const { objects, memory } = bucket(clock);
    const service = await serving(path, objects);
    await until(() => service.report().generation !== null);
    const first = service.report().generation!;
    const { generation } = await service.snapshot();
    await service.close();
    const keys = async () => {
      const found = [];
      for await (const { key } of memory.list("")) found.push(key);
      return found;
    };
    const manifest = {
      databaseId: "id",
      epoch: 1,
      owner: null,
      leaseUntilMs: 0,
      handoverTo: null,
      generation,
      beganWithFile: false,
      making: [],
      deleting: [],
      archives: [],
      generations: [
        { name: first, startedMs: 1000, endedMs: 5000, snapshotVersion: 0 },
        {
          name: generation,
          startedMs: 5000,
          endedMs: null,
          snapshotVersion: 1,
        },
      ],
      seals: [],
      leapVersion: 0,
    };
    assert.deepEqual(expiredGenerations(manifest, 5000 + HOUR_MS, HOUR_MS), []);
    assert.deepEqual(expiredGenerations(manifest, 5001 + HOUR_MS, HOUR_MS), [
      first,
    ]);
    let current = manifest;
    const ownership = {
      epoch: 1,
      get manifest() {
        return current;
      },
      update(change: (m: typeof manifest) => typeof manifest) {
        current = change(current);
        return Promise.resolve(current);
      },
    };
    const options = {
      objects: memory,
      ownership: ownership as never,
      clock: { ...systemClock, nowMs: () => systemClock.nowMs() + 2 * HOUR_MS },
      logger: silentLogger,
      retentionMs: HOUR_MS,
    };
    // A clock that is ahead of the store's deletes nothing by itself.
    assert.deepEqual(await applyRetention(options), []);
    clock.nowMs = options.clock.nowMs;
    assert.ok((await keys()).some((key) => key.startsWith(first)));
    // Interrupted when the manifest no longer names it, and nothing is gone.
    const broken = new Proxy<ObjectStore>(memory, {
      get: (target, name: keyof ObjectStore) =>
        name === "delete"
          ? () => Promise.reject(new UnavailableError("down"))
          : (target[name] as () => void).bind(target),
    });
    await assert.rejects(applyRetention({ ...options, objects: broken }));
    assert.deepEqual(current.generations.map(({ name }) => name), [generation]);
    // Nor does one that has to stop do harm: the plan stays.
    const stop = new AbortController();
    stop.abort(new UnavailableError("stopping"));
    await assert.rejects(
      applyRetention({ ...options, signal: stop.signal }),
      /stopping/,
    );
    assert.deepEqual(await applyRetention(options), [first]);
    assert.ok(!(await keys()).some((key) => key.startsWith(first)));
    assert.ok((await keys()).some((key) => key.startsWith(generation)));
    assert.deepEqual(await applyRetention(options), []);
  }));

Deno.test("where the file cannot be opened, the reason is told, and lock and ownership are given back", () =>
  inFolder(async (path) => {
    const { memory } = bucket();
    const view = () =>
      new MemoryObjectStore({ clock: systemClock, sharing: memory });
    await (await serving(path, view())).close();
    class SpoiltEngine extends SqliteLocalEngine {
      override open(...args: Parameters<SqliteLocalEngine["open"]>) {
        Deno.renameSync(path, `${path}.aside`);
        Deno.writeTextFileSync(path, "no database at all, but long enough");
        return super.open(...args);
      }
    }
    await assert.rejects(
      serving(path, view(), { Engine: SpoiltEngine }),
      /not a database/,
    );
    Deno.renameSync(`${path}.aside`, path);
    const manifests = new ManifestStore(memory, systemClock, systemRandom);
    assert.equal((await manifests.read())!.manifest.owner, null);
    await (await serving(path, view())).close();
  }));

for (const isWrittenAfter of [true, false]) {
  const when = isWrittenAfter ? "at the next write" : "at the next snapshot";
  Deno.test(`the file is rolled back under a running server: the backup begins anew ${when}, and is whole`, () =>
    inFolder(async (path) => {
      const { memory } = bucket();
      const view = () =>
        new MemoryObjectStore({ clock: systemClock, sharing: memory });
      const service = await serving(path, view());
      await until(() => service.report().generation !== null);
      await service.store.write(atomic([set("a", "old")]));
      const copy = async (from: string, to: string) => {
        const db = new DatabaseSync(from, { readOnly: true });
        await backup(db, to);
        db.close();
      };
      await copy(path, `${path}.old`);
      for (let i = 0; i < 50; i++) {
        await service.store.write(atomic([set("a", `${i}`)]));
      }
      const { generation, localVersion } = service.report();
      await until(() => service.report().bucketVersion === localVersion);
      await copy(`${path}.old`, path);
      if (isWrittenAfter) {
        await service.store.write(atomic([set("b", "1")]));
      } else await service.snapshot().catch(() => {});
      await until(() => service.report().generation !== generation);
      const now = await service.verify();
      assert.equal(now.entries, isWrittenAfter ? 2 : 1);
      assert.equal(now.isCompared, true);
      assert.ok(service.report().localVersion > localVersion);
      await service.close();

      // What the next launch finds in the bucket is what the file has.
      const again = await serving(path, view());
      const [[entry]] = await again.store.read([point("a")]);
      assert.equal(fromUtf8(entry.value), "old");
      await again.close();
    }));
}
