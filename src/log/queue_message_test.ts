import assert from "node:assert/strict";
import {
  decodeQueueMessage,
  encodeQueueMessage,
  queueLogKey,
  readQueueLogKey,
} from "./queue_message.ts";

const hex = (bytes: Uint8Array) => bytes.toHex();
const unhex = (text: string) => Uint8Array.fromHex(text.replaceAll(" ", ""));
const KEY_A = new Uint8Array([0x02, 0x61, 0x00]);

Deno.test("a queue message is logged under a key that no client can reach", () => {
  assert.equal(
    hex(queueLogKey("ready", 0x0123_4567_89ab, "id")),
    "ff71" + "00000123456789ab" + "6964",
  );
  assert.equal(
    hex(queueLogKey("running", 1, "x")),
    "ff72" + "0000000000000001" + "78",
  );
});

Deno.test("a queue message is logged as the protocol's Enqueue, byte for byte", () => {
  const message = encodeQueueMessage({
    payload: new Uint8Array([1, 2]),
    deadlineMs: 300,
    keysIfUndelivered: [KEY_A, new Uint8Array(0)],
    backoffScheduleMs: [1, 300],
  });
  const wanted = [
    "0a 02 0102", // payload
    "10 ac02", // deadline
    "1a 03 026100", // keys if undelivered
    "1a 00",
    "20 01", // backoff schedule
    "20 ac02",
  ].join(" ");
  assert.equal(hex(message), hex(unhex(wanted)));
});

Deno.test("a queue message and its key come back as they were", () => {
  for (const size of [0, 1, 127, 128, 65_536]) {
    const message = {
      payload: new Uint8Array(size).fill(size),
      deadlineMs: 4_000_000_000_000 + size,
      keysIfUndelivered: size === 0 ? [] : [KEY_A, new Uint8Array(200)],
      backoffScheduleMs: size === 0 ? [] : [0, 1, 2 ** 40],
    };
    assert.deepEqual(decodeQueueMessage(encodeQueueMessage(message)), message);
  }
  for (const table of ["ready", "running"] as const) {
    const place = { table, timeMs: 2 ** 41 + 7, id: "an id, \u00e9" };
    const key = queueLogKey(table, place.timeMs, place.id);
    assert.deepEqual(readQueueLogKey(key), place);
  }
  // Of a later version, or none at all.
  assert.equal(readQueueLogKey(unhex("ff73 0000000000000001 78")), undefined);
  assert.equal(readQueueLogKey(unhex("ff71 00000000")), undefined);
  assert.equal(readQueueLogKey(unhex("0271 0000000000000001 78")), undefined);
});
