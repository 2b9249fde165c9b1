import assert from "node:assert/strict";
import v8 from "node:v8";
import { InvalidRequestError, TooLargeError } from "../common/errors.ts";
import { seededRandom } from "../common/random.ts";
import { SparseArray, StoredU64 } from "./stored_value.ts";
import { toJson } from "./typed_json.ts";
import { parseJson, parseTypedJson } from "./typed_json_parse.ts";
import { encodeV8, encodeValue } from "./v8_encode.ts";
import { decodeV8, decodeValue } from "./v8_value.ts";

function shown(value: unknown): { text: string; isTyped: boolean } {
  const { body, isTyped } = toJson(decodeV8(encodeV8(value, Infinity)));
  return { text: new TextDecoder().decode(body), isTyped };
}

/** One document for each notation, in the form in which it is written. */
const DOCUMENTS = [
  '{"$undefined":null}',
  '[{"$number":"NaN"},{"$number":"Infinity"},{"$number":"-Infinity"}]',
  '{"$bigint":"-18446744073709551617"}',
  '{"$date":"2024-01-31T12:00:00.000Z"}',
  '{"$date":"+275760-09-13T00:00:00.000Z"}',
  '{"$date":null}',
  '{"$regexp":["a+","gi"]}',
  '{"$regexp":["(no pattern",""]}',
  '{"$map":[["a",1],[{"k":1},{"$map":[]}]]}',
  '{"$set":[1,{"$set":[]}]}',
  '{"$array":{"length":3,"items":{"1":1,"name":{"$undefined":null}}}}',
  '{"$array":{"length":4294967295,"items":{"4294967294":1}}}',
  '[{"$arraybuffer":"AQI="},{"$dataview":"AQI="},{"$uint8array":"AQI="}]',
  '[{"$float64array":"AAAAAAAA8H8="},{"$uint8clampedarray":""}]',
  '[{"$boxed":5},{"$boxed":"q"},{"$boxed":true},{"$boxed":{"$bigint":"1"}}]',
  '{"$error":{"name":"TypeError","message":"m","stack":"s","cause":-0}}',
  '{"$error":{"name":"Error"}}',
  '{"$error":{"name":"Error","cause":{"$ref":""}}}',
  '{"a/b":{"~c":[{"$ref":"/a~1b"},{"$ref":"/a~1b/~0c"},{"$ref":""}]}}',
  '{"$map":[[{"a":{"$ref":"/$map/0/0"}},{"$ref":""}]]}',
  '{"$set":[{"a":{"$ref":"/$set/0"}},{"$ref":""}]}',
  '{"$array":{"length":9,"items":{"3":[{"$ref":"/$array/items/3"}]}}}',
  '{"$$x":{"b":{"$ref":"/$$x"},"c":{"$$$y":{"$undefined":null}}}}',
  '{"$$ref":{"$undefined":null}}',
  '[{"$date":1,"$map":2},{"$$":{"$undefined":null}}]',
];

Deno.test("every notation is read back as it was written", () => {
  for (const document of DOCUMENTS) {
    const value = parseTypedJson(document);
    assert.deepEqual(shown(value), { text: document, isTyped: true });
  }
  const max = '{"$kvu64":"18446744073709551615"}';
  const raw = encodeValue(parseTypedJson(max), 65_536);
  assert.deepEqual(
    decodeValue(raw).value,
    new StoredU64(18_446_744_073_709_551_615n),
  );
  assert.equal(new TextDecoder().decode(toJson(decodeValue(raw)).body), max);
});

Deno.test("typed JSON without a notation is plain JSON again", () => {
  const document = '{"a":[1,-0,"x",null,true],"$b":1,"c":{}}';
  const value = parseTypedJson(document);
  assert.deepEqual(shown(value), { text: document, isTyped: false });
  const escaped = parseTypedJson('{"$$date":1}');
  assert.deepEqual(shown(escaped), { text: '{"$date":1}', isTyped: false });
  const whole = new SparseArray(2);
  Object.assign(whole.items, [1, 2]);
  assert.deepEqual(shown(whole), { text: "[1,2]", isTyped: false });
});

