import assert from "node:assert/strict";
import { withDeadline } from "./deadline.ts";
import { UnavailableError } from "./errors.ts";
import { ManualClock } from "./manual_clock.ts";
import { seededRandom } from "./random.ts";
import { retry, type RetryOptions } from "./retry.ts";
import { Waiters } from "./waiters.ts";

/** Lets promises that are ready run. */
async function settle(): Promise<void> {
  for (let i = 0; i < 10; i++) await Promise.resolve();
}

function optionsOf(clock: ManualClock): RetryOptions {
  return {
    clock,
    policy: { firstMs: 100, maxMs: 300 },
    isTemporary: (error) => error instanceof UnavailableError,
  };
}

Deno.test("the pause doubles up to the longest one, and the work's result is returned", async () => {
  const clock = new ManualClock(0);
  const atMs: number[] = [];
  const result = retry(() => {
    atMs.push(clock.monotonicMs());
    if (atMs.length < 5) throw new UnavailableError("not yet");
    return "done";
  }, optionsOf(clock));
  for (let i = 0; i < 100; i++) {
    await settle();
    clock.advance(10);
  }
  assert.equal(await result, "done");
  assert.deepEqual(atMs, [0, 100, 300, 600, 900]);
});

Deno.test("an error that is not temporary is thrown at once, as the last try's is", async () => {
  const clock = new ManualClock(0);
  await assert.rejects(
    retry(() => Promise.reject(new Error("wrong")), optionsOf(clock)),
    /wrong/,
  );
  const failures: number[] = [];
  const last = retry(() => Promise.reject(new UnavailableError("away")), {
    ...optionsOf(clock),
    maxTries: 2,
    onFailure: (_error, tries) => failures.push(tries),
  });
  const rejected = assert.rejects(last, /away/);
  await settle();
  clock.advance(100);
  await rejected;
  assert.deepEqual(failures, [1]);
});

Deno.test("a signal ends the pause at once, and its reason is thrown", async () => {
  const clock = new ManualClock(0);
  const stopped = new AbortController();
  const result = retry(() => Promise.reject(new UnavailableError("away")), {
    ...optionsOf(clock),
    signal: stopped.signal,
  });
  const rejected = assert.rejects(result, /stopping/);
  await settle();
  stopped.abort(new Error("stopping"));
  await rejected;
  assert.equal(clock.timers, 0);
});

Deno.test("chance takes up to half of a pause off, and never adds to it", async () => {
  const clock = new ManualClock(0);
  const atMs: number[] = [];
  const result = retry(() => {
    atMs.push(clock.monotonicMs());
    if (atMs.length < 20) throw new UnavailableError("not yet");
  }, {
    ...optionsOf(clock),
    policy: { firstMs: 100, maxMs: 100 },
    random: seededRandom(1),
  });
  for (let i = 0; i < 2000; i++) {
    await settle();
    clock.advance(1);
  }
  await result;
  const pauses = atMs.slice(1).map((ms, i) => ms - atMs[i]);
  assert.ok(pauses.every((ms) => ms >= 50 && ms <= 101), pauses.join());
  assert.ok(new Set(pauses).size > 5, pauses.join());
});

Deno.test("a deadline rejects with its sentence, and stops its timer where it was not needed", async () => {
  const clock = new ManualClock(0);
  const late = withDeadline(clock, 50, "too late", new Promise(() => {}));
  const rejected = assert.rejects(late, new UnavailableError("too late"));
  clock.advance(50);
  await rejected;
  assert.equal(await withDeadline(clock, 50, "late", Promise.resolve(1)), 1);
  assert.equal(clock.timers, 0);
});

Deno.test("waiters are told in the order of their versions, whenever they came", async () => {
  const waiters = new Waiters();
  const told: number[] = [];
  const waiting = [3, 1, 2, 5].map((version) =>
    waiters.wait(version).then(() => told.push(version))
  );
  waiters.reached(3);
  await settle();
  assert.deepEqual(told, [1, 2, 3]);
  assert.equal(waiters.size, 1);
  waiters.fail(new Error("over"));
  await assert.rejects(waiting[3], /over/);
  assert.equal(waiters.size, 0);
});
