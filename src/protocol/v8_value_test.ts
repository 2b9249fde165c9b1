import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import v8 from "node:v8";
import { type Bytes, utf8 } from "../common/bytes.ts";
import { type Random, seededRandom } from "../common/random.ts";
import { encodeKey } from "./key.ts";
import { Encoding } from "./messages.ts";
import {
  Boxed,
  SparseArray,
  StoredBuffer,
  StoredError,
  StoredMap,
  StoredRegExp,
  StoredSet,
  StoredU64,
  UnreadableValueError,
} from "./stored_value.ts";
import { MAX_DECIMAL_BIGINT_BYTES, toJson } from "./typed_json.ts";
import { parseJson, parseTypedJson } from "./typed_json_parse.ts";
import { encodeV8, encodeValue } from "./v8_encode.ts";
import { MAX_VALUE_DEPTH } from "./v8_format.ts";
import { asciiText, encodeText } from "./v8_string.ts";
import { decodeV8, decodeValue } from "./v8_value.ts";

type Raw = { value: Bytes; encoding: Encoding };

/** A file of Deno's own KV: its client on one side, its rows on the other. */
async function withKvFile(
  run: (kv: Deno.Kv, rows: DatabaseSync) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  const kv = await Deno.openKv(`${folder}/kv.sqlite`);
  const rows = new DatabaseSync(`${folder}/kv.sqlite`);
  try {
    await run(kv, rows);
  } finally {
    rows.close();
    kv.close();
    await Deno.remove(folder, { recursive: true });
  }
}

/** What Deno stores for a value. */
async function stored(
  kv: Deno.Kv,
  rows: DatabaseSync,
  value: unknown,
): Promise<Raw> {
  await kv.set(["written by Deno"], value);
  const row = rows.prepare("select v, v_encoding from kv where k = ?")
    .get(encodeKey(["written by Deno"])) as { v: Bytes; v_encoding: Encoding };
  return { value: row.v, encoding: row.v_encoding };
}

/** What Deno's client gives for bytes of ours. */
async function readByDeno(
  kv: Deno.Kv,
  rows: DatabaseSync,
  raw: Raw,
): Promise<unknown> {
  await kv.set(["written by us"], null);
  rows.prepare("update kv set v = ?, v_encoding = ? where k = ?")
    .run(raw.value, raw.encoding, encodeKey(["written by us"]));
  return (await kv.get(["written by us"])).value;
}

const cyclic: Record<string, unknown> = { name: "loop", list: [1] };
cyclic.self = cyclic;
(cyclic.list as unknown[]).push({ up: cyclic });
const cyclicMap = new Map<unknown, unknown>([["x", 1]]);
cyclicMap.set(cyclicMap, [cyclicMap]);
const shared = { z: 1 };
const failure = new TypeError("no", { cause: { code: 7n } });

