/**
 * What the runtime does with `Upgrade` on a request that has a body, which
 * `curl --http2` and Java's HttpClient send with their first request: it
 * answers 400 itself, and no handler ever hears of it. docs name the switch
 * that each client needs. A runtime that does better makes this test fail:
 * then the docs can lose those lines.
 */
import assert from "node:assert/strict";
import { REST_SECRET, ServerProcess, TestFolder } from "../support/server.ts";
import { rawHttp1 } from "./raw_http1.ts";

const UPGRADE = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n" +
  "http2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n";
const HEAD = `HTTP/1.1\r\nhost: x\r\nauthorization: ${REST_SECRET}\r\n`;

Deno.test("Upgrade: a read is answered; a write over the first connection of curl --http2 is the runtime's 400, and changes nothing", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({ path: folder.database });
  const { port } = server;
  const read = await rawHttp1(port, `GET /-/health ${HEAD}${UPGRADE}\r\n`);
  assert.equal(read.status, 200);
  const write = await rawHttp1(
    port,
    `PUT /a ${HEAD}${UPGRADE}content-length: 1\r\n\r\nx`,
  );
  assert.deepEqual([write.status, write.body], [400, ""]);
  assert.equal(write.headers.get("connection"), "close");
  const gone = await rawHttp1(port, `GET /a ${HEAD}\r\n`);
  assert.equal(gone.status, 404);
  // A client that only mentions it, without asking for it, is served.
  const mentioned = await rawHttp1(
    port,
    `PUT /a ${HEAD}upgrade: h2c\r\ncontent-length: 1\r\n\r\nx`,
  );
  assert.equal(mentioned.status, 200);
});
