/**
 * What a server says and does while the object store does not answer, or gives
 * odd answers, and how it goes on: the whole service over a real file, in
 * virtual time.
 */
import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { fromUtf8, utf8 } from "../common/bytes.ts";
import { systemClock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import { silentLogger } from "../common/log.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { seededRandom, systemRandom } from "../common/random.ts";
import { type Fault, FaultyObjectStore } from "../object_store/faulty.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { atomic, point, set } from "../store/contract/support.ts";
import { SqliteLocalEngine } from "../store/sqlite/local_engine.ts";
import type { DurabilityName } from "./backup_durability.ts";
import { BackupService } from "./backup_service.ts";
import { ManifestStore } from "./manifest_store.ts";
import { CONFIRMATION_TIMEOUT_MS } from "./owned_store.ts";
import { LEASE_MS } from "./ownership.ts";

const PAGE = utf8("<html>Down for maintenance</html>");
/** Of virtual time, while a millisecond passes for the file. */
const STEP_MS = 50;
/** Where something waits for the file itself. */
const SLOW_STEP_MS = 4;
/** More than any wait that has a limit takes. */
const LONG_MS = 600_000;

interface World {
  clock: ManualClock;
  memory: MemoryObjectStore;
  service: BackupService;
  /** What the store does from now on. */
  trouble: { fault?: Fault; isOdd?: boolean; requests: number };
  warnings: string[];
  /** Lets time pass until it holds, or is settled. */
  until(
    holds: () => boolean,
    limitMs?: number,
    stepMs?: number,
  ): Promise<void>;
  /** The answer to something that the store lets through. */
  answer<T>(answer: T | Promise<T>): Promise<T>;
  passing(ms: number): Promise<void>;
}

async function inWorld(
  durability: DurabilityName,
  work: (world: World) => Promise<void>,
) {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  const clock = new ManualClock(1_700_000_000_000);
  const memory = new MemoryObjectStore({ clock });
  const trouble: World["trouble"] = { requests: 0 };
  const faulty = new FaultyObjectStore(memory, {
    clock,
    faults() {
      trouble.requests++;
      return trouble.fault;
    },
  });
  // A proxy's page has a tag of its own, and is there for every reader.
  const objects = new Proxy<ObjectStore>(faulty, {
    get(target, name: keyof ObjectStore) {
      const member = target[name];
      if (typeof member !== "function") return member;
      return (...args: never[]) => {
        const isManifest = args[0] === "manifest.json";
        if (trouble.isOdd && isManifest) {
          const odd = { key: args[0], data: PAGE, tag: "page" };
          return name === "get" || name === "head"
            ? Promise.resolve({ ...odd, sizeBytes: 1, modifiedMs: 0 })
            : Promise.resolve({ written: false });
        }
        return (member as (...args: never[]) => unknown).apply(target, args);
      };
    },
  });
  const warnings: string[] = [];
  const until = async (
    holds: () => boolean,
    limitMs = LONG_MS,
    stepMs = STEP_MS,
  ) => {
    const endMs = clock.monotonicMs() + limitMs;
    while (!holds()) {
      assert.ok(clock.monotonicMs() < endMs, "it took too long");
      clock.advance(stepMs);
      await setTimeout(1);
    }
  };
  let service: BackupService | undefined;
  const opening = BackupService.open({
    objects,
    engine: new SqliteLocalEngine({
      path: `${folder}/denokv.sqlite`,
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
    }),
    clock,
    random: seededRandom(1),
    logger: { ...silentLogger, warn: (event) => void warnings.push(event) },
    durability,
    intervalMs: 100,
    retentionMs: 3_600_000,
    maxRetainedBytes: 1e9,
    verifyEveryMs: 0,
    allowUnfenced: false,
  }).then((opened) => service = opened);
  try {
    const answer = async <T>(answer: T | Promise<T>) => {
      const outcome = outcomeOf(answer);
      await until(() => outcome.isSettled, LONG_MS, SLOW_STEP_MS);
      if (outcome.error) throw outcome.error;
      return outcome.value as T;
    };
    await answer(opening);
    const passing = async (ms: number) => {
      const endMs = clock.monotonicMs() + ms;
      await until(() => clock.monotonicMs() >= endMs, ms + 1000);
    };
    await work({
      clock,
      memory,
      service: service!,
      trouble,
      warnings,
      until,
      passing,
      answer,
    });
    delete trouble.fault;
    trouble.isOdd = false;
    await answer(service!.close());
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** How a promise has settled, as soon as it has. */
function outcomeOf<T>(promise: T | Promise<T>) {
  const outcome: { value?: T; error?: Error; isSettled: boolean } = {
    isSettled: false,
  };
  Promise.resolve(promise).then(
    (value) => Object.assign(outcome, { value, isSettled: true }),
    (error) => Object.assign(outcome, { error, isSettled: true }),
  );
  return outcome;
}

Deno.test("s3: a write that the backup does not confirm is answered in time, is seen by nobody before it has it, and never acknowledged", () =>
  inWorld("s3", async (world) => {
    const { service, trouble, until, passing, answer, clock } = world;
    const { store } = service;
    await answer(store.write(atomic([set("a", "1")])));
    trouble.fault = { kind: "silence" };
    const beganMs = clock.monotonicMs();
    const write = outcomeOf(store.write(atomic([set("a", "2")])));
    await passing(1000);
    const read = outcomeOf(store.read([point("a")]));
    await until(() => write.isSettled && read.isSettled);
    assert.ok(clock.monotonicMs() - beganMs < CONFIRMATION_TIMEOUT_MS + 5000);
    assert.ok(write.error instanceof UnavailableError);
    assert.match(write.error.message, /may still take effect.*Read before/);
    assert.ok(read.error instanceof UnavailableError);
    assert.match(read.error.message, /not confirmed/);
    await passing(5000);
    assert.equal(write.value, undefined);
    const health = store.health();
    assert.ok(!health.writable);
    assert.equal(health.cause, "backup");
    // The store comes back, and it took effect.
    delete trouble.fault;
    await until(() => store.health().writable);
    const [[entry]] = await answer(store.read([point("a")]));
    assert.equal(fromUtf8(entry.value), "2");
  }));

Deno.test("s3: while every request would get 503, readiness says so and why, with probes alone; it comes back by itself", () =>
  inWorld("s3", async ({ service, trouble, until, passing }) => {
    const { store } = service;
    await passing(2 * LEASE_MS);
    assert.ok(store.health().writable);
    trouble.fault = { kind: "lostRequest", answerAtMs: 50 };
    await until(() => !store.health().writable, 2 * LEASE_MS);
    const health = store.health();
    assert.ok(!health.writable);
    assert.equal(health.cause, "backup");
    assert.match(health.reason, /does not answer.*Everything acknowledged/);
    const write = outcomeOf(store.write(atomic([set("a", "1")])));
    await until(() => write.isSettled);
    assert.ok(write.error instanceof UnavailableError);
    assert.equal(service.report().state, "Unreachable");
    delete trouble.fault;
    await until(() => store.health().writable, 2 * LEASE_MS);
  }));

for (const durability of ["s3", "local"] as const) {
  Deno.test(`${durability}: a page in the place of the manifest is an outage: it is told, and over when it is gone`, () =>
    inWorld(
      durability,
      async ({ service, trouble, warnings, until, passing, answer }) => {
        const { store } = service;
        trouble.isOdd = true;
        const written: ReturnType<typeof outcomeOf>[] = [];
        for (let i = 0; i < 30; i++) {
          written.push(outcomeOf(store.write(atomic([set("a", `${i}`)]))));
          await passing(1000);
        }
        assert.equal(service.report().lastErrorKind, "unreachable");
        assert.equal(service.report().state, "Unreachable");
        assert.match(
          service.report().lastError!,
          /manifest\.json cannot be read/,
        );
        assert.ok(warnings.some((event) => /lease .* not renewed/.test(event)));
        if (durability === "s3") {
          assert.ok(!store.health().writable);
          assert.ok(written.every(({ value }) => value === undefined));
        }
        trouble.isOdd = false;
        await until(() => store.health().writable, 2 * LEASE_MS);
        await answer(store.write(atomic([set("a", "last")])));
        await until(() => service.report().state === "Active");
        assert.equal(service.report().lastError, undefined);
      },
    ));

  Deno.test(`${durability}: an idle owner asks nothing, and with watches or probes finds out that it was taken over`, () =>
    inWorld(
      durability,
      async ({ service, trouble, until, passing, answer, ...world }) => {
        const { store } = service;
        await passing(3 * LEASE_MS);
        const before = trouble.requests;
        await passing(5 * LEASE_MS);
        assert.equal(trouble.requests, before);
        const watch = store.watch([utf8("a")]);
        await answer(watch.next());
        const second = outcomeOf(watch.next());
        await passing(5 * LEASE_MS);
        assert.equal(second.isSettled, false);
        const looks = trouble.requests - before;
        assert.ok(looks > 0 && looks <= 12, `${looks} looks in five leases`);
        await takeOver(world);
        await until(() => second.isSettled, 3 * LEASE_MS);
        assert.match(second.error!.message, /has taken over/);
        watch.cancel();
        assert.ok(!store.health().writable);
        let end: { kind: string } | undefined;
        void service.ended.then((ended) => end = ended);
        await until(() => end !== undefined);
        assert.equal(end?.kind, "fenced");
      },
    ));

  Deno.test(`${durability}: a probe finds a takeover too`, () =>
    inWorld(durability, async ({ service, until, passing, ...world }) => {
      const { store } = service;
      await passing(3 * LEASE_MS);
      await takeOver(world);
      const health = () => store.health();
      await until(() => !health().writable, 2 * LEASE_MS);
      const now = health();
      assert.ok(!now.writable);
      assert.equal(now.cause, "ownership");
    }));
}

/** Another launch, which took the history when the lease had run out. */
async function takeOver({ memory, clock }: Pick<World, "memory" | "clock">) {
  const manifests = new ManifestStore(memory, clock, seededRandom(2));
  const found = (await manifests.read())!;
  const { epoch } = found.manifest;
  const next = { ...found.manifest, epoch: epoch + 1, owner: "another" };
  assert.ok((await manifests.swap(found, next)).won);
}

Deno.test("a manifest that cannot be read is asked for some time at a start, and then refused", async () => {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  const clock = new ManualClock(1_700_000_000_000);
  const objects = new MemoryObjectStore({ clock });
  await objects.put("manifest.json", PAGE);
  const told: string[] = [];
  const opening = outcomeOf(BackupService.open({
    objects,
    engine: new SqliteLocalEngine({
      path: `${folder}/denokv.sqlite`,
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
    }),
    clock,
    random: seededRandom(1),
    logger: {
      ...silentLogger,
      warn: (event, fields) =>
        void told.push(`${event} ${JSON.stringify(fields)}`),
    },
    durability: "s3",
    intervalMs: 100,
    retentionMs: 3_600_000,
    maxRetainedBytes: 1e9,
    verifyEveryMs: 0,
    allowUnfenced: false,
  }));
  while (!opening.isSettled) {
    clock.advance(STEP_MS);
    await setTimeout(1);
  }
  assert.ok(clock.monotonicMs() > 20_000);
  assert.match(opening.error!.message, /cannot be read.*check that the URL/);
  assert.ok(told.some((event) => /trying on.*cannot be read/.test(event)));
  assert.deepEqual((await objects.get("manifest.json"))!.data, PAGE);
  await Deno.remove(folder, { recursive: true });
});
