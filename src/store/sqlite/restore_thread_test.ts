import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { setImmediate } from "node:timers/promises";
import { systemClock } from "../../common/clock.ts";
import { ManualClock } from "../../common/manual_clock.ts";
import { encodeSnapshotRange } from "../../log/snapshot_range.ts";
import { createRestoreTarget } from "./restore_target.ts";
import type { RestoreThreadOptions } from "./restore_thread.ts";

const END = {
  databaseId: "11111111-1111-4111-8111-111111111111",
  version: 9,
  leapToVersion: 9,
  state: {},
};
const VALUE_BYTES = 100;

async function inFolder(work: (path: string) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  try {
    await work(`${folder}/a.sqlite`);
    const left = [...Deno.readDirSync(folder)].map(({ name }) => name);
    assert.deepEqual(left.filter((name) => name !== "a.sqlite"), []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A part of a snapshot: rows with numbered keys. */
function part(from: number, count: number) {
  return encodeSnapshotRange(
    Array.from({ length: count }, (_, i) => {
      const key = new Uint8Array(8);
      new DataView(key.buffer).setUint32(4, from + i);
      return [key, new Uint8Array(VALUE_BYTES), 3, 1 + i % 9, 0, -1];
    }),
  );
}

/** A thread that runs another program. */
function workerUrl(program: string) {
  return () => "data:application/javascript," + encodeURIComponent(program);
}

Deno.test("while a restored file gets its index, its commit and its sync, the event loop turns", () =>
  inFolder(async (path) => {
    const target = await createRestoreTarget(path, { clock: systemClock });
    const perPart = 10_000;
    for (let i = 0; i < 30; i++) await target.load(part(i * perPart, perPart));
    let isFinished = false;
    const finishing = target.finish(END).finally(() => isFinished = true);
    let turns = 0;
    while (!isFinished) {
      await setImmediate();
      turns++;
    }
    await finishing;
    // Done in this thread, there is one after each of a few calls.
    assert.ok(turns > 100, `${turns}`);
    const db = new DatabaseSync(path);
    const { n } = db.prepare(
      "select count(*) as n from kv indexed by kv_expiration_ms_idx where expiration_ms = -1",
    ).get()!;
    const { check } = db.prepare(
      "select integrity_check as 'check' from pragma_integrity_check",
    ).get()!;
    db.close();
    assert.equal(n, 30 * perPart);
    assert.equal(check, "ok");
  }));

Deno.test("what is handed over and not written yet is bounded", () =>
  inFolder(async (path) => {
    // It answers nothing before it is asked for the third time.
    const target = await createRestoreTarget(path, {
      clock: systemClock,
      workerUrl: workerUrl(`
        let seen = 0;
        onmessage = () => {
          if (++seen < 3) return;
          if (seen === 3) { postMessage({ kind: "done" }); postMessage({ kind: "done" }); }
          postMessage({ kind: "done" });
        };`),
    });
    const two = async () => {
      await target.load(part(0, 10_000));
      await target.load(part(0, 10_000));
    };
    // The second one is beyond the bound and waits for the thread.
    let isTaken = false;
    const taking = two().then(() => isTaken = true);
    for (let i = 0; i < 50; i++) await setImmediate();
    assert.equal(isTaken, false);
    await target.load(part(0, 10));
    await taking;
    await target.discard();
  }));

Deno.test("a thread that dies is an error that says so, and leaves nothing", () =>
  inFolder(async (path) => {
    const options = {
      clock: systemClock,
      workerUrl: workerUrl(
        "onmessage = () => { throw new Error('out of luck'); };",
      ),
    };
    const target = await createRestoreTarget(path, options);
    const failure = {
      name: "StartupError",
      message: /could not be restored: its thread has ended .*out of luck/,
    };
    await assert.rejects(async () => {
      await target.load(part(0, 10));
      await target.finish(END);
    }, failure);
    // It stays one.
    await assert.rejects(target.load(part(0, 10)), failure);
    await target.discard();
  }));

Deno.test("a thread that is silent is ended, and told as an error", () =>
  inFolder(async (path) => {
    const clock = new ManualClock(0);
    const target = await createRestoreTarget(path, {
      clock,
      workerUrl: workerUrl("onmessage = () => {};"),
    });
    const finishing = assert.rejects(target.finish(END), {
      name: "StartupError",
      message: /its thread has not answered for 30 minutes/,
    });
    clock.advance(30 * 60_000);
    await finishing;
    await target.discard();
  }));

Deno.test("the signal ends a restore at once, whatever its thread is at", () =>
  inFolder(async (path) => {
    const ending = new AbortController();
    const options: RestoreThreadOptions = {
      clock: systemClock,
      signal: ending.signal,
      workerUrl: workerUrl("onmessage = () => {};"),
    };
    const target = await createRestoreTarget(path, options);
    const reason = new Error("the server is stopping");
    const finishing = assert.rejects(target.finish(END), reason);
    ending.abort(reason);
    await finishing;
    await target.discard();
    await assert.rejects(createRestoreTarget(path, options), reason);
  }));

Deno.test("what the file does not take is told, and no later part hides it", () =>
  inFolder(async (path) => {
    const target = await createRestoreTarget(path, { clock: systemClock });
    await target.load(part(0, 10));
    // The same keys again: no snapshot has a key twice.
    await assert.rejects(async () => {
      await target.load(part(0, 60));
      await target.load(part(100, 10));
      await target.finish(END);
    }, { name: "StartupError", message: /could not be restored: UNIQUE/ });
    await target.discard();
  }));
