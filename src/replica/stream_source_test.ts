import assert from "node:assert/strict";
import { systemClock } from "../common/clock.ts";
import { withDeadline } from "../common/deadline.ts";
import { StartupError, UnavailableError } from "../common/errors.ts";
import { encodeFrame } from "../log/frames.ts";
import type { Position } from "./source.ts";
import { StreamSource } from "./stream_source.ts";

const OURS = "00000000-0000-4000-8000-000000000000";
const OTHERS = "11111111-0000-4000-8000-000000000000";
const AT: Position = { version: 20, timeMs: 0, epoch: 3, place: "stream" };
const { signal } = new AbortController();

/** Whatever stands at the primary's address answers so. */
async function asking(
  answer: (path: string) => Response,
  body: (source: StreamSource) => Promise<void>,
): Promise<void> {
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    (request) => answer(new URL(request.url).pathname),
  );
  const source = new StreamSource({
    url: `http://127.0.0.1:${server.addr.port}`,
    accessToken: "a token",
    clock: systemClock,
    databaseId: () => OURS,
  });
  try {
    await body(source);
  } finally {
    await source.close();
    await server.shutdown();
  }
}

function of(databaseId: string, epoch: number): Record<string, string> {
  return { "x-denokv-database-id": databaseId, "x-denokv-epoch": `${epoch}` };
}

Deno.test("that a version never was is believed of this database's owner alone", async () => {
  let headers: Record<string, string> = of(OURS, 3);
  const never = () =>
    new Response("It was never there.\nMore.", { status: 409, headers });
  await asking(never, async (source) => {
    assert.deepEqual(await source.next(AT, signal), {
      kind: "beginAnew",
      why: "It was never there.",
    });
    headers = of(OTHERS, 9);
    await assert.rejects(source.next(AT, signal), (error: Error) => {
      assert.ok(error instanceof StartupError);
      assert.match(error.message, /serves another database/);
      return true;
    });
    headers = of(OURS, 2);
    await assert.rejects(source.next(AT, signal), (error: Error) => {
      assert.ok(error instanceof UnavailableError);
      assert.match(error.message, /is an earlier owner/);
      return true;
    });
    headers = {};
    await assert.rejects(
      source.next(AT, signal),
      /does not answer as a denokv/,
    );
  });
});

Deno.test("another database's first copy is left where it is", async () => {
  const left = Promise.withResolvers<void>();
  const copy = () =>
    new Response(
      new ReadableStream({
        start(controller) {
          const sizeBytes = 2 ** 30;
          controller.enqueue(
            encodeFrame({ kind: "snapshot", version: 30, sizeBytes }),
          );
        },
        cancel: () => left.resolve(),
      }),
      { headers: of(OTHERS, 3) },
    );
  await asking(copy, async (source) => {
    await assert.rejects(source.snapshot(signal), /serves another database/);
    // It would hold one of few places at the primary.
    await withDeadline(systemClock, 30_000, "It is still held.", left.promise);
  });
});

Deno.test("an answer of something else is told, however long it goes on", async () => {
  const html = () => new Response("<html>Welcome!</html>");
  await asking(html, async (source) => {
    const pattern = /does not answer as a denokv server/;
    await assert.rejects(source.next(AT, signal), pattern);
    await assert.rejects(source.snapshot(signal), pattern);
  });
  const endless = () =>
    new Response(
      new ReadableStream({
        start(controller) {
          controller.enqueue(new TextEncoder().encode("Come back later.\n"));
        },
      }),
      { status: 502 },
    );
  await asking(endless, async (source) => {
    for (const ask of ["next", "snapshot"] as const) {
      const asked: Promise<unknown> = ask === "next"
        ? source.next(AT, signal)
        : source.snapshot(signal);
      await assert.rejects(
        withDeadline(systemClock, 60_000, "It waits for the rest.", asked),
        /Come back later/,
      );
    }
  });
});
