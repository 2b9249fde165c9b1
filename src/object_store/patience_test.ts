import assert from "node:assert/strict";
import { ManualClock } from "../common/manual_clock.ts";
import { Patience } from "./patience.ts";

Deno.test("the limit grows with requests that reach it, and shrinks to what answers take", async () => {
  const clock = new ManualClock(0);
  const patience = new Patience({ clock, firstMs: 1000, maxMs: 5000 });
  const limits: number[] = [];
  const request = async (tookMs: number, fails = false) => {
    const run = patience.run((timeoutMs) => {
      limits.push(timeoutMs);
      clock.advance(Math.min(tookMs, timeoutMs));
      if (fails || tookMs > timeoutMs) return Promise.reject(new Error("no"));
      return Promise.resolve(tookMs);
    });
    await run.catch(() => {});
  };
  await request(3000);
  await request(3000);
  await request(3000);
  await request(900);
  // An error that came at once says nothing of the limit.
  await request(0, true);
  await request(10);
  await request(10);
  await request(9000);
  await request(9000);
  await request(9000);
  await request(9000);
  assert.deepEqual(
    limits,
    [1000, 2000, 4000, 5000, 3600, 3600, 1000, 1000, 2000, 4000, 5000],
  );
});
