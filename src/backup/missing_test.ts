import assert from "node:assert/strict";
import { type Generation, VERSION_LEAP } from "./manifest.ts";
import {
  following,
  hasMissing,
  inOrder,
  lostInLeap,
  missingBetween,
  withoutDamaged,
} from "./missing.ts";

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

Deno.test("where a branch outlives what came after it, that is known to be missing", () => {
  const branch = {
    name: "before",
    generation: "a",
    lastVersion: 150,
    createdMs: 7,
  };
  const former = generation("a", 100, null);
  const rewound = { ...generation("b", 200, null), startedMs: 7 };
  const later = { ...generation("c", 300, null), startedMs: 8 };
  const missingOf = (generations: Generation[]) =>
    inOrder({ generations, branches: [branch] })
      .map(({ missingAfterVersion }) => missingAfterVersion);
  assert.deepEqual(missingOf([later, rewound, former]), [null, null, null]);
  assert.deepEqual(missingOf([former, later]), [null, 150]);
  assert.deepEqual(missingOf([rewound, later]), [null, null]);
});

Deno.test("a generation says what those before it had that are not whole", () => {
  const generations = [
    generation("a", 100, null),
    generation("b", 200, null),
    generation("c", 300, 250),
    generation("d", 400, null),
  ];
  const missing = (...damaged: string[]) =>
    withoutDamaged(generations, ({ name }) => !damaged.includes(name))
      .map(({ name, missingAfterVersion }) => [name, missingAfterVersion]);
  assert.deepEqual(missing("b"), [["a", null], ["c", 200], ["d", null]]);
  assert.deepEqual(missing("b", "c"), [["a", null], ["d", 200]]);
  assert.deepEqual(missing("c"), [["a", null], ["b", null], ["d", 250]]);
  assert.deepEqual(missing("c", "d"), [["a", null], ["b", null]]);
});

Deno.test("a versionstamp of a line that was lost is no earlier state; one that changed nothing is", () => {
  const next = 100 + VERSION_LEAP + 50;
  assert.equal(lostInLeap(100, 100, next), undefined);
  assert.match(lostInLeap(101, 100, next)!.message, /does not hold/);
  assert.equal(lostInLeap(101, 100, 150), undefined);
  // Of a line that had leapt itself, and was lost before it shipped anything.
  assert.ok(lostInLeap(100 + VERSION_LEAP + 1, 100, next));
});
