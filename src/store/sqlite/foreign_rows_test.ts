/**
 * Rows as no Deno KV writes them, put into the file by another program: each
 * hurts only itself (docs/formats/sqlite-file.md).
 */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { type Bytes, byteString, fromUtf8, utf8 } from "../../common/bytes.ts";
import { silentLogger } from "../../common/log.ts";
import { ManualClock } from "../../common/manual_clock.ts";
import { seededRandom } from "../../common/random.ts";
import { readSnapshotRange } from "../../log/snapshot_range.ts";
import { MutationType, NEVER_MS } from "../../protocol/messages.ts";
import {
  atomic,
  check,
  commit,
  eventually,
  everything,
  key,
  mutation,
  point,
  range,
  set,
  START_MS,
  texts,
  u64,
} from "../contract/support.ts";
import { localDurability } from "../durability.ts";
import { SqliteLocalEngine } from "./local_engine.ts";
import { openSqliteStore } from "./store.ts";

class Place implements AsyncDisposable {
  readonly folder = Deno.makeTempDirSync({ prefix: "denokv-test-" });
  readonly path = `${this.folder}/denokv.sqlite`;
  readonly warnings: string[] = [];
  /** Nothing is swept unless a test moves it. */
  readonly clock = new ManualClock(START_MS);
  store!: Awaited<ReturnType<SqliteLocalEngine["open"]>>;

  async open() {
    const logger = {
      ...silentLogger,
      warn: (message: string) => void this.warnings.push(message),
    };
    const engine = new SqliteLocalEngine({
      path: this.path,
      clock: this.clock,
      random: seededRandom(1),
      logger,
    });
    engine.inspect();
    return this.store = await engine.open(localDurability);
  }

  run(sql: string, ...values: (string | number | bigint | Bytes)[]): void {
    const db = new DatabaseSync(this.path);
    db.prepare(sql).run(...values);
    db.close();
  }

