import assert from "node:assert/strict";
import { UnavailableError } from "../../common/errors.ts";
import { silentLogger } from "../../common/log.ts";
import { ManualClock } from "../../common/manual_clock.ts";
import { seededRandom } from "../../common/random.ts";
import {
  atomic,
  eventually,
  set,
  START_MS,
  turns,
} from "../contract/support.ts";
import { localDurability } from "../durability.ts";
import { Writing } from "./writing.ts";

const PROBE_MS = 500;

class Bench implements AsyncDisposable {
  readonly clock = new ManualClock(START_MS);
  writing!: Writing;
  private readonly folder = Deno.makeTempDirSync({ prefix: "denokv-test-" });
  /** Syncs that the test answers; undefined: the disk does. */
  syncs: PromiseWithResolvers<void>[] | undefined;

  static async open(): Promise<Bench> {
    const bench = new Bench();
    bench.writing = await Writing.open({
      path: `${bench.folder}/denokv.sqlite`,
      clock: bench.clock,
      random: seededRandom(1),
      logger: silentLogger,
      durability: localDurability,
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

  write(name: string): Promise<unknown> {
    return this.writing.write(atomic([set(name, "x")]));
  }

  /** The next sync that begins. */
  async nextSync(): Promise<PromiseWithResolvers<void>> {
    await eventually("a sync", () => this.syncs!.length > 0);
    return this.syncs!.shift()!;
  }

  /** The next commit fails, and leaves the log as it is. */
  failNextCommit(): void {
    const { commitStatement } = this.writing.current().session;
    const run = commitStatement.run.bind(commitStatement);
    commitStatement.run = () => {
      commitStatement.run = run;
      throw new Error("disk I/O error");
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.syncs = undefined;
    await this.writing.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

Deno.test("a sync that fails while the disk is tried again: the file is opened anew, and writes go on", async () => {
  await using bench = await Bench.open();
  const { clock, writing } = bench;
  bench.syncs = [];
  // A slow disk: more than one sync runs at once.
  const before = bench.write("a");
  const slow = await bench.nextSync();
  clock.advance(100);
  slow.resolve();
  await before;

  const inDoubt = assert.rejects(bench.write("b"), UnavailableError);
  const failing = await bench.nextSync();
  bench.failNextCommit();
  await assert.rejects(bench.write("c"), UnavailableError);
  assert.equal(writing.health().writable, false);
  clock.advance(PROBE_MS);
  const probing = await bench.nextSync();
  failing.reject(new Error("I/O error"));
  await inDoubt;
  probing.resolve();
  await turns();
  assert.equal(writing.health().writable, false, "the log is in doubt");
  bench.syncs = undefined;
  await eventually("writes again", () => {
    clock.advance(PROBE_MS);
    return writing.health().writable;
  });
  await bench.write("d");
});

Deno.test("a lock that writes no longer wait for is not told as one", async () => {
  await using bench = await Bench.open();
  const { clock, writing } = bench;
  const { beginStatement } = writing.current().session;
  const run = beginStatement.run.bind(beginStatement);
  beginStatement.run = () => {
    throw new Error("database is locked");
  };
  const refused = assert.rejects(bench.write("a"), UnavailableError);
  await turns();
  // Refused for another reason before the lock is given back.
  writing.current().writer.rejectPending(new UnavailableError("Not now."));
  await refused;
  beginStatement.run = run;
  clock.advance(3000);
  assert.deepEqual(writing.health(), { writable: true });
  const write = bench.write("b");
  assert.deepEqual(writing.health(), { writable: true });
  await write;
});
