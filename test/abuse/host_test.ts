/** The path comes from the request line alone; a Host that is none is a 400. */
import assert from "node:assert/strict";
import http2 from "node:http2";
import { everything, set } from "../../src/store/contract/support.ts";
import { KvClient } from "../support/kv_client.ts";
import { REST_SECRET, ServerProcess, TestFolder } from "../support/server.ts";
import { http2Connection } from "../support/transport.ts";
import { rawHttp1 } from "./raw_http1.ts";

const SECRET = `authorization: ${REST_SECRET}\r\n`;

async function withServer(
  test: (server: ServerProcess, client: KvClient) => Promise<void>,
): Promise<void> {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({ path: folder.database });
  const client = await KvClient.open(http2Connection(server.url));
  await client.commit([set("k1", "kept")]);
  const before = await client.read(everything());
  await test(server, client);
  assert.deepEqual(await client.read(everything()), before, "data changed");
  client.close();
  assert.equal((await server.stop()).code, 0, server.lastWords);
}

/** What would put another path before the one of the request line. */
const BAD_HOSTS = [
  "a/b",
  "a/-/metrics?",
  "a/-/metrics#",
  "a?b=/c",
  "a#",
  "/",
  "?",
  "a b",
  "a\\b",
  "user@a",
  "user:word@a",
  "[::1",
  "a]b",
  "a:b",
  "a:1/x",
  "a%2fb/c",
];

Deno.test("HTTP/1.1: a Host that is none is a 400 with a sentence, and nothing is done", () =>
  withServer(async ({ port }) => {
    for (const host of BAD_HOSTS) {
      for (const method of ["GET", "PUT", "DELETE", "POST"]) {
        const answer = await rawHttp1(
          port,
          `${method} /k1 HTTP/1.1\r\nhost: ${host}\r\n${SECRET}content-length: 0\r\n\r\n`,
        );
        assert.equal(answer.status, 400, `${method} with Host ${host}`);
        assert.match(answer.body, /\.\n$/, `${method} with Host ${host}`);
      }
    }
    const two = await rawHttp1(
      port,
      `GET /k1 HTTP/1.1\r\nhost: a\r\nhost: b\r\n${SECRET}\r\n`,
    );
    assert.equal(two.status, 400);
  }));

Deno.test("HTTP/1.1: every Host that is one is good, and so is none", () =>
  withServer(async ({ port }) => {
    const hosts = [
      "host: localhost\r\n",
      "host: kv.example.org:4512\r\n",
      "host: 127.0.0.1:4512\r\n",
      "host: [::1]:4512\r\n",
      "host: [::1]\r\n",
      "host: under_score\r\n",
      "host: xn--bcher-kva.example\r\n",
      "host: a:\r\n",
      "host:\r\n",
      "",
    ];
    for (const host of hosts) {
      const answer = await rawHttp1(
        port,
        `GET /k1 HTTP/1.1\r\n${host}${SECRET}\r\n`,
      );
      assert.equal(answer.status, 200, `with ${host}`);
      assert.equal(answer.body, "kept");
    }
  }));

Deno.test("HTTP/1.1: a target in absolute form names its own path, or is a 400", () =>
  withServer(async ({ port }) => {
    const statuses: [target: string, status: number][] = [
      ["http://example.org/k1", 200],
      ["http://example.org:80/k1", 200],
      ["http://example.org/-/health", 200],
      ["http://example.org/none", 404],
      // Not the key ["a"], and not the metrics.
      ["http://example.org?q=/k1", 400],
      ["http://e?q=/-/metrics", 400],
      ["ftp://e/k1", 400],
      ["abcdefgh://e/k1", 400],
      ["http://user@example.org/k1", 400],
    ];
    for (const [target, status] of statuses) {
      const answer = await rawHttp1(
        port,
        `GET ${target} HTTP/1.1\r\nhost: x\r\n${SECRET}\r\n`,
      );
      assert.equal(answer.status, status, target);
    }
    for (const [method, target] of [["CONNECT", "x:1"], ["OPTIONS", "*"]]) {
      const answer = await rawHttp1(
        port,
        `${method} ${target} HTTP/1.1\r\nhost: x\r\n${SECRET}\r\n`,
      );
      assert.ok(answer.status >= 400, `${method} ${target}`);
    }
  }));

Deno.test("HTTP/2: neither :authority, nor host, nor :scheme makes a path", () =>
  withServer(async ({ port }) => {
    const ask = (headers: Record<string, string>) => {
      const session = http2.connect(`http://127.0.0.1:${port}`);
      session.on("error", () => {});
      const { promise, resolve } = Promise.withResolvers<string>();
      const stream = session.request(headers, { endStream: true });
      stream.on("response", (answer) => resolve(`${answer[":status"]}`));
      stream.on("error", () => resolve("reset"));
      stream.on("close", () => resolve("reset"));
      stream.resume();
      return promise.finally(() => session.destroy());
    };
    const plain = {
      ":method": "GET",
      ":path": "/k1",
      authorization: REST_SECRET,
    };
    for (const host of BAD_HOSTS) {
      // A library refuses some of these, the server the others.
      const refused = ["400", "reset"];
      const put = { ...plain, ":method": "PUT" };
      assert.ok(refused.includes(await ask({ ...put, host })), host);
      assert.ok(
        refused.includes(await ask({ ...put, ":authority": host })),
        host,
      );
    }
    assert.equal(await ask({ ...plain, ":authority": "example.org" }), "200");
    assert.equal(await ask({ ...plain, host: "example.org" }), "200");
    for (const scheme of ["ftp", "abcdefgh"]) {
      const answer = await ask({
        ...plain,
        ":authority": "e",
        ":scheme": scheme,
      });
      assert.ok(["400", "reset"].includes(answer), scheme);
    }
  }));
