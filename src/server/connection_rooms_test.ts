import assert from "node:assert/strict";
import { UnavailableError } from "../common/errors.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { ConnectionRooms, MAX_CONNECTION_BYTES } from "./connection_rooms.ts";

function client(port = 1) {
  const { promise, resolve } = Promise.withResolvers<void>();
  return {
    remoteAddr: { transport: "tcp" as const, hostname: "127.0.0.1", port },
    completed: promise,
    isDone: async () => {
      resolve();
      await promise;
    },
  };
}

const { signal } = new AbortController();

Deno.test("what one connection does not take keeps its own answers waiting, and nobody else's", async () => {
  const rooms = new ConnectionRooms(new ManualClock(0));
  const first = client();
  assert.ok(rooms.tryTake(first, MAX_CONNECTION_BYTES));
  assert.ok(rooms.tryTake(first, MAX_CONNECTION_BYTES), "it has it already");
  const second = client();
  assert.ok(rooms.isSpent(second));
  assert.ok(!rooms.tryTake(second, 1));
  const waiting = rooms.take(second, 1, signal);
  const other = client(2);
  assert.ok(!rooms.isSpent(other));
  assert.ok(rooms.tryTake(other, MAX_CONNECTION_BYTES));
  await first.isDone();
  await waiting;
  await second.isDone();
  await other.isDone();
  assert.equal(rooms.size, 0, "nothing is kept of connections");
});

Deno.test("who waits for a connection that takes nothing is refused in time, or leaves", async () => {
  const clock = new ManualClock(0);
  const rooms = new ConnectionRooms(clock);
  const stuck = client();
  assert.ok(rooms.tryTake(stuck, MAX_CONNECTION_BYTES));
  const late = assert.rejects(
    rooms.take(client(), 1, signal),
    (error) =>
      error instanceof UnavailableError && /not taken/.test(error.message),
  );
  const leaving = new AbortController();
  const gone = assert.rejects(rooms.take(client(), 1, leaving.signal));
  leaving.abort();
  await gone;
  clock.advance(15_000);
  await late;
  await stuck.isDone();
  assert.equal(rooms.size, 0);
});

Deno.test("so many wait on all connections, and no more", async () => {
  const rooms = new ConnectionRooms(new ManualClock(0));
  const stuck = client();
  assert.ok(rooms.tryTake(stuck, MAX_CONNECTION_BYTES));
  const waiting = Array.from({ length: 1024 }, () => {
    const next = client();
    return rooms.take(next, 1, signal).then(() => next.isDone());
  });
  await assert.rejects(rooms.take(client(), 1, signal), UnavailableError);
  await stuck.isDone();
  await Promise.all(waiting);
  assert.equal(rooms.size, 0);
});
