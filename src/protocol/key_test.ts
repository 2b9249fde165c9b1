import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { compareBytes, fromUtf8 } from "../common/bytes.ts";
import { InvalidRequestError } from "../common/errors.ts";
import { seededRandom } from "../common/random.ts";
import { decodeKey, encodeKey, isWellFormedKey, type KeyPart } from "./key.ts";

/** Worked out by hand from the format's rules. */
const KNOWN: [parts: KeyPart[], hex: string][] = [
  [[new Uint8Array([])], "0100"],
  [[new Uint8Array([0])], "0100ff00"],
  [[new Uint8Array([0, 255, 0])], "0100ffff00ff00"],
  [[new Uint8Array([1, 2])], "01010200"],
  [[""], "0200"],
  [["\0"], "0200ff00"],
  [["foo"], "02666f6f00"],
  [["é"], "02c3a900"],
  [["a", "b"], "02610002" + "6200"],
  [[-(2n ** 64n)], "0bf6feffffffffffffffff"],
  [[-(2n ** 64n) + 1n], "0c0000000000000000"],
  [[-256n], "12feff"],
  [[-255n], "1300"],
  [[-1n], "13fe"],
  [[0n], "14"],
  [[1n], "1501"],
  [[255n], "15ff"],
  [[256n], "160100"],
  [[2n ** 64n - 1n], "1cffffffffffffffff"],
  [[2n ** 64n], "1d09010000000000000000"],
  [[-Infinity], "21000fffffffffffff"],
  [[-1], "21400fffffffffffff"],
  [[-0], "217fffffffffffffff"],
  [[0], "218000000000000000"],
  [[1], "21bff0000000000000"],
  [[Infinity], "21fff0000000000000"],
  [[NaN], "21fff8000000000000"],
  [[false], "26"],
  [[true], "27"],
];

/** Every kind of part and the edges of each, in the order of the format. */
const ORDERED: KeyPart[] = [
  new Uint8Array([]),
  new Uint8Array([0]),
  new Uint8Array([0, 0]),
  new Uint8Array([0, 1]),
  new Uint8Array([1]),
  new Uint8Array([255]),
  new Uint8Array([255, 255]),
  "",
  "\0",
  "\0\0",
  "\x01",
  "A",
  "a",
  "a\0",
  "a\0b",
  "aa",
  "é",
  "\uffff",
  "😀",
  -(2n ** 2040n - 1n),
  -(2n ** 80n),
  -(2n ** 72n),
  -(2n ** 64n),
  -(2n ** 64n) + 1n,
  -(2n ** 56n),
  -257n,
  -256n,
  -255n,
  -1n,
  0n,
  1n,
  255n,
  256n,
  65_535n,
  65_536n,
  2n ** 56n,
  2n ** 64n - 1n,
  2n ** 64n,
  2n ** 72n,
  2n ** 80n,
  2n ** 2040n - 1n,
  -Infinity,
  -Number.MAX_VALUE,
  -1.5,
  -Number.MIN_VALUE,
  -0,
  0,
  Number.MIN_VALUE,
  1,
  Math.PI,
  Number.MAX_VALUE,
  Infinity,
  NaN,
  false,
  true,
];

Deno.test("keys have the bytes worked out by hand, and come back", () => {
  for (const [parts, hex] of KNOWN) {
    assert.equal(encodeKey(parts).toHex(), hex);
    assert.deepEqual(decodeKey(Uint8Array.fromHex(hex)), parts);
    assert.ok(isWellFormedKey(Uint8Array.fromHex(hex)), hex);
  }
});

Deno.test("keys order as bytes the way their parts order", () => {
  for (let i = 1; i < ORDERED.length; i++) {
    const [a, b] = [ORDERED[i - 1], ORDERED[i]];
    assert.ok(
      compareBytes(encodeKey([a]), encodeKey([b])) < 0,
      `${String(a)} < ${String(b)}`,
    );
    // Whatever follows the first part must not change that.
    assert.ok(compareBytes(encodeKey([a, true]), encodeKey([b])) < 0);
    assert.ok(compareBytes(encodeKey([a, a]), encodeKey([a])) > 0);
  }
});

