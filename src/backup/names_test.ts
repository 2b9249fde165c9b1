import assert from "node:assert/strict";
import { seededRandom } from "../common/random.ts";
import {
  epochOf,
  generationName,
  isGenerationName,
  parseSegmentKey,
  segmentKey,
  snapshotKey,
  versionOf,
} from "./names.ts";

const first = "000000000000001a00000000";
const last = "000000000000002b0000ffff";

Deno.test("a segment's name says what it holds, and sorts by epoch and number", () => {
  const name = { epoch: 0x2a, tsn: 7, first, last };
  const key = segmentKey("g", name);
  assert.equal(
    key,
    `g/logs/0001_0000002a00000007_${first}_${last}.bin`,
  );
  assert.deepEqual(parseSegmentKey("g", key), name);
  assert.equal(versionOf(last), 0x2b);
  const later = segmentKey("g", { ...name, epoch: 0x2b, tsn: 1 });
  assert.ok(later > segmentKey("g", { ...name, tsn: 2 ** 32 - 1 }));
  assert.throws(() => segmentKey("g", { ...name, tsn: 2 ** 32 }), RangeError);
});

Deno.test("names of the older format are read, and other names are not", () => {
  const old = `g/logs/000000000000002a_0000000000000007_${first}_${last}.bin`;
  assert.deepEqual(parseSegmentKey("g", old), {
    epoch: 42,
    tsn: 7,
    first,
    last,
  });
  for (
    const key of [
      `h/logs/0001_0000002a00000007_${first}_${last}.bin`,
      `g/logs/0002_0000002a00000007_${first}_${last}.bin`,
      `g/logs/0001_0000002A00000007_${first}_${last}.bin`,
      `g/logs/0001_0000002a00000007_${first}_${last}.bin.tmp`,
      "g/logs/hello",
    ]
  ) assert.equal(parseSegmentKey("g", key), undefined, key);
});

Deno.test("a folder's own keys have no folder before them", () => {
  assert.ok(
    segmentKey("", { epoch: 1, tsn: 1, first, last }).startsWith("logs/"),
  );
  assert.ok(snapshotKey("", 1, 0).startsWith("snapshots/0001_"));
});

Deno.test("a generation is named after its time and its epoch", () => {
  const random = seededRandom(1);
  const name = generationName(Date.parse("2026-11-21T06:15:00Z"), 42, random);
  assert.match(name, /^20261121t061500z-0000002a-[0-9a-f]{4}$/);
  assert.ok(isGenerationName(name));
  assert.equal(epochOf(name), 42);
  assert.ok(!isGenerationName("probe"));
});
