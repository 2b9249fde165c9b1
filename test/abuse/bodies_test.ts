/**
 * Bodies on their way: one that is refused costs nothing, and all the others
 * together have a budget; no memory is set aside for what is only claimed.
 */
import { KvClient } from "../support/kv_client.ts";
import { http1 as http1Transport } from "../support/transport.ts";
import { Attack } from "./attack.ts";
import {
  attacked,
  CEILING_WITH_SECRET_MIB,
  CEILING_WITHOUT_SECRET_MIB,
} from "./victim.ts";

const ceilingMib = CEILING_WITHOUT_SECRET_MIB;
/** Every entrance that takes a body. */
const PATHS = ["/", "/key", "/v2/snapshot_read", "/v2/atomic_write"];

for (
  const [size, claimBytes] of [["64 KiB", 65_536], ["4 MiB", 4_194_304]] as [
    string,
    number,
  ][]
) {
  const http2 = `6,000 HTTP/2 streams that claim ${size} without a secret`;
  Deno.test(`${http2}: no memory, and the neighbour is answered`, () =>
    attacked({ name: http2, ceilingMib }, async ({ server, neighbour }) => {
      await using attack = await Attack.start("claimedStreams", server.port, {
        connections: 30,
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

const unfinished = "150 authorised writes of 4 MiB that stop before their end";
Deno.test(`${unfinished}: bounded memory, and small bodies are taken`, () =>
  attacked(
    { name: unfinished, ceilingMib: CEILING_WITH_SECRET_MIB },
    async ({ server, neighbour }) => {
      const client = await KvClient.open(http1Transport(server.url));
      await using attack = await Attack.start("claimedBodies", server.port, {
        connections: 150,
        paths: [`${client.path}/atomic_write`],
        claimBytes: 4_194_304,
        sentBytes: 4_000_000,
        headers: client.headers,
      });
      await neighbour.goRounds(20);
      await attack.end();
      client.close();
    },
  ));

const sent = "50 whole bodies of 4 MiB with a wrong token";
Deno.test(`${sent}: no memory, and the neighbour is answered`, () =>
  attacked(
    { name: sent, ceilingMib: CEILING_WITHOUT_SECRET_MIB },
    async ({ server, neighbour }) => {
      await using attack = await Attack.start("claimedBodies", server.port, {
        connections: 50,
        paths: PATHS,
        claimBytes: 4_194_304,
        sentBytes: 4_194_304,
        headers: { authorization: "Bearer wrong" },
      });
      await neighbour.goRounds(20);
      await attack.end();
    },
  ));
