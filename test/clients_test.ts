/** The stock clients, and the raw protocol, against the server process. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { utf8 } from "../src/common/bytes.ts";
import { Encoding, MutationType } from "../src/protocol/messages.ts";
import {
  atomic,
  check,
  del,
  everything,
  key,
  le64,
  mutation,
  point,
  set,
  sum,
  texts,
  u64,
} from "../src/store/contract/support.ts";
import { exchange, KvClient, RefusedError } from "./support/kv_client.ts";
import { npmPackage } from "./support/npm.ts";
import {
  ACCESS_TOKEN,
  REST_SECRET,
  ServerProcess,
  TestFolder,
} from "./support/server.ts";
import {
  http1,
  http2Connection,
  request,
  type Transport,
} from "./support/transport.ts";

const CLIENTS = fileURLToPath(new URL("./clients/", import.meta.url));

interface Ran {
  code: number;
  out: string;
  err: string;
}

async function run(program: string, args: string[]): Promise<Ran | undefined> {
  try {
    const { code, stdout, stderr } = await new Deno.Command(program, {
      args,
      env: { DENO_KV_ACCESS_TOKEN: ACCESS_TOKEN, NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).output();
    const decoder = new TextDecoder();
    return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function isDone(ran: Ran | undefined): void {
  assert.ok(ran);
  assert.equal(ran.code, 0, ran.err.slice(0, 2000));
  assert.equal(ran.out.trim(), "done");
}

const denoClient = (url: string, ...args: string[]) =>
  run(Deno.execPath(), [
    "run",
    "--quiet",
    "--no-prompt",
    "--unstable-kv",
    `--allow-net=${new URL(url).host}`,
    "--allow-env=DENO_KV_ACCESS_TOKEN",
    `${CLIENTS}deno_client.mjs`,
    url,
    ...args,
  ]);

Deno.test("Deno.openKv, npm @deno/kv in Node and curl work on the same data at the same time", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({
    path: folder.database,
    args: ["--public-reads"],
  });
  const { url } = server;
  const installed = await npmPackage("@deno/kv", "0.14.0");
  const hasNode = "folder" in installed &&
    (await run("node", ["--version"])) !== undefined;
  if (!hasNode) {
    const why = "skipped" in installed ? installed.skipped : "node is missing";
    console.log(`SKIPPED: npm @deno/kv in Node: ${why}`);
  }
  const nodeClient = (...args: string[]) =>
    run("node", [
      `${CLIENTS}node_client.mjs`,
      "folder" in installed ? installed.folder : "",
      url,
      ...args,
    ]);

  // All at once, each under its own name.
  const [deno, node] = await Promise.all([
    denoClient(url, "walk", "deno"),
    hasNode ? nodeClient("walk", "node") : undefined,
    walkWithCurl(url),
  ]);
  isDone(deno);
  if (hasNode) {
    isDone(node);
    isDone(await denoClient(url, "read", "node", "plain"));
    isDone(await nodeClient("read", "deno", "bytes"));
    isDone(await nodeClient("expect", "foo", "bar"));
  }
  isDone(await denoClient(url, "mismatch", "unlike"));
  // What curl wrote is a string for the others, and the reverse.
  isDone(await denoClient(url, "expect", "foo", "bar"));
  await assertCurl(["-sS", `${url}/answer/bar`], "bar answers");

  const metrics = await server.metrics();
  assert.equal(metrics.get("denokv_watches"), 0);
  for (const name of metrics.keys()) assert.ok(!name.includes('"5xx"'), name);
  const { code } = await server.stop();
  assert.equal(code, 0, server.lastWords);
});

async function assertCurl(args: string[], expected: string | RegExp) {
  const ran = await run("curl", args);
  if (ran === undefined) return console.log("SKIPPED: curl is not installed");
  assert.equal(ran.code, 0, ran.err);
  if (typeof expected === "string") assert.equal(ran.out, expected);
  else assert.match(ran.out, expected);
}

/** The two lines of the first system, word for word, and then some. */
async function walkWithCurl(url: string): Promise<void> {
  const post = ["-X", "POST", "-H", `Authorization: ${REST_SECRET}`, "-vv"];
  await assertCurl(
    ["--data-binary", "bar", ...post, `${url}/foo`],
    /^\{"ok":true,"versionstamp":"[0-9a-f]{20}"\}$/,
  );
  await assertCurl([`${url}/foo`], "bar");
  for (const version of ["--http1.1", "--http2-prior-knowledge"]) {
    const bearer = ["-H", `Authorization: Bearer ${ACCESS_TOKEN}`];
    const status = ["-sS", version, "-w", "%{http_code}"];
    await assertCurl(
      [...status, ...bearer, "-T", `${CLIENTS}act.mjs`, `${url}/act`],
      /"ok":true.*200$/,
    );
    await assertCurl(
      ["-sS", version, `${url}/act`],
      await Deno.readTextFile(`${CLIENTS}act.mjs`),
    );
    await assertCurl([...status, "-I", `${url}/act`], /etag: "[0-9a-f]{20}"/);
    await assertCurl(
      [...status, "-X", "POST", "-d", "x", `${url}/foo`],
      /401$/,
    );
    await assertCurl(
      [...status, ...bearer, "-X", "DELETE", `${url}/act`],
      /"ok":true.*200$/,
    );
    await assertCurl([...status, `${url}/act`], /404$/);
  }
}

