/** The change feed of a server as a process, as its users ask for it. */
import assert from "node:assert/strict";
import { utf8 } from "../../src/common/bytes.ts";
import { encodeKey } from "../../src/protocol/key.ts";
import {
  Encoding,
  type Mutation,
  MutationType,
  NEVER_MS,
} from "../../src/protocol/messages.ts";
import {
  parseVersionstampHex,
  versionstampHex,
} from "../../src/protocol/versionstamp.ts";
import { KvClient } from "../support/kv_client.ts";
import {
  ACCESS_TOKEN,
  REST_SECRET,
  ServerProcess,
  TestFolder,
} from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import type { Line } from "./pipeline.ts";

const BEARER = { authorization: `Bearer ${ACCESS_TOKEN}` };
const ORIGIN = "https://app.example";
/** Of 780 KB each: half as much again as the log keeps. */
const COMMITS = 125;

const feed = (
  server: ServerProcess,
  query = "",
  headers: Record<string, string> = BEARER,
  init: RequestInit = {},
) =>
  fetch(`${server.url}/-/changes${query}`, {
    headers,
    // A feed that hangs fails its test instead of holding up all of them.
    signal: AbortSignal.timeout(120_000),
    ...init,
  });

async function put(
  server: ServerProcess,
  path: string,
  body: string,
): Promise<string> {
  const answer = await fetch(`${server.url}${path}`, {
    method: "PUT",
    headers: BEARER,
    body,
  });
  return (await answer.json()).versionstamp;
}

async function linesOf(answer: Response): Promise<Line[]> {
  assert.equal(answer.status, 200);
  return (await answer.text()).trim().split("\n")
    .map((line) => JSON.parse(line) as Line);
}

function set(key: Uint8Array<ArrayBuffer>, text: string): Mutation {
  return {
    type: MutationType.SET,
    key,
    value: utf8(text),
    encoding: Encoding.BYTES,
    expireAtMs: NEVER_MS,
    sumMin: null,
    sumMax: null,
    sumClamp: false,
  };
}

const mutations = (lines: Line[]) =>
  lines.filter(({ type }) => type !== "heartbeat");

Deno.test("who may have a feed, and what is said to those who may not", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({
    path: folder.database,
    args: ["--public-reads", "--cors-origin", ORIGIN],
  });
  await put(server, "/a", "1");
  const refused = async (status: number, message: RegExp, made: Response) => {
    assert.equal(made.status, status);
    assert.match(await made.text(), message);
  };
  // Public reads are of single keys whose names one knows.
  await refused(
    401,
    /shows every key.* is missing/,
    await feed(server, "", {}),
  );
  await refused(
    401,
    /is wrong/,
    await feed(server, "", { authorization: "Bearer no" }),
  );
  for (const authorization of [REST_SECRET, `Bearer ${REST_SECRET}`]) {
    const answer = await feed(server, "?from=0", { authorization });
    assert.equal(mutations(await linesOf(answer)).length, 1);
  }
  await refused(
    405,
    /GET only/,
    await feed(server, "", BEARER, { method: "POST" }),
  );
  await refused(400, /from has to be/, await feed(server, "?from=1"));
  await refused(
    409,
    /has never been at 00000000000f42400000/,
    await feed(server, "?from=00000000000f42400000"),
  );
  const preflight = await feed(server, "", {
    origin: ORIGIN,
    "access-control-request-method": "GET",
    "access-control-request-headers": "authorization, last-event-id",
  }, { method: "OPTIONS" });
  assert.equal(preflight.status, 204);
  assert.match(
    preflight.headers.get("access-control-allow-headers")!,
    /last-event-id/,
  );
  const page = await feed(server, "?from=0", { ...BEARER, origin: ORIGIN });
  assert.equal(page.headers.get("access-control-allow-origin"), ORIGIN);
  await page.body?.cancel();
});

Deno.test("a browser's feed resumes at the last whole commit, over a restart of the server", async () => {
  await using folder = await TestFolder.make();
  const first = await ServerProcess.start({ path: folder.database });
  const events = async (server: ServerProcess, last: string) => {
    const answer = await feed(server, "?from=oldest", {
      ...BEARER,
      accept: "text/event-stream",
      ...(last && { "last-event-id": last }),
    });
    assert.equal(answer.headers.get("content-type"), "text/event-stream");
    return answer.body!.pipeThrough(new TextDecoderStream());
  };
  /** As the EventSource of a browser takes them, up to this many. */
  async function take(stream: ReadableStream<string>, count: number) {
    let text = "";
    let last = "";
    const lines: Line[] = [];
    for await (const chunk of stream) {
      text += chunk;
      const blocks = text.split("\n\n");
      text = blocks.pop()!;
      for (const block of blocks) {
        const fields = new Map(
          block.split("\n").map((line) =>
            line.split(/: (.*)/s).slice(0, 2) as [string, string]
          ),
        );
        last = fields.get("id") ?? last;
        if (!fields.has("event")) lines.push(JSON.parse(fields.get("data")!));
      }
      if (lines.length >= count) break;
    }
    return { lines, last };
  }
  await put(first, "/a", "1");
  const second = await put(first, "/b", "2");
  const before = await take(await events(first, ""), 2);
  assert.deepEqual(before.lines.map(({ key }) => key), [["a"], ["b"]]);
  assert.equal(before.last, second);
  assert.equal((await first.stop()).code, 0);

  await using server = await ServerProcess.start({ path: folder.database });
  await put(server, "/c", "3");
  const after = await take(await events(server, before.last), 1);
  assert.deepEqual(after.lines.map(({ key }) => key), [["c"]]);
});

