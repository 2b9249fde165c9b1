import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { UnavailableError } from "../../common/errors.ts";
import { silentLogger } from "../../common/log.ts";
import { ManualClock } from "../../common/manual_clock.ts";
import { seededRandom } from "../../common/random.ts";
import { decodeLogEntries } from "../../log/entry.ts";
import { commitsOf, open, readTo } from "../contract/log.ts";
import {
  atomic,
  commit,
  eventually,
  HeldDurability,
  isSettled,
  set,
  START_MS,
} from "../contract/support.ts";
import { localDurability } from "../durability.ts";
import { LogGoneError, type LogReader } from "../log_source.ts";
import type { Store } from "../store.ts";
import { openSqliteStore } from "./store.ts";
import { Writing } from "./writing.ts";

const MIB = 1024 * 1024;
/** The log while nobody reads it; trimming begins 1 MiB past it. */
const MAX_LOG_BYTES = 256 * 1024;

async function withStore(
  work: (store: Store, path: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  const path = `${folder}/denokv.sqlite`;
  const store = await openSqliteStore({ path, maxLogBytes: MAX_LOG_BYTES });
  try {
    await work(store, path);
  } finally {
    await store.close();
    await Deno.remove(folder, { recursive: true });
  }
}

/** So many commits of 64 KiB. */
async function fill(store: Store, count: number): Promise<number[]> {
  const versions: number[] = [];
  const text = "x".repeat(64 * 1024);
  for (let i = 0; i < count; i++) {
    versions.push(await commit(store, [set("a", text)]));
  }
  return versions;
}

Deno.test("each reader holds the trim back up to its own limit, and is told when the log went on without it", () =>
  withStore(async (store) => {
    const log = store.log!;
    const begin = log.durableVersion;
    const limits = [0, 3 * MIB, 8 * MIB];
    const readers = limits.map((maxRetainedBytes, i) =>
      open(store, { name: `${i}`, maxRetainedBytes, maxBatchBytes: MIB })
    );
    const [none, little, much] = readers;
    const { backupSource } = store;
    backupSource!.retainAfter(begin, 2 * MIB);
    const versions = await fill(store, 24);
    // 1.5 MiB: whoever holds something back has it all.
    assert.equal(log.logFloorVersion, begin, "the backup needs it too");
    backupSource!.retainAfter(versions.at(-1)!, 2 * MIB);
    versions.push(...await fill(store, 8));
    assert.equal(log.logFloorVersion, begin);
    assert.deepEqual(log.logReaders().map(({ name }) => name), [
      "0",
      "1",
      "2",
      "backup",
    ]);
    versions.push(...await fill(store, 32));
    assert.ok(store.stats().log.sizeBytes > 4 * MIB);
    assert.equal(log.logFloorVersion, begin, "the third holds it still");
    const rows = await readTo(much, versions.at(-1)!);
    assert.deepEqual(commitsOf(rows).map(([version]) => version), versions);
    // From here on nobody holds anything back that is within its limit.
    versions.push(...await fill(store, 40));
    const { sizeBytes } = store.stats().log;
    assert.ok(sizeBytes < 4 * MIB, `${sizeBytes} bytes`);
    for (const reader of [none, little]) {
      await assert.rejects(reader.next(), (error) => {
        assert.ok(error instanceof LogGoneError);
        assert.equal(error.floorVersion, log.logFloorVersion);
        assert.match(error.message, /no longer reaches back/);
        return true;
      });
    }
    assert.throws(() => open(store, { afterVersion: begin }), LogGoneError);
    const floor = log.logFloorVersion;
    const late = open(store, { afterVersion: floor });
    const left = await readTo(late, versions.at(-1)!);
    assert.deepEqual(
      commitsOf(left, floor).map(([version]) => version),
      versions.filter((version) => version > floor),
    );
    for (const reader of [...readers, late]) reader.close();
  }));

Deno.test("a closed reader holds nothing back", () =>
  withStore(async (store) => {
    const log = store.log!;
    const reader = open(store, { maxRetainedBytes: 64 * MIB });
    const begin = reader.version;
    await fill(store, 32);
    assert.equal(log.logFloorVersion, begin);
    reader.close();
    await fill(store, 8);
    assert.ok(log.logFloorVersion > begin);
    assert.ok(store.stats().log.sizeBytes < 2 * MIB);
  }));

Deno.test("a reader that is handed rows while the log is trimmed keeps them", () =>
  withStore(async (store) => {
    const reader = open(store, { maxRetainedBytes: 0, maxBatchBytes: MIB });
    const [version] = await fill(store, 1);
    const [row] = (await reader.next())!;
    await fill(store, 64);
    assert.ok(store.log!.logFloorVersion > version);
    const [{ value }] = decodeLogEntries(row.entries);
    assert.ok(value.every((byte) => byte === 0x78));
    reader.close();
  }));

Deno.test("another program's write is a gap: the reader is told with the next commit", () =>
  withStore(async (store, path) => {
    await commit(store, [set("a", "1")]);
    const reader = open(store);
    const other = new DatabaseSync(path);
    other.exec("update data_version set version = version + 1");
    other.close();
    const next = assert.rejects(reader.next(), LogGoneError);
    await commit(store, [set("a", "2")]);
    await next;
    reader.close();
  }));

/** A file whose syncs the test answers, with the readers over it. */
class Bench implements AsyncDisposable {
  readonly clock = new ManualClock(START_MS);
  writing!: Writing;
  /** Syncs that wait for the test; undefined: the disk answers. */
  syncs: PromiseWithResolvers<void>[] | undefined;
  private readonly folder = Deno.makeTempDirSync({ prefix: "denokv-test-" });

  static async open(durability = localDurability): Promise<Bench> {
    const bench = new Bench();
    bench.writing = await Writing.open({
      path: `${bench.folder}/denokv.sqlite`,
      clock: bench.clock,
      random: seededRandom(1),
      logger: silentLogger,
      durability,
      batchTimeoutMs: 0,
    });
    const { wal } = bench.writing.current().session;
    const sync = wal.sync.bind(wal);
    wal.sync = () => {
      if (bench.syncs === undefined) return sync();
      const held = Promise.withResolvers<void>();
      bench.syncs.push(held);
      return held.promise;
    };
    return bench;
  }

  reader(): LogReader {
    const log = this.writing.logReaders;
    return log.openLogReader({
      name: "test",
      afterVersion: log.durableVersion,
      maxRetainedBytes: 0,
      maxBatchBytes: 1000,
    });
  }

  write(name: string) {
    return this.writing.write(atomic([set(name, "x")]));
  }

  async nextSync(): Promise<PromiseWithResolvers<void>> {
    await eventually("a sync", () => this.syncs!.length > 0);
    return this.syncs!.shift()!;
  }

  async untilWritable(): Promise<void> {
    await eventually("writes again", () => {
      this.clock.advance(500);
      const health = this.writing.health();
      // The confirmation is the test's to give.
      return health.writable || health.cause === "backup";
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.syncs = undefined;
    await this.writing.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

Deno.test("a reader never sees what a failed sync takes back, and goes on when the disk does", async () => {
  await using bench = await Bench.open();
  const reader = bench.reader();
  await bench.write("a");
  const first = (await reader.next())!;
  bench.syncs = [];
  const lost = assert.rejects(bench.write("lost"), UnavailableError);
  const failing = await bench.nextSync();
  const next = reader.next();
  assert.equal(await isSettled(next), false);
  failing.reject(new Error("I/O error"));
  await lost;
  assert.equal(await isSettled(next), false);
  bench.syncs = undefined;
  await bench.untilWritable();
  await bench.write("b");
  const rows = [...first, ...(await next)!];
  const keys = rows.flatMap(({ entries }) => decodeLogEntries(entries))
    .map(({ key }) => String.fromCharCode(...key.subarray(1, -1)));
  assert.deepEqual(keys, ["a", "b"]);
  reader.close();
});

Deno.test("what was on the disk and not confirmed when a sync failed is not handed out before it is confirmed", async () => {
  const durability = new HeldDurability();
  await using bench = await Bench.open(durability);
  const { writing } = bench;
  const reader = bench.reader();
  await bench.write("a");
  await reader.next();
  const before = writing.logReaders.durableVersion;
  durability.hold();
  const unconfirmed = assert.rejects(bench.write("b"), UnavailableError);
  await durability.isAsked();
  bench.syncs = [];
  const lost = assert.rejects(bench.write("lost"), UnavailableError);
  (await bench.nextSync()).reject(new Error("I/O error"));
  await Promise.all([unconfirmed, lost]);
  bench.syncs = undefined;
  const next = reader.next();
  await bench.untilWritable();
  assert.equal(await isSettled(next), false);
  assert.equal(writing.logReaders.durableVersion, before);
  durability.release();
  const [row] = (await next)!;
  assert.ok(row.version > before);
  assert.equal(writing.logReaders.durableVersion, row.version);
  reader.close();
});
