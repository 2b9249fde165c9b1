import assert from "node:assert/strict";
import { type Bytes, utf8 } from "../common/bytes.ts";
import { decodeLogEntries, LAST_INDEX, LogEncoder } from "./entry.ts";
import { encodeSegment, readSegment } from "./segment.ts";

function row(version: number, keys: string[]): Bytes {
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
  return encoder.bytes.slice();
}

const nothing = new Uint8Array(0);

Deno.test("a segment holds the rows, and says where it begins, ends, and what it follows", async () => {
  const rows = [nothing, row(0x10, ["a", "b"]), nothing, row(0x1f, ["c"])];
  const segment = await encodeSegment({
    rows,
    previousVersion: 9,
    timeMs: 1_700_000_000_000,
  });
  assert(segment);
  assert.equal(segment.first, "000000000000001000000000");
  assert.equal(segment.last, "000000000000001f0000ffff");
  assert.equal(segment.lastVersion, 0x1f);
  const contents = await readSegment(segment.bytes);
  assert(typeof contents !== "string");
  assert.equal(contents.previousVersion, 9);
  assert.equal(contents.timeMs, 1_700_000_000_000);
  const keys = decodeLogEntries(contents.entries).map(({ key }) => key);
  assert.deepEqual(keys, ["a", "b", "c"].map(utf8));
});

Deno.test("rows that changed nothing make no segment", async () => {
  const segment = { rows: [nothing], previousVersion: 1, timeMs: 1 };
  assert.equal(await encodeSegment(segment), undefined);
});

Deno.test("every changed bit and every missing byte of a segment is found", async () => {
  const segment = await encodeSegment({
    rows: [row(5, ["key"])],
    previousVersion: 2,
    timeMs: 77,
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
  const contents = await readSegment(row(5, ["key"]));
  assert(typeof contents !== "string");
  assert.equal(contents.previousVersion, undefined);
  assert.equal(decodeLogEntries(contents.entries).length, 1);
});