/** A value, and its JSON where that is worth pinning. */
const SAMPLES: [name: string, value: unknown, json?: string][] = [
  ["null", null, "null"],
  ["true", true, "true"],
  ["false", false, "false"],
  ["int", -7, "-7"],
  ["large int", 2 ** 31, "2147483648"],
  ["double", 1.5, "1.5"],
  ["minus zero", -0, "-0"],
  ["NaN", NaN, '{"$number":"NaN"}'],
  ["infinity", [-Infinity], '[{"$number":"-Infinity"}]'],
  ["empty", "", '""'],
  ["ASCII", "bar", '"bar"'],
  ["Latin 1", "bär", '"bär"'],
  ["two bytes", "☃ü😀", '"☃ü😀"'],
  ["long", "x".repeat(300) + "☃".repeat(9000)],
  ["lone surrogate", "\ud800x", '"\\ud800x"'],
  ["byte order mark", "\ufeffa", '"\ufeffa"'],
  ["undefined", undefined, '{"$undefined":null}'],
  ["undefined inside", [undefined, { a: undefined }]],
  ["bigint", 123n, '{"$bigint":"123"}'],
  ["bigints", [0n, -1n, 2n ** 64n, -(2n ** 70n), 2n ** 63n - 1n]],
  [
    "KvU64",
    new Deno.KvU64(2n ** 64n - 1n),
    '{"$kvu64":"18446744073709551615"}',
  ],
  ["date", new Date(5), '{"$date":"1970-01-01T00:00:00.005Z"}'],
  ["far date", new Date(-8.64e15), '{"$date":"-271821-04-20T00:00:00.000Z"}'],
  ["invalid date", new Date(NaN), '{"$date":null}'],
  ["map", new Map<unknown, unknown>([["a", 1], [{ k: 1 }, new Map()]])],
  ["set", new Set([1, "a", new Set()]), '{"$set":[1,"a",{"$set":[]}]}'],
  ["regexp", /a\/b+/dgimsuy, '{"$regexp":["a\\\\/b+","dgimsuy"]}'],
  ["regexp v", [/[ab]/v, new RegExp("")]],
  ["error", failure],
  ["bare error", new Error()],
  ["boxed", [Object(5), Object("q"), Object(false), Object(true), Object(3n)]],
  ["bytes", Uint8Array.of(1, 2), '{"$uint8array":"AQI="}'],
  ["bytes inside", [Uint8Array.of(1, 2)], '[{"$uint8array":"AQI="}]'],
  ["buffer", Uint8Array.of(9, 8).buffer, '{"$arraybuffer":"CQg="}'],
  ["resizable", new ArrayBuffer(2, { maxByteLength: 9 })],
  ["views", [
    Int8Array.of(-1),
    Uint8ClampedArray.of(1),
    Int16Array.of(-2),
    Uint16Array.of(2),
    Int32Array.of(-3),
    Uint32Array.of(3),
    Float16Array.of(1.5),
    Float32Array.of(1.5),
    Float64Array.of(Math.PI),
    BigInt64Array.of(-4n),
    BigUint64Array.of(4n),
    new DataView(new ArrayBuffer(3), 1),
    new Uint8Array(new ArrayBuffer(3, { maxByteLength: 8 })),
    new Uint16Array(Uint8Array.of(1, 2, 3, 4, 5, 6).buffer, 2, 1),
  ]],
  [
    "holes",
    [, 1, , undefined],
    '{"$array":{"length":4,"items":{"1":1,"3":{"$undefined":null}}}}',
  ],
  [
    "named property",
    Object.assign([1], { x: 2 }),
    '{"$array":{"length":1,"items":{"0":1,"x":2}}}',
  ],
  ["sparse", Object.assign([], { 4_000_000: 1 })],
  ["array", [1, 2, "a", []], '[1,2,"a",[]]'],
  [
    "object",
    { b: "x", 5: 1, a: { "": null } },
    '{"5":1,"b":"x","a":{"":null}}',
  ],
  ["__proto__", JSON.parse('{"__proto__":{"a":1}}'), '{"__proto__":{"a":1}}'],
  [
    "cycle",
    cyclic,
    '{"name":"loop","list":[1,{"up":{"$ref":""}}],"self":{"$ref":""}}',
  ],
  ["cycle below", { "a/~b": [cyclicMap] }],
  ["cycle in a set", new Set([cyclic, shared])],
  ["shared", [shared, shared], '[{"z":1},{"z":1}]'],
  ["looks like it", { a: { $date: 5 } }, '{"a":{"$date":5}}'],
  [
    "looks like it, typed",
    { a: { $date: 5 }, b: 1n },
    '{"a":{"$$date":5},"b":{"$bigint":"1"}}',
  ],
  ["two dollars", [{ $$x: { $y: 1 } }, { $a: 1, $b: 2 }, undefined]],
];

