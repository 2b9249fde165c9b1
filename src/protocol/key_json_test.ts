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

Deno.test("keys of strings have the JSON that their parts have", () => {
  for (
    const parts of [
      ["users", "alice"],
      [""],
      ["", ""],
      ["a\0"],
      ["a", "\0b"],
      ['"', "\\"],
      ["\u001f", "\u007f", " ~"],
      ["é", "日本"],
    ]
  ) assert.equal(keyJson(encodeKey(parts)), JSON.stringify(parts));
  for (const cut of [[0x02], [0x02, 0x61], [0x02, 0x61, 0, 0x02, 0x62]]) {
    assert.equal(keyJson(new Uint8Array(cut)), undefined);
  }
});
