/**
 * A network between the server and its bucket that delays, drops, refuses,
 * loses answers and cuts connections, with processes that are killed, paused
 * and replaced meanwhile.
 */
import assert from "node:assert/strict";
import { seededRandom } from "../../src/common/random.ts";
import { type Mishap, startHttpProxy } from "../support/http_proxy.ts";
import { KvClient } from "../support/kv_client.ts";
import { auditAll, Writer, writeUntilDown } from "../support/ledger.ts";
import { ServerProcess, TestFolder, testSeed } from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import { SHORT_LEASE, startBucket } from "./support.ts";

const ROUNDS = 6;
const LOAD_MS = 1200;
/** As `SHORT_LEASE` says. */
const LEASE_MS = 1000;
/** An idle server is quiet long before, also on a busy machine. */
const QUIET_LIMIT_MS = 60_000;

Deno.test("s3: through a bad network, with takeovers, no acknowledged write is lost", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  const random = seededRandom(testSeed());
  const proxy = await startHttpProxy(bucket.minio.endpoint);
  await using a = await TestFolder.make();
  await using b = await TestFolder.make();
  const folders = [a, b];
  const backup = bucket.at("faults", proxy.endpoint);
  const writers = Array.from({ length: 6 }, (_, i) => new Writer(`w${i}`));
  const good = () => undefined;
  const bad: typeof proxy.rule = ({ path }) => {
    // All requests of one try have to get through, which would be luck here.
    if (path.includes("/probe/")) return undefined;
    const draw = random.below(100);
    if (draw < 6) return { kind: "delay", delayMs: random.below(300) };
    if (draw < 9) return { kind: "loseAnswer" };
    if (draw < 12) return { kind: "cut" };
    if (draw < 14) return { kind: "answer", status: 500 };
    if (draw < 16) return { kind: "answer", status: 503 };
    if (draw < 17) return { kind: "answer", status: 429 };
    if (draw < 18) return { kind: "truncate", afterBytes: random.below(40) };
    return random.below(400) === 0 ? { kind: "hang" } : undefined;
  };
  try {
    for (let round = 0; round <= ROUNDS; round++) {
      await using server = await ServerProcess.start({
        path: folders[round % 2].database,
        backup,
        args: ["--durability", "s3", ...SHORT_LEASE],
      });
      proxy.rule = good;
      const client = await KvClient.open(http1(server.url));
      await auditAll(writers, client);
      if (round < ROUNDS) {
        proxy.rule = bad;
        const load = writeUntilDown(writers, [client]);
        await new Promise((resolve) => setTimeout(resolve, LOAD_MS));
        // The next launch goes through the same network.
        if (random.below(2) === 0) await server.kill();
        else server.signal("SIGSTOP");
        const next = startedAnyhow(folders[(round + 1) % 2], backup);
        await using taken = await next;
        server.signal("SIGCONT");
        await server.kill();
        await load;
        proxy.rule = good;
        const other = await KvClient.open(http1(taken.url));
        await auditAll(writers, other);
        other.close();
        await taken.kill();
      }
      client.close();
    }
  } finally {
    await proxy.stop();
  }
  const acknowledged = writers.flatMap((writer) => writer.acknowledged).length;
  console.log(`${acknowledged} writes acknowledged, none lost`);
  assert.ok(acknowledged > ROUNDS);
});

function startedAnyhow(
  folder: TestFolder,
  backup: Parameters<typeof ServerProcess.start>[0]["backup"],
): Promise<ServerProcess> {
  return ServerProcess.start({
    path: folder.database,
    backup,
    args: ["--durability", "s3", ...SHORT_LEASE],
  });
}

const OUTAGES: [string, Mishap][] = [
  ["answers 503", { kind: "answer", status: 503 }],
  // As when a firewall drops what is sent: no error, and no answer either.
  ["falls silent", { kind: "hang" }],
];
for (const [what, outage] of OUTAGES) {
  Deno.test(`local: a bucket that ${what} is survived, announced, and made up for`, async () => {
    await using bucket = await startBucket();
    if (bucket === undefined) return;
    const proxy = await startHttpProxy(bucket.minio.endpoint);
    await using folder = await TestFolder.make();
    try {
      await using server = await ServerProcess.start({
        path: folder.database,
        backup: bucket.at("outage", proxy.endpoint),
        args: ["--backup-interval", "100ms", ...SHORT_LEASE],
      });
      await server.logged(/The new generation is complete/);
      const write = async (i: number) => {
        const answer = await fetch(`${server.url}/n/${i}`, {
          method: "POST",
          body: `${i}`,
          headers: { authorization: "denorocks" },
        });
        await answer.body?.cancel();
        return answer.status;
      };
      assert.equal(await write(0), 200);
      proxy.rule = () => outage;
      const startedMs = Date.now();
      let i = 1;
      // Longer than the lease and the patience after it: it serves on.
      while (
        Date.now() - startedMs < 5000 ||
        !/The backup is held up/.test(server.lastWords)
      ) {
        assert.equal(await write(i++), 200);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      assert.match(server.lastWords, /Requests are served on/);
      const ready = await (await fetch(`${server.url}/-/ready`)).json();
      assert.equal(ready.backup.state, "Unreachable");
      assert.ok(ready.backup.lagMs > 3000);
      proxy.rule = () => undefined;
      await server.logged(/The object store takes the backup again/);
      await server.logged(/The object store answers again/);
      assert.equal(await write(i++), 200);
      const { code } = await server.stop();
      assert.equal(code, 0);
      await using elsewhere = await TestFolder.make();
      await using restored = await ServerProcess.start({
        path: elsewhere.database,
        backup: bucket.at("outage"),
      });
      for (let n = 0; n < i; n++) {
        const answer = await fetch(`${restored.url}/n/${n}`, {
          headers: { authorization: "denorocks" },
        });
        assert.equal(await answer.text(), `${n}`);
      }
    } finally {
      await proxy.stop();
    }
  });
}

Deno.test("an idle server asks nothing of the bucket", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  const proxy = await startHttpProxy(bucket.minio.endpoint);
  await using folder = await TestFolder.make();
  let requests = 0;
  proxy.rule = () => {
    requests++;
    return undefined;
  };
  try {
    await using server = await ServerProcess.start({
      path: folder.database,
      backup: bucket.at("idle", proxy.endpoint),
      args: ["--backup-interval", "100ms", ...SHORT_LEASE],
    });
    const answer = await fetch(`${server.url}/key`, {
      method: "POST",
      body: "x",
      headers: { authorization: "denorocks" },
    });
    assert.equal(answer.status, 200);
    await server.logged(/The new generation is complete/);
    // The lease runs out, and with it the looks at the manifest.
    const deadlineMs = performance.now() + QUIET_LIMIT_MS;
    do {
      assert.ok(performance.now() < deadlineMs, `${requests} requests`);
      requests = 0;
      await new Promise((resolve) => setTimeout(resolve, 4 * LEASE_MS));
    } while (requests > 0);
    assert.equal((await server.stop()).code, 0);
  } finally {
    await proxy.stop();
  }
});
