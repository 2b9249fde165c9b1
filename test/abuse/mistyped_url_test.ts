/**
 * A metadata exchange at an address that is none, as stock clients send it
 * for a mistyped URL, is no write of a key.
 */
import assert from "node:assert/strict";
import { utf8 } from "../../src/common/bytes.ts";
import { encodeKey } from "../../src/protocol/key.ts";
import { everything, set } from "../../src/store/contract/support.ts";
import { KvClient } from "../support/kv_client.ts";
import { npmPackage } from "../support/npm.ts";
import {
  ACCESS_TOKEN,
  REST_SECRET,
  ServerProcess,
  TestFolder,
} from "../support/server.ts";
import { http1, http2Connection, request } from "../support/transport.ts";

const MISTYPED = ["/users", "//", "/my/db/connect", "/users/", "/v3"];
const KEYS = [["users"], ["", ""], ["my", "db", "connect"], ["v3"]];
const BEARER = { authorization: `Bearer ${ACCESS_TOKEN}` };

async function withServer(
  test: (server: ServerProcess, client: KvClient) => Promise<void>,
): Promise<void> {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({ path: folder.database });
  const client = await KvClient.open(http1(server.url));
  await client.commit(
    KEYS.map((key) => ({ ...set("", "kept"), key: encodeKey(key) })),
  );
  const before = await client.read(everything());
  await test(server, client);
  assert.deepEqual(await client.read(everything()), before, "data changed");
  client.close();
  assert.equal((await server.stop()).code, 0, server.lastWords);
}

/** Runs a client that must fail; what it said. */
async function failing(program: string, args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(program, {
    args,
    env: { DENO_KV_ACCESS_TOKEN: ACCESS_TOKEN, NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const said = [stdout, stderr].map((out) => new TextDecoder().decode(out));
  assert.notEqual(code, 0, "it took the address for one");
  return said.join("");
}

Deno.test("Deno.openKv with a mistyped URL is told 404 with a sentence, and overwrites nothing", () =>
  withServer(async ({ url }) => {
    await Promise.all(MISTYPED.map(async (path) => {
      const said = await failing(Deno.execPath(), [
        "eval",
        "--unstable-kv",
        `const kv = await Deno.openKv(${JSON.stringify(url + path)});
        await kv.get(["a"]);
        kv.close();`,
      ]);
      assert.match(said, /404/, said);
      assert.match(said, /KV Connect/, said);
    }));
  }));

Deno.test("npm @deno/kv with a mistyped URL is told 404, and overwrites nothing", () =>
  withServer(async ({ url }) => {
    const installed = await npmPackage("@deno/kv", "0.14.0");
    if ("skipped" in installed) {
      return console.log(`SKIPPED: ${installed.skipped}`);
    }
    await Promise.all(MISTYPED.map(async (path) => {
      const said = await failing("node", [
        "-e",
        `const { createRequire } = require("node:module");
        const { openKv } = createRequire(process.argv[1] + "/")("@deno/kv");
        openKv(process.argv[2]).then((kv) => kv.get(["a"])).then(
          () => process.exit(0),
          (error) => { console.error(error); process.exit(1); },
        );`,
        installed.folder,
        url + path,
      ]);
      assert.match(said, /404/, said);
    }));
  }));

for (const connect of [http1, http2Connection]) {
  Deno.test(`${connect.name}: a metadata exchange at an unknown address is a 404 with a sentence`, () =>
    withServer(async ({ url }) => {
      const transport = connect(url);
      for (const path of MISTYPED) {
        for (const versions of ["[1,2,3]", "[2, 3, 4]", "[ 1 ]"]) {
          const answer = await request(transport, "POST", path, {
            ...BEARER,
            "content-type": "application/json",
          }, utf8(`{"supportedVersions":${versions}}`));
          assert.equal(answer.status, 404, path);
          assert.match(new TextDecoder().decode(answer.body), /\.\n$/);
        }
      }
      transport.close();
    }));
}

Deno.test("ordinary JSON is stored, also where it looks like a metadata exchange and cannot be one", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({ path: folder.database });
  const transport = http1(server.url);
  const exchange = '{"supportedVersions":[1,2,3]}';
  const ordinary: [method: string, authorization: string, body: string][] = [
    ["POST", BEARER.authorization, '{"a":1}'],
    ["POST", BEARER.authorization, '{"supportedVersions":"all"}'],
    ["POST", BEARER.authorization, "[1,2,3]"],
    ["PUT", BEARER.authorization, exchange],
    // An exchange comes with the access token.
    ["POST", REST_SECRET, exchange],
  ];
  for (const [method, authorization, body] of ordinary) {
    const answer = await request(transport, method, "/users", {
      authorization,
      "content-type": "application/json",
    }, utf8(body));
    assert.equal(answer.status, 200, `${method} ${body}`);
    const read = await request(transport, "GET", "/users", { authorization });
    assert.deepEqual(
      JSON.parse(new TextDecoder().decode(read.body)),
      JSON.parse(body),
    );
  }
  transport.close();
  assert.equal((await server.stop()).code, 0, server.lastWords);
});
