import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { UnavailableError } from "../../common/errors.ts";
import { silentLogger } from "../../common/log.ts";
import { ManualClock } from "../../common/manual_clock.ts";
import {
  commit,
  key,
  nextTexts,
  point,
  set,
  START_MS,
  texts,
} from "../contract/support.ts";
import {
  ForeignCommitWatch,
  type ForeignCommitWatchDeps,
  ForeignWrites,
} from "./foreign_writes.ts";
import { openSqliteStore, type SqliteStoreOptions } from "./store.ts";

async function inFolder(
  work: (
    path: string,
    clock: ManualClock,
    open: (
      more?: Partial<SqliteStoreOptions>,
    ) => ReturnType<typeof openSqliteStore>,
  ) => Promise<void>,
) {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  const path = `${folder}/denokv.sqlite`;
  const clock = new ManualClock(START_MS);
  try {
    await work(
      path,
      clock,
      (more = {}) => openSqliteStore({ path, clock, ...more }),
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

for (const readOnly of [false, true]) {
  const who = readOnly
    ? "a read-only store"
    : "a store that nobody writes through";
  Deno.test(`${who} tells its watches of another program's commits`, () =>
    inFolder(async (path, clock, open) => {
      const writer = await open();
      await commit(writer, [set("a", "1")]);
      if (readOnly) await writer.close();
      const store = readOnly ? await open({ readOnly }) : writer;
      const watch = store.watch([key("a")]);
      assert.deepEqual(await nextTexts(watch), [["1"], [true]]);
      const other = new DatabaseSync(path);
      for (const text of ["2", "3"]) {
        const next = nextTexts(watch);
        // Its version stays: only SQLite's own count tells.
        other.prepare(
          "update kv set v = ?, version = version + 1 where k = ?",
        ).run(new TextEncoder().encode(text), key("a"));
        clock.advance(250);
        assert.deepEqual(await next, [[text], [true]]);
      }
      other.close();
      watch.cancel();
      await store.close();
    }));
}

function looker(more: Partial<ForeignCommitWatchDeps> = {}) {
  const state = { looks: 0, count: 1, hasWatches: true, told: 0 };
  const clock = new ManualClock(START_MS);
  const watch = new ForeignCommitWatch({
    clock,
    foreignCommits() {
      state.looks++;
      return state.count;
    },
    hasWatches: () => state.hasWatches,
    onForeignCommit: () => void state.told++,
    ...more,
  });
  return { state, clock, watch };
}

Deno.test("the file is looked at four times a second while there are watches, and not at all otherwise", () => {
  const { state, clock, watch } = looker();
  clock.advance(10_000);
  assert.equal(state.looks, 0);
  watch.begin();
  watch.begin();
  clock.advance(1000);
  assert.deepEqual([state.looks, state.told], [1 + 4, 0]);
  state.count++;
  clock.advance(1000);
  assert.deepEqual([state.looks, state.told], [1 + 8, 1]);
  state.hasWatches = false;
  clock.advance(10_000);
  assert.deepEqual([state.looks, state.told], [1 + 8, 1]);
  // The next watch has seen what there is.
  state.count++;
  state.hasWatches = true;
  watch.begin();
  clock.advance(250);
  assert.equal(state.told, 1);
  watch.stop();
});

Deno.test("a look that fails is made again, and what came meanwhile is told", () => {
  let fails = false;
  let count = 1;
  const { state, clock, watch } = looker({
    foreignCommits() {
      if (fails) throw new Error("database is locked");
      return count;
    },
  });
  watch.begin();
  fails = true;
  count++;
  clock.advance(1000);
  assert.equal(state.told, 0);
  fails = false;
  clock.advance(250);
  assert.equal(state.told, 1);
});

Deno.test("a program that goes on writing is told of now and then; a rollback always", () => {
  const clock = new ManualClock(START_MS);
  const lines: string[] = [];
  const foreign = new ForeignWrites(clock, {
    ...silentLogger,
    warn: (message) => void lines.push(message),
  });
  for (let i = 0; i < 100; i++) foreign.noteWrite(5, 6);
  assert.equal(lines.length, 1);
  foreign.noteWrite(7, 3);
  foreign.noteWrite(9, undefined);
  assert.equal(lines.length, 3);
  assert.match(lines[2], /put older contents/);
  clock.advance(10_000);
  foreign.noteWrite(10, 11);
  assert.equal(lines.length, 4);
});

Deno.test("another program's lock: a read-only store's reads are refused for so long, and its watches go on", () =>
  inFolder(async (path, clock, open) => {
    const writer = await open();
    await commit(writer, [set("a", "1")]);
    await writer.close();
    const other = new DatabaseSync(path);
    // Here a writer keeps readers out.
    other.exec("pragma journal_mode = delete");
    const store = await open({ readOnly: true });
    const watch = store.watch([key("a")]);
    assert.deepEqual(await nextTexts(watch), [["1"], [true]]);
    const next = nextTexts(watch);
    other.exec("begin exclusive");
    for (let i = 0; i < 10; i++) clock.advance(250);
    assert.throws(
      () => store.read([point("a")]),
      (error) =>
        error instanceof UnavailableError && /locked/.test(error.message),
    );
    const late = store.watch([key("a")]);
    await assert.rejects(late.next(), UnavailableError);
    other.exec("update kv set v = x'32', version = version + 1; commit");
    clock.advance(250);
    assert.deepEqual(await next, [["2"], [true]]);
    assert.deepEqual(texts((await store.read([point("a")]))[0]), ["2"]);
    other.close();
    watch.cancel();
    await store.close();
  }));
