/** Watches, many and slow, and their end. */
import assert from "node:assert/strict";
import { set } from "../../src/store/contract/support.ts";
import { until } from "../support/faulty_server.ts";
import { KvClient } from "../support/kv_client.ts";
import { http1 } from "../support/transport.ts";
import { Attack } from "./attack.ts";
import { fill, largeName, largeValues } from "./fill.ts";
import { attacked, CEILING_WITH_SECRET_MIB } from "./victim.ts";

const ceilingMib = CEILING_WITH_SECRET_MIB;
const KEYS = Array.from({ length: 10 }, (_, i) => largeName(i));
const prepare = (database: string) => fill(database, largeValues(KEYS.length));

Deno.test("writes to a key that 1,000 watches hold together with nine other large ones", () => {
  const name = "5 writes to 1,000 watches of 640 KiB, most of them unread";
  return attacked({ name, ceilingMib, prepare }, async (victim) => {
    const { server, neighbour } = victim;
    await using attack = await Attack.start("watchers", server.port, {
      connections: 10,
      watchesEach: 100,
      keys: KEYS,
      readsEvery: 20,
    });
    const client = await KvClient.open(http1(server.url));
    for (let i = 0; i < 5; i++) {
      await client.commit([set(KEYS[0], `${i} `.padEnd(65_536, "y"))]);
      await neighbour.goRounds(3);
    }
    client.close();
    const seen = await attack.end();
    assert.equal(seen.watches, 1000, JSON.stringify(seen));
    const watches = async () => (await server.metrics()).get("denokv_watches");
    // The neighbour's own.
    await until("the end of all watches", async () => await watches() === 2);
  });
});

Deno.test("watches opened and left at once", () => {
  const name = "1,000 watches opened and left";
  return attacked({ name, ceilingMib, prepare }, async ({ server }) => {
    await using attack = await Attack.start("watchChurn", server.port, {
      connections: 10,
      rounds: 100,
      keys: KEYS,
    });
    const seen = await attack.end();
    assert.deepEqual(seen, { watches: 1000 });
    const watches = async () => (await server.metrics()).get("denokv_watches");
    await until("the end of all watches", async () => await watches() === 2);
  });
});
