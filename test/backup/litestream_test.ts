/** Litestream beside us: it replicates our file under load, and restores it. */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { litestream } from "../support/litestream.ts";
import { programOrSkip } from "../support/programs.ts";
import { ServerProcess, TestFolder } from "../support/server.ts";
import { startBucket } from "./support.ts";

const REACH_LIMIT_MS = 90_000;

Deno.test("Litestream replicates the file while it is written, and restores it whole", async () => {
  const path = await programOrSkip("litestream");
  if (path === undefined) return;
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({ path: folder.database });
  const replica = await litestream({
    path,
    database: folder.database,
    minio: bucket.minio,
    bucket: bucket.name,
    folder: folder.path,
  });
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
  await using _replicating = replica.replicate();
  for (let i = 1; i <= 2000; i++) await write(i);
  const output = `${folder.path}/restored.sqlite`;
  const deadlineMs = Date.now() + REACH_LIMIT_MS;
  for (;;) {
    const { code, stderr } = await new Deno.Command(path, {
      ...replica.restore(output),
      clearEnv: true,
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
