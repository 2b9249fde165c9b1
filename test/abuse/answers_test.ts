/** Large answers that nobody takes. */
import assert from "node:assert/strict";
import { MAX_VALUE_BYTES } from "../../src/protocol/limits.ts";
import { point, range } from "../../src/store/contract/support.ts";
import { KvClient } from "../support/kv_client.ts";
import { encodeRead } from "../support/kv_messages.ts";
import { http1, http2Connection } from "../support/transport.ts";
import { Attack } from "./attack.ts";
import { fill, largeName, largeValues } from "./fill.ts";
import {
  attacked,
  CEILING_WITH_SECRET_MIB,
  CEILING_WITHOUT_SECRET_MIB,
  STALL_MS,
} from "./victim.ts";

/** 62.5 MiB as one answer. */
const COUNT = 1000;
const everyLarge = range(largeName(0), "large 9", { limit: COUNT });

Deno.test("answers of 62 MiB that nobody reads: bounded memory, and others go on reading, also as much", () => {
  const name = "40 answers of 62 MiB that nobody reads";
  return attacked({
    name,
    ceilingMib: CEILING_WITH_SECRET_MIB,
    prepare: (database) => fill(database, largeValues(COUNT)),
  }, async ({ server, neighbour }) => {
    const client = await KvClient.open(http2Connection(server.url));
    await using attack = await Attack.start("unreadAnswers", server.port, {
      connections: 20,
      requestsEach: 2,
      call: "snapshot_read",
      body: encodeRead([everyLarge]).toBase64(),
    });
    await neighbour.goRounds(20);
    // Too large to go out whole, and no part of what the others wait for.
    for (let i = 0; i < 20; i++) {
      const startedMs = performance.now();
      const [[entry]] = await client.read(point(largeName(i)));
      assert.equal(entry.value.length, MAX_VALUE_BYTES);
      const tookMs = performance.now() - startedMs;
      assert.ok(tookMs < STALL_MS, `a read of 64 KiB took ${tookMs} ms`);
    }
    await attack.end();
    // One that does read gets everything, once the others are gone.
    const [entries] = await client.read(everyLarge);
    assert.equal(entries.length, COUNT);
    client.close();
  });
});

Deno.test("answers of 62 MiB that are given up while they are made", () => {
  const name = "100 answers of 62 MiB that are given up";
  return attacked({
    name,
    ceilingMib: CEILING_WITH_SECRET_MIB,
    prepare: (database) => fill(database, largeValues(COUNT)),
  }, async ({ server, neighbour }) => {
    await using attack = await Attack.start("cancelledCalls", server.port, {
      connections: 10,
      requestsEach: 10,
      call: "snapshot_read",
      body: encodeRead([everyLarge]).toBase64(),
    });
    await neighbour.goRounds(20);
    assert.deepEqual(await attack.end(), { cancelled: 100 });
    // Nobody is left to wait for an answer, so none of them is made.
    const waiting = 'denokv_in_flight_waiting{kind="large_reads"}';
    const left = (await server.metrics()).get(waiting) ?? 0;
    assert.ok(left < 20, `${left} still wait`);
    const client = await KvClient.open(http1(server.url));
    const [entries] = await client.read(everyLarge);
    assert.equal(entries.length, COUNT);
    client.close();
  });
});

const hoard = "1,710 public reads of 64 KiB on nine connections";
Deno.test(`${hoard} that nobody takes: others get theirs`, () =>
  attacked({
    name: hoard,
    ceilingMib: CEILING_WITHOUT_SECRET_MIB,
    args: ["--public-reads"],
    prepare: (database) => fill(database, largeValues(1)),
  }, async ({ server }) => {
    const path = `/${encodeURIComponent(largeName(0))}`;
    await using attack = await Attack.start("shutWindows", server.port, {
      connections: 9,
      streams: 190,
      window: 0,
      method: "GET",
      path,
    });
    for (let i = 0; i < 20; i++) {
      const startedMs = performance.now();
      const answer = await fetch(`${server.url}${path}`);
      assert.equal((await answer.bytes()).length, MAX_VALUE_BYTES);
      const tookMs = performance.now() - startedMs;
      assert.ok(tookMs < STALL_MS, `a read of 64 KiB took ${tookMs} ms`);
    }
    await attack.end();
  }));

for (
  const [how, start] of [
    ["over HTTP/2", (port: number) =>
      Attack.start("shutWindows", port, {
        connections: 50,
        streams: 190,
        window: 0,
        method: "GET",
        path: `/${encodeURIComponent(largeName(0))}`,
      })],
    [
      "over HTTP/1.1",
      (port: number) =>
        Attack.start("pipelinedRequests", port, {
          connections: 100,
          requests: 1000,
          head: `GET /${encodeURIComponent(largeName(0))} HTTP/1.1\r\n` +
            "host: x\r\n\r\n",
          reads: false,
        }),
    ],
  ] as [string, (port: number) => Promise<Attack>][]
) {
  const name = `public reads of 64 KiB that nobody takes, ${how}`;
  Deno.test(name, () =>
    attacked({
      name,
      ceilingMib: CEILING_WITHOUT_SECRET_MIB,
      args: ["--public-reads"],
      prepare: (database) => fill(database, largeValues(1)),
    }, async ({ server, neighbour }) => {
      await using attack = await start(server.port);
      await neighbour.goRounds(20);
      await attack.end();
    }));
}