Deno.test("what Deno's client stored comes back as it was, also by way of JSON", async () => {
  await withKvFile(async (kv, rows) => {
    for (const [name, value, expectedJson] of SAMPLES) {
      const raw = await stored(kv, rows, value);
      const decoded = decodeValue(raw);
      assert.deepEqual(model(decoded.value), model(value), name);
      const { body, isTyped } = toJson(decoded);
      const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(body);
      if (expectedJson !== undefined) assert.equal(text, expectedJson, name);
      const parsed = isTyped ? parseTypedJson(text) : parseJson(text);
      // JSON has no sharing: only then may the two differ.
      const again = encodeValue(parsed, 65_536);
      if (name === "sparse") continue; // Deno would make its 4 million places.
      assert.deepEqual(
        model(await readByDeno(kv, rows, again)),
        model(await readByDeno(kv, rows, raw)),
        name,
      );
    }
  });
});

Deno.test("a string of ours is the one that Deno's client would have stored", async () => {
  await withKvFile(async (kv, rows) => {
    const texts = ["", "bar", "bär", "☃", "a☃", "x".repeat(127), "\u0000"];
    texts.push(
      "y".repeat(128),
      "z".repeat(65_000),
      "\ufeffü",
      "☃".repeat(9000),
    );
    for (const text of texts) {
      const value = encodeText(utf8(text))!;
      const deno = await stored(kv, rows, text);
      assert.deepEqual(value.subarray(2), deno.value.subarray(2), text);
      const raw = { value, encoding: Encoding.V8 };
      assert.equal(await readByDeno(kv, rows, raw), text);
      assert.equal(decodeV8(value).value, text);
      const ascii = asciiText(deno.value);
      // deno-lint-ignore no-control-regex
      if (/^[\x00-\x7f]*$/.test(text)) assert.deepEqual(ascii, utf8(text));
      else assert.equal(ascii, undefined);
    }
    assert.equal(encodeText(Uint8Array.of(0xff, 0x61)), undefined);
  });
});

Deno.test("random values survive the way out and back", () => {
  const seed = 20_260_731;
  const random = seededRandom(seed);
  for (let i = 0; i < 2000; i++) {
    const value = randomValue(random, 4);
    const hint = `seed ${seed}, value ${i}`;
    // Node's writer as the peer: it knows nothing of ours.
    const theirs = decodeV8(Uint8Array.from(v8.serialize(value)));
    assert.deepEqual(model(theirs.value), model(value), hint);
    const { body, isTyped } = toJson(theirs);
    const text = new TextDecoder().decode(body);
    const parsed = isTyped ? parseTypedJson(text) : parseJson(text);
    assert.deepEqual(model(parsed), model(value), hint);
    const ours = decodeV8(encodeV8(parsed, Infinity));
    assert.deepEqual(model(ours.value), model(value), hint);
  }
});

Deno.test("corrupted bytes are read or refused, and nothing else happens", () => {
  const seed = 20_260_801;
  const random = seededRandom(seed);
  let refused = 0;
  let read = 0;
  const started = performance.now();
  for (let i = 0; i < 20_000; i++) {
    const bytes = encodeV8(ofOurs(randomValue(random, 4)), Infinity);
    const changes = 1 + random.below(3);
    for (let j = 0; j < changes; j++) {
      bytes[2 + random.below(bytes.length - 2)] = random.below(256);
    }
    const cut = bytes.subarray(
      0,
      random.below(4) === 0 ? random.below(bytes.length) : bytes.length,
    );
    try {
      toJson(decodeV8(cut));
      read++;
    } catch (error) {
      assert(
        error instanceof UnreadableValueError,
        `seed ${seed}, value ${i}: ${error}`,
      );
      refused++;
    }
  }
  assert(refused > 1000 && read > 1000, `${refused} refused, ${read} read`);
  assert(performance.now() - started < 30_000);
});

