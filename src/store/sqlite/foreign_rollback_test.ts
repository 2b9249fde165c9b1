/**
 * Another program puts older contents into the file while it is ours:
 * `sqlite3 file ".restore old"`, or SQLite's online backup into it.
 */
import assert from "node:assert/strict";
import { backup, DatabaseSync } from "node:sqlite";
import type { Logger } from "../../common/log.ts";
import { silentLogger } from "../../common/log.ts";
import { seededRandom } from "../../common/random.ts";
import { SqliteLocalEngine } from "./local_engine.ts";
import { systemClock } from "../../common/clock.ts";
import { localDurability } from "../durability.ts";
import { check, commit, point, set, texts } from "../contract/support.ts";
import type { BackupSource } from "../backup_source.ts";
import type { Store } from "../store.ts";

class Place implements AsyncDisposable {
  readonly folder = Deno.makeTempDirSync({ prefix: "denokv-test-" });
  readonly path = `${this.folder}/denokv.sqlite`;
  readonly warnings: string[] = [];
  store!: Store & { backupSource: BackupSource };

  async open(): Promise<Store & { backupSource: BackupSource }> {
    const logger: Logger = {
      ...silentLogger,
      warn: (message) => void this.warnings.push(message),
    };
    const engine = new SqliteLocalEngine({
      path: this.path,
      clock: systemClock,
      random: seededRandom(1),
      logger,
    });
    return this.store = await engine.open(localDurability);
  }

  /** A copy of the file as it is now. */
  async copy(): Promise<string> {
    const db = new DatabaseSync(this.path, { readOnly: true });
    const to = `${this.folder}/old.sqlite`;
    await backup(db, to);
    db.close();
    return to;
  }

  /** What `.restore` does. */
  async restore(from: string): Promise<void> {
    const db = new DatabaseSync(from, { readOnly: true });
    await backup(db, this.path);
    db.close();
  }

