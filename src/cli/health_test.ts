import assert from "node:assert/strict";
import { systemClock } from "../common/clock.ts";
import { health } from "./health.ts";

async function ask(
  port: number,
  clock = systemClock,
): Promise<{ code: number; text: string }> {
  const lines: string[] = [];
  const code = await health(
    { address: { hostname: "127.0.0.1", port } },
    { out: (line) => lines.push(line), err: (line) => lines.push(line) },
    clock,
  );
  return { code, text: lines.join("\n") };
}

function serve(answer: (request: Request) => Response | Promise<Response>) {
  return Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    answer,
  );
}

Deno.test("ready is 0, anything else is 1 with the server's own sentence", async () => {
  let isReady = true;
  await using server = serve((request) => {
    assert.equal(new URL(request.url).pathname, "/-/ready");
    return isReady
      ? new Response("ready\n")
      : new Response("The disk is full.\n", { status: 503 });
  });
  const { port } = server.addr;
  assert.deepEqual(await ask(port), {
    code: 0,
    text: `ready: http://127.0.0.1:${port}/-/ready`,
  });
  isReady = false;
  const { code, text } = await ask(port);
  assert.equal(code, 1);
  assert.match(text, /answered 503: The disk is full\.$/);
  await server.shutdown();
  const gone = await ask(port);
  assert.equal(gone.code, 1);
  assert.match(gone.text, /could not be asked/);
});

Deno.test("a server that does not answer is not ready", async () => {
  const { promise, resolve } = Promise.withResolvers<Response>();
  let giveUp = () => {};
  await using server = serve(() => {
    giveUp();
    return promise;
  });
  const { code, text } = await ask(server.addr.port, {
    ...systemClock,
    after(delayMs, fire) {
      assert.equal(delayMs, 5_000);
      giveUp = fire;
      return { stop() {} };
    },
  });
  assert.equal(code, 1);
  assert.match(text, /no answer within 5000 ms/);
  resolve(new Response());
});
