/** Two instances of one database: asked for, taken over, paused and resumed. */
import assert from "node:assert/strict";
import { KvClient } from "../support/kv_client.ts";
import { auditAll, Writer, writeUntilDown } from "../support/ledger.ts";
import { ServerProcess, TestFolder } from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import { SHORT_LEASE, startBucket } from "./support.ts";

for (const durability of ["s3", "local"]) {
  Deno.test(`${durability}: a living owner hands over under load, and nothing is lost`, async () => {
    await using bucket = await startBucket();
    if (bucket === undefined) return;
    await using first = await TestFolder.make();
    await using second = await TestFolder.make();
    const settings = {
      backup: bucket.at(`handover-${durability}`),
      args: ["--durability", durability],
    };
    const writers = Array.from({ length: 6 }, (_, i) => new Writer(`w${i}`));
    await using a = await ServerProcess.start({
      path: first.database,
      ...settings,
    });
    const toA = await KvClient.open(http1(a.url));
    const load = writeUntilDown(writers, [toA]);
    const startedMs = performance.now();
    await using b = await ServerProcess.start({
      path: second.database,
      ...settings,
    });
    const tookMs = performance.now() - startedMs;
    await load;
    assert.equal(await a.exitCode, 3);
    assert.match(a.lastWords, /Another instance asked for this database/);
    const toB = await KvClient.open(http1(b.url));
    await auditAll(writers, toB);
    assert.ok(writers.some((writer) => writer.acknowledged.length > 0));
    await writers[0].write(toB);
    await auditAll(writers, toB);
    // A lease of 10 s was not waited for.
    assert.ok(tookMs < 9000, `${tookMs} ms`);
    toA.close();
    toB.close();
    // The first one comes back: its file is an earlier state, and catches up.
    await using again = await ServerProcess.start({
      path: first.database,
      ...settings,
    });
    await again.logged(/was brought up to date/);
    const toAgain = await KvClient.open(http1(again.url));
    await auditAll(writers, toAgain);
    toAgain.close();
  });

  Deno.test(`${durability}: an owner that was paused finds itself fenced, and acknowledges nothing`, async () => {
    await using bucket = await startBucket();
    if (bucket === undefined) return;
    await using first = await TestFolder.make();
    await using second = await TestFolder.make();
    const settings = {
      backup: bucket.at(`paused-${durability}`),
      args: ["--durability", durability, ...SHORT_LEASE],
    };
    const headers = { authorization: "denorocks" };
    const put = (server: ServerProcess, key: string) =>
      fetch(`${server.url}/${key}`, { method: "POST", body: key, headers });
    await using a = await ServerProcess.start({
      path: first.database,
      ...settings,
    });
    assert.equal((await put(a, "before")).status, 200);
    // With `local`, what is acknowledged is shipped within the interval.
    await a.logged(/The new generation is complete/);
    await until(async () =>
      (await a.metrics()).get("denokv_backup_lag_seconds") === 0
    );
    a.signal("SIGSTOP");
    await using b = await ServerProcess.start({
      path: second.database,
      ...settings,
    });
    assert.equal((await put(b, "after")).status, 200);
    a.signal("SIGCONT");
    const late = await put(a, "late").then(
      (answer) => answer.status,
      () => "cut",
    );
    assert.ok(late === 503 || late === "cut", `${late}`);
    const stale = await fetch(`${a.url}/before`, { headers }).then(
      (answer) => answer.status,
      () => "cut",
    );
    assert.ok(stale === 503 || stale === "cut", `${stale}`);
    assert.equal(await a.exitCode, 4);
    assert.match(a.lastWords, /Another instance has taken over/);
    for (
      const [key, status] of [["before", 200], ["after", 200], [
        "late",
        404,
      ]] as const
    ) {
      const answer = await fetch(`${b.url}/${key}`, { headers });
      await answer.body?.cancel();
      assert.equal(answer.status, status, key);
    }
  });
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!await holds()) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

Deno.test("an instance that waits for another, or restores, stops when it is asked to", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using first = await TestFolder.make();
  await using second = await TestFolder.make();
  const backup = bucket.at("waiting");
  await using a = await ServerProcess.start({ path: first.database, backup });
  await a.logged(/The new generation is complete/);
  a.signal("SIGSTOP");
  const waiting = ServerProcess.starting({ path: second.database, backup });
  await waiting.logged(/Another instance owns this backup/);
  const { code, tookMs } = await waiting.stop();
  assert.equal(code, 0);
  assert.ok(tookMs < 5000, `${tookMs} ms`);
  // It took its request back: the first one goes on.
  a.signal("SIGCONT");
  const answer = await fetch(`${a.url}/key`, {
    method: "POST",
    body: "x",
    headers: { authorization: "denorocks" },
  });
  assert.equal(answer.status, 200);
  assert.equal((await a.stop()).code, 0);
});

Deno.test("a file of another database is refused, and neither is changed", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using first = await TestFolder.make();
  await using second = await TestFolder.make();
  const backup = bucket.at("other");
  {
    await using server = await ServerProcess.start({
      path: first.database,
      backup,
    });
    await server.stop();
  }
  {
    await using server = await ServerProcess.start({ path: second.database });
    await server.stop();
  }
  await assert.rejects(
    ServerProcess.start({ path: second.database, backup }),
    /The backup holds database .* Neither was changed/,
  );
});
