import assert from "node:assert/strict";
import { createInterface } from "node:readline/promises";
import { Readable } from "node:stream";
import { exchange } from "../../bench/http1.ts";
import { connect, numberedKey, VALUE } from "../../bench/kv_client.ts";
import { rust, start } from "../../bench/servers.ts";
import { atomicWrite } from "../../bench/wire.ts";
import { programOrSkip } from "./programs.ts";
import { faultShim } from "./shim.ts";

/** The program of shim_probe.ts, spoken to line by line. */
async function probe(folder: string, env: Record<string, string>) {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      `--allow-read=${folder}`,
      `--allow-write=${folder}`,
      `${import.meta.dirname}/shim_probe.ts`,
      folder,
    ],
    env,
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const input = child.stdin.getWriter();
  const lines = createInterface({ input: Readable.fromWeb(child.stdout) })
    [Symbol.asyncIterator]();
  const nextLine = async () => String((await lines.next()).value);
  assert.equal(await nextLine(), "ready");
  return {
    async run(line: string): Promise<{ failed: string; tookMs: number }> {
      await input.write(new TextEncoder().encode(`${line}\n`));
      return JSON.parse(await nextLine());
    },
    async [Symbol.asyncDispose]() {
      await input.close();
      await child.status;
    },
  };
}

Deno.test("the fault shim acts on node:sqlite and on syncData", async () => {
  const folder = await Deno.makeTempDir({ prefix: "denokv_shim_" });
  await Deno.mkdir(`${folder}/inside`);
  try {
    await using shim = await faultShim(`${folder}/inside`);
    if (!shim) return;
    await using inside = await probe(`${folder}/inside`, shim.env);
    await using outside = await probe(folder, shim.env);

    // In order at first, and each fsync is counted, those of other folders not.
    const before = shim.counts().fsyncs;
    assert.equal((await inside.run("sync a 3")).failed, "");
    assert.equal((await outside.run("sync a 3")).failed, "");
    assert.equal(shim.counts().fsyncs, before + 3);

    shim.set({ fsyncDelayUs: 40_000 });
    for (const action of ["commit", "sync a 4"]) {
      const { tookMs, failed } = await inside.run(action);
      assert.equal(failed, "");
      assert.ok(tookMs >= 40, `${action}: ${tookMs} ms`);
    }

    // Held calls of a thread pool wait side by side.
    shim.set({ holdFsync: true });
    const held = inside.run("sync a 3");
    await shim.until((counts) => counts.fsyncsHeld === 3);
    assert.equal((await outside.run("commit")).failed, "");
    shim.set({});
    assert.equal((await held).failed, "");
    assert.equal(shim.counts().fsyncsHeld, 0);

    shim.set({ fsyncFailures: 1 });
    assert.match((await inside.run("sync a")).failed, /os error 5/);
    assert.equal((await inside.run("sync a")).failed, "");
    shim.set({ fsyncFailures: 2 });
    assert.match((await inside.run("commit")).failed, /disk I\/O error/);
    assert.match((await inside.run("sync a")).failed, /os error 5/);
    assert.equal((await inside.run("commit")).failed, "");
    shim.set({ fsyncFailures: "always", suffix: "-wal" });
    for (let i = 0; i < 3; i++) {
      assert.equal((await inside.run("sync a")).failed, "");
      assert.match(
        (await inside.run("sync data.sqlite-wal")).failed,
        /error 5/,
      );
    }
    assert.equal(shim.counts().fsyncsFailed, 6);

    shim.set({ writeFailures: "always" });
    assert.match((await inside.run("append a")).failed, /os error 28/);
    assert.match((await inside.run("commit")).failed, /disk is full/);
    assert.equal((await outside.run("append a")).failed, "");
    shim.set({ writeFailures: "always", suffix: "-wal" });
    assert.equal((await inside.run("append a")).failed, "");
    assert.match((await inside.run("commit")).failed, /disk is full/);
    shim.set({ truncateFailures: 1 });
    assert.equal((await inside.run("commit")).failed, "");
    assert.match((await inside.run("truncate a")).failed, /os error 5/);
    assert.equal((await inside.run("truncate a")).failed, "");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("the fault shim acts on the Rust server", async () => {
  if (!await programOrSkip("denokv")) return;
  const folder = await Deno.makeTempDir({ prefix: "denokv_shim_" });
  try {
    await using shim = await faultShim(folder);
    if (!shim) return;
    await using server = await start(await rust({ folder, env: shim.env }));
    const client = await connect(server.url);
    const request = client.request(
      "atomic_write",
      atomicWrite([], [numberedKey(1)], VALUE),
    );
    const set = async () => {
      const startMs = performance.now();
      const { status } = await exchange(server.url, request);
      return { status, tookMs: performance.now() - startMs };
    };

    const before = shim.counts().fsyncs;
    assert.equal((await set()).status, 200);
    assert.equal(shim.counts().fsyncs, before + 1);

    shim.set({ fsyncDelayUs: 50_000 });
    const slow = await set();
    assert.equal(slow.status, 200);
    assert.ok(slow.tookMs >= 50, `${slow.tookMs} ms`);

    shim.set({ writeFailures: "always", suffix: "-wal" });
    assert.notEqual((await set()).status, 200);
    assert.ok(shim.counts().writesFailed > 0);
    shim.set({ fsyncFailures: "always" });
    assert.notEqual((await set()).status, 200);
    shim.set({});
    assert.equal((await set()).status, 200);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
