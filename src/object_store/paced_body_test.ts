import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import type { Timer } from "../common/clock.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { seededRandom } from "../common/random.ts";
import { S3ObjectStore } from "./s3.ts";
import { PacedBody, PIECE_BYTES } from "./paced_body.ts";

const PAUSE_MS = 6;

Deno.test("a paced body is read in pieces, with a pause between two of them", async () => {
  const clock = new ManualClock(0);
  const data = seededRandom(1).bytes(3 * PIECE_BYTES + 5);
  const body = new PacedBody(data, PAUSE_MS, clock);
  assert.equal(body.size, data.length);
  const reader = body.stream().getReader();
  const pieces: Uint8Array[] = [];
  for (let left = data.length; left > 0;) {
    const reading = reader.read();
    if (pieces.length > 0) {
      while (clock.timers === 0) await setImmediate();
      clock.advance(PAUSE_MS);
    }
    const { value } = await reading;
    pieces.push(value!);
    left -= value!.length;
  }
  assert.ok((await reader.read()).done);
  assert.deepEqual(
    pieces.map(({ length }) => length),
    [PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 5],
  );
  assert.deepEqual(
    new Uint8Array(await new Blob(pieces as BlobPart[]).arrayBuffer()),
    data,
  );
  assert.equal(clock.timers, 0);
});

/** Counts the pauses and lets none of them last. */
class HastyClock extends ManualClock {
  pauses = 0;

  override after(delayMs: number, fire: () => void): Timer {
    if (delayMs !== PAUSE_MS) return super.after(delayMs, fire);
    this.pauses++;
    return this.endOfTurn(fire);
  }
}

Deno.test("S3 is sent a body whose length it is told, piece by piece", async () => {
  const clock = new HastyClock(0);
  const data = seededRandom(2).bytes(4 * PIECE_BYTES);
  let announced: string | null = null;
  let received: Uint8Array | undefined;
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async (request) => {
      announced = request.headers.get("content-length");
      received = await request.bytes();
      return new Response(null, { headers: { etag: '"tag"' } });
    },
  );
  const store = new S3ObjectStore({
    bucket: "bucket",
    prefix: "app",
    clock,
    endpoint: `http://127.0.0.1:${server.addr.port}`,
    credentials: { accessKeyId: "key", secretAccessKey: "secret" },
  });
  await store.put("key", data, { pauseMs: PAUSE_MS });
  await store.close();
  assert.equal(announced, `${data.length}`);
  assert.deepEqual(received, data);
  assert.equal(clock.pauses, 3);
});
