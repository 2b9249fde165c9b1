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
    return isReady ? Response.json({ status: "ready" }) : Response.json(
      { status: "not ready", reason: "The disk is full." },
      { status: 503 },
    );
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
  assert.match(gone.text, /could not be asked\. Nothing listens there\.$/);
});

Deno.test("a standby is well, and says what it is", async () => {
  await using server = serve(() =>
    Response.json({ status: "not ready", cause: "standby" }, { status: 503 })
  );
  const { port } = server.addr;
  assert.deepEqual(await ask(port), {
    code: 0,
    text: `standby: http://127.0.0.1:${port}/-/ready`,
  });
});

Deno.test("another program at the address is not taken for a server that is ready", async () => {
  for (
    const answer of [
      () => new Response("ready"),
      () => new Response("<!DOCTYPE HTML>\n<h1>Welcome</h1>"),
      () => Response.json({ ok: true }),
      () => Response.json(null),
      () => new Response("<h1>404</h1>", { status: 404 }),
      () => Response.redirect("http://127.0.0.1:1/", 302),
    ]
  ) {
    await using server = serve(answer);
    const { code, text } = await ask(server.addr.port);
    assert.equal(code, 1);
    assert.match(text, /not as a denokv server does.*check --addr\.$/);
    assert.doesNotMatch(text, /<|\n/);
  }
});

Deno.test("an answer without an end is not read to its end", async () => {
  await using server = serve(() =>
    new Response(
      new ReadableStream({
        pull: (controller) => controller.enqueue(new Uint8Array(10_000)),
      }),
    )
  );
  assert.equal((await ask(server.addr.port)).code, 1);
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
