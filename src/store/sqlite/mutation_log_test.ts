import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { decodeLogEntries, LAST_INDEX, LogKind } from "../../log/entry.ts";
import { type Clock, systemClock } from "../../common/clock.ts";
import { ManualClock } from "../../common/manual_clock.ts";
import { silentLogger } from "../../common/log.ts";
import { seededRandom } from "../../common/random.ts";
import {
  type Enqueue,
  type Mutation,
  MutationType,
} from "../../protocol/messages.ts";
import { decodeV8Number } from "../../protocol/v8_number.ts";
import {
  atomic,
  check,
  commit,
  del,
  key,
  mutation,
  set,
  START_MS,
  sum,
} from "../contract/support.ts";
import type { Store } from "../store.ts";
import type { LogRow } from "../backup_source.ts";
import { MutationLog } from "./mutation_log.ts";
import { openWriteSession } from "./session.ts";
import { StateTable } from "./state.ts";
import { openSqliteStore } from "./store.ts";

class Place implements AsyncDisposable {
  store!: Store;
  private constructor(
    private readonly folder: string,
    private readonly clock: Clock,
  ) {}

  static async open(
    maxLogBytes?: number,
    clock: Clock = systemClock,
  ): Promise<Place> {
    const place = new Place(
      await Deno.makeTempDir({ prefix: "denokv-test-" }),
      clock,
    );
    await place.open(maxLogBytes);
    return place;
  }

  get path(): string {
    return `${this.folder}/denokv.sqlite`;
  }

  async open(maxLogBytes?: number): Promise<void> {
    this.store = await openSqliteStore({
      path: this.path,
      clock: this.clock,
      maxLogBytes,
    });
  }