  /** Every key of a snapshot with its expiry. */
  async snapshot(): Promise<Map<string, number>> {
    const all = new Map<string, number>();
    await this.store.backupSource.snapshot({
      partBytes: 1000,
      onBegin() {},
      onPart({ bytes }) {
        readSnapshotRange(bytes, (key, _value, _encoding, _v, _o, expiry) => {
          all.set(byteString(key), expiry);
        });
        return Promise.resolve();
      },
    });
    return all;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store?.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** The row of the key "m": columns in SQL, and what becomes of it. */
const ROWS: {
  what: string;
  v?: string;
  encoding?: string;
  version?: string;
  expiry?: string;
  /** Undefined: it counts as absent. */
  reads?: string;
  expires?: number;
}[] = [
  { what: "a text as value", v: "'häm'", reads: "häm" },
  {
    what: "a text with a zero as value",
    v: "'h' || char(0) || 'm'",
    reads: "h\0m",
  },
  { what: "a number as value", v: "12", reads: "12" },
  { what: "a fraction as value", v: "1.5", reads: "1.5" },
  { what: "a text as encoding", encoding: "'x'" },
  { what: "no encoding there is", encoding: "4" },
  { what: "a negative encoding", encoding: "-1" },
  { what: "an encoding above 2^53", encoding: "9007199254740993" },
  { what: "a fraction as encoding", encoding: "2.5", reads: "v" },
  { what: "a negative version", version: "-1" },
  { what: "a version above 2^53", version: "9007199254740993" },
  { what: "the largest version", version: "9223372036854775807" },
  { what: "a version of 1e300", version: "1e300" },
  { what: "a text as version", version: "'x'", reads: "v" },
  { what: "a blob as version", version: "x'00ff'", reads: "v" },
  { what: "a fraction as version", version: "1.5", reads: "v" },
  {
    what: "an expiry above 2^53",
    expiry: "9007199254740993",
    reads: "v",
    expires: 2 ** 53 - 1,
  },
  {
    what: "the largest expiry",
    expiry: "9223372036854775807",
    reads: "v",
    expires: 2 ** 53 - 1,
  },
  {
    what: "an endless expiry",
    expiry: "9e999",
    reads: "v",
    expires: 2 ** 53 - 1,
  },
  { what: "a text as expiry", expiry: "'x'", reads: "v" },
  { what: "a negative expiry", expiry: "-7", reads: "v" },
  {
    what: "a fraction as expiry",
    expiry: "4102444800000.5",
    reads: "v",
    expires: 4_102_444_800_001,
  },
  { what: "a fraction as expiry that is past", expiry: "1.5" },
  { what: "an order that is none", reads: "v" },
];

for (const { what, v, encoding, version, expiry, reads, expires } of ROWS) {
  Deno.test(`a row with ${what}: ${reads === undefined ? "absent" : "read"}, and its neighbours are untouched`, async () => {
    await using place = new Place();
    await place.open();
    const names = Array.from(
      { length: 20 },
      (_, i) => `${i < 10 ? "a" : "z"}${i}`,
    );
    await commit(place.store, names.map((name) => set(name, name)));
    await place.store.close();
    place.run(
      `insert into kv (k, v, v_encoding, version, seq, expiration_ms) values (?, ${
        v ?? "x'76'"
      }, ${encoding ?? 3}, ${version ?? 1}, ${
        what.includes("order") ? "'x'" : 0
      }, ${expiry ?? -1})`,
      key("m"),
    );
    const store = await place.open();

    const sorted = names.toSorted();
    const expected = reads === undefined ? sorted : [
      ...sorted.filter((name) => name < "m"),
      reads,
      ...sorted.filter((name) => name > "m"),
    ];
    for (const reverse of [false, true]) {
      const inOrder = reverse ? expected.toReversed() : expected;
      for (const limit of [1, 3, 11, 12, 100, 900]) {
        const [entries] = await store.read([everything({ limit, reverse })]);
        assert.deepEqual(texts(entries), inOrder.slice(0, limit));
      }
    }
    const [[entry], [...middle]] = await store.read([
      point("m"),
      range("l", "n", { limit: 1 }),
    ]);
    assert.equal(entry && fromUtf8(entry.value), reads);
    assert.deepEqual(texts(middle), reads === undefined ? [] : [reads]);
    const isUnreadable = reads === undefined && expiry === undefined;
    assert.equal(store.stats().unreadableRows > 0, isUnreadable);
    assert.equal(
      place.warnings.filter((line) => /cannot be read/.test(line)).length,
      isUnreadable ? 1 : 0,
    );
    const watch = store.watch([key("m")]);
    assert.deepEqual(texts((await watch.next())!.entries), [reads ?? null]);
    watch.cancel();

    const snapshot = await place.snapshot();
    const name = byteString(key("m"));
    assert.equal(snapshot.has(name), !isUnreadable);
    assert.equal(snapshot.size, names.length + Number(!isUnreadable));
    if (reads !== undefined) {
      assert.equal(snapshot.get(name), expires ?? NEVER_MS);
    }
    const digest = await store.backupSource.digest();
    assert.equal(digest.entries, snapshot.size);

    // In one group: nobody else's write fails.
    const present = reads === undefined ? null : entry.version;
    const outcomes = await Promise.all([
      store.write(atomic([set("a0", "new")])),
      store.write(atomic([u64(MutationType.SUM, "m", 1n)])),
      store.write(atomic([], [check("m", present === null ? 77 : null)])),
      store.write(atomic([set("z19", "new")])),
    ]);
    assert.deepEqual(outcomes.map(({ status }) => status), [
      "committed",
      reads === undefined ? "committed" : "refused",
      "checkFailed",
      "committed",
    ]);
    await commit(store, [set("m", "ours")]);
    assert.deepEqual(texts((await store.read([point("m")]))[0]), ["ours"]);
    await commit(store, [mutation(MutationType.DELETE, "m")]);
    assert.deepEqual(await store.read([point("m")]), [[]]);
  });
}

Deno.test("keys that are no blobs are reached by nobody, and are in nobody's way", async () => {
  await using place = new Place();
  await place.open();
  await commit(place.store, [set("a", "1"), set("b", "1", START_MS + 5)]);
  for (const k of ["'text'", "12", "1.5"]) {
    place.run(
      `insert into kv (k, v, v_encoding, version, expiration_ms) values (${k}, x'76', 3, 1, 5)`,
    );
  }
  await place.store.close();
  place.clock.advance(5);
  const store = await place.open();
  assert.deepEqual(texts((await store.read([everything()]))[0]), ["1"]);
  assert.equal((await place.snapshot()).has(byteString(utf8("text"))), false);
  assert.ok(place.warnings.some((line) => /leaves out/.test(line)));
  await eventually("the sweep of b", () => {
    place.clock.advance(1000);
    return store.stats().expiredDeleted === 1;
  });
});

Deno.test("odd rows in the queue tables stop neither the start nor a snapshot", async () => {
  await using place = new Place();
  await place.open();
  const payload = utf8("x");
  await place.store.write(atomic([], [], [{
    payload,
    deadlineMs: 4_102_444_800_000,
    keysIfUndelivered: [],
    backoffScheduleMs: null,
  }]));
  await place.store.close();
  for (
    const values of [
      "9223372036854775807, 'a', x'00', '[]', '[]'",
      "-9223372036854775807, 'a', x'00', '[]', '[]'",
      "'x', 'b', x'00', '[]', '[]'",
      "1.5, 'c', x'00', '[]', '[]'",
      "1, x'00ff', x'00', '[]', '[]'",
      "2, 'd', x'00', 'nonsense', '[]'",
      "3, 'e', x'00', '[1.5]', '[]'",
      "4, 'f', x'00', '[]', '[[256]]'",
      "5, 'g', x'00', '[]', '{}'",
      "6, 'h', x'00', '[]', x'ff'",
      "7, 'readable', 'text', 'null', '[[1,2]]'",
    ]
  ) {
    place.run(`insert into queue values (${values})`);
    place.run(`insert into queue_running values (${values})`);
  }
  const store = await place.open();
  await commit(store, [set("a", "1")]);
  const digest = await store.backupSource.digest();
  assert.equal(digest.queueMessages, 3);
  assert.equal((await place.snapshot()).size, 1 + 3);
  assert.ok(place.warnings.some((line) => /leaves out/.test(line)));
});

for (
  const [what, sql] of [
    ["a text", "update migration_state set version = 'x'"],
    ["negative", "update migration_state set version = -1"],
    ["a fraction", "update migration_state set version = 2.5"],
    ["gone", "delete from migration_state"],
  ]
) {
  Deno.test(`migration_state is ${what}: the tables say what the file is`, async () => {
    await using place = new Place();
    await place.open();
    await commit(place.store, [set("a", "1")]);
    await place.store.close();
    place.run(sql);
    const store = await place.open();
    assert.deepEqual(texts((await store.read([point("a")]))[0]), ["1"]);
    await commit(store, [set("a", "2")]);
  });
}

Deno.test("a schema from far in the future is refused with its number", async () => {
  await using place = new Place();
  await place.open();
  await place.store.close();
  place.run("update migration_state set version = 9223372036854775807");
  await assert.rejects(place.open(), /schema version 9223372036854775807/);
});

for (
  const [what, sql] of [
    [
      "a floor that is a text",
      "update denokv_state set v = 'x' where k = 'log_floor'",
    ],
    [
      "a floor above 2^53",
      "update denokv_state set v = 9223372036854775807 where k = 'log_floor'",
    ],
    [
      "a row above 2^53",
      "insert into denokv_log values (9223372036854775807, 1, 1, 1, x'')",
    ],
    ["an end that is a text", "update denokv_log set end_bytes = 'x'"],
    [
      "an end above 2^53",
      "update denokv_log set end_bytes = 9223372036854775807",
    ],
  ]
) {
  Deno.test(`the log has ${what}: it begins anew`, async () => {
    await using place = new Place();
    await place.open();
    // A gap of its own, so that there is a floor.
    place.run("delete from data_version");
    const last = await commit(place.store, [set("a", "1")]);
    await place.store.close();
    place.run(sql);
    const store = await place.open();
    assert.ok(store.stats().log.floorVersion > last);
    const next = await commit(store, [set("a", "2")]);
    assert.equal(store.stats().log.headVersion, next);
    assert.equal(store.backupSource.readLog(last, 1000).length, 2);
  });
}

Deno.test("a read-only store takes such rows the same way", async () => {
  await using place = new Place();
  await place.open();
  await commit(place.store, [set("a", "1"), set("z", "1")]);
  place.run(
    "insert into kv (k, v, v_encoding, version) values (?, x'76', 3, -1)",
    key("m"),
  );
  place.run("update data_version set version = 9223372036854775807");
  const reader = await openSqliteStore({ path: place.path, readOnly: true });
  assert.deepEqual(texts((await reader.read([everything()]))[0]), ["1", "1"]);
  assert.deepEqual(await reader.read([point("m")]), [[]]);
  assert.equal(reader.stats().unreadableRows, 2);
  assert.equal(reader.stats().durableVersion, 0);
  await reader.close();
});
