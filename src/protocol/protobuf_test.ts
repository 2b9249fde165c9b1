import assert from "node:assert/strict";
import { InvalidRequestError } from "../common/errors.ts";
import { seededRandom } from "../common/random.ts";
import {
  dataFieldSize,
  ProtoReader,
  ProtoWriter,
  varintSize,
  WIRE_FIXED32,
  WIRE_FIXED64,
  WIRE_LENGTH,
  WIRE_VARINT,
} from "./protobuf.ts";

const hex = (text: string) => Uint8Array.fromHex(text.replaceAll(" ", ""));

Deno.test("varints have the bytes of the format and are sized right", () => {
  const known: [number, string][] = [
    [0, "00"],
    [1, "01"],
    [127, "7f"],
    [128, "8001"],
    [300, "ac02"],
    [16_383, "ff7f"],
    [16_384, "808001"],
    [2 ** 31, "8080808008"],
    [2 ** 32, "8080808010"],
    [2 ** 53 - 1, "ffffffffffffff0f"],
  ];
  for (const [value, text] of known) {
    const out = new Uint8Array(text.length / 2);
    new ProtoWriter(out).varint(value);
    assert.equal(out.toHex(), text);
    assert.equal(varintSize(value), out.length);
    assert.equal(new ProtoReader(out).int64(), value);
  }
});

Deno.test("numbers are read as their types say", () => {
  const cases: [string, "uint32" | "int32" | "int64" | "bool", unknown][] = [
    ["ffffffff0f", "uint32", 2 ** 32 - 1],
    ["ffffffff0f", "int32", -1],
    ["ffffffffffffffffff01", "int32", -1],
    ["ffffffffffffffffff01", "int64", -1],
    ["feffffffffffffffff01", "int64", -2],
    ["80808080808080808001", "int64", -(2 ** 63)],
    ["8080808010", "int64", 2 ** 32],
    ["8080808010", "uint32", 0],
    ["8080808080808008", "int64", 2 ** 52],
    ["00", "bool", false],
    ["01", "bool", true],
    ["8080808010", "bool", true],
    ["8000", "uint32", 0], // longer than needed, but legal
  ];
  for (const [text, kind, value] of cases) {
    const reader = new ProtoReader(hex(text));
    const read = kind === "bool" ? reader.bool() : reader[kind]();
    assert.equal(read, value, `${text} as ${kind}`);
    assert.ok(reader.done);
  }
});

Deno.test("a message is walked field by field, unknown ones passed over", () => {
  const reader = new ProtoReader(hex(
    "08 96 01" + // 1: 150
      "11 0102030405060708" + // 2: fixed64
      "1a 03 616263" + // 3: "abc"
      "25 01020304" + // 4: fixed32
      "2a 02 08 05", // 5: { 1: 5 }
  ));
  assert.ok(reader.next());
  assert.deepEqual([reader.field, reader.wire], [1, WIRE_VARINT]);
  assert.equal(reader.int64(), 150);
  assert.ok(reader.next());
  assert.deepEqual([reader.field, reader.wire], [2, WIRE_FIXED64]);
  reader.skip();
  assert.ok(reader.next());
  assert.deepEqual([reader.field, reader.wire], [3, WIRE_LENGTH]);
  assert.deepEqual(reader.data(), hex("616263"));
  assert.ok(reader.next());
  assert.deepEqual([reader.field, reader.wire], [4, WIRE_FIXED32]);
  reader.skip();
  assert.ok(reader.next());
  const inner = reader.message();
  assert.ok(inner.next());
  assert.equal(inner.uint32(), 5);
  assert.equal(inner.next(), false);
  assert.equal(reader.next(), false);
});

Deno.test("a message that ends too early or makes no sense is refused with a sentence", () => {
  const walk = (bytes: Uint8Array<ArrayBuffer>) => {
    const reader = new ProtoReader(bytes);
    while (reader.next()) reader.skip();
  };
  const malformed = [
    "08", // no value
    "08 80", // a varint without an end
    "08 ffffffffffffffffffff01", // a varint of eleven bytes
    "0a", // no length
    "0a 01", // a length beyond the end
    "0a ffffffff0f", // far beyond
    "09 01020304050607",
    "0d 010203",
    "00", // field 0
    "0b", // groups are not spoken
    "0c",
    "0e",
    "0f",
    "80", // a tag without an end
  ];
  for (const text of malformed) {
    assert.throws(
      () => walk(hex(text)),
      (error) =>
        error instanceof InvalidRequestError &&
        error.message ===
          "The request body is not a valid protobuf message; nothing was done.",
      text,
    );
  }
});

Deno.test("an embedded message cannot read past its own end", () => {
  // The inner message says its string has 3 bytes; 2 of them are outside.
  const reader = new ProtoReader(hex("0a 03 0a 03 61 62 63"));
  reader.next();
  const inner = reader.message();
  inner.next();
  assert.throws(() => inner.data(), InvalidRequestError);
  const again = new ProtoReader(hex("0a 01 08 05"));
  again.next();
  const cut = again.message();
  cut.next();
  assert.throws(() => cut.uint32(), InvalidRequestError);
});

Deno.test("what is written is read, and takes the size that was reckoned (seeded)", () => {
  const random = seededRandom(99);
  for (let i = 0; i < 500; i++) {
    const data = random.bytes(random.below(3) * random.below(200));
    const number = random.below(2 ** 32) * (random.below(2) ? 1 : 1024);
    const out = new Uint8Array(
      dataFieldSize(data.length) + 1 + varintSize(number),
    );
    const writer = new ProtoWriter(out);
    writer.dataField(15, data);
    writer.varintField(1, number);
    assert.equal(writer.at, out.length);
    const reader = new ProtoReader(out);
    assert.ok(reader.next());
    assert.equal(reader.field, 15);
    reader.expect(WIRE_LENGTH);
    assert.deepEqual(reader.data(), data);
    assert.ok(reader.next());
    reader.expect(WIRE_VARINT);
    assert.equal(reader.int64(), number);
    assert.equal(reader.next(), false);
  }
});

Deno.test("random bytes never read past the end or fail in another way (seeded)", () => {
  const random = seededRandom(3);
  for (let i = 0; i < 20_000; i++) {
    const reader = new ProtoReader(random.bytes(random.below(24)));
    try {
      while (reader.next()) reader.skip();
    } catch (error) {
      assert.ok(error instanceof InvalidRequestError);
    }
  }
});
