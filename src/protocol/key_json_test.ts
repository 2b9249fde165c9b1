import assert from "node:assert/strict";
import { utf8 } from "../common/bytes.ts";
import { encodeKey } from "./key.ts";
import { keyJson } from "./key_json.ts";

Deno.test("every kind of key part has its JSON", () => {
  const key = encodeKey([
    "users",
    'a"\n\u0000é',
    7,
    -0,
    1.5,
    NaN,
    -Infinity,
    true,
    false,
    0n,
    -(2n ** 80n),
    new Uint8Array([1, 0, 255]),
  ]);
  assert.equal(
    keyJson(key),
    '["users","a\\"\\n\\u0000é",7,-0,1.5,{"$number":"NaN"},{"$number":"-Infinity"},true,false,{"$bigint":"0"},{"$bigint":"-1208925819614629174706176"},{"$uint8array":"AQD/"}]',
  );
});

Deno.test("bytes that are no key have none", () => {
  assert.equal(keyJson(utf8("\u0002abc")), undefined);
  assert.equal(keyJson(new Uint8Array([0xff, 1])), undefined);
  assert.equal(keyJson(new Uint8Array(0)), "[]");
});