  /** The rows of the log, as another connection of this process sees them. */
  rows(): LogRow[] {
    const db = new DatabaseSync(this.path, { readOnly: true });
    try {
      const log = new MutationLog(db, new StateTable(db));
      return log.read(0, 1_000_000).map((row) => ({
        ...row,
        entries: row.entries.slice(),
      }));
    } finally {
      db.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

Deno.test("promise 5: a commit's entries name what came of it, under its versionstamp", async () => {
  await using place = await Place.open(undefined, new ManualClock(START_MS));
  const { store } = place;
  await commit(store, [sum("n", 2)]);
  const version = await commit(store, [
    set("a", "1", 9_999_999_999_999),
    sum("n", 3),
    del("absent"),
    mutation(MutationType.SET_SUFFIX_VERSIONSTAMPED_KEY, "s"),
  ]);
  const row = place.rows().at(-1)!;
  assert.deepEqual([row.firstVersion, row.version], [version, version]);
  assert.equal(row.timeMs, START_MS);
  const entries = decodeLogEntries(row.entries);
  assert.deepEqual(entries.map((entry) => entry.index), [0, 1, 2, LAST_INDEX]);
  assert.ok(entries.every((entry) => entry.version === version));
  assert.deepEqual(entries.map((entry) => entry.kind), [
    LogKind.SET,
    LogKind.SET,
    LogKind.CLEAR,
    LogKind.SET,
  ]);
  assert.deepEqual(entries.slice(0, 3).map((entry) => entry.key), [
    key("a"),
    key("n"),
    key("absent"),
  ]);
  assert.equal(entries[0].expireAtMs, 9_999_999_999_999);
  // The sum is logged as what it came to.
  assert.deepEqual([...entries[1].value], [0xff, 0x0f, 0x49, 0x0a]);
  assert.equal(entries[3].key.length, key("s").length + 22);
});

Deno.test("promise 5: the sums of one key in a write are one entry, and the last entry is named as such", async () => {
  await using place = await Place.open();
  const { store } = place;
  const entriesOf = async (mutations: Mutation[], enqueues: Enqueue[] = []) => {
    await store.write(atomic(mutations, [], enqueues));
    return decodeLogEntries(place.rows().at(-1)!.entries);
  };
  const sums = new Array(1000).fill(sum("n", 1n << 8000n));
  const [entry, ...more] = await entriesOf(sums);
  assert.deepEqual([entry.index, more.length], [LAST_INDEX, 0]);
  assert.equal(decodeV8Number(entry.value), 1000n << 8000n);
  const mixed = await entriesOf([
    set("a", "1"),
    sum("x", 1),
    sum("y", 1),
    sum("x", 1),
    del("y"),
  ]);
  assert.deepEqual(
    mixed.map(({ index, kind, key }) => [index, kind, key]),
    [
      [0, LogKind.SET, key("a")],
      [1, LogKind.SET, key("x")],
      [LAST_INDEX, LogKind.CLEAR, key("y")],
    ],
  );
  const withMessage = await entriesOf([sum("x", 1), sum("x", 1)], [{
    payload: new Uint8Array(1),
    deadlineMs: 1000,
    keysIfUndelivered: [],
    backoffScheduleMs: null,
  }]);
  assert.deepEqual(withMessage.map(({ index }) => index), [0, LAST_INDEX]);
});

Deno.test("promise 5: commits that changed nothing are in the log as versions alone", async () => {
  await using place = await Place.open();
  const { store } = place;
  const version = await commit(store, [], [check("absent", null)]);
  const row = place.rows().at(-1)!;
  assert.equal(row.version, version);
  assert.equal(row.entries.length, 0);
  assert.equal(store.stats().log.headVersion, version);
  // A refused write and a failed check leave no trace.
  await store.write(atomic([set("a", "1")], [check("a", 5)]));
  await store.write(atomic([set("b", "1"), sum("b", 1)]));
  assert.equal(
    place.rows().length,
    place.rows().findIndex((each) => each.version === version) + 1,
  );
});

Deno.test("promise 5: a message is logged under a key of its own, last in its commit", async () => {
  await using place = await Place.open();
  const { store } = place;
  await store.write(atomic(
    [set("a", "1")],
    [],
    [1, 2].map((n) => ({
      payload: new Uint8Array([n]),
      deadlineMs: n * 1000,
      keysIfUndelivered: [],
      backoffScheduleMs: null,
    })),
  ));
  const entries = decodeLogEntries(place.rows().at(-1)!.entries);
  assert.deepEqual(entries.map((entry) => entry.index), [0, 1, LAST_INDEX]);
  assert.deepEqual([...entries[1].key.slice(0, 10)], [
    0xff,
    0x71,
    ...[0, 0, 0, 0, 0, 0, 0x03, 0xe8],
  ]);
});

Deno.test("writes of one group share rows; each keeps whole commits", async () => {
  // Time stands still: a group ends at what it takes, not at how long.
  const clock = new ManualClock(START_MS);
  await using place = await Place.open(undefined, clock);
  const { store } = place;
  const before = place.rows().length;
  const text = "x".repeat(20_000);
  const versions = await Promise.all(
    Array.from(
      { length: 100 },
      (_, i) => commit(store, [set(`k${i}`, text), del("d")]),
    ),
  );
  assert.equal(store.stats().commits, 1);
  const rows = place.rows().slice(before);
  // 2 MB in rows of some more than 512 KiB.
  assert.ok(rows.length >= 3 && rows.length <= 5, `${rows.length} rows`);
  const entries = rows.flatMap((row) => {
    const entries = decodeLogEntries(row.entries);
    assert.equal(entries[0].version, row.firstVersion);
    assert.equal(entries.at(-1)!.version, row.version);
    assert.equal(entries.at(-1)!.index, LAST_INDEX, "no commit is torn");
    return entries;
  });
  assert.deepEqual(
    entries.map((entry) => entry.version),
    versions.flatMap((version) => [version, version]),
  );
});

Deno.test("the log keeps about its bound; the floor says from where on it is whole, also when opened again", async () => {
  const maxBytes = 1024 * 1024;
  await using place = await Place.open(maxBytes);
  let { store } = place;
  const versions: number[] = [];
  const text = "x".repeat(10_000);
  let largest = 0;
  for (let i = 0; i < 60; i++) {
    for (
      const version of await Promise.all(
        Array.from(
          { length: 10 },
          (_, j) => commit(store, [set(`k${j}`, text)]),
        ),
      )
    ) versions.push(version);
    largest = Math.max(largest, store.stats().log.sizeBytes);
  }
  // 6 MB were logged. Trimming comes in batches of 1 MiB past the bound.
  assert.ok(largest <= maxBytes * 2.2, `${largest} bytes`);
  const { log } = store.stats();
  assert.ok(log.sizeBytes >= maxBytes / 2, `${log.sizeBytes} bytes`);
  assert.equal(log.headVersion, versions.at(-1));
  assert.ok(log.floorVersion > versions[0]);

  const checkRows = () => {
    const rows = place.rows();
    assert.ok(rows[0].firstVersion > log.floorVersion);
    const logged = rows.flatMap((row) => decodeLogEntries(row.entries))
      .map((entry) => entry.version);
    // Every commit after the floor, and none before it.
    assert.deepEqual(
      logged,
      versions.filter((version) => version > log.floorVersion),
    );
  };
  checkRows();
  for (const bytes of [maxBytes, 10 * maxBytes]) {
    await store.close();
    await place.open(bytes);
    store = place.store;
    assert.deepEqual(store.stats().log, log);
    checkRows();
  }
  // The space of what was trimmed is used again.
  assert.ok(store.stats().databaseBytes < 8 * maxBytes);
});

Deno.test("small commits are trimmed too, in batches that keep up with them", async () => {
  const maxBytes = 64 * 1024;
  await using place = await Place.open(maxBytes);
  const { store } = place;
  for (let i = 0; i < 400; i++) {
    await Promise.all(
      Array.from({ length: 100 }, (_, j) => commit(store, [set(`${j}`, "1")])),
    );
  }
  const { log } = store.stats();
  assert.ok(log.sizeBytes <= maxBytes + 1.2 * 1024 * 1024, `${log.sizeBytes}`);
  assert.ok(log.floorVersion > 0);
});

Deno.test("a bound of nothing still keeps the newest row, which names our last commit", async () => {
  await using place = await Place.open(0);
  const { store } = place;
  for (let i = 0; i < 40; i++) {
    await commit(store, [set("a", "x".repeat(60_000))]);
  }
  const { log } = store.stats();
  assert.ok(log.floorVersion < log.headVersion);
  await store.close();
  await place.open(0);
  assert.deepEqual(place.store.stats().log, log, "and no false gap");
});

Deno.test("a rolled back transaction leaves the log where it was", async () => {
  await using place = await Place.open();
  await place.store.close();
  const session = openWriteSession({
    path: place.path,
    clock: systemClock,
    random: seededRandom(1),
    logger: silentLogger,
  });
  const { log } = session;
  const position = () => [log.floorVersion, log.headVersion, log.sizeBytes];
  const before = position();
  session.beginStatement.run();
  log.encoder.append(50, 0, LAST_INDEX, key("a"), null, 0, -1);
  log.endCommit(50, 1);
  log.writeAll(1);
  assert.equal(log.headVersion, 50);
  log.encoder.append(51, 0, 0, key("a"), null, 0, -1);
  session.rollback();
  assert.deepEqual(position(), before);
  assert.equal(log.encoder.sizeBytes, 0);

  session.beginStatement.run();
  log.encoder.append(60, 0, LAST_INDEX, key("a"), null, 0, -1);
  log.endCommit(60, 2);
  log.writeAll(2);
  session.commitStatement.run();
  session.committed();
  const rows = log.read(before[1], 10);
  assert.deepEqual(rows.map((row) => [row.firstVersion, row.version]), [
    [60, 60],
  ]);
  assert.equal(decodeLogEntries(rows[0].entries).length, 1);
  session.close();
  await place.open();
});

Deno.test("times never go back from row to row, whatever the clock does", async () => {
  const times = [5000, 4000, 4500, 6000, 5500];
  const clock = new ManualClock(START_MS);
  let nowMs = 0;
  clock.nowMs = () => nowMs;
  await using place = await Place.open(undefined, clock);
  const before = place.rows().length;
  for (const [i, timeMs] of times.entries()) {
    nowMs = timeMs;
    await commit(place.store, [set("a", `${i}`)]);
    if (i === 1) {
      await place.store.close();
      await place.open();
    }
  }
  const noted = place.rows().slice(before).map(({ timeMs }) => timeMs);
  assert.deepEqual(noted, [5000, 5000, 5000, 6000, 6000]);
});
