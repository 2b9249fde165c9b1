import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { utf8 } from "../../common/bytes.ts";
import { systemClock } from "../../common/clock.ts";
import { InvalidRequestError, StartupError } from "../../common/errors.ts";
import { silentLogger } from "../../common/log.ts";
import { seededRandom, systemRandom } from "../../common/random.ts";
import { LAST_INDEX, LogEncoder } from "../../log/entry.ts";
import { atomic, range, set } from "../contract/support.ts";
import { localDurability } from "../durability.ts";
import type { ReplicaWriter } from "../replica_writer.ts";
import { SqliteLocalEngine } from "./local_engine.ts";
import { openReplicaWriter } from "./replica_writer.ts";
import {
  batchOf,
  type Commit,
  contentsOf,
  entriesOf,
  HistoryModel,
} from "./replica_model.ts";
import { openSqliteStore } from "./store.ts";

const ID = "11111111-1111-4111-8111-111111111111";
const EVERYTHING = range(new Uint8Array([0]), new Uint8Array([0xff]));

function engineOf(path: string): SqliteLocalEngine {
  return new SqliteLocalEngine({
    path,
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
  });
}

function follow(path: string, options = { keepsHistory: true }) {
  return openReplicaWriter({
    ...options,
    path,
    clock: systemClock,
    random: systemRandom,
  });
}

/** An empty database at version 9, which follows. */
async function replica(
  work: (writer: ReplicaWriter, path: string) => Promise<void>,
  options = { keepsHistory: true },
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  const path = `${folder}/a.sqlite`;
  const engine = engineOf(path);
  const target = await engine.create();
  await target.finish({
    databaseId: ID,
    version: 9,
    timeMs: 1000,
    leapToVersion: 9,
    state: {},
  });
  const writer = follow(path, options);
  try {
    await work(writer, path);
  } finally {
    await writer.close();
    await Deno.remove(folder, { recursive: true });
  }
}

async function again(
  writer: ReplicaWriter,
  path: string,
  options = { keepsHistory: true },
): Promise<ReplicaWriter> {
  await writer.close();
  return follow(path, options);
}

function commit(version: number, key: string, value: string | null): Commit {
  return {
    version,
    order: 0,
    timeMs: 1000 + version,
    changes: [{
      key: utf8(key),
      value: value === null ? null : utf8(value),
      encoding: 3,
      expireAtMs: -1,
    }],
  };
}

Deno.test("what a replica is given is seen whole, by another connection too, and its position with it", () =>
  replica(async (writer, path) => {
    const store = await openSqliteStore({ path, readOnly: true });
    assert.equal(writer.databaseId, ID);
    assert.equal(store.databaseId, ID);
    assert.deepEqual([writer.version, writer.newestVersion], [9, 9]);
    const commits = [commit(12, "a", "1"), commit(15, "b", "2")];
    const told = await writer.apply(
      batchOf(commits, 9, { version: 20, state: { place: "here" } }),
    );
    assert.equal(told.entries, 2);
    assert.deepEqual([writer.version, writer.newestVersion], [20, 20]);
    assert.deepEqual(writer.point, { version: 15, order: 0 });
    assert.equal(writer.state("place"), "here");
    const [entries] = await store.read([EVERYTHING]);
    assert.deepEqual(
      entries.map(({ version }) => version),
      [12, 15],
    );
    await store.close();
    const reopened = await again(writer, path);
    assert.equal(reopened.state("place"), "here");
    assert.equal(reopened.version, 20);
    await reopened.close();
  }));

Deno.test("commits that are there already are passed over", () =>
  replica(async (writer) => {
    const commits = [commit(12, "a", "1"), commit(15, "b", "2")];
    await writer.apply(batchOf(commits.slice(0, 1), 9));
    const told = await writer.apply(batchOf(commits, 9));
    assert.equal(told.entries, 1);
    assert.equal((await writer.apply(batchOf(commits, 9))).entries, 0);
    assert.equal(writer.version, 15);
  }));

Deno.test("several commits of one version are taken one after the other, also apart", () =>
  replica(async (writer, path) => {
    const commits = [0, 3, 4].map((order) => ({
      ...commit(12, `key ${order}`, "1"),
      order,
    }));
    await writer.apply(batchOf(commits.slice(0, 2), 9));
    assert.equal((await writer.apply(batchOf(commits, 12))).entries, 1);
    assert.deepEqual(writer.point, { version: 12, order: 4 });
    await writer.goTo({ version: 12, order: 3 });
    assert.equal(contentsOf(path).length, 2);
  }));