Deno.test("random keys of several parts come back (seeded)", () => {
  const random = seededRandom(20_240_501);
  for (let i = 0; i < 2000; i++) {
    const parts = Array.from(
      { length: 1 + random.below(6) },
      () => ORDERED[random.below(ORDERED.length)],
    );
    const key = encodeKey(parts);
    assert.deepEqual(decodeKey(key), parts);
    assert.ok(isWellFormedKey(key));
  }
});

Deno.test("a bigint of more than 255 bytes has no encoding", () => {
  assert.equal(encodeKey([2n ** 2040n - 1n]).length, 257);
  assert.throws(() => encodeKey([2n ** 2040n]), InvalidRequestError);
  assert.throws(() => encodeKey([-(2n ** 2040n)]), InvalidRequestError);
});

Deno.test("bytes that are no key are told apart from keys", () => {
  const malformed = [
    "00", // no such tag
    "03",
    "0a",
    "1e",
    "20",
    "22",
    "28",
    "ff",
    "01", // not terminated
    "0161",
    "0100ff", // an escaped zero, then nothing
    "02",
    "0261",
    "02ff00", // not UTF-8
    "02c0af00", // an overlong form
    "02eda08000", // half of a surrogate pair
    "15", // a bigint cut short
    "1601",
    "1d", // a long bigint without its length
    "1d0901",
    "0b00", // says 255 bytes and has none
    "21", // a double cut short
    "2180000000000000",
    "1400", // one byte too many
    "2700",
    "02610003",
  ];
  for (const hex of malformed) {
    assert.equal(decodeKey(Uint8Array.fromHex(hex)), undefined, hex);
    assert.equal(isWellFormedKey(Uint8Array.fromHex(hex)), false, hex);
  }
  assert.equal(isWellFormedKey(new Uint8Array(0)), false);
});

Deno.test("the quick check and the decoder agree on random bytes (seeded)", () => {
  const random = seededRandom(7);
  let wellFormed = 0;
  for (let i = 0; i < 20_000; i++) {
    const part = ORDERED[random.below(ORDERED.length)];
    const key = encodeKey([part, ORDERED[random.below(ORDERED.length)]]);
    const changes = random.below(3);
    for (let j = 0; j < changes; j++) {
      key[random.below(key.length)] = random.below(256);
    }
    const cut = key.subarray(0, 1 + random.below(key.length));
    const isKey = isWellFormedKey(cut);
    assert.equal(isKey, decodeKey(cut) !== undefined, cut.toHex());
    if (isKey) wellFormed++;
  }
  assert.ok(wellFormed > 1000);
});

Deno.test("Deno's own KV writes the same bytes and lists them in the same order", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/embedded.sqlite`;
    const kv = await Deno.openKv(path);
    for (const part of ORDERED) await kv.set([part, "x"], 0);
    const listed: Deno.KvKey[] = [];
    for await (const entry of kv.list({ prefix: [] })) listed.push(entry.key);
    kv.close();
    assert.deepEqual(listed, ORDERED.map((part) => [part, "x"]));
    const db = new DatabaseSync(path);
    const rows = db.prepare("select k from kv order by k").all();
    db.close();
    assert.deepEqual(
      rows.map((row) => (row.k as Uint8Array).toHex()),
      ORDERED.map((part) => encodeKey([part, "x"]).toHex()),
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("strings of a key are UTF-8 by the same rules as the runtime's decoder", () => {
  const random = seededRandom(20_261_121);
  const interesting = [0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0];
  interesting.push(0xc1, 0xc2, 0xdf, 0xe0, 0xec, 0xed, 0xef, 0xf0, 0xf4, 0xf5);
  let valid = 0;
  for (let i = 0; i < 200_000; i++) {
    const text = Uint8Array.from(
      { length: 1 + random.below(5) },
      () => interesting[random.below(interesting.length)],
    );
    const key = Uint8Array.of(0x02, ...text, 0x00);
    const isText = fromUtf8(text) !== undefined;
    assert.equal(isWellFormedKey(key), isText, text.toHex());
    if (isText) valid++;
  }
  assert.ok(valid > 1000, `${valid}`);
  // An escaped zero byte is a part of the text, wherever it stands.
  for (const text of ["\0", "ü\0ü", "\0\0", "a\0"]) {
    assert.ok(isWellFormedKey(encodeKey([text])));
  }
  assert.equal(isWellFormedKey(Uint8Array.fromHex("02c300ffbc00")), false);
});
