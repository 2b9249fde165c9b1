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

for (
  const [name, requests, path, reads] of [
    ["20,000 requests in a row, read", 1000, "/-/health", true],
    [
      "40,000 pages of metrics asked for and not read",
      2000,
      "/-/metrics",
      false,
    ],
  ] as [string, number, string, boolean][]
) {
  Deno.test(`HTTP/1.1: ${name}`, () =>
    attacked({ name, ceilingMib }, async ({ server, neighbour }) => {
      await using attack = await Attack.start(
        "pipelinedRequests",
        server.port,
        { connections: 20, requests, head: head(path), reads },
      );
      await neighbour.goRounds(20);
      await attack.end();
    }));
}
