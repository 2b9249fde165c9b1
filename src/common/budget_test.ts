import assert from "node:assert/strict";
import { Budget } from "./budget.ts";
import { UnavailableError } from "./errors.ts";
import { ManualClock } from "./manual_clock.ts";

function budgetOf(limitBytes: number, maxWaiting = 10) {
  const clock = new ManualClock(0);
  const budget = new Budget({
    clock,
    limitBytes,
    maxWaitMs: 1000,
    maxWaiting,
    refusal: "Too much is under way. Send it again.",
  });
  return { budget, clock };
}

/** Resolves with whether the promise has been settled by now. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol();
  // Two turns of the microtask queue are enough for what is settled already.
  const marker = Promise.resolve().then(() => {}).then(() => pending);
  return await Promise.race([promise.catch(() => {}), marker]) !== pending;
}

Deno.test("what fits is taken at once, what does not waits in line", async () => {
  const { budget } = budgetOf(100);
  assert.ok(budget.tryTake(60));
  assert.ok(!budget.tryTake(60));
  const large = budget.take(60);
  const small = budget.take(10);
  assert.ok(!await isSettled(large));
  assert.ok(!await isSettled(small), "nobody overtakes");
  assert.ok(!budget.tryTake(1), "nor whoever does not wait");
  assert.equal(budget.waiting, 2);
  budget.give(60);
  await large;
  await small;
  assert.equal(budget.usedBytes, 70);
});

Deno.test("one that is larger than the whole budget passes alone", async () => {
  const { budget } = budgetOf(100);
  assert.ok(budget.tryTake(10));
  const huge = budget.take(1000);
  assert.ok(!await isSettled(huge));
  budget.give(10);
  await huge;
  assert.ok(!budget.tryTake(1));
  budget.give(1000);
  assert.equal(budget.usedBytes, 0);
});

Deno.test("whoever waits too long, or finds the line full, is refused with the sentence", async () => {
  const { budget, clock } = budgetOf(100, 2);
  assert.ok(budget.tryTake(90));
  const large = budget.take(50);
  const small = budget.take(60);
  await assert.rejects(budget.take(1), UnavailableError);
  clock.advance(1000);
  await assert.rejects(large, /send it again/i);
  await assert.rejects(small, UnavailableError);
  assert.equal(budget.waiting, 0);
  assert.equal(budget.refusals, 3);
  assert.equal(budget.usedBytes, 90);
});

Deno.test("when a large one gives up, the smaller ones behind it go on", async () => {
  const { budget, clock } = budgetOf(100);
  assert.ok(budget.tryTake(90));
  const large = budget.take(50);
  clock.advance(600);
  const small = budget.take(10);
  clock.advance(400);
  await assert.rejects(large, UnavailableError);
  await small;
  assert.equal(budget.usedBytes, 100);
});

Deno.test("one who has many claims in line takes turns with the others", async () => {
  const { budget } = budgetOf(100);
  assert.ok(budget.tryTake(100));
  const order: string[] = [];
  const claims = ["a", "a", "a", "b"].map((who, i) =>
    budget.take(100, { who }).then(() => {
      order.push(`${who}${i}`);
      budget.give(100);
    })
  );
  budget.give(100);
  await Promise.all(claims);
  assert.deepEqual(order, ["a0", "b3", "a1", "a2"]);
});

Deno.test("a claim that nobody wants any more leaves the line", async () => {
  const { budget } = budgetOf(100);
  assert.ok(budget.tryTake(90));
  const gone = new AbortController();
  const large = assert.rejects(
    budget.take(50, { signal: gone.signal }),
    UnavailableError,
  );
  const small = budget.take(10);
  gone.abort();
  await large;
  await small;
  assert.equal(budget.waiting, 0);
  assert.equal(budget.refusals, 0, "nobody was refused");
  const late = budget.take(50, { signal: gone.signal });
  await assert.rejects(late, UnavailableError);
  assert.equal(budget.usedBytes, 100);
});