Deno.test("bytes of no format at all are refused", () => {
  const random = seededRandom(7);
  for (let i = 0; i < 5000; i++) {
    const bytes = random.bytes(2 + random.below(40));
    if (i % 2 === 0) bytes.set([0xff, 0x0f]);
    try {
      toJson(decodeV8(bytes));
    } catch (error) {
      assert(error instanceof UnreadableValueError, String(error));
    }
  }
  for (const hex of ["", "ff", "ff0f", "ff0c30", "ff1130", "30", "ff0f5e00"]) {
    assert.throws(
      () => decodeV8(Uint8Array.fromHex(hex)),
      UnreadableValueError,
      hex,
    );
  }
});

Deno.test("lengths that the bytes only claim cost nothing", () => {
  // 3,000 sparse arrays of 4,294,967,295 places each: V8's own reader runs
  // out of memory on 20 of them.
  const sparse = "61ffffffff0f4000ffffffff0f";
  const count = 3000;
  const list = Uint8Array.fromHex(
    "ff0f41b817" + sparse.repeat(count) + "2400b817",
  );
  const { body, isTyped } = toJson(decodeV8(list));
  assert(isTyped && body.length < 60 * count, `${body.length}`);
  const refused = [
    "ff0f41ffffffff0f", // a dense array of 2^32 - 1 elements
    "ff0f22ffffffff7f", // a string of 32 GiB
    "ff0f42ffffffffffff01", // a buffer of terabytes
    "ff0f5affffffff0f", // a bigint of 2 GiB
    "ff0f4102304101", // an array in an array, both cut
    "ff0f6f49feffffff0f3022036c656e7b02", // an object cut in its third member
  ];
  for (const hex of refused) {
    assert.throws(
      () => decodeV8(Uint8Array.fromHex(hex)),
      UnreadableValueError,
    );
  }
});

Deno.test("a buffer that could grow sets nothing aside", () => {
  const one = "7e00ffffffff0f";
  const bytes = Uint8Array.fromHex(
    "ff0f41e807" + one.repeat(1000) + "2400e807",
  );
  const { value } = decodeV8(bytes);
  assert.equal((value as StoredBuffer[])[999].bytes.length, 0);
});

Deno.test("a value that explodes when it is written out is refused early", () => {
  let doubled: unknown = ["x"];
  for (let i = 0; i < 60; i++) doubled = [doubled, doubled];
  const bytes = encodeV8(doubled, 65_536);
  assert(bytes.length < 1000);
  const started = performance.now();
  assert.throws(() => toJson(decodeV8(bytes)), UnreadableValueError);
  const view = new Uint8Array(60_000);
  const many = encodeV8(new Array(1000).fill(view), 65_536);
  assert.throws(() => toJson(decodeV8(many)), /2097152 bytes of JSON/);
  assert(performance.now() - started < 10_000);
});

Deno.test("what is shown is limited by the work that it is, not by its length alone", () => {
  // Short to show, long to look at: 32,000 holes, 16,000 times.
  const holes = "41" + varint(32_000) + "2d".repeat(32_000) + "2400" +
    varint(32_000);
  const list = (length: number, items: string) =>
    Uint8Array.fromHex(
      `ff0f41${varint(length)}${items}2400${varint(length)}`,
    );
  const tooOften = /so often that it would be shown as more than 65536 values/;
  assert.throws(
    () => toJson(decodeV8(list(16_001, holes + "5e01".repeat(16_000)))),
    tooOften,
  );
  const once = toJson(decodeV8(list(1, holes)));
  assert.equal(
    new TextDecoder().decode(once.body),
    '[{"$array":{"length":32000,"items":{}}}]',
  );
  const number = [1n << 30_000n];
  assert.throws(
    () => toJson(decodeV8(encodeV8(new Array(1000).fill(number), 65_536))),
    tooOften,
  );
  // What fills a value without being in it twice is always shown.
  for (
    const full of [
      new Array(65_520).fill(null),
      new Array(65_520).fill(undefined),
      Array.from({ length: 21_000 }, () => ({})),
      new Array(3600).fill(-(2n ** 64n)),
      new Array(15).fill((1n << 32_768n) - 1n),
      [(1n << 524_000n) - 1n],
    ]
  ) {
    const bytes = encodeV8(full, 65_536);
    const { body, isTyped } = toJson(decodeV8(bytes));
    const text = new TextDecoder().decode(body);
    const again = isTyped ? parseTypedJson(text) : parseJson(text);
    assert.equal(encodeV8(again, 65_536).toHex() === bytes.toHex(), true);
  }
});

