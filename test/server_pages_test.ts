/** What the server says of itself, and to whom. */
import assert from "node:assert/strict";
import { once } from "node:events";
import http2 from "node:http2";
import {
  ACCESS_TOKEN,
  REST_SECRET,
  ServerProcess,
  TestFolder,
} from "./support/server.ts";

const BEARER = { authorization: `Bearer ${ACCESS_TOKEN}` };

async function withServer(
  args: string[],
  test: (server: ServerProcess) => Promise<void>,
): Promise<void> {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({
    path: folder.database,
    args,
  });
  await test(server);
  assert.equal((await server.stop()).code, 0, server.lastWords);
}

Deno.test("a wrong secret is told apart from a missing one, counted, and logged once in a while", () =>
  withServer([], async (server) => {
    const ask = (path: string, init: RequestInit) =>
      fetch(`${server.url}${path}`, init);
    const cases: [path: string, method: string][] = [
      ["/", "POST"],
      ["/a", "POST"],
      ["/a", "GET"],
      ["/-/backup/snapshot", "POST"],
    ];
    for (const [path, method] of cases) {
      const missing = await ask(path, { method });
      assert.equal(missing.status, 401);
      const missingText = await missing.text();
      assert.match(missingText, /missing|need a secret/, path);
      assert.doesNotMatch(missingText, /wrong/);
      const wrong = await ask(path, {
        method,
        headers: { authorization: "Bearer a wrong one of a good length" },
      });
      assert.equal(wrong.status, 401);
      const wrongText = await wrong.text();
      assert.match(wrongText, /wrong/, path);
      assert.doesNotMatch(wrongText, /missing/);
    }
    await server.logged(/A wrong secret was sent/);
    const metrics = await server.metrics();
    assert.equal(metrics.get('denokv_unauthorized_total{secret="missing"}'), 4);
    assert.equal(metrics.get('denokv_unauthorized_total{secret="wrong"}'), 4);
    assert.equal(server.lastWords.match(/A wrong secret/g)!.length, 1);
    assert.doesNotMatch(server.lastWords, /a good length/);
  }));

Deno.test("a refusal over HTTP/2 does not overtake the request's body", () =>
  withServer([], async (server) => {
    const session = http2.connect(server.url);
    await once(session, "connect");
    const ping = () =>
      new Promise<void>((resolve, reject) => {
        session.ping((error) => error ? reject(error) : resolve());
      });
    try {
      const stream = session.request({ ":method": "POST", ":path": "/key" });
      let wasReset = false;
      stream.on("aborted", () => wasReset = true);
      const answered = once(stream, "response");
      // The headers are there long before the body is.
      for (let i = 0; i < 20; i++) await ping();
      stream.end("value");
      const [headers] = await answered;
      assert.equal(headers[":status"], 401);
      stream.resume();
      await once(stream, "close");
      assert.equal(wasReset, false, "the stream was reset");
    } finally {
      session.destroy();
    }
  }));

Deno.test("the access log has a line for each request, and no secret", () =>
  withServer(["--access-log", "--log-format", "json"], async (server) => {
    const headers = { authorization: REST_SECRET };
    await fetch(`${server.url}/a%20b/c?x=1`, { headers }).then((answer) =>
      answer.text()
    );
    await fetch(`${server.url}/`, { method: "POST", headers: BEARER })
      .then((answer) => answer.text());
    await server.logged(/"path":"\/"/);
    const lines = server.lastWords.trim().split("\n")
      .map((line) => JSON.parse(line))
      .filter(({ message }) => message === "request");
    assert.deepEqual(
      lines.map(({ method, path, status }) => [method, path, status]),
      [["GET", "/a%20b/c", 400], ["POST", "/", 200]],
    );
    for (const { from, tookMs } of lines) {
      assert.match(from, /^127\.0\.0\.1:\d+$/);
      assert.ok(tookMs > 0);
    }
    assert.doesNotMatch(server.lastWords, /denorocks|an access token/);
  }));

