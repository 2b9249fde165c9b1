import assert from "node:assert/strict";
import { systemRandom } from "./random.ts";

Deno.test("more random bytes than the runtime hands out at once", () => {
  const bytes = systemRandom.bytes(200_000);
  assert.equal(bytes.length, 200_000);
  assert.ok(bytes.subarray(-64).some((byte) => byte !== 0));
});
