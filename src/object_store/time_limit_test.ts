import assert from "node:assert/strict";
import { UnavailableError } from "../common/errors.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { closedError, inParallel, withinLimits } from "./time_limit.ts";

function limits(timeoutMs = 100) {
  const clock = new ManualClock(0);
  const closing = new AbortController();
  return { clock, closing, timeoutMs, closed: closing.signal };
}

Deno.test("a request that heeds nothing is given up at its limit", async () => {
  const at = limits();
  const heard: unknown[] = [];
  const asked = withinLimits(at, undefined, "Reading x", (signal) => {
    signal.addEventListener("abort", () => heard.push(signal.reason));
    return new Promise(() => {});
  });
  const rejects = assert.rejects(asked, (error) => {
    assert.ok(error instanceof UnavailableError);
    assert.match(error.message, /^Reading x took longer than 100 ms/);
    return true;
  });
  at.clock.advance(99);
  assert.equal(heard.length, 0);
  at.clock.advance(1);
  await rejects;
  assert.ok(heard[0] instanceof UnavailableError);
});

Deno.test("a late answer or error of a request given up is dropped", async () => {
  for (const late of ["answer", "error"]) {
    const at = limits();
    const controller = new AbortController();
    const request = Promise.withResolvers<string>();
    const asked = withinLimits(
      at,
      { signal: controller.signal },
      "Reading x",
      () => request.promise,
    );
    const rejects = assert.rejects(asked, /enough/);
    controller.abort(new Error("enough"));
    await rejects;
    if (late === "answer") request.resolve("late");
    else request.reject(new Error("late"));
  }
});

Deno.test("a request that ended leaves no timer and no listener", async () => {
  const at = limits();
  const controller = new AbortController();
  const removed: string[] = [];
  const { signal } = controller;
  const remove = signal.removeEventListener.bind(signal);
  signal.removeEventListener = (
    ...args: Parameters<AbortSignal["removeEventListener"]>
  ) => {
    removed.push(args[0]);
    remove(...args);
  };
  const answer = await withinLimits(
    at,
    { signal },
    "Reading x",
    () => Promise.resolve(7),
  );
  assert.equal(answer, 7);
  assert.deepEqual(removed, ["abort"]);
  at.clock.advance(1000);
});

Deno.test("closing ends what is under way and what comes after", async () => {
  const at = limits();
  const never = () => new Promise<never>(() => {});
  const asked = withinLimits(at, undefined, "Reading x", never);
  const rejects = assert.rejects(asked, UnavailableError);
  at.closing.abort(closedError("s3://bucket"));
  await rejects;
  await assert.rejects(
    withinLimits(at, undefined, "Reading x", never),
    /s3:\/\/bucket has been closed/,
  );
});

Deno.test("work in parallel keeps to its width, and stops at an error", async () => {
  let atOnce = 0;
  let most = 0;
  const done: number[] = [];
  await inParallel([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 3, async (item) => {
    most = Math.max(most, ++atOnce);
    await Promise.resolve();
    atOnce--;
    done.push(item);
  });
  assert.equal(most, 3);
  assert.equal(done.length, 10);

  const begun: number[] = [];
  await assert.rejects(
    inParallel([0, 1, 2, 3, 4, 5, 6, 7], 2, async (item) => {
      begun.push(item);
      await Promise.resolve();
      if (item === 1) throw new Error("no");
    }),
    /no/,
  );
  assert.ok(begun.length <= 3);
  await inParallel([], 4, () => Promise.reject(new Error("never")));
});
