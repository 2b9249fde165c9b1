import assert from "node:assert/strict";
import { type Bytes, utf8 } from "../common/bytes.ts";
import { lastVersionAt, timeOf } from "./commit_times.ts";
import { decodeLogEntries, LAST_INDEX, LogEncoder } from "./entry.ts";
import { encodeSegment, readSegment, type SegmentRow } from "./segment.ts";

const TIME_MS = 1_700_000_000_000;

function row(version: number, keys: string[], timeMs = TIME_MS): SegmentRow {
  const encoder = new LogEncoder();
  keys.forEach((key, i) =>
    encoder.append(
      version,
      0,
      i === keys.length - 1 ? LAST_INDEX : i,
      utf8(key),
      utf8("value"),
      3,
      -1,
    )
  );
  return { version, timeMs, entries: encoder.bytes.slice() };
}

function nothing(version: number): SegmentRow {
  return { version, timeMs: TIME_MS, entries: new Uint8Array(0) };
}

Deno.test("a segment holds the rows, and says where it begins, ends, and what it follows", async () => {
  const rows = [
    nothing(0xf),
    row(0x10, ["a", "b"]),
    nothing(0x11),
    row(0x1f, ["c"]),
  ];
  const segment = await encodeSegment({ rows, previousVersion: 9 });
  assert(segment);
  assert.equal(segment.first, "000000000000001000000000");
  assert.equal(segment.last, "000000000000001f0000ffff");
  assert.equal(segment.lastVersion, 0x1f);
  const contents = await readSegment(segment.bytes);
  assert(typeof contents !== "string");
  assert.equal(contents.previousVersion, 9);
  assert.equal(contents.timeMs, TIME_MS);
  assert.deepEqual(contents.times, []);
  const keys = decodeLogEntries(contents.entries).map(({ key }) => key);
  assert.deepEqual(keys, ["a", "b", "c"].map(utf8));
});

Deno.test("a segment tells when each of its commits was made", async () => {
  const segment = await encodeSegment({
    rows: [
      row(10, ["a"], 5000),
      row(2 ** 40, ["b"], 5000),
      row(2 ** 40 + 3, ["c"], 6000),
      // Only a log from before times went forward alone.
      row(2 ** 40 + 4, ["d"], 5500),
      row(2 ** 40 + 9, ["e"], 6001),
    ],
    previousVersion: 7,
  });
  const contents = await readSegment(segment!.bytes);
  assert(typeof contents !== "string");
  const { times } = contents;
  assert.equal(contents.timeMs, 6001);
  assert.deepEqual(times, [
    { version: 2 ** 40, timeMs: 5000 },
    { version: 2 ** 40 + 4, timeMs: 6000 },
    { version: 2 ** 40 + 9, timeMs: 6001 },
  ]);
  assert.equal(lastVersionAt(times, 4999), 0);
  assert.equal(lastVersionAt(times, 5999), 2 ** 40);
  assert.equal(lastVersionAt(times, 6000), 2 ** 40 + 4);
  assert.equal(lastVersionAt(times, 7000), 2 ** 40 + 9);
  assert.equal(timeOf(times, 10), 5000);
  assert.equal(timeOf(times, 2 ** 40 + 9), 6001);
});

Deno.test("rows that changed nothing make no segment", async () => {
  const segment = { rows: [nothing(2)], previousVersion: 1 };
  assert.equal(await encodeSegment(segment), undefined);
});

Deno.test("every changed bit and every missing byte of a segment is found", async () => {
  const segment = await encodeSegment({
    rows: [row(5, ["key"]), row(6, ["key"], TIME_MS + 300)],
    previousVersion: 2,
  });
  const { bytes } = segment!;
  for (let at = 0; at < bytes.length; at++) {
    const changed = bytes.slice();
    changed[at] ^= 1 << (at % 8);
    assert.ok(await isFound(changed), `byte ${at}`);
    assert.ok(await isFound(bytes.slice(0, at)), `length ${at}`);
  }
});

/** One without chain and checksum is taken from other programs alone. */
async function isFound(bytes: Bytes): Promise<boolean> {
  const contents = await readSegment(bytes);
  return typeof contents === "string" || contents.previousVersion === undefined;
}

Deno.test("a segment of another program has no checksum and no chain", async () => {
  const contents = await readSegment(row(5, ["key"]).entries);
  assert(typeof contents !== "string");
  assert.equal(contents.previousVersion, undefined);
  assert.equal(decodeLogEntries(contents.entries).length, 1);
});