  /** Another program's statements. */
  run(sql: string): void {
    const db = new DatabaseSync(this.path);
    db.exec(sql);
    db.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store?.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

async function many(store: Store, count: number): Promise<number> {
  let version = 0;
  for (let i = 0; i < count; i++) {
    version = await commit(store, [set("b", "x")]);
  }
  return version;
}

Deno.test("the file is rolled back under the store: versions go on above the highest one issued", async () => {
  await using place = new Place();
  const store = await place.open();
  await commit(store, [set("a", "old")]);
  const old = await place.copy();
  await commit(store, [set("a", "new")]);
  const last = await many(store, 50);
  await place.restore(old);
  const next = await commit(store, [set("c", "1")]);
  assert.ok(next > last, `${next} > ${last}`);
  assert.equal(place.warnings.length, 1);
  const { log, durableVersion } = store.stats();
  assert.equal(durableVersion, next);
  assert.ok(log.floorVersion > last && log.floorVersion < next);
  assert.equal(log.headVersion, next);
  // The other program's contents are kept, and the log begins behind them.
  assert.deepEqual(texts((await store.read([point("a")]))[0]), ["old"]);
  const rows = store.backupSource.readLog(0, 1 << 20);
  assert.deepEqual(rows.map((row) => row.version), [log.floorVersion, next]);
  await store.close();
  await place.open();
  assert.equal(place.warnings.length, 1, "its own trace is found again");
  assert.ok(await commit(place.store, [set("c", "2")]) > next);
});

Deno.test("a check that fails on a file that was rolled back is answered, and the gap is kept", async () => {
  await using place = new Place();
  const store = await place.open();
  const first = await commit(store, [set("a", "old")]);
  const old = await place.copy();
  const last = await many(store, 20);
  await place.restore(old);
  const outcome = await store.write({
    checks: [check("a", null)],
    mutations: [set("a", "x")],
    enqueues: [],
  });
  assert.equal(outcome.status, "checkFailed");
  assert.ok(store.stats().log.floorVersion > last);
  assert.ok(await commit(store, [set("a", "y")], [check("a", first)]) > last);
});

for (
  const [what, sql] of [
    ["another log", "update denokv_log set end_bytes = end_bytes + 7"],
    ["no log", "delete from denokv_log"],
    ["another id", "update denokv_state set v = 'x' where k = 'database_id'"],
    ["no tables of ours", "drop table denokv_state"],
  ]
) {
  Deno.test(`a file of the same version with ${what} is noticed`, async () => {
    await using place = new Place();
    const store = await place.open();
    const last = await many(store, 5);
    place.run(sql);
    const next = await commit(store, [set("c", "1")]);
    assert.equal(place.warnings.length, 1);
    assert.ok(store.stats().log.floorVersion > last);
    assert.ok(next > store.stats().log.floorVersion);
  });
}

Deno.test("a program that keeps tables of its own in the file, or copies its log back, makes no gap", async () => {
  await using place = new Place();
  const store = await place.open();
  await many(store, 5);
  const { floorVersion } = store.stats().log;
  // As Litestream does beside each of its checkpoints.
  place.run("create table _litestream_seq (id integer primary key, seq)");
  for (let i = 0; i < 5; i++) {
    place.run(`insert or replace into _litestream_seq values (1, ${i})`);
    await commit(store, [set("a", `${i}`)]);
    place.run("pragma wal_checkpoint(truncate)");
    await commit(store, [set("b", `${i}`)]);
  }
  assert.deepEqual(place.warnings, []);
  assert.equal(store.stats().log.floorVersion, floorVersion);
  assert.deepEqual(texts((await store.read([point("b")]))[0]), ["4"]);
});

Deno.test("a database of another program takes the file's place: it becomes ours, under the id that clients know", async () => {
  await using place = new Place();
  const store = await place.open();
  const last = await many(store, 5);
  await store.backupSource.setState({ backup_epoch: "7" });
  const id = store.databaseId;
  const other = `${place.folder}/other.sqlite`;
  const kv = await Deno.openKv(other);
  await kv.set(["theirs"], 1);
  kv.close();
  await place.restore(other);
  const next = await commit(store, [set("c", "1")]);
  assert.ok(next > last);
  await store.close();
  const again = await place.open();
  assert.equal(again.databaseId, id);
  assert.equal(again.backupSource.getState("backup_epoch"), "7");
  assert.ok(await commit(again, [set("c", "2")]) > next);
});

for (
  const [what, sql] of [
    ["a row that is gone", "delete from data_version"],
    ["a text", "update data_version set version = 'x'"],
    ["too large", "update data_version set version = 9223372036854775807"],
    ["just too large", "update data_version set version = 9007199254740991"],
    ["negative", "update data_version set version = -5"],
    ["zero", "update data_version set version = 0"],
    ["a fraction", "update data_version set version = 1.5"],
  ]
) {
  Deno.test(`data_version is ${what}: versions go on, while it runs and at the next start`, async () => {
    await using place = new Place();
    await place.open();
    let last = await many(place.store, 5);
    place.run(sql);
    let next = await commit(place.store, [set("c", "1")]);
    assert.ok(next > last && Number.isSafeInteger(next + 1000), `${next}`);
    last = next;
    await place.store.close();
    place.run(sql);
    await place.open();
    next = await commit(place.store, [set("c", "2")]);
    assert.ok(next > last && Number.isSafeInteger(next + 1000), `${next}`);
    assert.deepEqual(texts((await place.store.read([point("c")]))[0]), ["2"]);
  });
}

for (const isKilled of [false, true]) {
  const how = isKilled ? "killed" : "stopped";
  Deno.test(`the file is replaced by an older copy of itself while the server is ${how}: versions go on above`, async () => {
    await using place = new Place();
    await place.open();
    await commit(place.store, [set("a", "old")]);
    const old = await place.copy();
    await many(place.store, 30);
    await place.store.close();
    await place.open();
    const noted = place.store.stats().durableVersion;
    const last = await many(place.store, 30);
    // As a kill leaves it: nothing more is noted.
    const lock = await Deno.readFile(`${place.path}-lock`);
    await place.store.close();
    if (isKilled) await Deno.writeFile(`${place.path}-lock`, lock);
    await Deno.copyFile(old, place.path);

    await place.open();
    assert.ok(last > noted);
    assert.ok(place.store.stats().durableVersion > last);
    assert.match(place.warnings.join(), /older copy of itself/);
    assert.ok(place.store.stats().log.floorVersion > last);
    assert.deepEqual(texts((await place.store.read([point("a")]))[0]), ["old"]);
    const next = await commit(place.store, [set("b", "1")]);
    assert.ok(next > last && next < 2 ** 40);
    // Said once: the next start finds its own trace.
    place.warnings.length = 0;
    await place.store.close();
    await place.open();
    assert.deepEqual(place.warnings, []);
  });
}

Deno.test("another database in the file's place, or a lock file that says nothing, is no older copy", async () => {
  await using place = new Place();
  await place.open();
  await many(place.store, 30);
  await place.store.close();
  Deno.removeSync(place.path);
  await place.open();
  await commit(place.store, [set("a", "1")]);
  await place.store.close();
  for (const note of ["", "nonsense", "x".repeat(100)]) {
    await Deno.writeTextFile(`${place.path}-lock`, note);
    await place.open();
    await commit(place.store, [set("a", "1")]);
    await place.store.close();
  }
  assert.deepEqual(place.warnings, []);
});
