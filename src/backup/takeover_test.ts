import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import type { Clock } from "../common/clock.ts";
import { silentLogger } from "../common/log.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { seededRandom } from "../common/random.ts";
import { type FaultSource, FaultyObjectStore } from "../object_store/faulty.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import {
  CLOCK_MARGIN_MS,
  LEASE_MS,
  type Ownership,
  type OwnershipOptions,
} from "./ownership.ts";
import { VERSION_LEAP } from "./manifest.ts";
import { segmentKey } from "./names.ts";
import { acquireOwnership, Candidate } from "./takeover.ts";

interface CandidateSettings {
  /** Its clock is so far ahead of the store's. */
  aheadMs?: number;
  /** Whether the store tells its time. */
  hasStoreClock?: boolean;
  leaseMs?: number;
  faults?: FaultSource;
}

/** Launches beside one bucket. */
function world() {
  const clock = new ManualClock(1_700_000_000_000);
  const memory = new MemoryObjectStore({ clock });
  const asked: string[] = [];
  const warnings: string[] = [];
  let seed = 0;
  const options = (settings: CandidateSettings = {}): OwnershipOptions => {
    const { aheadMs = 0, hasStoreClock = true, leaseMs, faults } = settings;
    const own: Clock = {
      nowMs: () => clock.nowMs() + aheadMs,
      monotonicMs: () => clock.monotonicMs(),
      after: (...args) => clock.after(...args),
      every: (...args) => clock.every(...args),
      endOfTurn: (...args) => clock.endOfTurn(...args),
    };
    const objects = new FaultyObjectStore(memory, {
      clock,
      faults: faults ?? (() => undefined),
      timeoutMs: 600_000,
    });
    if (!hasStoreClock) {
      const head = objects.head.bind(objects);
      objects.head = async (...args) => {
        const found = await head(...args);
        return found && { ...found, nowMs: undefined };
      };
    }
    return {
      objects,
      clock: own,
      random: seededRandom(++seed),
      logger: {
        ...silentLogger,
        warn: (event, fields) =>
          void warnings.push(`${event} ${JSON.stringify(fields)}`),
      },
      servesThroughOutages: false,
      onHandoverRequested: (launch) => void asked.push(launch),
      leaseMs,
    };
  };
  const candidate = (settings?: CandidateSettings) =>
    new Candidate(options(settings));
  return { clock, memory, options, candidate, asked, warnings };
}

async function first(candidate: Candidate): Promise<Ownership> {
  const sight = await candidate.look();
  assert.equal(sight.mayTake, "none");
  return (await candidate.take(sight))!;
}

