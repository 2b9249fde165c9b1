import assert from "node:assert/strict";
import { inTurn, median } from "./row.ts";
import { reached, type Result, table } from "./table.ts";

const base: Result = {
  id: "read",
  title: "point read",
  unit: "/s",
  judged: "ratio",
  atLeast: 1.7,
  aim: 2.5,
  ours: [10, 30, 20],
  peer: [10, 10, 10],
};

Deno.test("a goal is judged by the ratio of the medians, or by ours", () => {
  assert.equal(reached(base), "at least");
  assert.equal(reached({ ...base, peer: [8, 8, 8] }), "aim");
  assert.equal(reached({ ...base, peer: [19] }), "no");
  const memory: Result = { ...base, judged: "ours", unit: "MB" };
  assert.equal(reached({ ...memory, aim: 20, atLeast: 25 }), "aim");
  assert.equal(reached({ ...memory, aim: 15, atLeast: 20 }), "at least");
  assert.equal(reached({ ...memory, aim: 10, atLeast: 15 }), "no");
});

Deno.test("the table says what was skipped and what failed", () => {
  const lines = table([
    { ...base, note: "p99 3 ms" },
    { ...base, ours: [], peer: [], skipped: "needs wrk" },
    { ...base, ours: [], peer: [], failed: "it broke\nbadly" },
  ]).split("\n");
  assert.match(lines[2], /20\/s +\| 10\/s +\| 2.00×.*at least \| p99 3 ms/);
  assert.match(lines[3], /skipped +\| needs wrk/);
  assert.match(lines[4], /FAILED +\| it broke +\|/);
});

Deno.test("rounds alternate who goes first", async () => {
  const order: string[] = [];
  const side = (name: string) => (seconds: number) => {
    order.push(`${name}${seconds}`);
    return Promise.resolve(order.length);
  };
  const sides = await inTurn(
    { rounds: 2, seconds: 4, warmUpSeconds: 1 },
    { ours: side("a"), peer: side("b") },
  );
  assert.deepEqual(order, ["a1", "b1", "a4", "b4", "b4", "a4"]);
  assert.deepEqual(sides, { ours: [3, 6], peer: [4, 5] });
  assert.equal(median([4, 1, 3, 2]), 2.5);
});
