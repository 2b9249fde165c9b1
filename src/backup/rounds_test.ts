import assert from "node:assert/strict";
import { ManualClock } from "../common/manual_clock.ts";
import { Rounds } from "./rounds.ts";

const PUT_MS = 4;
const MANY = [{
  firstVersion: 1,
  version: 64,
  timeMs: 0,
  entries: new Uint8Array(1),
}];

function start() {
  const clock = new ManualClock(0);
  let waitingBytes = 0;
  const rounds = new Rounds(clock, () => waitingBytes);
  return {
    clock,
    rounds,
    come: (bytes: number) => waitingBytes += bytes,
    /** A segment leaves with all that waits, and is there after a put. */
    ship(comeMeanwhile = 0, tookMs = PUT_MS) {
      rounds.end();
      const aheadBytes = waitingBytes;
      waitingBytes = comeMeanwhile;
      clock.advance(tookMs);
      rounds.begin(MANY, aheadBytes, tookMs);
    },
  };
}

Deno.test("a segment waits until nearly all are back that were at it", () => {
  const { rounds, come, ship } = start();
  assert.equal(rounds.waitMs(), 0);
  come(500);
  ship(500);
  come(440);
  assert.equal(rounds.waitMs(), 3 * PUT_MS);
  come(10);
  assert.equal(rounds.waitMs(), 0);
  ship();
  assert.equal(rounds.waitMs(), 3 * PUT_MS);
});

Deno.test("the wait is for some puts, and where they take long for one", () => {
  const { clock, rounds, come, ship } = start();
  come(1000);
  ship();
  clock.advance(2 * PUT_MS);
  assert.equal(rounds.waitMs(), PUT_MS);
  clock.advance(PUT_MS);
  assert.equal(rounds.waitMs(), 0);
  for (const [tookMs, waitMs] of [[6, 18], [10, 20], [60, 60]]) {
    const other = start();
    other.come(1000);
    other.ship(0, tookMs);
    assert.equal(other.rounds.waitMs(), waitMs);
  }
});

Deno.test("where the others do not come back, ever more segments leave at once", () => {
  const { rounds, come, ship } = start();
  /** How many leave at once after a wait in vain. */
  const atOnce = () => {
    for (let count = 0;; count++) {
      come(10);
      if (rounds.waitMs() > 0) return count;
      ship(500);
    }
  };
  const counts: number[] = [];
  come(1000);
  ship(500);
  for (let i = 0; i < 9; i++) {
    // It leaves when its time is up: half of them have not come back.
    ship(500);
    counts.push(atOnce());
  }
  assert.deepEqual(counts, [0, 1, 3, 7, 15, 31, 63, 63, 63]);
});

Deno.test("a writer alone waits for nobody", () => {
  const { clock, rounds } = start();
  clock.advance(PUT_MS);
  const alone = [{ ...MANY[0], version: MANY[0].firstVersion }];
  rounds.begin(alone, 100, PUT_MS);
  assert.equal(rounds.waitMs(), 0);
});
