import assert from "node:assert/strict";
import type { Bytes } from "../common/bytes.ts";
import {
  InvalidRequestError,
  TooLargeError,
  UnavailableError,
} from "../common/errors.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { Bodies, BodyTimeoutError } from "./body.ts";

const MIB = 1024 * 1024;

/** A request whose body the test sends piece by piece. */
function request(claimed?: number, headers: Record<string, string> = {}) {
  let out!: ReadableStreamDefaultController<Bytes>;
  const state = { isCancelled: false };
  const body = new ReadableStream<Bytes>({
    start: (controller) => {
      out = controller;
    },
    cancel: () => {
      state.isCancelled = true;
    },
  });
  const request = new Request("http://localhost/", { method: "POST", body });
  // The runtime's own requests have these headers; this one may not.
  Object.defineProperty(request, "headers", {
    value: new Headers({
      ...headers,
      ...(claimed !== undefined && { "content-length": String(claimed) }),
    }),
  });
  return {
    request,
    state,
    send: async (length: number) => {
      out.enqueue(new Uint8Array(length).fill(7));
      // The reader is a few turns of the microtask queue behind.
      await new Promise((resolve) => setTimeout(resolve));
    },
    end: () => out.close(),
    fail: () => out.error(new Error("gone")),
  };
}

function bodiesOf(maxBytes = 64 * MIB) {
  const clock = new ManualClock(0);
  return { clock, bodies: new Bodies(clock, maxBytes) };
}

Deno.test("a body comes as it was sent, with and without a length", async () => {
  for (const claimed of [undefined, 70_001]) {
    const { bodies } = bodiesOf();
    const one = request(claimed);
    const read = bodies.read(one.request, MIB);
    for (let i = 0; i < 7; i++) await one.send(10_000);
    await one.send(1);
    one.end();
    const whole = await read;
    assert.equal(whole.length, 70_001);
    assert.ok(whole.every((byte) => byte === 7));
    assert.equal(bodies.heldBytes, 0);
    assert.equal(bodies.count, 0);
  }
});

Deno.test("what is claimed takes no memory before it comes", async () => {
  const { bodies } = bodiesOf();
  const requests = Array.from({ length: 100 }, () => request(4 * MIB));
  const refused = requests.map((one) =>
    assert.rejects(bodies.read(one.request, 4 * MIB), InvalidRequestError)
  );
  for (const one of requests) await one.send(10);
  assert.equal(bodies.count, 100);
  assert.ok(bodies.heldBytes <= 100 * 16 * 1024, `${bodies.heldBytes} bytes`);
  for (const one of requests) one.fail();
  await Promise.all(refused);
  assert.equal(bodies.heldBytes, 0);
});

Deno.test("where bodies take too much together, the largest gives way, not the newest", async () => {
  const { bodies } = bodiesOf(4 * MIB);
  const large = request(3 * MIB);
  const refused = assert.rejects(
    bodies.read(large.request, 4 * MIB),
    UnavailableError,
  );
  await large.send(MIB);
  const middle = request(2 * MIB);
  const middleRead = bodies.read(middle.request, 4 * MIB);
  await middle.send(MIB);
  await refused;
  assert.ok(large.state.isCancelled);
  assert.equal(bodies.shed, 1);
  await middle.send(MIB);
  middle.end();
  assert.equal((await middleRead).length, 2 * MIB);
  assert.equal(bodies.heldBytes, 0);
});

Deno.test("a body that does not come in time is given up, and thrown away", async () => {
  const { bodies, clock } = bodiesOf();
  const slow = request(100_000);
  const refused = assert.rejects(
    bodies.read(slow.request, MIB),
    BodyTimeoutError,
  );
  for (let i = 0; i < 30; i++) {
    await slow.send(100);
    clock.advance(1000);
  }
  await refused;
  assert.ok(slow.state.isCancelled);
  assert.equal(bodies.heldBytes, 0);
  assert.equal(bodies.count, 0);
});

Deno.test("a body that is too large is refused at its claim, or when it is", async () => {
  const { bodies } = bodiesOf();
  await assert.rejects(bodies.read(request(1001).request, 1000), TooLargeError);
  const untold = request();
  const refused = assert.rejects(
    bodies.read(untold.request, 20_000),
    TooLargeError,
  );
  await untold.send(15_000);
  await untold.send(5001);
  await refused;
  assert.ok(untold.state.isCancelled);
  assert.equal(bodies.heldBytes, 0);
});

Deno.test("a transfer coding that is not known is refused", async () => {
  const { bodies } = bodiesOf();
  const coded = request(undefined, { "transfer-encoding": "gzip, chunked" });
  await assert.rejects(bodies.read(coded.request, 1000), InvalidRequestError);
  const chunked = request(undefined, { "transfer-encoding": "chunked" });
  const read = bodies.read(chunked.request, 1000);
  await chunked.send(3);
  chunked.end();
  assert.equal((await read).length, 3);
});
