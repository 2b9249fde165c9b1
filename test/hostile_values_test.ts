/** What one stored or sent value may cost everybody else: next to nothing. */
import assert from "node:assert/strict";
import { fromUtf8, utf8 } from "../src/common/bytes.ts";
import { MAX_SUM_BIGINT_BYTES } from "../src/protocol/limits.ts";
import { Encoding, MutationType } from "../src/protocol/messages.ts";
import { decodeV8Number, encodeV8Number } from "../src/protocol/v8_number.ts";
import { mutation, point, set, sum } from "../src/store/contract/support.ts";
import { KvClient, RefusedError } from "./support/kv_client.ts";
import { REST_SECRET, ServerProcess, TestFolder } from "./support/server.ts";
import { http1, http2Connection, request } from "./support/transport.ts";

/**
 * How long a neighbour's read may take beside an attack. Generous: on a busy
 * machine it takes some tens of milliseconds.
 */
const NEIGHBOUR_MS = 3000;
const TYPED = "application/vnd.denokv.typed+json";

/** The longest that a neighbour waited for a read while `attack` ran. */
async function besideReads(
  server: ServerProcess,
  attack: () => Promise<void>,
): Promise<number> {
  const client = await KvClient.open(http2Connection(server.url));
  await client.commit([set("mine", "1")]);
  let isOver = false;
  const over = attack().finally(() => isOver = true);
  let longestMs = 0;
  do {
    const startedMs = performance.now();
    const [[entry]] = await client.read(point("mine"));
    assert.equal(fromUtf8(entry.value), "1");
    longestMs = Math.max(longestMs, performance.now() - startedMs);
  } while (!isOver);
  await over;
  client.close();
  return longestMs;
}

Deno.test("a regular expression that engines choke on is stored, read and deleted, and nobody else waits for it", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({
    path: folder.database,
    args: ["--public-reads"],
  });
  // A second and half a gigabyte for whoever compiles one of them.
  const documentAt = (i: number) =>
    JSON.stringify({ $regexp: [`${i}` + "\\p{RGI_Emoji}".repeat(800), "v"] });
  const headers = { authorization: REST_SECRET, "content-type": TYPED };
  const transport = http1(server.url);
  const paths = Array.from({ length: 16 }, (_, i) => `/bomb/${i}`);
  const each = (method: string) =>
    Promise.all(paths.map((path, i) =>
      request(
        transport,
        method,
        path,
        headers,
        method === "PUT" ? utf8(documentAt(i)) : undefined,
      )
    ));
  const longestMs = await besideReads(server, async () => {
    for (const { status } of await each("PUT")) assert.equal(status, 200);
    (await each("GET")).forEach(({ status, headers, body }, i) => {
      assert.equal(status, 200);
      assert.equal(headers["content-type"], TYPED);
      assert.ok(fromUtf8(body) === documentAt(i));
    });
    for (const { status } of await each("DELETE")) assert.equal(status, 200);
    for (const { status } of await each("GET")) assert.equal(status, 404);
  });
  transport.close();
  assert.ok(longestMs < NEIGHBOUR_MS, `${longestMs} ms`);
});

Deno.test("a thousand sums on the largest bigint cost little, and one that fills a value is refused", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({ path: folder.database });
  const client = await KvClient.open(http1(server.url));
  const largest = 1n << BigInt(8 * MAX_SUM_BIGINT_BYTES - 20);
  await client.commit([
    sum("allowed", largest),
    mutation(MutationType.SET, "vast", {
      value: encodeV8Number(1n << BigInt(8 * 65_000)),
      encoding: Encoding.V8,
    }),
  ]);
  const logBytes = async () =>
    (await server.metrics()).get("denokv_log_bytes")!;
  const before = await logBytes();
  const ones = (name: string) => new Array(1000).fill(sum(name, 1n));
  const longestMs = await besideReads(server, async () => {
    await Promise.all(Array.from({ length: 20 }, async () => {
      await client.commit(ones("allowed"));
      await assert.rejects(
        client.commit(ones("vast")),
        (error) =>
          error instanceof RefusedError && error.status === 400 &&
          /^The bigints of a sum .* 1024 bytes/.test(error.sentence),
      );
    }));
  });
  const [[entry]] = await client.read(point("allowed"));
  assert.equal(decodeV8Number(entry.value), largest + 20_000n);
  // 20 entries of 1 KiB, and not 20,000.
  const logged = await logBytes() - before;
  assert.ok(logged < 100_000, `${logged} bytes of log`);
  client.close();
  assert.ok(longestMs < NEIGHBOUR_MS, `${longestMs} ms`);
});
