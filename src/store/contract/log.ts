/** The log as everybody's source: the promises of log_source.ts. */
import assert from "node:assert/strict";
import {
  InvalidRequestError,
  TooManyError,
  UnavailableError,
} from "../../common/errors.ts";
import { seededRandom } from "../../common/random.ts";
import { decodeLogEntries, LAST_INDEX } from "../../log/entry.ts";
import type { LogRow } from "../backup_source.ts";
import { MAX_LOG_READERS } from "../log_readers.ts";
import type { LogReader, LogSource } from "../log_source.ts";
import {
  atomic,
  type Bench,
  commit,
  del,
  HeldDurability,
  isSettled,
  type MakePlace,
  set,
  type Store,
  type StoreSettings,
  withBench,
} from "./support.ts";

const unavailable = (error: unknown) => error instanceof UnavailableError;

/** What whole commits of rows did: versions, each with its entries' keys. */
export function commitsOf(
  rows: readonly LogRow[],
  afterVersion = 0,
): [version: number, keys: string[]][] {
  const commits: [number, string[]][] = [];
  for (const row of rows) {
    for (const { version, key, index } of decodeLogEntries(row.entries)) {
      if (version <= afterVersion) continue;
      if (commits.at(-1)?.[0] !== version) commits.push([version, []]);
      const keys = commits.at(-1)![1];
      assert.ok(keys.at(-1) !== "end", "one entry ends a commit, the last one");
      keys.push(key.toHex());
      if (index === LAST_INDEX) keys.push("end");
    }
  }
  for (const [, keys] of commits) assert.equal(keys.pop(), "end", "whole");
  return commits;
}

export function open(
  store: Store,
  more: Partial<Parameters<LogSource["openLogReader"]>[0]> = {},
): LogReader {
  const log = store.log!;
  return log.openLogReader({
    name: "test",
    afterVersion: log.durableVersion,
    maxRetainedBytes: 64 * 1024 * 1024,
    maxBatchBytes: 64 * 1024,
    ...more,
  });
}

/** Everything up to the version, as one reader gets it. */
export async function readTo(
  reader: LogReader,
  version: number,
): Promise<LogRow[]> {
  const rows: LogRow[] = [];
  while (reader.version < version) {
    const more = await reader.next();
    assert.ok(more && more.length > 0);
    assert.equal(more.at(-1)!.version, reader.version);
    rows.push(...more);
  }
  return rows;
}

