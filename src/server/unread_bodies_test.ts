import assert from "node:assert/strict";
import { ManualClock } from "../common/manual_clock.ts";
import { UnreadBodies } from "./unread_bodies.ts";

function request(headers: Record<string, string> = {}) {
  let out!: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;
  const state = { isCancelled: false };
  const body = new ReadableStream({
    start: (controller) => {
      out = controller;
    },
    cancel: () => {
      state.isCancelled = true;
    },
  });
  const request = new Request("http://localhost/", { method: "POST", body });
  // The runtime's own requests have these headers; this one may not.
  Object.defineProperty(request, "headers", { value: new Headers(headers) });
  return { request, state, out };
}

function setUp() {
  const clock = new ManualClock(0);
  return { clock, bodies: new UnreadBodies(clock) };
}

Deno.test("an answer waits for its request's body, and nothing is kept of it", async () => {
  const { bodies } = setUp();
  const { request: late, state, out } = request({ "content-length": "3" });
  let isOver = false;
  const waits = bodies.discard(late)!.then(() => isOver = true);
  out.enqueue(new Uint8Array(2));
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(isOver, false);
  out.enqueue(new Uint8Array(1));
  out.close();
  await waits;
  assert.equal(state.isCancelled, false);
});

Deno.test("a body that does not come is waited for a second", async () => {
  const { clock, bodies } = setUp();
  const { request: late, state } = request();
  const waits = bodies.discard(late);
  await clock.advance(999);
  assert.equal(state.isCancelled, false);
  await clock.advance(1);
  await waits;
  assert.equal(state.isCancelled, true);
});

Deno.test("large bodies, and more than 256 at once, are not waited for", async () => {
  const { clock, bodies } = setUp();
  const claimed = request({ "content-length": "1048577" });
  assert.equal(bodies.discard(claimed.request), undefined);
  assert.equal(claimed.state.isCancelled, true);
  const longer = request();
  const waits = bodies.discard(longer.request);
  longer.out.enqueue(new Uint8Array(1_048_577));
  await waits;
  assert.equal(longer.state.isCancelled, true);
  const waiting = Array.from({ length: 256 }, () => {
    const { request: one } = request();
    return bodies.discard(one);
  });
  const tooMany = request();
  assert.equal(bodies.discard(tooMany.request), undefined);
  assert.equal(tooMany.state.isCancelled, true);
  await clock.advance(1000);
  await Promise.all(waiting);
});

Deno.test("a client that leaves, and a request without a body, hold nothing up", async () => {
  const { bodies } = setUp();
  const gone = request();
  const waits = bodies.discard(gone.request);
  gone.out.error(new Error("gone"));
  await waits;
  assert.equal(bodies.discard(new Request("http://localhost/")), undefined);
});
