import assert from "node:assert/strict";
import { ManualClock } from "../common/manual_clock.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import { HandoverBeat, isReadyToTakeOver } from "./handover.ts";

/** Runs promises and time in turns until the work is done. */
async function finish<T>(clock: ManualClock, work: Promise<T>): Promise<T> {
  let isDone = false;
  const done = work.finally(() => isDone = true);
  while (!isDone) {
    for (let i = 0; i < 50; i++) await Promise.resolve();
    clock.advance(50);
  }
  return await done;
}

Deno.test("an owner sees a launch that is alive, and none that has died or never was", async () => {
  const clock = new ManualClock(0);
  const options = { objects: new MemoryObjectStore({ clock }), clock };
  const { signal } = new AbortController();
  const look = (launch: string) =>
    finish(clock, isReadyToTakeOver(options, launch, signal));
  assert.equal(await look("a"), false);
  const beat = new HandoverBeat(options, "a");
  beat.start();
  assert.equal(await look("a"), true);
  assert.equal(await look("b"), false);
  beat.stop();
  assert.equal(await look("a"), false);
});

Deno.test("the look ends with its signal", async () => {
  const clock = new ManualClock(0);
  const options = { objects: new MemoryObjectStore({ clock }), clock };
  const stopped = new AbortController();
  const looking = isReadyToTakeOver(options, "a", stopped.signal);
  stopped.abort();
  assert.equal(await looking, false);
});
