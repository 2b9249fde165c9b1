import assert from "node:assert/strict";
import type { Generation } from "./manifest.ts";
import { following, hasMissing, missingBetween } from "./missing.ts";

function generation(
  name: string,
  snapshotVersion: number,
  missingAfterVersion?: number | null,
): Generation {
  return {
    name,
    startedMs: 0,
    endedMs: null,
    snapshotVersion,
    ...(missingAfterVersion !== undefined && { missingAfterVersion }),
  };
}

Deno.test("what is missing lies between a generation and the next one, in the order of versions", () => {
  const generations = [
    generation("c", 300, 200),
    generation("a", 100, null),
    generation("b", 200),
  ];
  assert.equal(following({ generations }, "a")?.name, "b");
  assert.equal(following({ generations }, "c"), undefined);
  assert.equal(hasMissing(generations[1]), false, "nothing is missing");
  assert.equal(hasMissing(generations[2]), false, "an older program's");
  const [last] = generations;
  assert(hasMissing(last));
  assert.match(
    missingBetween("b", last).message,
    /after 00000000000000c80000 and before 000000000000012c0000 .* Nothing was restored/,
  );
});
