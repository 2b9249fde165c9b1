import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import { silentLogger } from "../common/log.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { seededRandom } from "../common/random.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import { LEASE_MS, type Ownership } from "./ownership.ts";
import { Candidate } from "./takeover.ts";

/** Launches beside one bucket, and a clock that they share. */
function world() {
  const clock = new ManualClock(1_700_000_000_000);
  const objects = new MemoryObjectStore({ clock });
  const asked: string[] = [];
  let seed = 0;
  const candidate = () =>
    new Candidate({
      objects,
      clock,
      random: seededRandom(++seed),
      logger: silentLogger,
      servesThroughOutages: false,
      onHandoverRequested: (launch) => void asked.push(launch),
    });
  return { clock, candidate, asked };
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
