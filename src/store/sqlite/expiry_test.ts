import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { ManualClock } from "../../common/manual_clock.ts";
import { decodeLogEntries, LAST_INDEX, LogKind } from "../../log/entry.ts";
import {
  commit,
  eventually,
  everything,
  set,
  START_MS,
  turns,
} from "../contract/support.ts";
import { ExpirySweeper } from "./expiry.ts";
import { MutationLog } from "./mutation_log.ts";
import { StateTable } from "./state.ts";
import { openSqliteStore } from "./store.ts";

Deno.test("expired rows are deleted in bounded batches, each a logged commit with its own versionstamp", async () => {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  const path = `${folder}/denokv.sqlite`;
  const clock = new ManualClock(START_MS);
  const store = await openSqliteStore({ path, clock });
  try {
    const expired = Array.from({ length: 600 }, (_, i) => `k${i}`);
    const expireAtMs = START_MS + 1000;
    await commit(store, expired.map((name) => set(name, "x", expireAtMs)));
    await commit(store, [set("later", "x", START_MS + 60_000), set("a", "x")]);
    const { commits, log: { headVersion } } = store.stats();

    clock.advance(1000);
    // Gone for readers at once, rows or not.
    assert.equal((await store.read([everything()]))[0].length, 2);
    assert.equal(store.stats().expiryBacklog, 600);
    clock.advance(1000);
    await eventually("the sweep", () => store.stats().expiryBacklog === 0);
    await eventually(
      "the end of it",
      () => store.stats().durableVersion === store.stats().log.headVersion,
    );
    assert.equal(store.stats().expiredDeleted, 600);
    assert.equal(store.stats().commits, commits + 3, "256 + 256 + 88 rows");

    const db = new DatabaseSync(path, { readOnly: true });
    const rows = new MutationLog(db, new StateTable(db))
      .read(headVersion, 100);
    assert.equal(rows.length, 3);
    const sizes = rows.map((row) => {
      const entries = decodeLogEntries(row.entries);
      assert.equal(row.firstVersion, row.version, "one commit");
      assert.ok(
        entries.every((entry) =>
          entry.kind === LogKind.CLEAR && entry.version === row.version
        ),
      );
      assert.deepEqual(
        entries.map((entry) => entry.index),
        entries.map((_, i) => i === entries.length - 1 ? LAST_INDEX : i),
      );
      return entries.length;
    });
    assert.deepEqual(sizes, [256, 256, 88]);
    assert.equal(new Set(rows.map((row) => row.version)).size, 3);
    const left = db.prepare("select count(*) as n from kv").get()!;
    assert.equal(left.n, 2);
    db.close();

    // A last look finds no more; the next one is known without looking at the rows in between.
    await turns();
    clock.advance(58_000);
    await turns();
    assert.equal(store.stats().expiredDeleted, 600);
    clock.advance(1000);
    await eventually("the last", () => store.stats().expiredDeleted === 601);
  } finally {
    await store.close();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("what expired while nobody was there is swept after the start", async () => {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  const path = `${folder}/denokv.sqlite`;
  const clock = new ManualClock(START_MS);
  try {
    let store = await openSqliteStore({ path, clock });
    await commit(store, [set("a", "x", START_MS + 5000)]);
    await store.close();
    clock.advance(3_600_000);
    store = await openSqliteStore({ path, clock });
    assert.deepEqual(await store.read([everything()]), [[]]);
    assert.equal(store.stats().expiredDeleted, 0);
    clock.advance(1000);
    await eventually("the sweep", () => store.stats().expiredDeleted === 1);
    await store.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** A sweeper over a list of expiries. */
class Bench {
  readonly clock = new ManualClock(0);
  expiries: number[] = [];
  sweeps = 0;
  failure: Error | undefined;
  sweeper!: ExpirySweeper;

  start(): this {
    this.sweeper = new ExpirySweeper({
      clock: this.clock,
      earliestExpiryMs: () =>
        this.expiries.length ? Math.min(...this.expiries) : undefined,
      sweep: () => {
        this.sweeps++;
        if (this.failure) return Promise.reject(this.failure);
        const { length } = this.expiries;
        const due = this.expiries.filter((ms) => ms <= this.clock.nowMs());
        const batch = due.slice(0, 10);
        for (const ms of batch) {
          this.expiries.splice(this.expiries.indexOf(ms), 1);
        }
        return Promise.resolve(length - this.expiries.length);
      },
    });
    return this;
  }

  add(expireAtMs: number): void {
    this.expiries.push(expireAtMs);
    this.sweeper.expect(expireAtMs);
  }

  async advance(ms: number): Promise<void> {
    this.clock.advance(ms);
    for (let i = 0; i < 50; i++) await Promise.resolve();
  }
}

Deno.test("no sweep without an expiry; one timer, at the earliest", async () => {
  const bench = new Bench().start();
  await bench.advance(100_000);
  assert.equal(bench.sweeps, 0);
  bench.add(300_000);
  bench.add(200_000);
  bench.add(250_000);
  await bench.advance(100_999);
  assert.equal(bench.sweeps, 0);
  await bench.advance(1);
  // One that deletes, one that finds no more.
  assert.equal(bench.sweeps, 2);
  assert.deepEqual(bench.expiries, [300_000, 250_000]);
  await bench.advance(50_000);
  assert.deepEqual(bench.expiries, [300_000]);
});

Deno.test("expiries within a second of each other are swept together", async () => {
  const bench = new Bench().start();
  for (let ms = 1000; ms <= 2000; ms += 40) bench.add(ms);
  await bench.advance(2000);
  assert.deepEqual(bench.expiries, []);
  assert.equal(
    bench.sweeps,
    4,
    "26 rows in batches of 10, and one that found none",
  );
});

Deno.test("a sweep that fails is tried again", async () => {
  const bench = new Bench().start();
  bench.add(1000);
  bench.failure = new Error("the disk is full");
  await bench.advance(2000);
  assert.equal(bench.sweeps, 1);
  await bench.advance(2000);
  assert.equal(bench.sweeps, 2);
  bench.failure = undefined;
  await bench.advance(2000);
  assert.deepEqual(bench.expiries, []);
});

Deno.test("a clock that is set forward: what expired by that is swept within seconds", async () => {
  const bench = new Bench().start();
  bench.add(30 * 86_400_000);
  bench.add(60 * 86_400_000);
  await bench.advance(5000);
  assert.equal(bench.sweeps, 0);
  bench.clock.jump(30 * 86_400_000);
  await bench.advance(2000);
  assert.deepEqual(bench.expiries, [60 * 86_400_000]);
  // Set back and forward again, the other one falls due as if nothing had been.
  bench.clock.jump(-40 * 86_400_000);
  await bench.advance(2000);
  bench.clock.jump(70 * 86_400_000);
  await bench.advance(2000);
  assert.deepEqual(bench.expiries, []);
});

Deno.test("no timer runs while nothing expires", async () => {
  const bench = new Bench().start();
  assert.equal(bench.clock.timers, 0);
  bench.add(1000);
  assert.equal(bench.clock.timers, 1);
  await bench.advance(3000);
  assert.deepEqual(bench.expiries, []);
  assert.equal(bench.clock.timers, 0);
});

Deno.test("a stopped sweeper sweeps no more", async () => {
  const bench = new Bench().start();
  bench.add(1000);
  bench.sweeper.stop();
  bench.add(2000);
  await bench.advance(100_000);
  assert.equal(bench.sweeps, 0);
});
