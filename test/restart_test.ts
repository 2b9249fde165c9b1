/** Restarts by signal under load: nothing lost, nothing twice, exit code 0. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { encodeKey } from "../src/protocol/key.ts";
import { range, set } from "../src/store/contract/support.ts";
import { KvClient } from "./support/kv_client.ts";
import { auditAll, Writer, writeUntilDown } from "./support/ledger.ts";
import {
  ACCESS_TOKEN,
  ServerProcess,
  type StoppedServer,
  TestFolder,
} from "./support/server.ts";
import { freePort } from "./support/child_server.ts";
import { http1, http2Connection, request } from "./support/transport.ts";

const ROUNDS = 8;
const LOAD_MS = 200;
/** What is waited for when nobody gives it a reason to. */
const DRAIN = ["--drain-timeout-ms", "60000"];
/** Of that, a part: nothing here is slow, but the machine may be busy. */
const LONGEST_DRAIN_MS = 30_000;

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function stoppedWell(stopped: StoppedServer, server: ServerProcess): void {
  assert.equal(stopped.code, 0, server.lastWords);
  assert.ok(stopped.tookMs < LONGEST_DRAIN_MS, `${stopped.tookMs} ms`);
}

Deno.test("SIGTERM and SIGINT under load: every acknowledged write is there, none in part, exit code 0", async () => {
  await using folder = await TestFolder.make();
  const writers = Array.from(
    { length: 16 },
    (_, i) => new Writer(`writer ${i}`),
  );
  let newest = 0;
  for (let round = 0; round < ROUNDS; round++) {
    await using server = await ServerProcess.start({
      path: folder.database,
      args: DRAIN,
    });
    const clients = await Promise.all([
      KvClient.open(http2Connection(server.url)),
      KvClient.open(http1(server.url)),
    ]);
    newest = Math.max(newest, await auditAll(writers, clients[0]));
    const next = await clients[0].commit([set("round", `${round}`)]);
    assert.ok(next > newest);
    const watch = await clients[0].watch([encodeKey(["round"])]);
    await watch.frames.next();
    const load = writeUntilDown(writers, clients);
    await pause(LOAD_MS);
    stoppedWell(
      await server.stop(round % 2 === 0 ? "SIGTERM" : "SIGINT"),
      server,
    );
    await load;
    // A watch on an orderly stop ends; it does not fail.
    assert.equal((await watch.frames.next()).done, true);
    for (const client of clients) client.close();
    const wal = await Deno.stat(`${folder.database}-wal`).catch(() => null);
    assert.equal(wal?.size ?? 0, 0, "the log is in the database");
  }
});

Deno.test("an idle server with open connections and watches stops at once", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({
    path: folder.database,
    args: DRAIN,
  });
  const clients = await Promise.all(
    [http1(server.url), http2Connection(server.url)].map((transport) =>
      KvClient.open(transport)
    ),
  );
  const watches = await Promise.all(
    clients.map((client) => client.watch([encodeKey(["a"])])),
  );
  await Promise.all(watches.map((watch) => watch.frames.next()));
  const stopped = await server.stop();
  stoppedWell(stopped, server);
  for (const client of clients) client.close();
});

/**
 * Deno's client sends a write again whose answer it did not get, and a sum is
 * then applied twice: so the server answers what it has before it goes.
 */
Deno.test("the stock Deno client counts right over restarts under load", async () => {
  const increments = 3000;
  await using folder = await TestFolder.make();
  const port = freePort();
  let server = await ServerProcess.start({
    path: folder.database,
    port,
    args: DRAIN,
  });
  const { url } = server;
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--unstable-kv",
      `--allow-net=127.0.0.1:${port}`,
      "--allow-env=DENO_KV_ACCESS_TOKEN",
      fileURLToPath(new URL("./clients/deno_client.mjs", import.meta.url)),
      url,
      "count",
      "restarts",
      `${increments}`,
    ],
    env: { DENO_KV_ACCESS_TOKEN: ACCESS_TOKEN, NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const output = child.output();
  let isDone = false;
  output.then(() => isDone = true);
  let restarts = 0;
  try {
    while (!isDone) {
      await pause(LOAD_MS);
      if (isDone) break;
      stoppedWell(await server.stop(), server);
      server = await ServerProcess.start({
        path: folder.database,
        port,
        args: DRAIN,
      });
      restarts++;
    }
    const { code, stderr } = await output;
    assert.equal(code, 0, new TextDecoder().decode(stderr));
    const client = await KvClient.open(http2Connection(url));
    const start = encodeKey(["restarts"]);
    const [[entry]] = await client.read(
      range(start, new Uint8Array([...start, 0])),
    );
    const count = new DataView(entry.value.buffer).getBigUint64(0, true);
    assert.equal(Number(count), increments);
    client.close();
    console.log(`${increments} increments over ${restarts} restarts`);
    assert.ok(restarts > 2);
  } finally {
    await server.kill();
  }
});

Deno.test("a server that is stopping says so in readiness and takes no new connection", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({
    path: folder.database,
    args: DRAIN,
  });
  const transport = http1(server.url);
  const ready = await request(transport, "GET", "/-/ready");
  assert.equal(ready.status, 200);
  transport.close();
  stoppedWell(await server.stop(), server);
  await assert.rejects(
    Deno.connect({ hostname: "127.0.0.1", port: server.port }),
  );
});