const TRANSPORTS: [string, (url: string) => Transport][] = [
  ["HTTP/1.1", http1],
  ["HTTP/2", http2Connection],
];

for (const [name, connect] of TRANSPORTS) {
  Deno.test(`every version of KV Connect over ${name}`, async () => {
    await using folder = await TestFolder.make();
    await using server = await ServerProcess.start({ path: folder.database });
    const transport = connect(server.url);
    const spoken: [number[] | null, number][] = [
      [null, 1],
      [[1], 1],
      [[2], 2],
      [[1, 2], 2],
      [[1, 2, 3], 3],
      [[2, 3, 4], 3],
    ];
    for (const [supported, version] of spoken) {
      const client = await KvClient.open(transport, supported);
      assert.equal(client.exchanged.version, version);
      await checkExchange(client, server.url);
      await checkOperations(client);
      if (version === 3) await checkWatch(client);
    }
    await checkRefusals(transport);
    transport.close();
    assert.equal((await server.stop()).code, 0, server.lastWords);
  });
}

async function checkExchange(client: KvClient, url: string): Promise<void> {
  const { exchanged } = client;
  // What @deno/kv insists on: these members, in these forms, and no other.
  assert.deepEqual(Object.keys(exchanged).sort(), [
    "databaseId",
    "endpoints",
    "expiresAt",
    "token",
    "version",
  ]);
  assert.match(exchanged.databaseId, /^[0-9a-f-]{36}$/);
  assert.match(exchanged.expiresAt, /Z$/);
  const hours = (Date.parse(exchanged.expiresAt) - Date.now()) / 3_600_000;
  assert.ok(hours >= 1, `the token is good for ${hours} h`);
  assert.notEqual(exchanged.token, ACCESS_TOKEN);
  const [endpoint] = exchanged.endpoints;
  assert.deepEqual(Object.keys(endpoint).sort(), ["consistency", "url"]);
  assert.equal(endpoint.consistency, "strong");
  assert.doesNotMatch(endpoint.url, /[/?#]$/);
  if (exchanged.version === 1) assert.ok(endpoint.url.startsWith(url));
  const answer = await exchange(client.transport, [1, 2, 3]);
  assert.equal(answer.headers["content-type"], "application/json");
}

async function checkOperations(client: KvClient): Promise<void> {
  const first = await client.commit([
    set("a", "1"),
    set("b", "2"),
    u64(MutationType.SUM, "n", 5n),
    del("absent"),
  ]);
  assert.deepEqual(
    (await client.read(point("a"), everything({ limit: 9 }), point("absent")))
      .map(texts)
      .map((list) => list.slice(0, 2)),
    [["1"], ["1", "2"], []],
  );
  const failed = await client.write(atomic(
    [set("a", "never")],
    [check("a", first), check("b", first - 1), check("n", null)],
  ));
  assert.deepEqual(failed, {
    status: 2,
    version: -1,
    failedChecks: [1, 2],
  });
  const second = await client.commit([
    u64(MutationType.MAX, "n", 9n),
    set("late", "x", Date.now() - 1),
    mutation(MutationType.SET_SUFFIX_VERSIONSTAMPED_KEY, "s", {
      value: utf8("suffixed"),
    }),
  ], [check("a", first)]);
  assert.ok(second > first);
  const [[n], [late]] = await client.read(point("n"), point("late"));
  assert.deepEqual([n.value, n.encoding], [le64(9n), Encoding.LE64]);
  assert.equal(late, undefined);
  await assert.rejects(
    client.write(atomic([set("b", "never"), sum("a", 1)])),
    (error) =>
      error instanceof RefusedError && error.status === 400 &&
      /nothing of the write was applied/.test(error.sentence),
  );
  const [all] = await client.read(everything());
  assert.deepEqual(texts(all.slice(0, 2)), ["1", "2"]);
  await client.commit(all.map((entry) => ({ ...del(""), key: entry.key })));
  assert.deepEqual(await client.read(everything()), [[]]);
}

async function checkWatch(client: KvClient): Promise<void> {
  const watch = await client.watch([key("w"), key("v")]);
  const next = async () => texts((await watch.frames.next()).value.entries);
  assert.deepEqual(await next(), [null, null]);
  await client.commit([set("w", "1")]);
  assert.deepEqual(await next(), ["1", null]);
  await client.commit([set("v", "2"), del("w")]);
  // Every key in every frame: Deno's client needs it so.
  assert.deepEqual(await next(), [null, "2"]);
  await client.commit([set("w", "3")]);
  assert.deepEqual(await next(), ["3", "2"]);
  watch.cancel();
  await client.commit([del("w"), del("v")]);
}

async function checkRefusals(transport: Transport): Promise<void> {
  const good = await KvClient.open(transport);
  const status = async (path: string, headers: Record<string, string>) =>
    (await request(transport, "POST", path, headers, new Uint8Array(0))).status;
  assert.equal(
    (await exchange(transport, [1, 2, 3], "wrong token 1")).status,
    401,
  );
  assert.equal((await exchange(transport, [4])).status, 400);
  const read = `${good.path}/snapshot_read`;
  assert.equal(await status(read, good.headers), 200);
  const without = (name: string) => {
    const { [name]: _, ...rest } = good.headers;
    return rest;
  };
  assert.equal(await status(read, without("content-type")), 200);
  assert.equal(await status(read, without("authorization")), 401);
  const bad = { ...good.headers, authorization: `Bearer ${ACCESS_TOKEN}` };
  assert.equal(await status(read, bad), 401, "not the access token");
  assert.equal(await status(read, without("x-denokv-database-id")), 400);
  assert.equal(
    await status(read, { ...good.headers, "x-denokv-version": "4" }),
    400,
  );
  assert.equal(await status("/v2/snapshot_read", good.headers), 200);
  assert.equal(await status(`${good.path}/nothing`, good.headers), 404);
  // An answer to HEAD with a body would end an HTTP/2 connection.
  for (const path of ["/-/health", "/-/nothing", "/absent", good.path]) {
    const head = await request(transport, "HEAD", path);
    assert.equal(head.body.length, 0);
  }
  assert.equal(await status(read, good.headers), 200);
}
