/** What is bounded, and what a client sees at the bound. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { fromUtf8 } from "../src/common/bytes.ts";
import { key, set, texts } from "../src/store/contract/support.ts";
import { KvClient, type RawWatch, RefusedError } from "./support/kv_client.ts";
import { ACCESS_TOKEN, ServerProcess, TestFolder } from "./support/server.ts";
import { http1, http2Connection } from "./support/transport.ts";

const SOON_MS = 15_000;

async function withServer(
  test: (server: ServerProcess) => Promise<void>,
  args: string[] = [],
): Promise<void> {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({
    path: folder.database,
    args,
  });
  await test(server);
  assert.ok(server.isRunning, server.lastWords);
  const { code } = await server.stop();
  assert.equal(code, 0, server.lastWords);
}

/** Waits until the server counts so many watches. */
async function untilWatches(server: ServerProcess, count: number) {
  const untilMs = performance.now() + SOON_MS;
  while (true) {
    const watches = (await server.metrics()).get("denokv_watches");
    if (watches === count) return;
    assert.ok(performance.now() < untilMs, `${watches} watches, not ${count}`);
  }
}

const http2Client = (server: ServerProcess) =>
  KvClient.open(http2Connection(server.url));

/** Opens a watch and takes its first frame. */
async function watching(client: KvClient, ...names: string[]) {
  const watch = await client.watch(names.map(key));
  await watch.frames.next();
  return watch;
}

const isRefusedWatch = (error: unknown) =>
  error instanceof RefusedError && error.status === 429 &&
  /watch/.test(error.sentence) && /[.!]$/.test(error.sentence);

Deno.test("a watch too many on one connection is a 429 with a sentence, and the connection goes on working", () =>
  withServer(async (server) => {
    const client = await http2Client(server);
    const watches: RawWatch[] = [];
    let refused: unknown;
    while (refused === undefined) {
      assert.ok(watches.length < 190, "refused long before 200 streams");
      try {
        watches.push(await watching(client, "a"));
      } catch (error) {
        refused = error;
      }
    }
    assert.ok(isRefusedWatch(refused), String(refused));
    assert.ok(watches.length >= 50, `${watches.length} watches`);
    await client.commit([set("a", "1")]);
    const states = await Promise.all(
      watches.map((watch) => watch.frames.next()),
    );
    for (const { value } of states) {
      assert.deepEqual(texts(value.entries), ["1"]);
    }
    // Another connection has room of its own, and a cancelled one makes room.
    const other = await http2Client(server);
    (await watching(other, "a")).cancel();
    watches.pop()!.cancel();
    await untilWatches(server, watches.length);
    watches.push(await watching(client, "a"));
    await assert.rejects(watching(client, "a"), isRefusedWatch);
    for (const watch of watches) watch.cancel();
    await untilWatches(server, 0);
    client.close();
    other.close();
  }));

Deno.test("the stock Deno client with too many watches is told so, and its own set still works", () =>
  withServer(async (server) => {
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--quiet",
        "--no-prompt",
        "--unstable-kv",
        `--allow-net=127.0.0.1:${server.port}`,
        "--allow-env=DENO_KV_ACCESS_TOKEN",
        fileURLToPath(new URL("./clients/deno_client.mjs", import.meta.url)),
        server.url,
        "crowd",
        "many",
        "250",
      ],
      env: { DENO_KV_ACCESS_TOKEN: ACCESS_TOKEN, NO_COLOR: "1" },
      stdout: "null",
      stderr: "piped",
    }).output();
    assert.equal(code, 0, new TextDecoder().decode(stderr).slice(0, 2000));
    await untilWatches(server, 0);
  }));

Deno.test("the limit of watches over all connections is a 429 with a sentence, not a 503 that clients repeat", () =>
  withServer(async (server) => {
    const clients = [await http2Client(server), await http2Client(server)];
    const watches = [];
    for (let i = 0; i < 20; i++) {
      watches.push(await watching(clients[i % 2], "a"));
    }
    for (const client of clients) {
      await assert.rejects(watching(client, "a"), isRefusedWatch);
    }
    watches.pop()!.cancel();
    await untilWatches(server, 19);
    watches.push(await watching(clients[0], "a"));
    for (const watch of watches) watch.cancel();
    await untilWatches(server, 0);
    for (const client of clients) client.close();
  }, ["--max-watches", "20"]));

Deno.test("thousands of watches over many connections are all told, and leave nothing behind", () =>
  withServer(async (server) => {
    const clients = await Promise.all(
      Array.from({ length: 25 }, () => http2Client(server)),
    );
    const watches = (await Promise.all(clients.map((client, i) =>
      Promise.all(
        Array.from({ length: 100 }, () => watching(client, "all", `own ${i}`)),
      )
    ))).flat();
    await untilWatches(server, 2500);
    const told = Promise.all(watches.map((watch) => watch.frames.next()));
    await clients[0].commit([set("all", "news")]);
    for (const { value } of await told) {
      assert.deepEqual(texts(value.entries), ["news", null]);
    }
    // Half of them by RST_STREAM, half by a connection that is gone.
    for (const watch of watches.slice(0, 1300)) watch.cancel();
    await untilWatches(server, 1200);
    for (const client of clients) client.close();
    await untilWatches(server, 0);
  }));

Deno.test("a consumer that does not read gets the latest state later, and costs no memory meanwhile", () =>
  withServer(async (server) => {
    const writer = await http2Client(server);
    const consumers = await Promise.all([
      ...Array.from({ length: 10 }, () => KvClient.open(http1(server.url))),
      ...Array.from({ length: 10 }, () => http2Client(server)),
    ]);
    const watches = await Promise.all(
      consumers.map((consumer) => watching(consumer, "big")),
    );
    const rss = async () =>
      (await server.metrics()).get("process_resident_memory_bytes")! / 2 ** 20;
    const write = async (from: number, to: number) => {
      for (let i = from; i < to; i++) {
        await writer.commit([set("big", `${i} `.padEnd(60_000, "x"))]);
      }
    };
    await write(0, 200);
    const before = await rss();
    // 20 consumers × 1,000 states of 60,000 bytes would be 1.1 GiB.
    await write(200, 1200);
    const grownMiB = await rss() - before;
    assert.ok(grownMiB < 150, `grew by ${grownMiB} MiB`);
    for (const { frames } of watches) {
      let seen = -1;
      let count = 0;
      while (seen < 1199) {
        const { value } = await frames.next();
        const now = parseInt(fromUtf8(value.entries[0].value)!);
        assert.ok(now > seen, "states never go back");
        seen = now;
        count++;
      }
      assert.ok(count < 1000, `${count} states were kept for it`);
    }
    for (const watch of watches) watch.cancel();
    await untilWatches(server, 0);
    for (const client of [writer, ...consumers]) client.close();
  }));

Deno.test("a watcher whose process is gone is forgotten", () =>
  withServer(async (server) => {
    const code = `
      const kv = await Deno.openKv("${server.url}");
      const readers = [1, 2, 3].map((i) => kv.watch([["k", i]]).getReader());
      for (const reader of readers) await reader.read();
      console.log("watching");
      await new Promise(() => setInterval(() => {}, 1000));`;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["eval", "--unstable-kv", code],
      env: { DENO_KV_ACCESS_TOKEN: ACCESS_TOKEN },
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    await untilWatches(server, 3);
    child.kill("SIGKILL");
    await child.status;
    await reader.cancel();
    await untilWatches(server, 0);
  }));
