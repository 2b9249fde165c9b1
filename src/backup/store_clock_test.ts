import assert from "node:assert/strict";
import { compareClocks } from "./store_clock.ts";

Deno.test("two clocks disagree as far as a request and a cut second leave no doubt", () => {
  const skew = (began: number, ended: number, store: number) =>
    compareClocks(began, ended, store).skewMs;
  // The store's second may have had up to 999 ms more.
  assert.equal(skew(5000, 5100, 5000), 0);
  assert.equal(skew(5990, 6010, 5000), 0);
  assert.equal(skew(6500, 6600, 5000), 500);
  // One that is no whole second is not cut.
  assert.equal(skew(6500, 6600, 5123), 1377);
  assert.equal(skew(5100, 5200, 5150), 0);
  // Ours is behind.
  assert.equal(skew(2000, 2300, 5000), -2700);
  // A slow answer leaves doubt.
  assert.equal(skew(2000, 9000, 5000), 0);
});
