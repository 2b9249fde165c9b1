import assert from "node:assert/strict";
import { systemClock } from "../common/clock.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { Turns } from "./turns.ts";

function nextTurn(): Promise<void> {
  return new Promise((resolve) => systemClock.endOfTurn(resolve));
}

Deno.test("what comes late in a turn waits for the next, and connections take turns", async () => {
  const clock = new ManualClock(0);
  const turns = new Turns(clock);
  assert.ok(!turns.isOver(0));
  assert.ok(!turns.isOver(20));
  assert.ok(turns.isOver(21));
  const order: string[] = [];
  const runs = ["a", "a", "b"].map((who, i) =>
    turns.later(who, () => {
      order.push(`${who}${i}`);
      // Each takes longer than a turn.
      clock.advance(30);
      return i;
    })
  );
  assert.ok(turns.isOver(5), "nobody overtakes those who wait");
  await nextTurn();
  await runs[0];
  assert.deepEqual(order, ["a0"], "one turn, and no more");
  await Promise.all(runs);
  assert.deepEqual(order, ["a0", "b2", "a1"]);
  await nextTurn();
  assert.ok(!turns.isOver(1000));
});
