import assert from "node:assert/strict";
import { compareBytes } from "../common/bytes.ts";
import {
  ABSENT_VERSION,
  parseVersionstampHex,
  readOrder,
  readVersion,
  versionstampBytes,
  versionstampHex,
} from "./versionstamp.ts";

const KNOWN: [version: number, order: number, hex: string][] = [
  [0, 0, "00000000000000000000"],
  [1, 0, "00000000000000010000"],
  [255, 256, "00000000000000ff0100"],
  [0xffff_ffff, 0xffff, "00000000ffffffffffff"],
  [0x1_0000_0000, 1, "00000001000000000001"],
  [0x12_3456_789a_bcde, 0, "00123456789abcde0000"],
  [Number.MAX_SAFE_INTEGER, 0xfffe, "001ffffffffffffffffe"],
];

Deno.test("versionstamps have the bytes and digits worked out by hand, and come back", () => {
  for (const [version, order, hex] of KNOWN) {
    const bytes = versionstampBytes(version, order);
    assert.equal(bytes.toHex(), hex);
    assert.equal(versionstampHex(version, order), hex);
    assert.equal(readVersion(bytes, 0), version);
    assert.equal(readOrder(bytes, 0), order);
    assert.deepEqual(parseVersionstampHex(hex), { version, order });
  }
});

Deno.test("versionstamps order as bytes and as digits the way they order as numbers", () => {
  for (let i = 1; i < KNOWN.length; i++) {
    const before = KNOWN[i - 1];
    const after = KNOWN[i];
    assert.ok(
      compareBytes(
        versionstampBytes(before[0], before[1]),
        versionstampBytes(after[0], after[1]),
      ) < 0,
    );
    assert.ok(before[2] < after[2]);
  }
});

Deno.test("a versionstamp is read from within other bytes", () => {
  const bytes = Uint8Array.fromHex("ffff" + "00000001000000020003" + "ffff");
  assert.equal(readVersion(bytes, 2), 0x1_0000_0002);
  assert.equal(readOrder(bytes, 2), 3);
});

Deno.test("a version beyond 2^53 equals no version that a commit of ours can have", () => {
  for (
    const hex of [
      "00200000000000000000",
      "00200000000000010000",
      "ffffffffffffffff0000",
    ]
  ) {
    const version = readVersion(Uint8Array.fromHex(hex), 0);
    assert.ok(version > Number.MAX_SAFE_INTEGER);
    assert.notEqual(version, ABSENT_VERSION);
    assert.equal(parseVersionstampHex(hex), undefined);
  }
});

Deno.test("text that is not 20 lowercase hex digits is no versionstamp", () => {
  for (
    const text of [
      "",
      "0000000000000001000",
      "000000000000000100000",
      "0000000000000001000G",
      "0000000000000001000A",
      " 0000000000000001000",
      "0000000000000001000\n",
    ]
  ) assert.equal(parseVersionstampHex(text), undefined, JSON.stringify(text));
});
