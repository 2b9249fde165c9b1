import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import { UnavailableError } from "../common/errors.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { BoundedWaits } from "./bounded_waits.ts";

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

Deno.test("what is not there in time is answered with the sentence, and what is, is not touched", async () => {
  const clock = new ManualClock(0);
  const waits = new BoundedWaits(clock, 5000);
  const never = waits.run(new Promise<never>(() => {}), "It takes too long.");
  const told = assert.rejects(never, (error: unknown) => {
    assert(error instanceof UnavailableError);
    assert.equal(error.message, "It takes too long.");
    return true;
  });
  assert.equal(await waits.run(Promise.resolve(1), "late"), 1);
  await assert.rejects(
    waits.run(Promise.reject(new Error("no")), "late"),
    /^Error: no$/,
  );
  const slow = Promise.withResolvers<number>();
  const later = waits.run(slow.promise, "late");
  clock.advance(4900);
  slow.resolve(2);
  assert.equal(await later, 2);
  clock.advance(600);
  await told;
  clock.advance(1000);
  // Nobody waits any more.
  assert.equal(clock.timers, 0);
});

Deno.test("what goes on by itself is not ended", async () => {
  const clock = new ManualClock(0);
  const waits = new BoundedWaits(clock, 5000);
  let isStuck = false;
  let ended = false;
  waits.run(new Promise<never>(() => {}), "late", () => isStuck)
    .catch(() => ended = true);
  clock.advance(20_000);
  await turn();
  assert.equal(ended, false);
  isStuck = true;
  clock.advance(1000);
  await turn();
  assert.equal(ended, true);
});
