/**
 * Stored values that are small and take long to show: whoever may write can
 * store one, and whoever reads it over REST must not hold up the others.
 */
import assert from "node:assert/strict";
import { Encoding } from "../../src/protocol/messages.ts";
import { set } from "../../src/store/contract/support.ts";
import { KvClient } from "../support/kv_client.ts";
import { REST_SECRET } from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import { Attack } from "./attack.ts";
import { attacked, CEILING_WITH_SECRET_MIB } from "./victim.ts";

const READS = 20;

/** Tags of V8's format. */
const HEADER = [0xff, 0x0f];
const [ARRAY, ARRAY_END, HOLE, REFERENCE, BIGINT_OBJECT] = [
  0x41,
  0x24,
  0x2d,
  0x5e,
  0x7a,
];

function varint(value: number): number[] {
  const out: number[] = [];
  for (; value >= 0x80; value >>>= 7) out.push(value & 0x7f | 0x80);
  return [...out, value];
}

/** An array whose first element comes again and again, by reference. */
function again(element: number[], times: number, objectId: number): number[] {
  const references = Array<number[]>(times).fill([REFERENCE, objectId]).flat();
  const length = varint(times + 1);
  return [ARRAY, ...length, ...element, ...references, ARRAY_END, 0, ...length];
}

const filled = (count: number, byte: number): number[] =>
  Array<number>(count).fill(byte);

function nested(depth: number, width: number, objectId = 1): number[] {
  if (depth === 0) return [ARRAY, 0, ARRAY_END, 0, 0];
  return again(nested(depth - 1, width, objectId + 1), width, objectId);
}

const holes = [
  ARRAY,
  ...varint(32_000),
  ...filled(32_000, HOLE),
  ARRAY_END,
  0,
  ...varint(32_000),
];
const bigint = [BIGINT_OBJECT, ...varint(2 * 60_000), ...filled(60_000, 0x77)];

const VALUES: [name: string, bytes: number[]][] = [
  ["an array of 32,000 holes that comes 16,000 times", again(holes, 16_000, 1)],
  ["a bigint of 60 KB that comes 15 times", again(bigint, 14, 1)],
  ["arrays within arrays, 60 to the power of ten", nested(10, 59)],
  [
    "a reference to itself 30,000 times",
    [
      ARRAY,
      ...varint(30_000),
      ...Array<number[]>(30_000).fill([REFERENCE, 0]).flat(),
      ARRAY_END,
      0,
      ...varint(30_000),
    ],
  ],
];

for (const [what, bytes] of VALUES) {
  const name = `${READS} reads of ${what}`;
  Deno.test(name, () =>
    attacked(
      { name, ceilingMib: CEILING_WITH_SECRET_MIB },
      async ({ server }) => {
        const value = new Uint8Array([...HEADER, ...bytes]);
        assert.ok(value.length <= 65_536, `${value.length} bytes`);
        const client = await KvClient.open(http1(server.url));
        await client.commit([{
          ...set("b", ""),
          value,
          encoding: Encoding.V8,
        }]);
        client.close();
        await using attack = await Attack.start("restCalls", server.port, {
          requests: READS,
          atOnce: 8,
          method: "GET",
          path: "/b",
          headers: { authorization: REST_SECRET },
        });
        const { 200: shown = 0, 422: refused = 0 } = await attack.end();
        assert.equal(shown + refused, READS);
      },
    ));
}
