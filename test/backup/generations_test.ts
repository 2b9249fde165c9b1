/**
 * Changes of generation, seen from outside: what makes one necessary never
 * stops a server, and what it was never costs a point that was acknowledged.
 */
import assert from "node:assert/strict";
import { set } from "../support/faulty_server.ts";
import { startHttpProxy } from "../support/http_proxy.ts";
import { KvClient } from "../support/kv_client.ts";
import {
  REST_SECRET,
  runCommand,
  ServerProcess,
  TestFolder,
} from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import { SHORT_LEASE, startBucket } from "./support.ts";

const MIB = 1024 * 1024;

/** Longer than any of this takes on a busy machine. */
const LONG_MS = 60_000;

/** @returns the write's versionstamp */
async function write(url: string, key: string): Promise<string> {
  const answer = await fetch(`${url}/${key}`, {
    method: "POST",
    body: key,
    headers: { authorization: REST_SECRET },
    signal: AbortSignal.timeout(LONG_MS),
  });
  const body = await answer.text();
  assert.equal(answer.status, 200, body);
  return JSON.parse(body).versionstamp;
}

/** Resolves when the bucket has everything up to the versionstamp. */
async function shipped(url: string, versionstamp: string): Promise<void> {
  for (;;) {
    const answer = await fetch(`${url}/none`, {
      headers: { authorization: REST_SECRET },
    });
    await answer.body?.cancel();
    if (answer.headers.get("durable-backup")! >= versionstamp) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Another program sets a key in the file. */
async function foreignWrite(path: string, key: string): Promise<void> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      "--unstable-kv",
      `const kv = await Deno.openKv(Deno.args[0]);
       await kv.set([Deno.args[1]], "theirs");
       kv.close();`,
      path,
      key,
    ],
  }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
}

for (const durability of ["s3", "local"]) {
  Deno.test(`${durability}: another program writes to the file: the backup begins anew, and every write is answered`, async () => {
    await using bucket = await startBucket();
    if (bucket === undefined) return;
    await using folder = await TestFolder.make();
    const backup = bucket.at(`foreign-${durability}`);
    await using server = await ServerProcess.start({
      path: folder.database,
      backup,
      args: [
        "--durability",
        durability,
        "--backup-interval",
        "100ms",
        ...SHORT_LEASE,
      ],
    });
    await write(server.url, "first");
    for (let round = 0; round < 3; round++) {
      await foreignWrite(folder.database, `theirs ${round}`);
      // Several at once: those behind the gap wait for its generation too.
      await Promise.all(
        [0, 1, 2].map((i) => write(server.url, `ours/${round}/${i}`)),
      );
    }
    const last = await write(server.url, "last");
    await shipped(server.url, last);
    assert.equal((await server.stop()).code, 0);
    const output = `${folder.path}/restored.sqlite`;
    const { code, err } = await runCommand(
      [
        "restore",
        "--from",
        backup.url,
        "--s3-endpoint",
        backup.endpoint!,
        "--at",
        last,
        "-o",
        output,
      ],
      { folder: folder.path, backup },
    );
    assert.equal(code, 0, err);
    const kv = await Deno.openKv(output);
    try {
      for (let round = 0; round < 3; round++) {
        const { value } = await kv.get([`theirs ${round}`]);
        assert.equal(value, "theirs");
      }
    } finally {
      kv.close();
    }
  });
}

/** What docs/backup.md says that the write-ahead log stays below. */
const MAX_LOG_MIB = 64;
/** What is written before anybody can look, and while the log begins anew. */
const SLACK_MIB = 64;

Deno.test("a snapshot that cannot be uploaded lets the write-ahead log begin anew, and is made when it can be", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  const proxy = await startHttpProxy(bucket.minio.endpoint);
  await using folder = await TestFolder.make();
  const backup = bucket.at("bound", proxy.endpoint);
  try {
    await using server = await ServerProcess.start({
      path: folder.database,
      backup,
      args: ["--backup-max-log-mib", `${MAX_LOG_MIB}`],
    });
    await server.logged(/The new generation is complete/);
    const client = await KvClient.open(http1(server.url));
    const text = "x".repeat(60_000);
    let largestBytes = 0;
    let written = 0;
    const load = async (commits: number) => {
      for (let i = 0; i < commits; i++) {
        const keys = Array.from(
          { length: 10 },
          (_, k) => `${written % 20}/${k}`,
        );
        await client.commit(keys.map((key) => set(key, text)));
        written++;
        const { size } = await Deno.stat(`${folder.database}-wal`);
        largestBytes = Math.max(largestBytes, size);
      }
    };
    await load(20);
    // The snapshot's parts go nowhere; everything else goes through.
    let isHeld = true;
    const released = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    proxy.rule = ({ path }) => {
      if (!isHeld || !path.includes("/snapshots/")) return undefined;
      begun.resolve();
      return { kind: "answer", status: 503 };
    };
    const snapshot = fetch(`${server.url}/-/backup/snapshot`, {
      method: "POST",
      headers: { authorization: `Bearer ${REST_SECRET}` },
    }).finally(() => released.resolve());
    await begun.promise;
    await load(250);
    assert.ok(
      largestBytes < (MAX_LOG_MIB + SLACK_MIB) * MIB,
      `the log took ${Math.round(largestBytes / MIB)} MiB`,
    );
    console.log(
      `largest write-ahead log: ${Math.round(largestBytes / MIB)} MiB`,
    );
    await server.logged(/The snapshot of a new generation is given up for now/);
    isHeld = false;
    await released.promise;
    const answer = await snapshot;
    assert.equal(answer.status, 200, await answer.text());
    client.close();
  } finally {
    await proxy.stop();
  }
});