Deno.test("what is no typed JSON is refused with a sentence", () => {
  const documents = [
    "",
    "{",
    "1e400",
    '{"$date":1}',
    '{"$date":"2024-01-31"}',
    '{"$date":"2024-13-31T12:00:00.000Z"}',
    '{"$undefined":0}',
    '{"$number":"1"}',
    '{"$bigint":1}',
    '{"$bigint":"0x"}',
    '{"$bigint":"0xg"}',
    '{"$bigint":"--1"}',
    '{"$bigint":""}',
    '{"$kvu64":"18446744073709551616"}',
    '{"a":{"$kvu64":"1"}}',
    '{"$map":{}}',
    '{"$map":[[1]]}',
    '{"$set":1}',
    '{"$regexp":["a","q"]}',
    '{"$regexp":["a","uv"]}',
    '{"$regexp":["a",1]}',
    '{"$regexp":["a"]}',
    '{"$array":[1]}',
    '{"$array":{"length":-1,"items":{}}}',
    '{"$array":{"length":4294967296,"items":{}}}',
    '{"$array":{"length":1,"items":{"1":1}}}',
    '{"$array":{"length":1,"items":{"length":1}}}',
    '{"$array":{"length":1,"items":{},"more":1}}',
    '{"$uint8array":"*"}',
    '{"$uint16array":"AQ=="}',
    '{"$nodebuffer":""}',
    '{"$boxed":null}',
    '{"$boxed":[]}',
    '{"$error":{"name":"Oops"}}',
    '{"$error":{"message":"m"}}',
    '{"$error":{"name":"Error","message":1}}',
    '{"$error":{"name":"Error","more":1}}',
    '{"$ref":""}',
    '{"a":1,"b":{"$ref":"/a"}}',
    '{"a":[],"b":{"$ref":"/a"}}',
    '{"a":{"$ref":"a"}}',
    '{"a":{"$ref":"/b"}}',
    '{"a":{"$ref":"/a/b"}}',
    '{"$map":[[1,{"$ref":"/$map"}]]}',
    '{"$":1}',
    '{"$x":1}',
  ];
  for (const document of documents) {
    assert.throws(
      () => parseTypedJson(document),
      (error: Error) =>
        error instanceof InvalidRequestError &&
        /^[A-Z"$].*\. Nothing was written\.$/.test(error.message),
      document.slice(0, 60),
    );
  }
  for (const document of ["", "nope", "[1e400]", "{'a':1}"]) {
    assert.throws(() => parseJson(document), InvalidRequestError);
  }
});

Deno.test("changed documents are refused, or mean what their bytes say", () => {
  const seed = 20_260_803;
  const random = seededRandom(seed);
  const pool = '"{}[]:,$~/0129-aekr\\';
  let refused = 0;
  let taken = 0;
  for (let i = 0; i < 20_000; i++) {
    let document = DOCUMENTS[random.below(DOCUMENTS.length)];
    for (let j = random.below(3); j >= 0; j--) {
      const at = random.below(document.length + 1);
      const removed = random.below(3);
      document = document.slice(0, at) + pool[random.below(pool.length)] +
        document.slice(at + removed);
    }
    const hint = `seed ${seed}, document ${i}: ${document}`;
    let value: unknown;
    try {
      value = parseTypedJson(document);
    } catch (error) {
      assert(error instanceof InvalidRequestError, `${hint} ${error}`);
      refused++;
      continue;
    }
    taken++;
    const bytes = encodeV8(value, Infinity);
    const { text, isTyped } = shown(value);
    const again = isTyped ? parseTypedJson(text) : parseJson(text);
    assert.deepEqual(encodeV8(again, Infinity), bytes, hint);
    // V8 would make every place of a sparse array, and takes no bad pattern.
    if (!/"length":\d{5}|\$regexp/.test(text)) v8.deserialize(bytes);
  }
  assert(refused > 500 && taken > 500, `${refused} refused, ${taken} taken`);
});

Deno.test("whatever fits into a value passes the look at its text", () => {
  const plain = ["0", "null", '""', "[]", "{}", '{"":0}', '{"1":[{"a":"b"}]}'];
  const documents = [
    ...DOCUMENTS.filter((document) => !document.includes("$ref")),
    ...plain,
    '{"$undefined":null}',
    '{"$error":{"name":"TypeError","message":"","cause":{"$error":{"name":"Error"}}}}',
    '{"$array":{"length":0,"items":{}}}',
    '{ "$set" : [ { } , { "\\u0024undefined" : null } ] }',
    '{"$boxed":{"$bigint":"0"}}',
  ];
  for (const document of documents) {
    const isPlain = plain.includes(document);
    const read = isPlain ? parseJson : parseTypedJson;
    const one = encodeV8(read(`[${document}]`), Infinity).length - 7;
    const count = Math.floor(65_500 / one);
    const text = `[${new Array(count).fill(document).join(", ")}]`;
    assert.ok(encodeV8(read(text), 65_536).length >= 65_500 - one, document);
  }
});

Deno.test("what cannot fit is refused before anything is made of it", () => {
  const list = (part: string, count: number) =>
    `[${new Array(count).fill(part).join(",")}]`;
  const names = Array.from({ length: 50_000 }, (_, i) => `"${i}":0`);
  const original = JSON.parse;
  JSON.parse = () => assert.fail("it was parsed");
  try {
    for (const read of [parseJson, parseTypedJson]) {
      for (
        const text of [
          list("{}", 170_000),
          list("[]", 170_000),
          list("0", 260_000),
          list('""', 170_000),
          `{${names.join(",")}}`,
        ]
      ) assert.throws(() => read(text), TooLargeError);
      for (const text of ["[".repeat(500_000), '{"a":'.repeat(100_000)]) {
        assert.throws(() => read(text), /nested more than 300 levels/);
      }
    }
  } finally {
    JSON.parse = original;
  }
  assert.throws(() => parseJson('["' + '\\"'.repeat(500)), InvalidRequestError);
});

Deno.test("the bigints of a document have a limit of digits in all", () => {
  const digits = (count: number) => `{"$bigint":"${"9".repeat(count)}"}`;
  assert.equal(parseTypedJson(digits(157_000)), 10n ** 157_000n - 1n);
  for (
    const text of [digits(160_001), `[${digits(90_000)},${digits(90_000)}]`]
  ) {
    assert.throws(
      () => parseTypedJson(text),
      (error: Error) =>
        error instanceof TooLargeError && /160000 digits/.test(error.message),
    );
  }
  assert.equal(parseTypedJson('{"$bigint":"-0xFf"}'), -255n);
});

Deno.test("a value is refused as soon as it is too large", () => {
  for (
    const value of ["x".repeat(70_000), new Array(70_000).fill(1), {
      a: new Uint8Array(70_000),
    }]
  ) {
    assert.throws(() => encodeValue(value, 65_536), TooLargeError);
  }
  assert.throws(() => encodeValue(new Uint8Array(9), 8), TooLargeError);
  assert.throws(() => encodeV8("x".repeat(20), 10), TooLargeError);
});
