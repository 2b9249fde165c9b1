/** Much work for little that was sent. */
import assert from "node:assert/strict";
import { Encoding } from "../../src/protocol/messages.ts";
import { encodeV8Number } from "../../src/protocol/v8_number.ts";
import { set, sum } from "../../src/store/contract/support.ts";
import { KvClient } from "../support/kv_client.ts";
import { encodeWrite } from "../support/kv_messages.ts";
import { http1 } from "../support/transport.ts";
import { Attack } from "./attack.ts";
import { point } from "../support/faulty_server.ts";
import { attacked, CEILING_WITH_SECRET_MIB } from "./victim.ts";

const ceilingMib = CEILING_WITH_SECRET_MIB;
const SUMS = 1000;
/** As large as a value may be. */
const LARGE = 1n << BigInt(8 * 65_000);

const sums = (names: string[]) =>
  encodeWrite({
    checks: [],
    mutations: Array.from(
      { length: SUMS },
      (_, i) => sum(names[i % names.length], 1n),
    ),
    enqueues: [],
  });

for (
  const [what, names] of [
    ["one bigint of 64 KiB", ["n0"]],
    ["100 bigints of 64 KiB", Array.from({ length: 100 }, (_, i) => `n${i}`)],
  ] as [string, string[]][]
) {
  const name = `12 writes with 1,000 sums on ${what}`;
  Deno.test(name, () =>
    attacked({ name, ceilingMib }, async ({ server }) => {
      const client = await KvClient.open(http1(server.url));
      for (const name of names) {
        const value = encodeV8Number(LARGE);
        await client.commit([{
          ...set(name, ""),
          value,
          encoding: Encoding.V8,
        }]);
      }
      await using attack = await Attack.start("calls", server.port, {
        connections: 2,
        atOnce: 6,
        call: "atomic_write",
        body: sums(names).toBase64(),
        requests: 12,
      });
      // Done, or refused with a sentence: not half of it, and no 5xx.
      const seen = await attack.end();
      const { 200: done = 0, 400: refused = 0 } = seen;
      assert.equal(done + refused, 12, JSON.stringify(seen));
      client.close();
    }));
}

Deno.test("1,000 sums on one small number in one write are one sum", async () => {
  const name = "200 writes with 1,000 sums on one small number";
  await attacked({ name, ceilingMib }, async ({ server }) => {
    const client = await KvClient.open(http1(server.url));
    const value = encodeV8Number(0n);
    await client.commit([{ ...set("n", ""), value, encoding: Encoding.V8 }]);
    await using attack = await Attack.start("calls", server.port, {
      connections: 2,
      atOnce: 10,
      call: "atomic_write",
      body: sums(["n"]).toBase64(),
      requests: 200,
    });
    assert.deepEqual(await attack.end(), { 200: 200 });
    const [[entry]] = await client.read(point("n"));
    assert.deepEqual(entry.value, encodeV8Number(BigInt(200 * SUMS)));
    client.close();
  });
});
