/** More connections than the process has descriptors. */
import assert from "node:assert/strict";
import { rawHttp1 } from "./raw_http1.ts";
import { until } from "../support/faulty_server.ts";
import { Attack } from "./attack.ts";
import { attacked, CEILING_WITHOUT_SECRET_MIB } from "./victim.ts";

const MAX_DESCRIPTORS = 256;
const HEALTH = "GET /-/health HTTP/1.1\r\nhost: x\r\n\r\n";

async function isTaken(port: number): Promise<boolean> {
  try {
    return (await rawHttp1(port, HEALTH)).status === 200;
  } catch {
    return false;
  }
}

Deno.test("more idle connections than descriptors: those that are open are served, writes too, and new ones are when there is room", () => {
  const name = "400 idle connections for 256 descriptors, three times";
  return attacked({
    name,
    ceilingMib: CEILING_WITHOUT_SECRET_MIB,
    maxDescriptors: MAX_DESCRIPTORS,
  }, async ({ server, neighbour }) => {
    for (let round = 0; round < 3; round++) {
      await using attack = await Attack.start("idleConnections", server.port, {
        connections: 400,
      });
      await neighbour.goRounds(50);
      assert.ok(server.isRunning, server.lastWords);
      await attack.end();
      await until("a new connection", () => isTaken(server.port));
    }
    assert.match(server.lastWords, /connection/i);
    await until("a metric that tells of it", async () => {
      try {
        const metrics = [...await server.metrics()];
        return metrics.some(([name, value]) =>
          /accept|connection/.test(name) && value > 0
        );
      } catch {
        // It may take a moment until all the others are gone.
        return false;
      }
    });
  });
});
