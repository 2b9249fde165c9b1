import assert from "node:assert/strict";
import { type Bytes, concatBytes, utf8 } from "../common/bytes.ts";
import { UnavailableError } from "../common/errors.ts";
import { seededRandom } from "../common/random.ts";
import {
  encodeCommits,
  encodeFrame,
  type Frame,
  FrameReader,
} from "./frames.ts";

function streamOf(chunks: Uint8Array[]): FrameReader {
  return new FrameReader(ReadableStream.from(chunks), "http://primary");
}

async function all(reader: FrameReader): Promise<Frame[]> {
  const frames: Frame[] = [];
  for (;;) {
    const frame = await reader.next();
    if (frame === null) return frames;
    frames.push(frame);
  }
}

const OTHERS: Exclude<Frame, { kind: "commits" }>[] = [
  { kind: "beat", version: 2 ** 40 + 1, durableVersion: 2 ** 52, nowMs: 7 },
  { kind: "snapshot", version: 0, sizeBytes: 2 ** 41 },
  { kind: "part", number: 3, bytes: new Uint8Array(70_000) },
  { kind: "snapshotEnd", version: 5, timeMs: 1_700_000_000_000, parts: 4 },
  { kind: "end", status: 410, sentence: "The log is gone, é." },
];

function someFrames(deflates: boolean): [Bytes, Frame[]] {
  const rows = [
    { version: 12, timeMs: 1000, entries: utf8("first") },
    { version: 19, timeMs: 1000, entries: new Uint8Array(0) },
    { version: 20, timeMs: 1001, entries: new Uint8Array(40_000).fill(7) },
  ];
  const commits: Frame = {
    kind: "commits",
    previousVersion: 10,
    version: 20,
    durableVersion: 25,
    times: [{ version: 19, timeMs: 1000 }, { version: 20, timeMs: 1001 }],
    entries: concatBytes(rows.map(({ entries }) => entries)),
  };
  return [
    concatBytes([
      encodeCommits(10, rows, 25, deflates),
      ...OTHERS.map((frame) => encodeFrame(frame, deflates)),
    ]),
    [commits, ...OTHERS],
  ];
}

Deno.test("frames come back as they were, however the bytes arrive, compressed or not", async () => {
  const random = seededRandom(3);
  const sizes: number[] = [];
  for (const deflates of [false, true]) {
    const [bytes, frames] = someFrames(deflates);
    sizes.push(bytes.length);
    for (const most of [1, 7, 5000, Infinity]) {
      const chunks: Uint8Array[] = [];
      for (let at = 0; at < bytes.length;) {
        const length = most === Infinity ? bytes.length : 1 +
          random.below(most);
        // Byte by byte is slow for large ones.
        const next = at + (at > 200 && most < 5000 ? 9999 : length);
        chunks.push(bytes.slice(at, next));
        at = next;
      }
      assert.deepEqual(await all(streamOf(chunks)), frames);
    }
  }
  assert.ok(sizes[1] < sizes[0] / 10);
});

Deno.test("a beat, byte for byte", () => {
  const bytes = encodeFrame({
    kind: "beat",
    version: 1,
    durableVersion: 0x01_0000_0002,
    nowMs: 3,
  });
  assert.equal(
    bytes.toHex(),
    "00000021" + "02" + "0000000000000001" + "0000000100000002" +
      "0000000000000003" + "094c544be9dbe605",
  );
});

Deno.test("every changed bit of a frame is found, and every missing byte", async () => {
  const beat = encodeFrame(OTHERS[0]);
  for (let bit = 0; bit < 8 * beat.length; bit++) {
    const damaged = beat.slice();
    damaged[bit >> 3] ^= 1 << (bit & 7);
    await assert.rejects(all(streamOf([damaged])), UnavailableError);
  }
  for (let length = 1; length < beat.length; length++) {
    await assert.rejects(
      all(streamOf([beat.slice(0, length)])),
      UnavailableError,
    );
  }
  assert.deepEqual(await all(streamOf([])), []);
});
