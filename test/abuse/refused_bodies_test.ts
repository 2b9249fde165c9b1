/** What is refused costs nothing: no memory for a body that is only claimed. */
import { Attack } from "./attack.ts";
import { attacked, CEILING_WITHOUT_SECRET_MIB } from "./victim.ts";

const ceilingMib = CEILING_WITHOUT_SECRET_MIB;
/** Every entrance that takes a body. */
const PATHS = ["/", "/key", "/v2/snapshot_read", "/v2/atomic_write"];

for (
  const [size, claimBytes] of [["64 KiB", 65_536], ["4 MiB", 4_194_304]] as [
    string,
    number,
  ][]
) {
  const http2 = `8,000 HTTP/2 streams that claim ${size} without a secret`;
  Deno.test(`${http2}: no memory, and the neighbour is answered`, () =>
    attacked({ name: http2, ceilingMib }, async ({ server, neighbour }) => {
      await using attack = await Attack.start("claimedStreams", server.port, {
        connections: 40,
        streams: 200,
        path: "/v2/snapshot_read",
        claimBytes,
        sentBytes: 1,
      });
      await neighbour.goRounds(20);
      await attack.end();
    }));

  const http1 = `1,000 HTTP/1.1 connections that claim ${size}, by the byte`;
  Deno.test(`${http1}: no memory, and the neighbour is answered`, () =>
    attacked({ name: http1, ceilingMib }, async ({ server, neighbour }) => {
      await using attack = await Attack.start("claimedBodies", server.port, {
        connections: 1000,
        paths: PATHS,
        claimBytes,
        dripEveryMs: 100,
      });
      await neighbour.goRounds(20);
      await attack.end();
    }));
}