Deno.test("what is no log, out of order, cut short or behind a gap is refused before anything is applied", () =>
  replica(async (writer, path) => {
    await writer.apply(batchOf([commit(10, "a", "1")], 9));
    const before = contentsOf(path);
    const good = batchOf([commit(12, "a", "2"), commit(13, "b", "2")], 10);
    const half = new LogEncoder();
    half.append(12, 0, 0, utf8("a"), utf8("2"), 3, -1);
    const late = new LogEncoder();
    late.append(12, 0, 0, utf8("a"), utf8("2"), 3, -1);
    late.append(13, 0, LAST_INDEX, utf8("a"), utf8("2"), 3, -1);
    const bad = {
      "other bytes": { ...good, entries: utf8("no entries at all") },
      "cut short": { ...good, entries: good.entries.slice(0, -1) },
      "out of order": batchOf(
        [commit(13, "b", "2"), commit(12, "a", "2")],
        10,
        { version: 13 },
      ),
      "half a commit": { ...good, entries: half.bytes.slice() },
      "an unfinished commit": { ...good, entries: late.bytes.slice() },
      "behind a gap": batchOf([commit(14, "a", "2")], 11),
      "beyond its end": batchOf([commit(14, "a", "2")], 10, { version: 13 }),
    };
    for (const [what, commits] of Object.entries(bad)) {
      await assert.rejects(writer.apply(commits), InvalidRequestError, what);
      assert.deepEqual(contentsOf(path), before, what);
      assert.equal(writer.version, 10, what);
    }
    await writer.apply(good);
    assert.equal(writer.version, 13);
  }));

Deno.test("a replica at any point equals the history there, forwards and backwards: 1,000 checkouts", () =>
  replica(async (first, path) => {
    let writer = first;
    const random = seededRandom(11);
    const model = new HistoryModel(random, 9);
    let version = 9;
    const more = async (count: number) => {
      while (count > 0) {
        const size = Math.min(count, 1 + random.below(20));
        const commits = model.next(size);
        count -= size;
        // Commits that changed nothing, and now and then a leap.
        version = model.version + random.below(3) +
          (random.below(20) === 0 ? 2 ** 32 : 0);
        model.version = version;
        const batch = batchOf(commits, writer.newestVersion, { version });
        if (random.below(4) > 0 && writer.version === writer.newestVersion) {
          await writer.apply(batch);
        } else await writer.keep(batch);
      }
    };
    await more(150);
    for (let i = 0; i < 1000; i++) {
      if (i % 100 === 99) {
        await writer.goTo();
        await more(15);
      }
      if (i % 250 === 249) writer = await again(writer, path);
      const { point, contents } = model.anyState();
      const target = { ...point };
      // Between two commits it is the one before.
      if (random.below(4) === 0) target.order += 1;
      await writer.goTo(target);
      assert.deepEqual(writer.point, point, `checkout ${i}`);
      assert.deepEqual(contentsOf(path), contents, `checkout ${i}`);
    }
    await writer.goTo();
    assert.equal(writer.version, version);
    assert.deepEqual(contentsOf(path), model.newest().contents);
    await writer.close();
  }));

Deno.test("a point before the history is refused, and nothing is changed", () =>
  replica(async (writer, path) => {
    await writer.apply(batchOf([commit(12, "a", "1")], 9));
    const before = contentsOf(path);
    await assert.rejects(
      writer.goTo({ version: 8, order: 0 }),
      /The history in the file begins at 00000000000000090000/,
    );
    assert.deepEqual(contentsOf(path), before);
    await writer.goTo({ version: 9, order: 0 });
    assert.deepEqual(contentsOf(path), []);
    assert.deepEqual([writer.version, writer.newestVersion], [9, 12]);
    // It has to go to its newest state before it goes on.
    await assert.rejects(
      writer.apply(batchOf([commit(13, "a", "1")], 12)),
      InvalidRequestError,
    );
    await writer.goTo();
    await writer.apply(batchOf([commit(13, "a", "1")], 12));
  }));

