import assert from "node:assert/strict";
import { utf8 } from "../../common/bytes.ts";
import { systemClock } from "../../common/clock.ts";
import { StartupError } from "../../common/errors.ts";
import { silentLogger } from "../../common/log.ts";
import { systemRandom } from "../../common/random.ts";
import { atomic, range, set } from "../contract/support.ts";
import { localDurability } from "../durability.ts";
import { SqliteLocalEngine } from "./local_engine.ts";

async function inFolder(work: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  try {
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function engineOf(path: string): SqliteLocalEngine {
  return new SqliteLocalEngine({
    path,
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
  });
}

async function opened(engine: SqliteLocalEngine) {
  engine.lock();
  const store = await engine.open(localDurability);
  return { store, source: store.backupSource };
}

const EVERYTHING = range(new Uint8Array([0]), new Uint8Array([0xff]));

const message = {
  payload: utf8("payload"),
  deadlineMs: 4_000_000_000_000,
  keysIfUndelivered: [utf8("key")],
  backoffScheduleMs: [1, 2],
};

Deno.test("a snapshot taken beside writes, and the log after it, make the same database", () =>
  inFolder(async (folder) => {
    const { store, source } = await opened(engineOf(`${folder}/a`));
    for (let i = 0; i < 3000; i++) {
      await store.write(atomic([set(`key ${i % 900}`, `value ${i}`)]));
    }
    await store.write({
      ...atomic([set("expires", "1")]),
      enqueues: [message],
    });
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let begun = 0;
    const summary = await source.snapshot({
      partBytes: 8192,
      onBegin: (version) => begun = version,
      async onPart({ bytes }) {
        parts.push(bytes);
        // The snapshot stands still, whatever is written.
        const i = parts.length;
        await store.write(
          atomic([set(`key ${i}`, "later"), set(`new ${i}`, "")]),
        );
      },
    });
    assert.equal(summary.version, begun);
    assert.equal(summary.entries, 901);
    assert.equal(summary.queueMessages, 1);
    assert.ok(parts.length > 5);
    const digest = await source.digest();
    assert.equal(digest.entries, 901 + parts.length);

    const scratch = engineOf(`${folder}/a`).scratch();
    const target = await scratch.create();
    for (const part of parts) await target.load(part);
    let version = begun;
    for (const row of source.readLog(begun, 1e9)) {
      version = Math.max(
        version,
        (await target.apply(row.entries, begun, digest.version)).lastVersion,
      );
    }
    assert.equal(version, digest.version);
    await target.finish({
      databaseId: source.databaseId,
      version,
      leapToVersion: version,
      state: {},
    });
    assert.equal((await scratch.digest()).sha256, digest.sha256);
    if (Deno.build.os !== "windows") {
      const { mode } = Deno.statSync(`${folder}/a.verify`);
      assert.equal(mode! & 0o777, 0o600, "what a restore writes is private");
    }
    await scratch.remove();
    await store.close();
  }));

Deno.test("a snapshot that is read in pieces has the same parts", () =>
  inFolder(async (folder) => {
    const { store, source } = await opened(engineOf(`${folder}/a`));
    for (let i = 0; i < 40; i++) {
      await store.write(atomic([set(`key ${i}`, "x".repeat(20_000))]));
    }
    const digests = async (pauseMs?: () => number) => {
      const parts: string[] = [];
      await source.snapshot({
        partBytes: 300_000,
        pauseMs,
        onBegin() {},
        onPart({ sha256 }) {
          parts.push(sha256);
          return Promise.resolve();
        },
      });
      return parts;
    };
    let asked = 0;
    const inPieces = await digests(() => ++asked);
    assert.equal(inPieces.length, 3);
    assert.ok(asked >= inPieces.length);
    assert.deepEqual(inPieces, await digests());
    await store.close();
  }));

Deno.test("the log is read in whole rows, never more than about what was asked for", () =>
  inFolder(async (folder) => {
    const { store, source } = await opened(engineOf(`${folder}/a`));
    for (let i = 0; i < 50; i++) await store.write(atomic([set(`${i}`, "x")]));
    const seen: number[] = [];
    let at = 0;
    for (;;) {
      const rows = source.readLog(at, 200);
      if (rows.length === 0) break;
      const sizes = rows.map(({ entries }) => entries.length);
      assert.ok(rows.length === 1 || sizes.reduce((a, b) => a + b) <= 200);
      seen.push(...rows.map(({ version }) => version));
      at = rows.at(-1)!.version;
    }
    assert.equal(at, source.syncedVersion);
    assert.deepEqual(seen, [...seen].sort((a, b) => a - b));
    assert.equal(source.logBytesAfter(at), 0);
    assert.ok(source.logBytesAfter(0) > 50 * 30);
    await store.close();
  }));

Deno.test("values of the state are kept over a restart", () =>
  inFolder(async (folder) => {
    const engine = engineOf(`${folder}/a`);
    const first = await opened(engine);
    await first.source.setState({ backup_url: "s3://x", backup_epoch: "7" });
    await first.store.write(atomic([set("a", "1")]));
    const { databaseId, syncedVersion } = first.source;
    await first.store.close();
    const lock = engine.lock();
    const local = engine.inspect()!;
    assert.equal(local.databaseId, databaseId);
    assert.equal(local.version, syncedVersion);
    assert.equal(local.contentVersion, syncedVersion);
    assert.equal(local.state("backup_epoch"), "7");
    lock.release();
  }));

Deno.test("a file that was restored goes on above its leap, with its log whole", () =>
  inFolder(async (folder) => {
    const engine = engineOf(`${folder}/a`);
    assert.equal(engine.inspect(), undefined);
    // What an interrupted restore left is begun anew.
    await Deno.writeTextFile(`${folder}/a.restoring`, "half of a file");
    const target = await engine.create();
    await target.finish({
      databaseId: "11111111-1111-4111-8111-111111111111",
      version: 100,
      leapToVersion: 5000,
      state: {},
    });
    await assert.rejects(() => engine.create(), StartupError);
    const { store, source } = await opened(engine);
    assert.equal(source.logFloorVersion, 100);
    const outcome = await store.write(atomic([set("a", "1")]));
    assert(outcome.status === "committed");
    assert.ok(outcome.version > 5000);
    const rows = source.readLog(100, 1e9).filter((row) =>
      row.entries.length > 0
    );
    assert.deepEqual(rows.map(({ version }) => version), [outcome.version]);
    await store.close();
  }));

Deno.test("catching up is one transaction, and leaves nothing when it is given up", () =>
  inFolder(async (folder) => {
    const engine = engineOf(`${folder}/a`);
    const { store, source } = await opened(engine);
    await store.write(atomic([set("a", "old")]));
    const { databaseId, syncedVersion } = source;
    await store.close();
    const other = await opened(engineOf(`${folder}/b`));
    await other.store.write(atomic([set("a", "new"), set("b", "new")]));
    const [row] = other.source.readLog(0, 1e9).filter((row) =>
      row.entries.length > 0
    );
    await other.store.close();
    for (const givesUp of [true, false]) {
      const target = await engine.catchUp();
      const { applied } = await target.apply(row.entries, 0, Infinity);
      assert.equal(applied, 2);
      if (givesUp) await target.discard();
      else {
        await target.finish({
          databaseId,
          version: row.version,
          leapToVersion: syncedVersion + 1000,
          state: { backup_epoch: "2" },
        });
      }
      const again = await opened(engine);
      const [[a]] = await again.store.read([EVERYTHING]);
      assert.equal(new TextDecoder().decode(a?.value), givesUp ? "old" : "new");
      await again.store.close();
    }
    assert.equal(engine.inspect()!.state("backup_epoch"), "2");
  }));

Deno.test("a file that is set aside keeps everything under a free name", () =>
  inFolder(async (folder) => {
    const engine = engineOf(`${folder}/a`);
    const names: string[] = [];
    for (let i = 0; i < 2; i++) {
      const { store } = await opened(engine);
      await store.write(atomic([set("a", `${i}`)]));
      await store.close();
      names.push(engine.setAside("aside"));
      assert.equal(engine.inspect(), undefined);
    }
    assert.deepEqual(names.map((name) => name.slice(folder.length)), [
      "/a.aside",
      "/a.aside-2",
    ]);
    for (const [i, name] of names.entries()) {
      const { store } = await opened(engineOf(name));
      const [[a]] = await store.read([EVERYTHING]);
      assert.equal(new TextDecoder().decode(a.value), `${i}`);
      await store.close();
    }
  }));