Deno.test("a long bigint is shown in hexadecimal, which is made at once", () => {
  const shown = (value: bigint) =>
    new TextDecoder().decode(toJson(decodeV8(encodeV8(value, 65_536))).body);
  const limit = 1n << BigInt(8 * MAX_DECIMAL_BIGINT_BYTES);
  for (const value of [limit - 1n, 1n - limit]) {
    assert.equal(shown(value), `{"$bigint":"${value}"}`);
  }
  assert.equal(shown(limit), `{"$bigint":"0x${limit.toString(16)}"}`);
  assert.equal(shown(-limit), `{"$bigint":"-0x${limit.toString(16)}"}`);
  assert.equal(parseTypedJson(shown(-limit - 5n)), -limit - 5n);
});

Deno.test("keys of a Map and members of a Set meet no hash table", () => {
  // Numbers have hashes that anyone can work out, and choose to collide.
  const document = '{"$map":[[1,{"$set":[2,2,3]}],[1,4]]}';
  const { value } = decodeV8(encodeV8(parseTypedJson(document), Infinity));
  assert(value instanceof StoredMap && value.entries.length === 2);
  const [[, set]] = value.entries;
  assert(set instanceof StoredSet);
  assert.deepEqual(set.values, [2, 2, 3]);
  const theirs = v8.deserialize(encodeV8(value, Infinity));
  assert.deepEqual(theirs, new Map([[1, 4]]));
});

function varint(value: number): string {
  const out = [];
  for (; value >= 0x80; value >>>= 7) out.push((value & 0x7f) | 0x80);
  return Uint8Array.of(...out, value).toHex();
}

Deno.test("the kinds that grow most as JSON can still be shown when they fill a value", () => {
  const full = new Array(65_000).fill(undefined);
  const { body, isTyped } = toJson(decodeV8(encodeV8(full, 65_536)));
  assert(isTyped && body.length === 65_000 * 20 + 1);
});

Deno.test("nesting is limited on the way in and out", () => {
  const nested = (levels: number) => {
    let value: unknown = 1;
    for (let i = 0; i < levels; i++) value = i % 2 ? [value] : { a: value };
    return value;
  };
  const deepest = encodeV8(nested(MAX_VALUE_DEPTH - 1), Infinity);
  assert.equal(
    new TextDecoder().decode(toJson(decodeV8(deepest)).body),
    JSON.stringify(nested(MAX_VALUE_DEPTH - 1)),
  );
  let maps: unknown = 1n;
  for (let i = 0; i < MAX_VALUE_DEPTH - 1; i++) {
    const map = new StoredMap();
    map.entries.push([1, maps]);
    maps = map;
  }
  const typed = toJson(decodeV8(encodeV8(maps, Infinity)));
  const text = new TextDecoder().decode(typed.body);
  assert(typed.isTyped);
  encodeV8(parseTypedJson(text), Infinity);

  const tooDeep = nested(MAX_VALUE_DEPTH + 1);
  assert.throws(() => encodeV8(tooDeep, Infinity), /nested more than 300/);
  assert.throws(() => parseJson(JSON.stringify(tooDeep)), /nested more than/);
  const cut = Uint8Array.fromHex("ff0f" + "4101".repeat(30_000));
  assert.throws(() => decodeV8(cut), UnreadableValueError);
  const brackets = "[".repeat(100_000) + "]".repeat(100_000);
  assert.throws(() => parseJson(brackets), /nested more than/);
  assert.throws(() => parseTypedJson(brackets), /nested more than/);
});

