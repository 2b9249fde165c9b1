import assert from "node:assert/strict";
import { concatBytes, utf8 } from "../common/bytes.ts";
import { seededRandom } from "../common/random.ts";
import { Encoding, NEVER_MS } from "../protocol/messages.ts";
import {
  decodeLogEntries,
  LAST_INDEX,
  LogEncoder,
  type LogEntry,
  LogKind,
} from "./entry.ts";

const hex = (bytes: Uint8Array) => bytes.toHex();
const unhex = (text: string) => Uint8Array.fromHex(text.replaceAll(" ", ""));
const KEY_A = new Uint8Array([0x02, 0x61, 0x00]);

Deno.test("a set, byte for byte", () => {
  const encoder = new LogEncoder();
  encoder.append(5, 0, LAST_INDEX, KEY_A, utf8("hi"), Encoding.BYTES, NEVER_MS);
  const wanted = [
    "0a 1b", // an entry of 27 bytes
    "0a 0c 0000000000000005 0000 ffff", // versionstamp, index
    "10 01", // set
    "1a 03 026100", // key
    "22 02 6869", // value
    "28 03", // bytes
  ].join(" ");
  assert.equal(hex(encoder.bytes), hex(unhex(wanted)));
  assert.equal(encoder.sizeBytes, 29);
});

Deno.test("a set that expires, with every part of its versionstamp, byte for byte", () => {
  const encoder = new LogEncoder();
  encoder.append(
    0x01_0203_0405_0607,
    0x0809,
    0x0a0b,
    KEY_A,
    new Uint8Array(0),
    Encoding.V8,
    300,
  );
  const wanted = [
    "0a 1c",
    "0a 0c 0001020304050607 0809 0a0b",
    "10 01",
    "1a 03 026100",
    "22 00",
    "28 01",
    "30 ac02", // 300 = 0b10 0101100
  ].join(" ");
  assert.equal(hex(encoder.bytes), hex(unhex(wanted)));
});

Deno.test("a deletion has no value, encoding or expiry", () => {
  const encoder = new LogEncoder();
  encoder.append(1, 0, 0, KEY_A, null, Encoding.BYTES, 300);
  const wanted = "0a 15 0a 0c 0000000000000001 0000 0000 10 02 1a 03 026100";
  assert.equal(hex(encoder.bytes), hex(unhex(wanted)));
});

Deno.test("lengths of more than one byte", () => {
  const encoder = new LogEncoder();
  const value = new Uint8Array(300).fill(7);
  encoder.append(1, 0, LAST_INDEX, KEY_A, value, Encoding.LE64, NEVER_MS);
  const head = [
    "0a c602", // 326 = 14 + 2 + 5 + 303 + 2
    "0a 0c 0000000000000001 0000 ffff",
    "10 01",
    "1a 03 026100",
    "22 ac02",
  ].join(" ");
  assert.equal(
    hex(encoder.bytes),
    hex(concatBytes([unhex(head), value, unhex("28 02")])),
  );
});

/** Many entries, of every size there may be. */
function someEntries(count: number, seed: number): LogEntry[] {
  const random = seededRandom(seed);
  return Array.from({ length: count }, (_, i): LogEntry => {
    const isClear = random.below(4) === 0;
    const size = [0, 10, 127, 128, 16_384, 65_536][random.below(6)];
    return {
      version: 1 + i * 1000 * random.below(2 ** 30),
      order: random.below(2 ** 16),
      index: random.below(2 ** 16),
      kind: isClear ? LogKind.CLEAR : LogKind.SET,
      key: random.bytes(1 + random.below(2048)),
      value: isClear ? new Uint8Array(0) : random.bytes(random.below(size + 1)),
      encoding: isClear ? 0 : Encoding.V8,
      expireAtMs: isClear || random.below(2)
        ? NEVER_MS
        : random.below(2) * 2 ** 40 + 1,
    };
  });
}

function append(encoder: LogEncoder, entry: LogEntry): void {
  encoder.append(
    entry.version,
    entry.order,
    entry.index,
    entry.key,
    entry.kind === LogKind.CLEAR ? null : entry.value,
    entry.encoding,
    entry.expireAtMs,
  );
}

Deno.test("entries of any size come back as they were, and grow the encoder", () => {
  const entries = someEntries(500, 1);
  const encoder = new LogEncoder();
  for (const entry of entries) append(encoder, entry);
  assert.ok(encoder.sizeBytes > 2 ** 21);
  assert.equal(encoder.bytes.length, encoder.sizeBytes);
  assert.deepEqual(decodeLogEntries(encoder.bytes.slice()), entries);
});

Deno.test("a cleared encoder begins anew, also after large entries", () => {
  const encoder = new LogEncoder();
  const [entry] = someEntries(1, 2);
  append(encoder, entry);
  const alone = hex(encoder.bytes);
  for (let round = 0; round < 3; round++) {
    for (const other of someEntries(200, 3 + round)) append(encoder, other);
    encoder.clear();
    assert.equal(encoder.sizeBytes, 0);
    append(encoder, entry);
    assert.equal(hex(encoder.bytes), alone);
  }
});

Deno.test("runs of entries put one behind the other are one run", () => {
  const entries = someEntries(20, 4);
  const runs = entries.map((entry) => {
    const encoder = new LogEncoder();
    append(encoder, entry);
    return encoder.bytes;
  });
  assert.deepEqual(decodeLogEntries(concatBytes(runs)), entries);
});

Deno.test("fields that are not known yet are passed over", () => {
  const entry = "0a 0c 0000000000000001 0000 ffff 10 02 1a 03 026100";
  const bytes = unhex(`0a 1a ${entry} 7a 03 616263 12 02 7878`);
  const decoded = decodeLogEntries(bytes);
  assert.equal(decoded.length, 1);
  assert.deepEqual(decoded[0].key, KEY_A);
  assert.equal(decoded[0].kind, LogKind.CLEAR);
});

Deno.test("bytes that are cut short are refused", () => {
  const encoder = new LogEncoder();
  encoder.append(5, 0, LAST_INDEX, KEY_A, utf8("hi"), Encoding.BYTES, NEVER_MS);
  const whole = encoder.bytes.slice();
  for (let length = 1; length < whole.length; length++) {
    assert.throws(() => decodeLogEntries(whole.slice(0, length)), Error);
  }
});
