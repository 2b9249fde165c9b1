import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { ManualClock } from "../../common/manual_clock.ts";
import { checkpointWorkerUrl } from "./checkpoint_worker.ts";
import {
  commit,
  eventually,
  point,
  set,
  START_MS,
  turns,
} from "../contract/support.ts";
import type { Store } from "../store.ts";
import { Checkpointer } from "./checkpointer.ts";
import { openSqliteStore } from "./store.ts";

const MIB = 1024 * 1024;
const TEXT = "x".repeat(10_000);

class Place implements AsyncDisposable {
  private constructor(readonly folder: string, readonly store: Store) {}

  static async open(): Promise<Place> {
    const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
    const path = `${folder}/denokv.sqlite`;
    return new Place(folder, await openSqliteStore({ path }));
  }

  get path(): string {
    return `${this.folder}/denokv.sqlite`;
  }

  /** Of the file, in use or not. */
  walFileBytes(): number {
    return Deno.statSync(`${this.path}-wal`).size;
  }

  /** Writes without a pause until it holds; the longest log on the way. */
  async writeUntil(holds: () => boolean): Promise<number> {
    let longest = 0;
    let written = 0;
    const writers = Array.from({ length: 16 }, async (_, writer) => {
      for (let i = 0; !holds(); i++) {
        await commit(this.store, [set(`${writer} ${i % 20}`, TEXT)]);
        longest = Math.max(longest, this.store.stats().walBytes);
        assert.ok(++written < 50_000, "never came");
      }
    });
    await Promise.all(writers);
    return longest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

Deno.test("the log stays bounded under writes without a pause, and readers are served meanwhile", async () => {
  await using place = await Place.open();
  const { store } = place;
  await commit(store, [set("stable", "1")]);
  let isOver = false;
  let reads = 0;
  const reader = (async () => {
    for (; !isOver; reads++) {
      const [[entry]] = await store.read([point("stable")]);
      assert.equal(entry.value.length, 1);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  })();
  const longest = await place.writeUntil(() => store.stats().checkpoints >= 5);
  isOver = true;
  await reader;
  // It is copied back from 8 MiB on, beside the writes.
  assert.ok(longest > 8 * MIB, `${longest} bytes`);
  assert.ok(longest < 24 * MIB, `${longest} bytes`);
  assert.ok(place.walFileBytes() < 24 * MIB);
  assert.ok(reads > 0);
});

Deno.test("another process's reader lets the log grow, and no longer than it reads", async () => {
  await using place = await Place.open();
  const { store } = place;
  await commit(store, [set("stable", "1")]);
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      `import { DatabaseSync } from "node:sqlite";
       const db = new DatabaseSync(Deno.args[0], { readOnly: true });
       db.exec("begin");
       const count = () => db.prepare("select count(*) as n from kv").get().n;
       const before = count();
       console.log("reading");
       for await (const _ of Deno.stdin.readable);
       if (count() !== before) throw new Error("no snapshot");
       db.exec("commit");
       db.close();`,
      place.path,
    ],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  await reader.read();
  const walBytes = () => store.stats().walBytes;
  await place.writeUntil(() => walBytes() > 80 * MIB);
  assert.equal(store.stats().checkpoints, 0);
  assert.deepEqual(store.health(), { writable: true });
  await child.stdin.close();
  while (!(await reader.read()).done);
  assert.ok((await child.status).success);

  await place.writeUntil(() => store.stats().checkpoints > 0);
  await place.writeUntil(() => walBytes() < 8 * MIB);
  // Its file too gives the space back, but for a part that is used again.
  assert.ok(place.walFileBytes() <= 64 * MIB, `${place.walFileBytes()}`);
  assert.ok(
    await place.writeUntil(() => store.stats().checkpoints > 3) < 24 * MIB,
  );
});

Deno.test("the log is in the database when the store has closed", async () => {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  try {
    const path = `${folder}/denokv.sqlite`;
    const store = await openSqliteStore({ path });
    await commit(store, [set("a", "1")]);
    await store.close();
    const names = [...Deno.readDirSync(folder)].map((entry) => entry.name);
    assert.deepEqual(names.sort(), ["denokv.sqlite", "denokv.sqlite-lock"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

const SILENT = "data:application/javascript,self.onmessage = () => {};";

/** A checkpointer beside a connection that the test writes with itself. */
class Bench implements AsyncDisposable {
  readonly db: DatabaseSync;
  readonly failures: string[] = [];
  holds = 0;
  released = 0;
  readonly checkpointer: Checkpointer;

  readonly clock = new ManualClock(START_MS);
  /** What threads that are started now run instead of the Worker's program. */
  program: string | undefined;

  private constructor(readonly folder: string) {
    const path = `${folder}/a.sqlite`;
    this.db = new DatabaseSync(path);
    this.db.exec(
      "pragma journal_mode = wal; pragma synchronous = normal; pragma wal_autocheckpoint = 0; create table t (x)",
    );
    this.checkpointer = new Checkpointer({
      clock: this.clock,
      workerUrl: () => this.program ?? checkpointWorkerUrl(path),
      databasePath: path,
      holdCommits: () => {
        this.holds++;
        return () => this.released++;
      },
      walFrames: () => this.walFrames(),
      onFailure: (message) => this.failures.push(message),
    });
  }

  static async open(): Promise<Bench> {
    return new Bench(await Deno.makeTempDir({ prefix: "denokv-test-" }));
  }

  walFrames(): { log: number; checkpointed: number } {
    const row = this.db.prepare("pragma wal_checkpoint(noop)").get()!;
    return { log: Number(row.log), checkpointed: Number(row.checkpointed) };
  }

  write(): void {
    this.db.exec("insert into t values (zeroblob(100000))");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.checkpointer.suspend();
    this.db.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

Deno.test("a short log is left alone; a long one is copied, and each hold is released", async () => {
  await using bench = await Bench.open();
  const { checkpointer } = bench;
  bench.write();
  checkpointer.maybeStart(8 * MIB - 1);
  assert.equal(bench.walFrames().checkpointed, 0);
  checkpointer.maybeStart(8 * MIB);
  await eventually("a checkpoint", () => checkpointer.completed === 1);
  const { log, checkpointed } = bench.walFrames();
  assert.equal(checkpointed, log);
  assert.equal(bench.holds, bench.released);
  assert.deepEqual(bench.failures, []);
});

Deno.test("where a reader is in the way, the next attempt waits until the log has grown", async () => {
  await using bench = await Bench.open();
  const { checkpointer, db } = bench;
  const reader = new DatabaseSync(`${bench.folder}/a.sqlite`, {
    readOnly: true,
  });
  bench.write();
  reader.exec("begin");
  reader.prepare("select count(*) from t").get();
  bench.write();
  checkpointer.maybeStart(8 * MIB);
  await eventually("its end", () => bench.released === 1);
  const before = bench.walFrames();
  assert.ok(before.checkpointed > 0 && before.checkpointed < before.log);
  assert.equal(checkpointer.completed, 0);

  reader.exec("commit");
  checkpointer.maybeStart(16 * MIB - 1);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(bench.walFrames(), before);
  checkpointer.maybeStart(16 * MIB);
  await eventually("a checkpoint", () => checkpointer.completed === 1);
  // The log begins anew, and with it the usual bound.
  bench.write();
  assert.ok(bench.walFrames().log < before.log);
  checkpointer.maybeStart(1);
  checkpointer.maybeStart(8 * MIB);
  await eventually("another", () => checkpointer.completed === 2);
  reader.close();
  assert.ok(db.isOpen);
});

Deno.test("a suspended checkpointer has closed its connection, and begins again after resume", async () => {
  await using bench = await Bench.open();
  const { checkpointer } = bench;
  bench.write();
  checkpointer.maybeStart(8 * MIB);
  await checkpointer.suspend();
  // Alone: the exclusive lock is to be had.
  bench.db.exec(
    "pragma locking_mode = exclusive; begin immediate; rollback; pragma locking_mode = normal; select count(*) from t",
  );
  const { completed } = checkpointer;
  bench.write();
  checkpointer.maybeStart(100 * MIB);
  assert.equal(checkpointer.completed, completed);
  await checkpointer.suspend();
  checkpointer.resume();
  checkpointer.maybeStart(100 * MIB);
  await eventually("a checkpoint", () => checkpointer.completed > completed);
});

Deno.test("a thread that never answers is ended and said; commits go on, and another takes over", async () => {
  await using bench = await Bench.open();
  const { checkpointer, clock } = bench;
  bench.write();
  bench.program = SILENT;
  checkpointer.maybeStart(8 * MIB);
  await turns();
  clock.advance(599_000);
  await turns();
  assert.deepEqual(bench.failures, []);
  clock.advance(1000);
  await eventually("its end", () => bench.failures.length === 1);
  assert.match(bench.failures[0], /not answered for 600 s/);
  assert.ok(checkpointer.isHalfCopied);

  bench.program = undefined;
  await checkpointer.repair();
  assert.equal(checkpointer.isHalfCopied, false);
  const { log, checkpointed } = bench.walFrames();
  assert.equal(checkpointed, log);
  bench.write();
  checkpointer.maybeStart(8 * MIB);
  await eventually("a checkpoint", () => checkpointer.completed === 1);
  assert.equal(bench.failures.length, 1);
});

Deno.test("commits are not held back for ever by a pass that does not end", async () => {
  await using bench = await Bench.open();
  const { checkpointer, clock } = bench;
  bench.write();
  // It says that it has copied something, and then nothing any more.
  bench.program =
    "data:application/javascript,self.onmessage = () => { self.postMessage({ kind: 'done' }); self.onmessage = () => {}; };";
  checkpointer.maybeStart(8 * MIB);
  await eventually("a hold", () => bench.holds === 1);
  clock.advance(4999);
  assert.equal(bench.released, 0);
  clock.advance(1);
  assert.equal(bench.released, 1);
  clock.advance(600_000);
  await eventually("its end", () => bench.failures.length === 1);
});

Deno.test("a stop waits for a thread that never answers, but not for ever", async () => {
  await using bench = await Bench.open();
  const { checkpointer, clock } = bench;
  bench.write();
  bench.program = SILENT;
  checkpointer.maybeStart(8 * MIB);
  const suspended = checkpointer.suspend();
  await turns();
  clock.advance(10_000);
  await suspended;
  assert.match(bench.failures.join(), /a stop does not wait/);
  assert.ok(checkpointer.isHalfCopied);
});

Deno.test("a thread that fails to start is told, and another is started", async () => {
  await using bench = await Bench.open();
  const { checkpointer } = bench;
  bench.write();
  bench.program =
    "data:application/javascript,throw new Error('no such thing')";
  checkpointer.maybeStart(8 * MIB);
  await eventually("its end", () => bench.failures.length === 1);
  assert.match(bench.failures[0], /no such thing/);
  bench.program = undefined;
  checkpointer.maybeStart(100 * MIB);
  await eventually("a checkpoint", () => checkpointer.completed === 1);
});
