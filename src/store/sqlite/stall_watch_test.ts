import assert from "node:assert/strict";
import { UnavailableError } from "../../common/errors.ts";
import type { Logger } from "../../common/log.ts";
import { ManualClock } from "../../common/manual_clock.ts";
import { StallWatch, type Waits } from "./stall_watch.ts";

/** A watch over waits that the test sets. */
class Bench {
  readonly clock = new ManualClock(0);
  readonly logged: string[] = [];
  readonly rejected: string[] = [];
  hasWaiting = true;
  waits: Waits = {
    sync: undefined,
    checkpoint: undefined,
    lock: undefined,
    confirmation: undefined,
  };
  readonly watch: StallWatch;

  constructor() {
    const log = (level: string) => (_: string, fields?: { reason?: unknown }) =>
      void this.logged.push(`${level} ${fields?.reason ?? ""}`.trim());
    const logger: Logger = {
      debug: log("debug"),
      info: log("info"),
      warn: log("warn"),
      error: log("error"),
    };
    this.watch = new StallWatch({
      clock: this.clock,
      logger,
      waits: () => this.waits,
      hasWaiting: () => this.hasWaiting,
      rejectPending: (error) => {
        assert.ok(error instanceof UnavailableError);
        this.rejected.push(error.message);
      },
    });
  }

  begin(what: keyof Waits): void {
    this.waits[what] = this.clock.monotonicMs();
    this.watch.expect();
  }
}

for (
  const [what, words] of [
    ["sync", /fsync for more than 2 s/],
    ["checkpoint", /checkpoint has held writes back/],
    ["lock", /Another program has held the database locked/],
  ] as const
) {
  Deno.test(`stall: ${what}: said after 2 s, logged once, writes rejected after 10 s, and over again`, () => {
    const bench = new Bench();
    bench.begin(what);
    bench.clock.advance(1999);
    assert.equal(bench.watch.present()?.sentence, undefined);
    bench.clock.advance(1);
    assert.match(bench.watch.present()!.sentence, words);
    bench.clock.advance(7000);
    assert.equal(bench.logged.length, 1);
    assert.match(bench.logged[0], words);
    assert.deepEqual(bench.rejected, []);
    bench.clock.advance(1000);
    assert.match(bench.rejected[0], words);
    assert.match(bench.rejected[0], /Nothing of this write was applied/);
    bench.waits[what] = undefined;
    assert.equal(bench.watch.present()?.sentence, undefined);
    bench.clock.advance(1000);
    assert.deepEqual(bench.logged.slice(1), ["info"]);
  });
}

Deno.test("stall: a backup may take longer than a disk", () => {
  const bench = new Bench();
  bench.begin("confirmation");
  bench.clock.advance(9999);
  assert.equal(bench.watch.present()?.sentence, undefined);
  bench.clock.advance(1);
  assert.match(bench.watch.present()!.sentence, /backup has not confirmed/);
});

Deno.test("stall: no timer runs while nothing waits", () => {
  const bench = new Bench();
  assert.equal(bench.clock.timers, 0);
  bench.begin("sync");
  bench.watch.expect();
  assert.equal(bench.clock.timers, 1);
  bench.clock.advance(1000);
  assert.equal(bench.clock.timers, 1);
  bench.waits.sync = undefined;
  bench.hasWaiting = false;
  bench.clock.advance(1000);
  assert.equal(bench.clock.timers, 0);
  assert.deepEqual(bench.logged, []);
  bench.begin("sync");
  assert.equal(bench.clock.timers, 1);
  bench.watch.stop();
  assert.equal(bench.clock.timers, 0);
});
