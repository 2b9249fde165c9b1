import assert from "node:assert/strict";
import type { Request } from "./http1.ts";
import { h2load, wrk } from "./load.ts";

async function isInstalled(tool: string): Promise<boolean> {
  try {
    await new Deno.Command(tool, { args: ["--version"] }).output();
    return true;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.log(`SKIPPED: ${tool} is not installed.`);
    return false;
  }
}

const request: Request = {
  method: "POST",
  path: "/x",
  headers: { "x-a": "b" },
  body: new Uint8Array(30),
};

/** Loads a server that gives its first answer, and later perhaps another. */
async function loaded(
  run: (url: URL, folder: string) => Promise<unknown>,
  later: () => Response,
): Promise<void> {
  let count = 0;
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async (request) => {
      assert.equal((await request.bytes()).length, 30);
      return ++count > 100 ? later() : new Response("a".repeat(100));
    },
  );
  const folder = await Deno.makeTempDir({ prefix: "denokv_load_" });
  try {
    await run(new URL(`http://127.0.0.1:${server.addr.port}`), folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const good = () => new Response("a".repeat(100));
const error = () => new Response("a".repeat(100), { status: 503 });
const short = () => new Response("a".repeat(90));

Deno.test("a load counts only right answers, HTTP/1.1", async () => {
  if (!await isInstalled("wrk")) return;
  const run = (url: URL, folder: string) =>
    wrk({ url, folder, connections: 2, seconds: 1 }, [request]);
  await loaded(async (url, folder) => {
    const load = await run(url, folder);
    assert.ok(load.requests > 100 && load.perSecond > 100);
  }, good);
  await assert.rejects(loaded(run, error), /were no success/);
  await assert.rejects(loaded(run, short), / came/);
});

Deno.test("a load counts only right answers, h2c", async () => {
  if (!await isInstalled("h2load")) return;
  const run = (url: URL, folder: string) =>
    h2load({ url, folder, connections: 2, streams: 2, seconds: 1 }, request);
  await loaded(async (url, folder) => {
    const load = await run(url, folder);
    assert.ok(load.requests > 100 && load.perSecond > 100);
  }, good);
  await assert.rejects(loaded(run, error), /not every answer/);
  await assert.rejects(loaded(run, short), /instead of 100/);
});
