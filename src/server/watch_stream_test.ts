import assert from "node:assert/strict";
import { utf8 } from "../common/bytes.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { Encoding, type Entry } from "../protocol/messages.ts";
import { WatchHub } from "../store/watch.ts";
import { Answers } from "./answers.ts";
import { WatchStreams } from "./watch_stream.ts";

const MIB = 1024 * 1024;
const KEY = utf8("a");

/** One key, watched; its value and whether there is one. */
class Bench {
  readonly clock = new ManualClock(1000);
  readonly answers = new Answers({
    clock: this.clock,
    maxBytes: 4 * MIB,
    residentBytes: () => 0,
  });
  readonly streams = new WatchStreams(this.clock, this.answers);
  private entry: Entry | null = null;
  private readonly hub = new WatchHub({
    clock: this.clock,
    maxWatches: 10,
    read: () => ({ entries: [this.entry], expiriesMs: [Infinity] }),
  });

  set(version: number, sizeBytes: number): void {
    this.entry = {
      key: KEY,
      value: new Uint8Array(sizeBytes),
      encoding: Encoding.BYTES,
      version,
      order: 0,
    };
    this.hub.changed([KEY]);
  }

  delete(): void {
    this.entry = null;
    this.hub.changed([KEY]);
  }

  watch() {
    return this.streams.stream(this.hub.watch([KEY]), "c").getReader();
  }
}

const turn = () => new Promise((resolve) => setTimeout(resolve));

Deno.test("a watch that is left while it waits for room leaves the line", async () => {
  const bench = new Bench();
  const budget = bench.answers.frames;
  const reader = bench.watch();
  await reader.read();
  const next = reader.read();
  assert.ok(budget.tryTake(budget.limitBytes));
  bench.set(1, 60_000);
  await turn();
  assert.equal(budget.waiting, 1);
  await reader.cancel();
  assert.ok((await next).done);
  assert.equal(budget.waiting, 0);
  budget.give(budget.limitBytes);
  await turn();
  assert.equal(budget.usedBytes, 0);
});

Deno.test("a watch that waited for room gives it back where there is nothing to show any more", async () => {
  const bench = new Bench();
  const budget = bench.answers.frames;
  const reader = bench.watch();
  await reader.read();
  const next = reader.read();
  assert.ok(budget.tryTake(budget.limitBytes), "others have it all");
  bench.set(1, 60_000);
  await turn();
  assert.equal(budget.waiting, 1);
  bench.delete();
  budget.give(budget.limitBytes);
  await turn();
  assert.equal(budget.waiting, 0);
  assert.equal(budget.usedBytes, 0, "nothing is held for no frame");
  bench.set(2, 10);
  assert.ok((await next).value);
  await reader.cancel();
  assert.equal(budget.usedBytes, 0);
});