Deno.test("without --access-log a request leaves no line", () =>
  withServer([], async (server) => {
    const lines = server.loggedLines;
    await fetch(`${server.url}/-/health`).then((answer) => answer.text());
    assert.equal(server.loggedLines, lines);
  }));

Deno.test("readiness tells a stranger that it is ready, and no more than a word about why not", () =>
  withServer([], async (server) => {
    const ready = await (await fetch(`${server.url}/-/ready`)).json();
    assert.deepEqual(ready, { status: "ready" });
    const owner = await fetch(`${server.url}/-/ready`, { headers: BEARER });
    assert.deepEqual(await owner.json(), { status: "ready" });
  }));

Deno.test("a page of an origin that is named may use REST, another may not", () =>
  withServer(
    ["--cors-origin", "https://app.example, http://localhost:3000"],
    async (server) => {
      const preflight = (origin: string) =>
        fetch(`${server.url}/a`, {
          method: "OPTIONS",
          headers: {
            origin,
            "access-control-request-method": "PUT",
            "access-control-request-headers": "authorization,content-type",
          },
        });
      for (const origin of ["https://app.example", "http://localhost:3000"]) {
        const asked = await preflight(origin);
        assert.equal(asked.status, 204);
        const header = (name: string) =>
          asked.headers.get(`access-control-${name}`);
        assert.equal(header("allow-origin"), origin);
        assert.match(header("allow-methods")!, /\bPUT\b/);
        assert.match(header("allow-headers")!, /authorization.*content-type/);
        assert.equal(header("allow-credentials"), null);
        assert.equal(asked.headers.get("vary"), "origin");
        const put = await fetch(`${server.url}/a`, {
          method: "PUT",
          body: "x",
          headers: { ...BEARER, origin },
        });
        await put.body?.cancel();
        assert.equal(put.status, 200);
        assert.equal(put.headers.get("access-control-allow-origin"), origin);
        // Also what is refused can be read by the page.
        const refused = await fetch(`${server.url}/a`, { headers: { origin } });
        await refused.body?.cancel();
        assert.equal(refused.status, 401);
        assert.equal(
          refused.headers.get("access-control-allow-origin"),
          origin,
        );
        const read = await fetch(`${server.url}/a`, {
          headers: { ...BEARER, origin },
        });
        assert.match(
          read.headers.get("access-control-expose-headers")!,
          /etag/,
        );
        await read.body?.cancel();
      }
      for (const origin of ["https://evil.example", "null"]) {
        const asked = await preflight(origin);
        assert.equal(asked.status, 204);
        assert.equal(asked.headers.get("access-control-allow-origin"), null);
        assert.equal(asked.headers.get("access-control-allow-methods"), null);
      }
      // An OPTIONS that is no such question is refused as ever.
      const other = await fetch(`${server.url}/a`, { method: "OPTIONS" });
      await other.body?.cancel();
      assert.equal(other.status, 405);
    },
  ));

Deno.test("without --cors-origin no page may, and no header tells of it", () =>
  withServer([], async (server) => {
    const headers = { ...BEARER, origin: "https://app.example" };
    const asked = await fetch(`${server.url}/a`, {
      method: "OPTIONS",
      headers: { ...headers, "access-control-request-method": "PUT" },
    });
    assert.equal(asked.headers.get("access-control-allow-origin"), null);
    const read = await fetch(`${server.url}/a`, { headers });
    await read.body?.cancel();
    assert.equal(read.headers.get("access-control-allow-origin"), null);
  }));

Deno.test("an origin that is none is a mistake of the command line", async () => {
  await using folder = await TestFolder.make();
  for (
    const origin of ["app.example", "https://app.example/", "https://a, x"]
  ) {
    const server = ServerProcess.starting({
      path: folder.database,
      args: ["--cors-origin", origin],
    });
    assert.equal(await server.exitCode, 2);
    assert.match(server.lastWords, /--cors-origin needs origins such as/);
  }
});
