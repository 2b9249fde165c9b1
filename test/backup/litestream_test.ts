/** Litestream beside us: it replicates our file under load, and restores it. */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { programOrSkip } from "../support/programs.ts";
import { ServerProcess, TestFolder } from "../support/server.ts";
import { startBucket } from "./support.ts";

const REACH_LIMIT_MS = 30_000;

Deno.test("Litestream replicates the file while it is written, and restores it whole", async () => {
  const litestream = await programOrSkip("litestream");
  if (litestream === undefined) return;
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({ path: folder.database });
  const config = `${folder.path}/litestream.yml`;
  // As docs/litestream.md has it.
  await Deno.writeTextFile(
    config,
    `dbs:
  - path: ${folder.database}
    replica:
      type: s3
      bucket: ${bucket.name}
      path: litestream
      endpoint: ${bucket.minio.endpoint}
      region: us-east-1
      force-path-style: true
      sync-interval: 100ms
`,
  );
  const env = {
    PATH: Deno.env.get("PATH")!,
    HOME: folder.path,
    AWS_EC2_METADATA_DISABLED: "true",
    ...bucket.minio.env(),
  };
  const headers = { authorization: "denorocks" };
  const write = async (i: number) => {
    const answer = await fetch(`${server.url}/n/${i}`, {
      method: "POST",
      body: `${i}`,
      headers,
    });
    assert.equal(answer.status, 200, await answer.text());
  };
  await write(0);
  const replicating = new Deno.Command(litestream, {
    args: ["replicate", "-config", config],
    clearEnv: true,
    env,
    stdout: "null",
    stderr: "null",
  }).spawn();
  try {
    for (let i = 1; i <= 2000; i++) await write(i);
    const output = `${folder.path}/restored.sqlite`;
    const deadlineMs = Date.now() + REACH_LIMIT_MS;
    for (;;) {
      const { code, stderr } = await new Deno.Command(litestream, {
        args: ["restore", "-config", config, "-o", output, folder.database],
        clearEnv: true,
        env,
      }).output();
      if (code === 0 && countOf(output) === 2001) break;
      // It uploads on its own schedule, and tells nobody when it is done.
      assert.ok(Date.now() < deadlineMs, new TextDecoder().decode(stderr));
      await Deno.remove(output).catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    await server.stop();
    await using restored = await ServerProcess.start({ path: output });
    const answer = await fetch(`${restored.url}/n/2000`, { headers });
    assert.equal(await answer.text(), "2000");
  } finally {
    replicating.kill("SIGTERM");
    await replicating.status;
  }
});

function countOf(path: string): number {
  const db = new DatabaseSync(path);
  try {
    assert.equal(
      db.prepare("pragma integrity_check").get()!.integrity_check,
      "ok",
    );
    return Number(db.prepare("select count(*) as n from kv").get()!.n);
  } finally {
    db.close();
  }
}
