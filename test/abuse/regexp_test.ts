/** A regular expression is text: storing and reading one builds none. */
import assert from "node:assert/strict";
import { concatBytes, utf8 } from "../../src/common/bytes.ts";
import { Encoding } from "../../src/protocol/messages.ts";
import { TYPED_JSON_TYPE } from "../../src/protocol/typed_json.ts";
import { set } from "../../src/store/contract/support.ts";
import { KvClient } from "../support/kv_client.ts";
import { REST_SECRET } from "../support/server.ts";
import { http1, request } from "../support/transport.ts";
import { Attack } from "./attack.ts";
import { attacked, CEILING_WITH_SECRET_MIB } from "./victim.ts";

/** 11 KiB that take V8 2.5 s to build, per expression. */
const PATTERN = "\\p{RGI_Emoji}".repeat(847);
const FLAGS = "iv";
const AS_JSON = JSON.stringify({ $regexp: [PATTERN, FLAGS] });
/** Version 15 of V8's format: `R`, a one-byte string, flags. */
const AS_V8 = concatBytes([
  new Uint8Array([0xff, 0x0f, 0x52, 0x22]),
  new Uint8Array([PATTERN.length & 127 | 128, PATTERN.length >> 7]),
  utf8(PATTERN),
  // i is bit 1, v is bit 8.
  new Uint8Array([0x82, 0x02]),
]);
const SECRET = { authorization: REST_SECRET };

Deno.test("a regular expression sent as typed JSON is stored as it is, and nobody waits", () =>
  attacked({
    name: "regular expressions sent as typed JSON",
    ceilingMib: CEILING_WITH_SECRET_MIB,
  }, async ({ server }) => {
    await using attack = await Attack.start("restCalls", server.port, {
      requests: 20,
      atOnce: 4,
      method: "PUT",
      path: "/bomb",
      headers: { ...SECRET, "content-type": TYPED_JSON_TYPE },
      body: utf8(AS_JSON).toBase64(),
    });
    const transport = http1(server.url);
    assert.deepEqual(await attack.end(), { 200: 20 });
    const read = await request(transport, "GET", "/bomb", SECRET);
    assert.equal(new TextDecoder().decode(read.body), AS_JSON);
    transport.close();
  }));

Deno.test("a regular expression stored over KV Connect is read over REST as it is, and nobody waits", () =>
  attacked({
    name: "regular expressions read over REST",
    ceilingMib: CEILING_WITH_SECRET_MIB,
  }, async ({ server }) => {
    const client = await KvClient.open(http1(server.url));
    const bomb = { ...set("bomb", ""), value: AS_V8, encoding: Encoding.V8 };
    await client.commit([bomb]);
    await using attack = await Attack.start("restCalls", server.port, {
      requests: 20,
      atOnce: 4,
      method: "GET",
      path: "/bomb",
      headers: SECRET,
    });
    assert.deepEqual(await attack.end(), { 200: 20 });
    const read = await request(client.transport, "GET", "/bomb", SECRET);
    assert.equal(new TextDecoder().decode(read.body), AS_JSON);
    client.close();
  }));
