import assert from "node:assert/strict";
import {
  encodeAtomicWriteOutput,
  encodeSnapshotReadOutput,
  encodeWatchEntry,
  LargeReadOutput,
  WATCH_PING,
  watchEntrySize,
  watchFramePieces,
} from "./datapath_answers.ts";
import { concatBytes } from "../common/bytes.ts";
import { Encoding, type Entry } from "./messages.ts";

const hex = (text: string) => Uint8Array.fromHex(text.replaceAll(" ", ""));

const ENTRY: Entry = {
  key: hex("02 61 00"),
  value: hex("ff0f4902"),
  encoding: Encoding.V8,
  version: 0x0102,
  order: 3,
};
/** 1: key, 2: value, 3: encoding, 4: versionstamp; 25 bytes. */
const ENTRY_HEX = "0a 03 026100  12 04 ff0f4902  18 01" +
  "22 0a 00000000000001020003";

Deno.test("the answer to a read has the bytes worked out by hand", () => {
  const expected = "0a 1b 0a 19" + ENTRY_HEX + // a range of one entry
    "0a 00" + // a range without any
    "0a 36 0a 19" + ENTRY_HEX + "0a 19" + ENTRY_HEX + // of two
    "20 01" + // read_is_strongly_consistent
    "40 01"; // status: success
  assert.equal(
    encodeSnapshotReadOutput([[ENTRY], [], [ENTRY, ENTRY]]).toHex(),
    hex(expected).toHex(),
  );
  assert.equal(encodeSnapshotReadOutput([]).toHex(), "20014001");
});

Deno.test("lengths of two and three bytes are written right", () => {
  const value = new Uint8Array(65_536).fill(7);
  const answer = encodeSnapshotReadOutput([[{ ...ENTRY, value }]]);
  // Entry: 5 + (1 + 3 + 65536) + 14 = 65559 = 0x10017; range: 1 + 3 + that.
  const head = hex("0a 9b8004  0a 978004  0a 03 026100  12 808004");
  assert.equal(answer.slice(0, head.length).toHex(), head.toHex());
  assert.equal(answer.length, 4 + 65_563 + 4);
});

Deno.test("the answers to an atomic write have the bytes worked out by hand", () => {
  assert.equal(
    encodeAtomicWriteOutput({ status: "committed", version: 9, order: 1 })
      .toHex(),
    hex("08 01  12 0a 00000000000000090001").toHex(),
  );
  const failed = (failedChecks: number[]) =>
    encodeAtomicWriteOutput({ status: "checkFailed", failedChecks }).toHex();
  assert.equal(failed([]), "0802");
  assert.equal(failed([0]), hex("08 02  22 01 00").toHex());
  assert.equal(failed([1, 99]), hex("08 02  22 02 01 63").toHex());
  assert.equal(
    encodeAtomicWriteOutput({ status: "writeDisabled" }).toHex(),
    "0805",
  );
});

Deno.test("a watch frame has the bytes worked out by hand", () => {
  const frame = watchFramePieces([ENTRY, null, ENTRY]);
  const expected = "08 01" + // status: success
    "12 1d  08 01  12 19" + ENTRY_HEX + // changed, with its entry
    "12 02  08 01" + // changed: gone
    "12 1d  08 01  12 19" + ENTRY_HEX;
  assert.equal(frame.length, 1);
  assert.equal(frame[0].toHex(), hex("44000000" + expected).toHex());
  assert.equal(WATCH_PING.toHex(), "00000000");
});

Deno.test("a large entry is a piece of its own, and joined they are as ever", () => {
  const large: Entry = { ...ENTRY, value: new Uint8Array(65_536).fill(7) };
  const piece = encodeWatchEntry(large);
  assert.equal(piece.length, watchEntrySize(large));
  const one = watchFramePieces([large], () => piece);
  const other = watchFramePieces([null, ENTRY, large, large, ENTRY]);
  assert.equal(one.length, 2);
  assert.equal(one[1], piece);
  assert.equal(other.length, 5);
  const joined = concatBytes(other);
  const length = new DataView(joined.buffer).getUint32(0, true);
  assert.equal(length, joined.length - 4);
  const largeHex = concatBytes(one).toHex().slice(8 + 4);
  const expected = "0801" + "1202" + "0801" + hex(
    "12 1d  08 01  12 19" +
      ENTRY_HEX,
  ).toHex() + largeHex + largeHex +
    hex("12 1d  08 01  12 19" + ENTRY_HEX).toHex();
  assert.equal(joined.toHex().slice(8), expected);
});

Deno.test("the answer to a large read is the same, in pieces", () => {
  const value = new Uint8Array(1000).fill(7);
  const entries = Array.from({ length: 50 }, () => ({ ...ENTRY, value }));
  const ranges = [[], entries, [ENTRY], []];
  const whole = encodeSnapshotReadOutput(ranges);
  for (const pieceBytes of [1, 1000, 5000, 1_000_000]) {
    const output = new LargeReadOutput(ranges.map((range) => [...range]));
    assert.equal(output.sizeBytes, whole.length);
    const pieces = [...output.pieces(pieceBytes)];
    assert.equal(concatBytes(pieces).toHex(), whole.toHex());
    for (const piece of pieces) {
      assert.ok(piece.length <= pieceBytes + 1100, `${piece.length}`);
    }
  }
});
