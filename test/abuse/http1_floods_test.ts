/** HTTP/1.1: heads that never end, and more requests than are waited for. */
import { Attack } from "./attack.ts";
import { attacked, CEILING_WITHOUT_SECRET_MIB } from "./victim.ts";

const ceilingMib = CEILING_WITHOUT_SECRET_MIB;
const head = (path: string) => `GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`;

const slow = "500 heads that come by the byte";
Deno.test(`HTTP/1.1: ${slow}`, () =>
  attacked({ name: slow, ceilingMib }, async ({ server, neighbour }) => {
    await using attack = await Attack.start("slowHeads", server.port, {
      connections: 500,
    });
    await neighbour.goRounds(20);
    await attack.end();
  }));

/**
 * The runtime answers more than a hundred requests of one connection in a row,
 * and does so for every connection before it looks at anything else.
 */
for (
  const [name, path, connections, requests, reads] of [
    [
      "200 pages of metrics in a row on 200 connections",
      "/-/metrics",
      200,
      200,
      true,
    ],
    ["200 refused reads in a row on 500 connections", "/key", 500, 200, true],
    [
      "2,000 pages of metrics in a row on 20 connections, not read",
      "/-/metrics",
      20,
      2000,
      false,
    ],
  ] as [string, string, number, number, boolean][]
) {
  Deno.test(`HTTP/1.1: ${name}`, () =>
    attacked({ name, ceilingMib }, async ({ server, neighbour }) => {
      await using attack = await Attack.start(
        "pipelinedRequests",
        server.port,
        { connections, requests, head: head(path), reads },
      );
      await neighbour.goRounds(10);
      await attack.end();
    }));
}
