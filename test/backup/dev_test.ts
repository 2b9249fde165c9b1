/** `--dev`: the seed's set-up in one flag, with its documented session. */
import assert from "node:assert/strict";
import { startMinio } from "../support/minio.ts";
import { ServerProcess, TestFolder } from "../support/server.ts";

function isFree(port: number): boolean {
  try {
    Deno.listen({ hostname: "127.0.0.1", port }).close();
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) return false;
    throw error;
  }
}

Deno.test("serve --dev: the seed's session, and again after its file is gone", async () => {
  if (!isFree(9000)) {
    console.log("SKIPPED: port 9000, where --dev looks for MinIO, is taken");
    return;
  }
  const minio = await startMinio({ port: 9000 });
  if (minio === undefined) return;
  try {
    const session = async (work: (url: string) => Promise<void>) => {
      await using folder = await TestFolder.make();
      await using server = await ServerProcess.start({
        path: folder.database,
        args: ["--dev"],
        // Not the test's own: what --dev sets has to be enough.
        env: { DENO_KV_ACCESS_TOKEN: "", KVSTORE_SECRET: "" },
        reaches: { url: "s3://denokv/app", endpoint: "http://localhost:9000" },
      });
      await server.logged(/known to everyone/);
      await work(server.url);
      assert.equal((await server.stop()).code, 0);
    };
    await session(async (url) => {
      const answer = await fetch(`${url}/foo`, {
        method: "POST",
        body: "bar",
        headers: { authorization: "denorocks" },
      });
      assert.match(
        await answer.text(),
        /^\{"ok":true,"versionstamp":"[0-9a-f]{20}"\}$/,
      );
      assert.equal(await (await fetch(`${url}/foo`)).text(), "bar");
      const refused = await fetch(`${url}/foo`, { method: "POST", body: "x" });
      await refused.body?.cancel();
      assert.equal(refused.status, 401);
    });
    // Another folder: nothing but the bucket.
    await session(async (url) => {
      assert.equal(await (await fetch(`${url}/foo`)).text(), "bar");
    });
  } finally {
    await minio.stop();
  }
});