Deno.test("a regular expression is text: no pattern is ever compiled", () => {
  // Patterns that an engine takes seconds and gigabytes for, or refuses.
  const sources = [
    "(?:".repeat(9000) + "a" + "){0,9}".repeat(9000),
    "\\p{RGI_Emoji}".repeat(5000),
    "(",
    "",
    "a\nb/c",
    "\ud800",
  ];
  for (const source of sources) {
    for (const flags of ["", "gi", "dgimsvy", "dgimsuy"]) {
      const sent = JSON.stringify({ $regexp: [source, flags] });
      const compiled = compilations(() => {
        const bytes = encodeV8(parseTypedJson(sent), Infinity);
        const decoded = decodeV8(bytes);
        const { value } = decoded;
        assert.ok(value instanceof StoredRegExp);
        assert.ok(value.source === source && value.flags === flags);
        const text = new TextDecoder().decode(toJson(decoded).body);
        assert.ok(text === sent, text.slice(0, 80));
      });
      assert.equal(compiled, 0);
    }
  }
  // No letter, a letter twice, one that only V8 knows, u beside v, too many.
  for (const flags of ["x", "gg", "l", "uv", "vu", "G", " ", "g".repeat(10)]) {
    const document = JSON.stringify({ $regexp: ["a", flags] });
    assert.throws(() => parseTypedJson(document), /letters out of dgimsuvy/);
  }
  for (const bits of ["40", "9002", "8004"]) {
    assert.throws(
      () => decodeV8(Uint8Array.fromHex("ff0f52220161" + bits)),
      UnreadableValueError,
    );
  }
});

/** How often a regular expression was made out of a text meanwhile. */
function compilations(run: () => void): number {
  const original = globalThis.RegExp;
  let count = 0;
  globalThis.RegExp = new Proxy(original, {
    construct: () => {
      count++;
      return /never matched/;
    },
    apply: () => {
      count++;
      return /never matched/;
    },
  });
  try {
    run();
  } finally {
    globalThis.RegExp = original;
  }
  return count;
}

Deno.test("views that Node's serializer wrote are read", () => {
  for (
    const view of [
      Uint8Array.of(1, 2),
      Float64Array.of(0.5),
      BigUint64Array.of(7n),
      Float16Array.of(0.5),
      new DataView(Uint8Array.of(3, 4).buffer),
    ]
  ) {
    const bytes = Uint8Array.from(v8.serialize([view]));
    assert.deepEqual(model(decodeV8(bytes).value), model([view]));
  }
  const buffer = Uint8Array.fromHex("ff0f5c0a020102");
  assert.deepEqual(decodeV8(buffer).value, Uint8Array.of(1, 2));
});

Deno.test("a KvU64 of another length than 8 bytes is refused", () => {
  const raw = { value: Uint8Array.of(1), encoding: Encoding.LE64 };
  assert.throws(() => decodeValue(raw), UnreadableValueError);
});

/**
 * The same for values of the runtime and of stored_value.ts: one plain
 * structure that `deepEqual` compares exactly.
 */