Deno.test("without a history there is no way back, also not behind what was kept before", () =>
  replica(async (writer, path) => {
    await writer.apply(batchOf([commit(12, "a", "1")], 9));
    const plain = await again(writer, path, { keepsHistory: false });
    await plain.apply(batchOf([commit(13, "a", "2")], 12));
    await assert.rejects(
      plain.goTo({ version: 12, order: 0 }),
      InvalidRequestError,
    );
    const keeping = await again(plain, path);
    await keeping.apply(batchOf([commit(14, "a", "3")], 13));
    await assert.rejects(
      keeping.goTo({ version: 12, order: 0 }),
      InvalidRequestError,
    );
    await keeping.goTo({ version: 13, order: 0 });
    assert.match(JSON.stringify(contentsOf(path)), /32/);
    await keeping.close();
  }));

Deno.test("a replica that is opened as a database of its own was written to by nobody else", () =>
  replica(async (writer, path) => {
    const model = new HistoryModel(seededRandom(3), 9);
    const commits = model.next(40);
    await writer.apply(batchOf(commits, 9, { version: model.version + 5 }));
    await writer.close();
    const warnings: string[] = [];
    const engine = new SqliteLocalEngine({
      path,
      clock: systemClock,
      random: systemRandom,
      logger: { ...silentLogger, warn: (text) => void warnings.push(text) },
    });
    assert.equal(engine.inspect()?.hasForeignWrites, false);
    assert.equal(engine.inspect()?.version, model.version + 5);
    engine.lock();
    const store = await engine.open(localDurability);
    assert.equal(store.databaseId, ID);
    assert.equal(store.backupSource.logFloorVersion, model.version + 5);
    assert.deepEqual(warnings, []);
    await store.write(atomic([set("mine", "1")]));
    await store.close();
    // What it holds now is no state of the history that it followed.
    assert.throws(
      () => follow(path),
      (error: Error) =>
        error instanceof StartupError && /was written to/.test(error.message),
    );
  }));

Deno.test("a replica that was taken back and is then written to issues no version again", () =>
  replica(async (writer, path) => {
    await writer.apply(
      batchOf([commit(12, "a", "1"), commit(20, "a", "2")], 9),
    );
    await writer.goTo({ version: 12, order: 0 });
    await writer.close();
    const engine = engineOf(path);
    engine.lock();
    const store = await engine.open(localDurability);
    const outcome = await store.write(atomic([set("mine", "1")]));
    assert.ok(outcome.status === "committed" && outcome.version > 20);
    await store.close();
  }));

Deno.test("a reader beside it does not let the write-ahead log grow without end", () =>
  replica(async (writer, path) => {
    const reader = new DatabaseSync(path, { readOnly: true });
    reader.exec("begin");
    reader.prepare("select count(*) from kv").get();
    const value = "x".repeat(60_000);
    let version = 9;
    const put = async () => {
      const commits = Array.from(
        { length: 40 },
        (_, i) => commit(version + 1 + i, `key ${i}`, value),
      );
      await writer.apply(batchOf(commits, version));
      version += 40;
    };
    // Twice the size at which readers are waited for.
    for (let i = 0; i < 40; i++) {
      if (i === 20) reader.exec("commit");
      await put();
      if (i < 20) continue;
      // Short reads, one always open.
      reader.exec("begin");
      reader.prepare("select count(*) from kv").get();
      reader.exec("commit");
    }
    reader.close();
    const { size } = await Deno.stat(`${path}-wal`);
    assert.ok(size <= 128 * 1024 * 1024, `${size}`);
    assert.equal(entriesOf(path), 40);
  }));

Deno.test("where there is no file none is made", () => {
  assert.throws(
    () => follow("/tmp/denokv-test-none.sqlite"),
    StartupError,
  );
});

Deno.test("a thread that ends is told, with what state the file is in", () =>
  replica(async (writer, path) => {
    await writer.close();
    const broken = openReplicaWriter({
      path,
      clock: systemClock,
      random: systemRandom,
      keepsHistory: true,
      workerUrl: () => "data:application/javascript,throw new Error('gone')",
    });
    for (let i = 0; i < 2; i++) {
      await assert.rejects(
        broken.apply(batchOf([commit(12, "a", "1")], 9)),
        /could not be written: .*gone.*It is at version 9/,
      );
    }
    await broken.close();
    const next = follow(path, { keepsHistory: true });
    await next.apply(batchOf([commit(12, "a", "1")], 9));
    await next.close();
  }));