Deno.test("a feed that follows gets each commit when it is durable, whole, with its index", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({ path: folder.database });
  const transport = http1(server.url);
  const client = await KvClient.open(transport);
  const answer = await feed(server, "?follow&prefix=/a");
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  assert.match((await reader.read()).value!, /^{"type":"heartbeat"/);
  await client.commit([
    set(encodeKey(["a", 1]), "x"),
    set(encodeKey(["b"]), "x"),
    set(encodeKey(["a", 2n]), "x"),
  ]);
  let text = "";
  while (!text.includes('"last":true')) text += (await reader.read()).value;
  const lines = mutations(
    text.trim().split("\n").map((line) => JSON.parse(line) as Line),
  );
  assert.deepEqual(lines.map(({ key, index }) => [key, index]), [
    [["a", 1], 0],
    [["a", { $bigint: "2" }], 2],
  ]);
  // A server that stops says so, and is not held up.
  const stopped = server.stop();
  let rest = "";
  for (let part; !(part = await reader.read()).done;) rest += part.value;
  assert.match(rest, /"type":"end","status":503,"message":"The server is stop/);
  assert.equal((await stopped).code, 0);
  transport.close();
});

Deno.test("a feed from before the log's beginning is refused with the oldest point that there is", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({
    path: folder.database,
    args: ["--changes-retain-mib", "64"],
  });
  const first = await put(server, "/first", "1");
  // It takes nothing while all this is written.
  const stalled = await feed(server, "?from=oldest&follow");
  const transport = http1(server.url);
  const client = await KvClient.open(transport);
  const value = "x".repeat(60_000);
  // The log keeps about 64 MiB, and the sockets between us some.
  for (let i = 0; i < COMMITS; i++) {
    await client.commit([
      ...Array.from({ length: 13 }, (_, j) => set(encodeKey(["l", j]), value)),
      set(encodeKey(["n"]), String(i)),
    ]);
  }
  transport.close();
  const metrics = await server.metrics();
  const logMib = metrics.get("denokv_log_bytes")! / 1024 / 1024;
  assert.ok(logMib < 68, `${logMib} MiB of log for a feed that takes nothing`);
  const text = (await stalled.text()).trim();
  const end = JSON.parse(text.slice(text.lastIndexOf("\n")));
  assert.deepEqual([end.type, end.status], ["end", 410]);
  const answer = await feed(server, `?from=${first}`);
  assert.equal(answer.status, 410);
  const sentence = await answer.text();
  const oldest = /the oldest versionstamp .* is ([0-9a-f]{20})\./.exec(
    sentence,
  );
  assert.ok(oldest, sentence);
  const found = async (from: string) =>
    mutations(await linesOf(await feed(server, `?from=${from}&prefix=/n`)))
      .map(({ value }) => value);
  const values = await found(oldest[1]);
  assert.ok(values.length > 50 && values.length < COMMITS, `${values.length}`);
  assert.deepEqual(values, await found("oldest"));
  assert.deepEqual(values.at(-1), { $uint8array: btoa(`${COMMITS - 1}`) });
});

Deno.test("a server that only reads has no feed, one that stands by says who has it", async () => {
  await using folder = await TestFolder.make();
  await using store = await TestFolder.make();
  const backup = { url: `file://${store.path}`, folder: store.path };
  await using owner = await ServerProcess.start({
    path: folder.database,
    backup,
  });
  await using other = await TestFolder.make();
  await using standby = await ServerProcess.bound({
    path: other.database,
    backup,
    args: ["--standby"],
  });
  const refused = await feed(standby, "?from=0");
  assert.equal(refused.status, 503);
  assert.ok((await refused.text()).length > 20);
  await put(owner, "/a", "1");
  assert.equal(
    mutations(await linesOf(await feed(owner, "?from=0"))).length,
    1,
  );
  await standby.stop();
  await owner.stop();
  await using reading = await ServerProcess.start({
    path: folder.database,
    args: ["--read-only"],
  });
  const none = await feed(reading);
  assert.equal(none.status, 404);
  assert.match(await none.text(), /ask the one that takes the writes/);
});

Deno.test("a feed is told that its database was handed over, and goes on at the instance that has it", async () => {
  await using folder = await TestFolder.make();
  await using other = await TestFolder.make();
  await using store = await TestFolder.make();
  const backup = { url: `file://${store.path}`, folder: store.path };
  await using owner = await ServerProcess.start({
    path: folder.database,
    backup,
  });
  await put(owner, "/a", "1");
  const followed = await feed(owner, "?from=oldest&follow");
  const ended = followed.text();
  const last = await put(owner, "/b", "2");
  await using next = await ServerProcess.start({
    path: other.database,
    backup,
  });
  const lines = (await ended).trim().split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(mutations(lines).map(({ type }) => type), [
    "set",
    "set",
    "end",
  ]);
  assert.equal(lines.at(-1).status, 503);
  assert.equal((await feed(owner, `?from=${last}`)).status, 503);
  await put(next, "/c", "3");
  const after = mutations(await linesOf(await feed(next, `?from=${last}`)));
  assert.deepEqual(after.map(({ key }) => key), [["c"]]);
  // Versions leapt at the takeover: what lies between, nobody has.
  const version = parseVersionstampHex(last)!.version + 1;
  const lost = await feed(next, `?from=${versionstampHex(version, 0)}`);
  assert.equal(lost.status, 409);
  assert.match(await lost.text(), /has never been at .* takeover or a rewind/);
});
