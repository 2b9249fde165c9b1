import assert from "node:assert/strict";
import { StartupError } from "../common/errors.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { changes, type ChangesDeps } from "./changes.ts";
import type { ChangesConfig } from "./config.ts";
import type { CliIo } from "./io.ts";

const FEED =
  '{"type":"heartbeat","versionstamp":"00000000000000010000","newest":"00000000000000020000"}\n' +
  '{"type":"set","versionstamp":"00000000000000020000","last":true}\n' +
  '{"type":"heartbeat","versionstamp":"00000000000000020000","newest":"00000000000000020000"}\n';

const IO: CliIo = { out() {}, err() {} };

/** The command against a server that answers like this. */
async function ran(
  answer: () => Response | Promise<Response>,
  deps: Partial<ChangesDeps>,
): Promise<number> {
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    answer,
  );
  const config: ChangesConfig = {
    url: `http://127.0.0.1:${server.addr.port}`,
    prefixes: [],
    follows: false,
    format: "json",
    heartbeats: false,
  };
  try {
    return await changes(config, IO, {
      write: () => Promise.resolve(),
      signal: new AbortController().signal,
      clock: new ManualClock(0),
      ...deps,
    });
  } finally {
    await server.shutdown();
  }
}

const feed = () =>
  new Response(FEED, { headers: { "content-type": "application/x-ndjson" } });

Deno.test("standard output that cannot be written is an error that says how far it is whole", async () => {
  await assert.rejects(
    ran(feed, {
      write: () => Promise.reject(new Error("No space left on device")),
    }),
    (error) =>
      error instanceof StartupError &&
      /could not be written: No space left.*are missing/.test(error.message),
  );
  // A reader that has enough is none.
  const write = () => Promise.reject(new Deno.errors.BrokenPipe("closed"));
  assert.equal(await ran(feed, { write }), 0);
});

Deno.test("a signal ends it while whoever reads its output takes nothing", async () => {
  const ended = new AbortController();
  const code = await ran(feed, {
    signal: ended.signal,
    write() {
      ended.abort();
      return new Promise(() => {});
    },
  });
  assert.equal(code, 0);
});

Deno.test("a server that takes the request and says nothing is given up", async () => {
  const clock = new ManualClock(0);
  const answer = Promise.withResolvers<Response>();
  await assert.rejects(
    ran(
      () => {
        clock.advance(30_000);
        // Only for the end of this test: the command is gone by then.
        setTimeout(() => answer.resolve(new Response()), 0);
        return answer.promise;
      },
      { clock },
    ),
    /could not be asked: it has not answered for 30 s/,
  );
});