/** Time passes while the owner is in use. */
async function passing(clock: ManualClock, ms: number, owner?: Ownership) {
  for (let at = 0; at < ms; at += 100) {
    clock.advance(100);
    owner?.mayServe();
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

Deno.test("an owner hears of everyone who asks, as often as they ask, and may decline", async () => {
  const { clock, candidate, asked } = world();
  const owner = await first(candidate());
  const one = candidate();
  const two = candidate();
  assert.equal((await one.look()).mayTake, undefined);
  assert.equal(await one.ask(), true);
  // One at a time.
  await two.look();
  assert.equal(await two.ask(), false);
  await passing(clock, 8000, owner);
  assert.deepEqual(asked, [one.launch]);
  await owner.declineHandover(one.launch);
  assert.equal(owner.manifest.handoverTo, null);
  await two.look();
  assert.equal(await two.ask(), true);
  // Nothing is declined for somebody else.
  await owner.declineHandover(one.launch);
  await passing(clock, 8000, owner);
  assert.deepEqual(asked, [one.launch, two.launch]);
  await two.withdraw();
  await passing(clock, 8000, owner);
  await one.look();
  assert.equal(await one.ask(), true);
  await passing(clock, 8000, owner);
  assert.deepEqual(asked, [one.launch, two.launch, one.launch]);
  await owner.release(undefined);
  const sight = await one.look();
  assert.equal(sight.mayTake, "released");
  const next = (await one.take(sight))!;
  assert.equal(next.epoch, 2);
  assert.equal(next.owner, one.launch);
  assert.equal(next.manifest.handoverTo, null);
});

Deno.test("who asks in the place of a launch that is gone waits until that one has had its time", async () => {
  const { clock, candidate } = world();
  const owner = await first(candidate());
  const gone = candidate();
  await gone.look();
  assert.equal(await gone.ask(), true);
  const other = candidate();
  await other.look();
  await passing(clock, LEASE_MS, owner);
  await other.look();
  assert.equal(await other.ask(), false);
  await passing(clock, 2 * LEASE_MS, owner);
  await other.look();
  assert.equal(await other.ask(), true);
  assert.equal(owner.standing.kind, "owner");
});

Deno.test("of two that may take it, one wins, and the other sees nothing of it", async () => {
  const { candidate } = world();
  const owner = await first(candidate());
  await owner.release(undefined);
  const one = candidate();
  const two = candidate();
  const sights = [await one.look(), await two.look()];
  const taken = await one.take(sights[0]);
  assert.equal(taken?.epoch, 2);
  assert.equal(await two.take(sights[1]), undefined);
  assert.equal((await two.look()).mayTake, undefined);
  await assert.rejects(two.take(sights[1]), /last look/);
});

/** What both clocks may be cut by, and the time between two looks. */
const SLACK_MS = 2500;

for (const hasStoreClock of [true, false]) {
  const where = hasStoreClock
    ? "by the store's clock"
    : "by our monotonic clock";
  Deno.test(`${where}: a clock that is an hour ahead takes nothing from an owner in use`, async () => {
    const { clock, candidate } = world();
    const owner = await first(candidate());
    const other = candidate({ aheadMs: 3_600_000, hasStoreClock });
    for (let i = 0; i < 30; i++) {
      await passing(clock, 1000, owner);
      assert.equal((await other.look()).mayTake, undefined);
      await other.ask();
    }
    assert.equal(owner.standing.kind, "owner");
  });

  Deno.test(`${where}: an owner that is gone is taken over after its own lease, whoever asks meanwhile`, async () => {
    const { clock, candidate } = world();
    // Longer than that of those who wait.
    const leaseMs = 60_000;
    await first(candidate({ leaseMs }));
    const one = candidate({ leaseMs: 2000, hasStoreClock });
    const two = candidate({ leaseMs: 2000, aheadMs: -90_000, hasStoreClock });
    let tookMs = 0;
    for (; (await one.look()).mayTake === undefined; tookMs += 500) {
      assert.equal((await two.look()).mayTake, undefined);
      await (tookMs % 1000 === 0 ? one : two).ask();
      if (tookMs % 5000 === 0) await two.withdraw();
      await passing(clock, 500);
    }
    assert.ok(tookMs > leaseMs + CLOCK_MARGIN_MS, `${tookMs} ms`);
    assert.ok(tookMs <= leaseMs + CLOCK_MARGIN_MS + SLACK_MS, `${tookMs} ms`);
    // Who comes now need not wait, where the store says how old it is.
    await candidate().look();
    const late = candidate({ aheadMs: -3_600_000, hasStoreClock });
    const sight = await late.look();
    assert.equal(sight.mayTake, undefined, "it was touched just now");
    await passing(clock, leaseMs + CLOCK_MARGIN_MS + SLACK_MS);
    assert.equal((await late.look()).mayTake, "leaseOver");
    const later = candidate({ aheadMs: -3_600_000, hasStoreClock });
    assert.equal(
      (await later.look()).mayTake,
      hasStoreClock ? "leaseOver" : undefined,
    );
  });
}

Deno.test("a clock that disagrees with the store's is told once, with both times", async () => {
  const { clock, candidate, warnings } = world();
  // In a place that is empty, too.
  const wrong = world();
  await first(wrong.candidate({ aheadMs: 30_000 }));
  assert.match(wrong.warnings.join(), /"skewMs":(29|30)000/);
  await first(candidate());
  assert.deepEqual(warnings, []);
  const near = candidate({ aheadMs: CLOCK_MARGIN_MS });
  await near.look();
  assert.deepEqual(warnings, []);
  const far = candidate({ aheadMs: -30_000 });
  await far.look();
  await passing(clock, 1000);
  await far.look();
  assert.equal(warnings.length, 1);
  assert.match(warnings[0], /disagree/);
  assert.match(warnings[0], /"ours":"2023-.*"store":"2023-.*"skewMs":-30000/);
});

Deno.test("a takeover with a file that leaps changes the manifest twice: the epoch, and the ends with the leap", async () => {
  const { clock, memory, options, candidate } = world();
  const before = await acquireOwnership(options());
  const generation = "20260101t000000z-00000001-aaaa";
  await before.update((manifest) => ({
    ...manifest,
    generation,
    generations: [
      { name: generation, startedMs: 1, endedMs: null, snapshotVersion: 0 },
    ],
  }));
  const stamp = "0".repeat(15) + "900000000";
  await memory.put(
    segmentKey(generation, { epoch: 1, tsn: 1, first: stamp, last: stamp }),
    new Uint8Array([1]),
  );
  before.stop();
  await passing(clock, LEASE_MS + CLOCK_MARGIN_MS + SLACK_MS);
  let changes = 0;
  const replace = memory.replace.bind(memory);
  memory.replace = (key, ...args) => {
    if (key === "manifest.json") changes++;
    return replace(key, ...args);
  };
  const next = candidate();
  await next.look();
  await passing(clock, LEASE_MS + CLOCK_MARGIN_MS + SLACK_MS);
  const sight = await next.look();
  assert.equal(sight.mayTake, "leaseOver");
  const owner = (await next.take(sight, { leaps: true }))!;
  assert.equal(await owner.leap(9), VERSION_LEAP + 9);
  assert.equal(changes, 2);
  const { seals, leapVersion } = owner.manifest;
  assert.deepEqual(seals, [
    { generation, epoch: 1, lastTsn: 1, lastVersion: 9 },
  ]);
  assert.equal(leapVersion, VERSION_LEAP + 9);
  // A file that was ahead of all that the bucket has goes further.
  assert.equal(await owner.leap(10), 2 * VERSION_LEAP + 9);
  assert.equal(changes, 3);
});

Deno.test("a listing that takes longer than the lease costs nobody the takeover", async () => {
  const { clock, memory, options } = world();
  // Another launch had a history here, and was killed.
  const before = await acquireOwnership(options());
  const generation = "20260101t000000z-00000001-aaaa";
  await before.update((manifest) => ({
    ...manifest,
    generation,
    generations: [
      { name: generation, startedMs: 1, endedMs: null, snapshotVersion: 0 },
    ],
  }));
  const stamp = "0".repeat(15) + "900000000";
  await memory.put(
    segmentKey(generation, { epoch: 1, tsn: 1, first: stamp, last: stamp }),
    new Uint8Array([1]),
  );
  const slow: CandidateSettings = {
    faults: ({ operation }) =>
      operation === "list"
        ? { kind: "slow", actAtMs: 3 * LEASE_MS, answerAtMs: 3 * LEASE_MS }
        : undefined,
  };
  const owners: Ownership[] = [];
  const lost: Promise<unknown>[] = [];
  for (let i = 0; i < 2; i++) {
    void acquireOwnership(options(slow)).then((owner) => {
      owners.push(owner);
      lost.push(owner.lost);
    });
  }
  await passing(clock, 6 * LEASE_MS);
  assert.equal(owners.length, 1);
  assert.equal(owners[0].epoch, 2);
  assert.deepEqual(owners[0].manifest.seals, [
    { generation, epoch: 1, lastTsn: 1, lastVersion: 9 },
  ]);
});
