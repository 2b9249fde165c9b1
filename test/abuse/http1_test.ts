/** Requests of HTTP/1.1 that two programs could understand in two ways. */
import assert from "node:assert/strict";
import { everything, point, set } from "../../src/store/contract/support.ts";
import { KvClient } from "../support/kv_client.ts";
import { REST_SECRET, ServerProcess, TestFolder } from "../support/server.ts";
import { http1, request } from "../support/transport.ts";
import { FaultyServer } from "../support/faulty_server.ts";
import { rawHttp1 } from "./raw_http1.ts";

const HEAD = `HTTP/1.1\r\nhost: x\r\nauthorization: ${REST_SECRET}\r\n`;
const CHUNKED_ABC = "3\r\nabc\r\n0\r\n\r\n";

async function withServer(
  test: (server: ServerProcess, client: KvClient) => Promise<void>,
): Promise<void> {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({ path: folder.database });
  const client = await KvClient.open(http1(server.url));
  await test(server, client);
  client.close();
  assert.equal((await server.stop()).code, 0, server.lastWords);
}

Deno.test("a body whose length or coding is in doubt is refused, and the connection is closed", () =>
  withServer(async ({ port }, client) => {
    await client.commit([set("a", "before")]);
    const before = await client.read(everything());
    const doubtful = [
      "transfer-encoding: gzip\r\n",
      "transfer-encoding: chunked, gzip\r\n",
      "transfer-encoding: chunked, chunked\r\n",
      "transfer-encoding: identity\r\n",
      "transfer-encoding: xchunked\r\n",
      "content-length: 5\r\ntransfer-encoding: chunked\r\n",
      "transfer-encoding: chunked\r\ncontent-length: 60\r\n",
      "content-length: 3\r\ncontent-length: 4\r\n",
      "content-length: 3, 4\r\n",
      "content-length: +3\r\n",
      "content-length: 0x3\r\n",
      "content-length: -3\r\n",
    ];
    for (const headers of doubtful) {
      const answer = await rawHttp1(
        port,
        `PUT /a ${HEAD}${headers}\r\n${CHUNKED_ABC}` +
          `PUT /smuggled ${HEAD}content-length: 1\r\n\r\nx`,
      );
      assert.ok(
        answer.status === 400 || answer.status === 501,
        `${headers} is a ${answer.status}`,
      );
    }
    assert.deepEqual(await client.read(everything()), before);
  }));

Deno.test("a body whose coding is not known is refused, though its end is certain", () =>
  withServer(async ({ port }, client) => {
    for (
      const headers of [
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
      ]
    ) {
      const answer = await rawHttp1(
        port,
        `PUT /a ${HEAD}${headers}\r\n${CHUNKED_ABC}`,
      );
      assert.equal(answer.status, 400, headers);
      assert.match(answer.body, /transfer coding/);
    }
    assert.deepEqual(await client.read(point("a")), [[]]);
  }));

Deno.test("a body in chunks alone is taken", () =>
  withServer(async ({ port }, client) => {
    const answer = await rawHttp1(
      port,
      `PUT /a ${HEAD}transfer-encoding: chunked\r\n\r\n${CHUNKED_ABC}`,
    );
    assert.equal(answer.status, 200);
    assert.equal((await client.read(point("a")))[0].length, 1);
  }));

/**
 * Where the answer takes a moment, the runtime takes the end of what the client
 * sends for the end of the client. docs/limits.md says so; a runtime that does
 * better makes this test fail: then those lines can go.
 */
Deno.test("a client that has closed its sending side gets an answer that is there at once, and no later one", async () => {
  await using faulty = await FaultyServer.open();
  if (!faulty) return;
  const { server, shim } = faulty;
  const read = await rawHttp1(server.port, `GET /-/health ${HEAD}\r\n`, {
    halfClosed: true,
  });
  assert.equal(read.status, 200);
  // An answer that takes its time: the write waits for the disk.
  shim.set({ holdFsync: true, suffix: "-wal" });
  const write = rawHttp1(
    server.port,
    `PUT /a ${HEAD}content-length: 1\r\n\r\nx`,
    { halfClosed: true },
  );
  await shim.until((counts) => counts.fsyncsHeld > 0);
  shim.set({});
  assert.equal((await write).status, 0);
  const stored = await rawHttp1(server.port, `GET /a ${HEAD}\r\n`);
  assert.equal(stored.body, "x", "it was applied all the same");
});

Deno.test("HEAD of every page of the server tells the length that GET has", () =>
  withServer(async ({ port }) => {
    for (const path of ["/-/health", "/-/ready", "/-/metrics"]) {
      const get = await rawHttp1(port, `GET ${path} ${HEAD}\r\n`);
      const head = await rawHttp1(port, `HEAD ${path} ${HEAD}\r\n`, {
        bodiless: true,
      });
      assert.equal(head.status, 200);
      const length = Number(head.headers.get("content-length"));
      // Two pages of metrics are not the same to the byte.
      assert.ok(Math.abs(length - get.body.length) < 2000, path);
      assert.ok(length > 10, `HEAD of ${path} says ${length}`);
    }
  }));

Deno.test("a path under /-/ that is none is a 404 for every method", () =>
  withServer(async ({ url }) => {
    const transport = http1(url);
    const authorization = REST_SECRET;
    for (const path of ["/-/", "/-", "/-/nothing", "/-/health/", "/-//"]) {
      const methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"];
      for (const method of methods) {
        const answer = await request(transport, method, path, {
          authorization,
        });
        assert.equal(answer.status, 404, `${method} ${path}`);
      }
    }
    transport.close();
  }));