function model(value: unknown, seen: object[] = []): unknown {
  if (typeof value === "number" && Object.is(value, -0)) return ["-0"];
  if (typeof value !== "object" || value === null) return [value];
  if (seen.includes(value)) return ["up", seen.indexOf(value)];
  const inside = [...seen, value];
  const go = (child: unknown) => model(child, inside);
  const members = (entries: Iterable<[string, unknown]>) =>
    [...entries].map(([name, child]) => [name, go(child)]);
  if (value instanceof Deno.KvU64) return ["u64", value.value];
  if (value instanceof StoredU64) return ["u64", value.value];
  if (value instanceof Date) return ["date", value.getTime()];
  if (value instanceof RegExp || value instanceof StoredRegExp) {
    return ["regexp", value.source, value.flags];
  }
  if (value instanceof Map || value instanceof StoredMap) {
    const entries = value instanceof Map ? [...value] : value.entries;
    return ["map", entries.map(([k, v]) => [go(k), go(v)])];
  }
  if (value instanceof Set || value instanceof StoredSet) {
    const values = value instanceof Set ? [...value] : value.values;
    return ["set", values.map(go)];
  }
  if (value instanceof ArrayBuffer || value instanceof StoredBuffer) {
    const bytes = value instanceof StoredBuffer ? value.bytes : value;
    return ["buffer", new Uint8Array(bytes).toHex()];
  }
  if (ArrayBuffer.isView(value)) {
    const { buffer, byteOffset, byteLength } = value;
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    const isBytes = value instanceof Uint8Array;
    return [isBytes ? "Uint8Array" : value.constructor.name, bytes.toHex()];
  }
  if (value instanceof StoredError) {
    const { name, message, stack, hasCause, cause } = value;
    const text = message ?? "";
    return ["error", name, text, stack, hasCause ? go(cause) : undefined];
  }
  if (value instanceof Error) {
    const { name, message, stack } = value;
    const cause = "cause" in value ? go(value.cause) : undefined;
    return ["error", name, message, stack, cause];
  }
  if (value instanceof Boxed) return ["boxed", go(value.value)];
  if (
    value instanceof Number || value instanceof String ||
    value instanceof Boolean || value instanceof BigInt
  ) return ["boxed", go(value.valueOf())];
  if (value instanceof SparseArray) {
    return ["array", value.length, members(Object.entries(value.items))];
  }
  if (Array.isArray(value)) {
    return ["array", value.length, members(Object.entries(value))];
  }
  return ["object", members(Object.entries(value))];
}

/** Arrays with holes and boxed values as `encodeV8` takes them. */
function ofOurs(value: unknown): unknown {
  const { body, isTyped } = toJson(
    decodeV8(Uint8Array.from(v8.serialize(value))),
  );
  const text = new TextDecoder().decode(body);
  return isTyped ? parseTypedJson(text) : parseJson(text);
}

function randomValue(random: Random, depth: number): unknown {
  const text = () => {
    const alphabet = ["a", "ü", "☃", "$", "/", "~", '"', "\u0001"];
    let out = random.below(8) === 0 ? "$date" : "";
    for (let i = random.below(6); i > 0; i--) {
      out += alphabet[random.below(alphabet.length)];
    }
    return out;
  };
  const some = <T>(make: () => T): T[] => {
    const out: T[] = [];
    for (let i = random.below(4); i > 0; i--) out.push(make());
    return out;
  };
  const child = () => randomValue(random, depth - 1);
  switch (random.below(depth > 0 ? 19 : 11)) {
    case 0:
      return null;
    case 1:
      return random.below(2) === 1;
    case 2:
      return random.below(1000) - 500;
    case 3:
      return [0.1, -0, NaN, Infinity, 2 ** 40, -(2 ** 31)][random.below(6)];
    case 4:
    case 5:
      return text();
    case 6:
      return undefined;
    case 7: {
      const sign = random.below(2) === 1 ? 1n : -1n;
      return BigInt("0x0" + random.bytes(random.below(20)).toHex()) * sign;
    }
    case 8:
      return new Date(random.below(2 ** 32) * 1000);
    case 9:
      return random.bytes(random.below(9));
    case 10:
      return [/x+/gi, Object(1), Object("s"), Float32Array.of(1, 2)][
        random.below(4)
      ];
    case 11:
    case 12:
      return some(child);
    case 13:
    case 14:
      return Object.fromEntries(some(() => [text(), child()]));
    case 15:
      return new Map(some(() => [child(), child()]));
    case 16:
      return new Set(some(child));
    case 17: {
      const array: unknown[] = [];
      array.length = random.below(5);
      for (let i = 0; i < array.length; i++) {
        if (random.below(2) === 1) array[i] = child();
      }
      if (random.below(3) === 0) {
        (array as unknown as Record<string, unknown>)[text() + "n"] = child();
      }
      return array;
    }
    default: {
      const around: Record<string, unknown> = { [text()]: child() };
      around.again = [around];
      return around;
    }
  }
}
