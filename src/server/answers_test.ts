import assert from "node:assert/strict";
import { ManualClock } from "../common/manual_clock.ts";
import {
  Answers,
  MAX_WHOLE_ANSWER_BYTES,
  NotTakenError,
  PIECE_BYTES,
} from "./answers.ts";

const MIB = 1024 * 1024;

function answersOf(maxBytes: number) {
  const clock = new ManualClock(0);
  const memory = { residentBytes: 0 };
  const answers = new Answers({
    clock,
    maxBytes,
    residentBytes: () => memory.residentBytes,
  });
  return { answers, clock, memory };
}

/** A client of one connection that says when it has its answer. */
function client(port = 1) {
  const completed = Promise.withResolvers<void>();
  return {
    remoteAddr: { transport: "tcp" as const, hostname: "127.0.0.1", port },
    completed: completed.promise,
    isDone: async () => {
      completed.resolve();
      await completed.promise;
    },
  };
}

const request = new Request("http://localhost/");

const bytes = (length: number) =>
  Uint8Array.from({ length }, (_, i) => i % 251);

Deno.test("a small answer goes out whole, a large one in pieces that count until they are taken", async () => {
  const { answers } = answersOf(4 * MIB);
  const one = client();
  const small = await answers.respond(
    bytes(MAX_WHOLE_ANSWER_BYTES),
    {},
    request,
    one,
  );
  assert.equal(answers.budget.usedBytes, 0);
  assert.equal((await small.bytes()).length, MAX_WHOLE_ANSWER_BYTES);

  const body = bytes(9 * PIECE_BYTES + 5);
  const large = await answers.respond(
    body,
    { headers: [["x-a", "b"]] },
    request,
    one,
  );
  assert.equal(answers.budget.usedBytes, body.length);
  assert.equal(large.headers.get("content-length"), String(body.length));
  assert.equal(large.headers.get("x-a"), "b");
  const reader = large.body!.getReader();
  const first = (await reader.read()).value!;
  assert.equal(first.length, PIECE_BYTES);
  await reader.read();
  assert.equal(answers.budget.usedBytes, body.length - PIECE_BYTES);
  while (!(await reader.read()).done);
  // What the runtime may still hold counts until it says that it is gone.
  const { usedBytes } = answers.budget;
  assert.ok(usedBytes > PIECE_BYTES && usedBytes <= 3 * PIECE_BYTES);
  await one.isDone();
  assert.equal(answers.budget.usedBytes, 0);
  assert.equal(answers.count, 0);
});

Deno.test("an answer for which there is no room waits until another is taken", async () => {
  const { answers } = answersOf(12 * MIB);
  const one = client();
  const other = client(2);
  const first = await answers.respond(bytes(2 * MIB), {}, request, one);
  const second = answers.respond(bytes(2 * MIB), {}, request, other);
  assert.ok(second instanceof Promise);
  assert.equal(answers.budget.waiting, 1);
  assert.ok(answers.maxReadBytes(client(3)) <= MAX_WHOLE_ANSWER_BYTES);
  assert.equal((await first.bytes()).length, 2 * MIB);
  assert.equal((await (await second).bytes()).length, 2 * MIB);
  await one.isDone();
  await other.isDone();
  assert.equal(answers.budget.usedBytes, 0);
  assert.ok(answers.maxReadBytes(client(3)) > MAX_WHOLE_ANSWER_BYTES);
});

Deno.test("a client that takes nothing is cut off, one that takes its time is not", async () => {
  const { answers, clock } = answersOf(8 * MIB);
  const one = client();
  const taken = (await answers.respond(bytes(MIB), {}, request, one)).body!
    .getReader();
  const left = (await answers.respond(bytes(MIB), {}, request, one)).body!
    .getReader();
  await left.read();
  for (let i = 0; i < 12; i++) {
    await taken.read();
    clock.advance(1000);
  }
  assert.equal(answers.cut, 1);
  await assert.rejects(left.read(), NotTakenError);
  assert.ok((await taken.read()).value);
  assert.ok(answers.budget.usedBytes < MIB, "its room is free again");
  await taken.cancel();
  assert.equal(answers.budget.usedBytes, 0);
});

Deno.test("a client that leaves an answer in the runtime's hands keeps no room from others", async () => {
  const { answers, clock } = answersOf(4 * MIB);
  const one = client();
  const left = await answers.respond(bytes(60_000), {}, request, one);
  const reader = left.body!.getReader();
  while (!(await reader.read()).done);
  assert.equal(answers.budget.usedBytes, 60_000, "it may still be there");
  clock.advance(12_000);
  assert.equal(answers.budget.usedBytes, 0);
  assert.equal(answers.cut, 1);
  await one.isDone();
  assert.equal(answers.budget.usedBytes, 0, "it is given back once");
});

Deno.test("where others wait, whoever takes too little is cut off", async () => {
  const { answers, clock } = answersOf(4 * MIB);
  const one = client();
  const slow = (await answers.respond(bytes(3 * MIB), {}, request, one)).body!
    .getReader();
  await slow.read();
  for (let i = 0; i < 20; i++) {
    clock.advance(1000);
    await slow.read();
  }
  assert.equal(answers.cut, 0, "nobody waited");
  const next = answers.respond(bytes(3 * MIB), {}, request, one);
  clock.advance(1000);
  assert.equal(answers.cut, 1);
  await assert.rejects(slow.read(), NotTakenError);
  assert.equal((await (await next).bytes()).length, 3 * MIB);
});

Deno.test("what waits behind a large read is a large read: other answers have a line of their own", async () => {
  const { answers } = answersOf(4 * MIB);
  const { largeReads } = answers;
  await largeReads.take(64 * MIB);
  const next = largeReads.take(64 * MIB);
  assert.equal(largeReads.waiting, 1);
  const one = client();
  assert.ok(answers.maxReadBytes(one) > MAX_WHOLE_ANSWER_BYTES);
  const answer = await answers.respond(bytes(MIB), {}, request, one);
  assert.equal((await answer.bytes()).length, MIB);
  await one.isDone();
  assert.equal(answers.budget.usedBytes, 0);
  largeReads.give(64 * MIB);
  await next;
});

Deno.test("while memory is short, small answers count and can be cut off too", async () => {
  const { answers, clock, memory } = answersOf(4 * MIB);
  assert.ok(answers.isSmall(10_000));
  memory.residentBytes = 1024 * MIB;
  assert.ok(answers.isSmall(10_000), "it is not looked at for every answer");
  clock.advance(1000);
  assert.ok(!answers.isSmall(10_000));
  assert.ok(answers.isSmall(300), "an error's sentence always goes out");
  const one = client();
  const answer = await answers.respond(bytes(10_000), {}, request, one);
  assert.equal((await answer.bytes()).length, 10_000);
  assert.equal(answers.budget.usedBytes, 10_000);
  await one.isDone();
  assert.equal(answers.budget.usedBytes, 0);
  memory.residentBytes = 0;
  clock.advance(1000);
  assert.ok(answers.isSmall(10_000));
});

Deno.test("a client that goes away while it waits leaves the line", async () => {
  const { answers } = answersOf(4 * MIB);
  const one = client();
  const first = await answers.respond(bytes(3 * MIB), {}, request, one);
  const gone = new AbortController();
  const waiting = answers.take(
    3 * MIB,
    new Request("http://localhost/", { signal: gone.signal }),
    client(2),
  );
  assert.equal(answers.budget.waiting, 1);
  gone.abort();
  await assert.rejects(waiting);
  assert.equal(answers.budget.waiting, 0);
  await first.body!.cancel();
  assert.equal(answers.budget.usedBytes, 0);
});