export function logContract(name: string, makePlace: MakePlace): void {
  const test = (
    title: string,
    run: (bench: Bench) => void | Promise<void>,
    settings?: Partial<StoreSettings>,
  ) => Deno.test(`${name}, log: ${title}`, withBench(makePlace, run, settings));

  test("several readers at different speeds each get every commit after their position, whole and in order", async ({ store }) => {
    const random = seededRandom(7);
    const begin = store.log!.durableVersion;
    const batches = [1, 300, 5000, 1_000_000];
    const readers = batches.map((maxBatchBytes, i) =>
      open(store, { name: `reader ${i}`, maxBatchBytes })
    );
    const got: LogRow[][] = readers.map(() => []);
    const versions: number[] = [];
    for (let round = 0; round < 40; round++) {
      versions.push(
        ...await Promise.all(
          Array.from({ length: 1 + random.below(8) }, (_, i) =>
            commit(store, [
              set(`k${i}`, "x".repeat(random.below(2000))),
              del(`gone ${round}`),
            ])),
        ),
      );
      for (const [i, reader] of readers.entries()) {
        if (random.below(i + 2) > 0 || reader.version >= versions.at(-1)!) {
          continue;
        }
        const rows = (await reader.next())!;
        got[i].push(...rows);
        const sizeBytes = rows.reduce(
          (sum, row) => sum + row.entries.length,
          0,
        );
        assert.ok(rows.length === 1 || sizeBytes <= batches[i]);
      }
    }
    for (const [i, reader] of readers.entries()) {
      got[i].push(...await readTo(reader, versions.at(-1)!));
      const commits = commitsOf(got[i], begin);
      assert.deepEqual(commits.map(([version]) => version), versions);
      assert.ok(commits.every(([, keys]) => keys.length === 2));
      reader.close();
    }
    // One that begins in the middle passes over what it has.
    const middle = versions[Math.floor(versions.length / 2)];
    const late = open(store, { afterVersion: middle });
    const rows = await readTo(late, versions.at(-1)!);
    assert.deepEqual(
      commitsOf(rows, middle).map(([version]) => version),
      versions.filter((version) => version > middle),
    );
    late.close();
  });

  test("a reader that has everything waits, and is woken by the next commit", async (bench) => {
    const { store } = bench;
    const reader = open(store);
    const next = reader.next();
    assert.equal(await isSettled(next), false);
    const version = await bench.commit(set("a", "1"));
    assert.deepEqual((await next)!.at(-1)!.version, version);
    // A write that changes nothing is no commit.
    const more = reader.next();
    await store.write(atomic([set("b", "1")], [
      { key: new Uint8Array([1]), version: 5, order: 0 },
    ]));
    assert.equal(await isSettled(more), false);
    reader.close();
    assert.equal(await more, null);
    assert.equal(await reader.next(), null);
  });

  test("a reader is a loop that ends with it", async (bench) => {
    const reader = open(bench.store);
    const versions: number[] = [];
    const reading = (async () => {
      for await (const rows of reader) {
        versions.push(...commitsOf(rows).map(([version]) => version));
        if (versions.length === 3) break;
      }
    })();
    const written = [];
    for (let i = 0; i < 3; i++) written.push(await bench.commit(set("a", "1")));
    await reading;
    assert.deepEqual(versions, written);
    assert.deepEqual(bench.store.log!.logReaders(), []);
  });

  test("a signal ends a wait and leaves the reader where it was", async (bench) => {
    const reader = open(bench.store);
    const controller = new AbortController();
    const next = reader.next(controller.signal);
    const reason = new Error("enough");
    const ended = assert.rejects(next, reason);
    controller.abort(reason);
    await ended;
    await assert.rejects(reader.next(controller.signal), reason);
    const version = await bench.commit(set("a", "1"));
    assert.equal((await reader.next())![0].version, version);
    reader.close();
  });

  test("what a reader has not got is told, in bytes and in time, and readers are few", async (bench) => {
    const { store, clock } = bench;
    const log = store.log!;
    const reader = open(store, { name: "slow" });
    assert.deepEqual(log.logReaders(), [
      { name: "slow", version: reader.version, lagBytes: 0, lagMs: 0 },
    ]);
    await bench.commit(set("a", "x".repeat(1000)));
    clock.advance(700);
    await bench.commit(set("a", "x".repeat(1000)));
    clock.advance(300);
    const [behind] = log.logReaders();
    assert.equal(behind.lagMs, 1000);
    assert.ok(behind.lagBytes > 2000 && behind.lagBytes < 2400);
    await readTo(reader, log.durableVersion);
    const [{ lagBytes, lagMs }] = log.logReaders();
    assert.deepEqual([lagBytes, lagMs], [0, 0]);
    const others = Array.from(
      { length: MAX_LOG_READERS - 1 },
      () => open(store),
    );
    assert.throws(() => open(store), TooManyError);
    others[0].close();
    open(store).close();
    for (const other of others) other.close();
    reader.close();
    assert.deepEqual(log.logReaders(), []);
  });

  test("a position that the database never had is refused", ({ store }) => {
    const { durableVersion } = store.log!;
    assert.throws(
      () => open(store, { afterVersion: durableVersion + 1 }),
      InvalidRequestError,
    );
  });

  test("a closed store ends its readers, and another opening goes on where they were", async (bench) => {
    const reader = open(bench.store);
    const first = await bench.commit(set("a", "1"));
    await readTo(reader, first);
    const unread = open(bench.store, { afterVersion: reader.version });
    const { log } = bench.store;
    const second = await bench.commit(set("a", "2"));
    await readTo(reader, second);
    const waiting = assert.rejects(reader.next(), unavailable);
    await bench.reopen();
    await waiting;
    await assert.rejects(unread.next(), unavailable);
    assert.throws(
      () =>
        log!.openLogReader({
          name: "late",
          afterVersion: 0,
          maxBatchBytes: 1,
          maxRetainedBytes: 0,
        }),
      unavailable,
    );
    const again = open(bench.store, { afterVersion: first });
    const rows = await readTo(again, second);
    assert.deepEqual(commitsOf(rows, first).map(([version]) => version), [
      second,
    ]);
    again.close();
  });

  const durability = new HeldDurability();
  test("nothing is handed out before it is confirmed", async ({ store }) => {
    const log = store.log!;
    const reader = open(store);
    const before = log.durableVersion;
    durability.hold();
    const write = commit(store, [set("a", "1")]);
    await durability.isAsked();
    const next = reader.next();
    assert.equal(await isSettled(next), false);
    assert.equal(log.durableVersion, before);
    assert.equal(log.logReaders()[0].lagBytes, 0);
    durability.release();
    const version = await write;
    assert.equal((await next)!.at(-1)!.version, version);
    // Nor is what is refused in the end: the reader ends with the store.
    durability.hold();
    const refused = assert.rejects(commit(store, [set("a", "2")]), unavailable);
    await durability.isAsked();
    const never = assert.rejects(reader.next(), unavailable);
    durability.fail(new UnavailableError("Another instance has it."));
    await Promise.all([refused, never]);
    await assert.rejects(reader.next(), unavailable);
  }, { durability });
}
