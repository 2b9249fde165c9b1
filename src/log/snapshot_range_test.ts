import assert from "node:assert/strict";
import { concatBytes, utf8 } from "../common/bytes.ts";
import { ProtoWriter } from "../protocol/protobuf.ts";
import {
  encodeSnapshotRange,
  readSnapshotRange,
  type SnapshotRow,
} from "./snapshot_range.ts";

const ROWS: SnapshotRow[] = [
  [utf8("a"), utf8("1"), 1, 26, 0, -1],
  [utf8("b"), new Uint8Array(70_000), 3, 2 ** 40 + 7, 513, 1_700_000_000_123],
  [utf8("c".repeat(200)), new Uint8Array(0), 2, 1, 0, 0],
];

function read(bytes: Uint8Array<ArrayBuffer>): SnapshotRow[] {
  const rows: SnapshotRow[] = [];
  const count = readSnapshotRange(bytes, (...row) => rows.push(row));
  assert.equal(count, rows.length);
  return rows;
}

Deno.test("a part holds its rows, in order", () => {
  assert.deepEqual(read(encodeSnapshotRange(ROWS)), ROWS);
  assert.deepEqual(read(encodeSnapshotRange([])), []);
});

Deno.test("the bytes of a part, worked out by hand", () => {
  const bytes = encodeSnapshotRange([[utf8("k"), utf8("v"), 1, 0x0102, 3, -1]]);
  assert.equal(
    bytes.toHex(),
    "0a07" + "0a02" + "646b" + "1201" + "76" +
      "1219" + "0a02" + "6d6b" + "1213" + "00000000000001020003" + "01" +
      "ffffffffffffffff",
  );
});

Deno.test("parts whose metadata come after all data, without expiry, are read too", () => {
  const field = (tag: number, data: Uint8Array) => {
    const writer = new ProtoWriter(new Uint8Array(2 + data.length));
    writer.dataField(tag, data);
    return writer.out;
  };
  const pair = (tag: number, key: string, value: Uint8Array) =>
    field(tag, concatBytes([field(1, utf8(key)), field(2, value)]));
  const metadata = Uint8Array.fromHex("00000000000000050000" + "01");
  const rows = read(concatBytes([
    pair(1, "da", utf8("1")),
    pair(1, "db", utf8("2")),
    pair(2, "ma", metadata),
    pair(2, "mb", metadata),
  ]));
  assert.deepEqual(rows, [
    [utf8("a"), utf8("1"), 1, 5, 0, -1],
    [utf8("b"), utf8("2"), 1, 5, 0, -1],
  ]);
  assert.throws(
    () => read(pair(1, "da", utf8("1"))),
    /not those of a snapshot/,
  );
  assert.throws(() => read(pair(2, "ma", metadata)), /not those of a snapshot/);
  assert.throws(() => read(utf8("hello")));
});
