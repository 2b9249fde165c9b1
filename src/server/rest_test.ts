import assert from "node:assert/strict";
import { type Bytes, byteString, utf8 } from "../common/bytes.ts";
import { systemClock } from "../common/clock.ts";
import { InvalidRequestError, TooLargeError } from "../common/errors.ts";
import { encodeKey } from "../protocol/key.ts";
import {
  Encoding,
  type Entry,
  MutationType,
  type WriteOutcome,
} from "../protocol/messages.ts";
import { StoredMap } from "../protocol/stored_value.ts";
import { TYPED_JSON_TYPE } from "../protocol/typed_json.ts";
import { encodeV8 } from "../protocol/v8_encode.ts";
import { MAX_VALUE_DEPTH } from "../protocol/v8_format.ts";
import { decodeValue } from "../protocol/v8_value.ts";
import type { Store } from "../store/store.ts";
import { createAccess } from "./access.ts";
import { Answers } from "./answers.ts";
import { Bodies } from "./body.ts";
import type { Client } from "./client.ts";
import { MinVersions } from "./min_version.ts";
import { text } from "./responses.ts";
import { createRest, type RestDeps } from "./rest.ts";

const CLIENT: Client = {
  remoteAddr: { transport: "tcp", hostname: "127.0.0.1", port: 1 },
  completed: Promise.resolve(),
};
const SECRET = "denorocks";
const TOKEN = "an access token";

/** The least that a store is: what REST asks of one, in memory. */
class MapStore {
  isReadOnly = false;
  /** Answer reads with a promise, as an engine across a network does. */
  isRemote = false;
  outcome: WriteOutcome | undefined;
  #entries = new Map<string, Entry>();
  #version = 0;

  readonly read: RestDeps["store"]["read"] = (ranges) => {
    const found = ranges.map((range) => {
      assert(range.isPoint && range.limit === 1);
      const entry = this.#entries.get(byteString(range.start));
      return entry ? [entry] : [];
    });
    return this.isRemote ? Promise.resolve(found) : found;
  };

  readonly write: RestDeps["store"]["write"] = (write) => {
    if (this.outcome) return Promise.resolve(this.outcome);
    const version = ++this.#version;
    for (const { type, key, value, encoding } of write.mutations) {
      if (type === MutationType.DELETE) {
        this.#entries.delete(byteString(key));
      } else this.put(key, value, encoding, version);
    }
    return Promise.resolve({ status: "committed", version, order: 0 });
  };

  put(key: Bytes, value: Bytes, encoding: Encoding, version = 99): void {
    const entry = { key, value, encoding, version, order: 0 };
    this.#entries.set(byteString(key), entry);
  }

  get(...parts: string[]): Entry | undefined {
    return this.#entries.get(byteString(encodeKey(parts)));
  }
}

interface Served {
  url: string;
  store: MapStore;
  send(
    method: string,
    path: string,
    init?: RequestInit & { headers?: Record<string, string> },
  ): Promise<Response>;
}

/** A server with the router's treatment of errors, and nothing else of it. */
async function serve(
  run: (served: Served) => Promise<void>,
  options: { publicReads?: boolean; noSecret?: boolean } = {},
): Promise<void> {
  const store = new MapStore();
  const access = createAccess({
    restSecret: options.noSecret ? undefined : SECRET,
    accessToken: options.noSecret ? undefined : TOKEN,
    publicReads: options.publicReads ?? true,
  });
  const rest = createRest({
    store,
    access,
    bodies: new Bodies(systemClock),
    answers: new Answers({ clock: systemClock, maxBytes: 2 ** 27 }),
    minVersions: new MinVersions(store as unknown as Store, systemClock),
  });
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async (request) => {
      const target = request.url.replace(/^http:\/\/[^/]*/, "");
      const at = target.indexOf("?");
      const path = at < 0 ? target : target.slice(0, at);
      try {
        return await rest.handle(
          request,
          path,
          at < 0 ? "" : target.slice(at + 1),
          CLIENT,
        );
      } catch (error) {
        if (error instanceof InvalidRequestError) {
          return text(400, error.message);
        }
        if (error instanceof TooLargeError) return text(413, error.message);
        throw error;
      }
    },
  );
  const url = `http://127.0.0.1:${server.addr.port}`;
  try {
    await run({
      url,
      store,
      send: (method, path, init = {}) =>
        fetch(url + path, {
          ...init,
          method,
          headers: { authorization: SECRET, ...init.headers },
        }),
    });
  } finally {
    await server.shutdown();
  }
}

async function curl(...args: string[]): Promise<string> {
  const command = new Deno.Command("curl", {
    args: ["--silent", "--path-as-is", ...args],
  });
  return new TextDecoder().decode((await command.output()).stdout);
}

Deno.test("the first system's session, word for word", async () => {
  await serve(async ({ url, store }) => {
    const answer = await curl(
      ...["--data-binary", "bar", "-X", "POST"],
      ...["-H", "Authorization: denorocks", `${url}/foo`],
    );
    assert.equal(answer, '{"ok":true,"versionstamp":"00000000000000010000"}');
    assert.equal(await curl(`${url}/foo`), "bar");
    assert.equal(decodeValue(store.get("foo")!).value, "bar");
  });
});

Deno.test("a value is read as what it was written", async () => {
  await serve(async ({ store, send }) => {
    const cases: [
      type: string | undefined,
      body: string | Bytes,
      answerType: string,
      answer?: string | Bytes,
    ][] = [
      ["text/plain", "bär ☃", "text/plain; charset=utf-8"],
      ["text/html; charset=utf-8", "<b>", "text/plain; charset=utf-8"],
      ["TEXT/Csv", "", "text/plain; charset=utf-8"],
      ["text/plain", "\ufeffa", "text/plain; charset=utf-8"],
      [undefined, utf8("no type"), "text/plain; charset=utf-8"],
      [undefined, Uint8Array.of(0xff, 0), "application/octet-stream"],
      ["text/plain", Uint8Array.of(0xc3, 0x28), "application/octet-stream"],
      ["application/octet-stream", "text", "application/octet-stream"],
      ["image/png", Uint8Array.of(0x89), "application/octet-stream"],
      ["application/octet-stream", "", "application/octet-stream"],
      [
        "application/json",
        ' { "a" : [1, -0, 1e2] }',
        "application/json",
        '{"a":[1,-0,100]}',
      ],
      ["application/json", "\ufeffnull", "application/json", "null"],
      ["application/ld+json", "[]", "application/json"],
      [
        "application/json",
        '{"__proto__":1,"5":2}',
        "application/json",
        '{"5":2,"__proto__":1}',
      ],
      ["application/json", '{"$date":1}', "application/json"],
      ["application/json", '"text"', "text/plain; charset=utf-8", "text"],
      ["application/json", '"\\ud800"', "application/json"],
      [TYPED_JSON_TYPE, '{"$bigint":"5"}', TYPED_JSON_TYPE],
      [TYPED_JSON_TYPE, '{"$kvu64":"5"}', TYPED_JSON_TYPE],
      [TYPED_JSON_TYPE, '{"$map":[[{"$undefined":null},1]]}', TYPED_JSON_TYPE],
      [TYPED_JSON_TYPE, '{"a":{"$ref":""}}', TYPED_JSON_TYPE],
      [TYPED_JSON_TYPE, '{"$$date":1}', "application/json", '{"$date":1}'],
      [
        TYPED_JSON_TYPE,
        '{"$uint8array":"AQI="}',
        "application/octet-stream",
        Uint8Array.of(1, 2),
      ],
    ];
    for (const [type, body, answerType, answer] of cases) {
      const hint = `${type} ${body}`;
      const headers: Record<string, string> = type
        ? { "content-type": type }
        : {};
      const put = await send("PUT", "/k", { body, headers });
      assert.equal(put.status, 200, hint);
      const { ok, versionstamp } = await put.json();
      assert.equal(ok, true);
      const get = await send("GET", "/k");
      assert.equal(get.status, 200, hint);
      assert.equal(get.headers.get("content-type"), answerType, hint);
      assert.equal(get.headers.get("etag"), `"${versionstamp}"`);
      assert.equal(get.headers.get("cache-control"), "no-cache");
      assert.equal(get.headers.get("x-content-type-options"), "nosniff");
      assert.equal(
        get.headers.get("content-security-policy"),
        "sandbox; default-src 'none'",
      );
      const expected = answer ?? body;
      const bytes = typeof expected === "string" ? utf8(expected) : expected;
      assert.deepEqual(new Uint8Array(await get.arrayBuffer()), bytes, hint);

      const head = await send("HEAD", "/k");
      assert.equal(head.status, 200);
      for (const name of ["content-type", "etag", "content-length"]) {
        assert.equal(head.headers.get(name), get.headers.get(name), hint);
      }
      assert.equal(head.headers.get("content-length"), `${bytes.length}`);
    }
    assert.equal(store.get("k")!.encoding, Encoding.BYTES);
  });
});

Deno.test("DELETE removes, twice as well as once; a missing key is a 404", async () => {
  await serve(async ({ send }) => {
    await send("PUT", "/a/b", { body: "x" }).then((r) => r.body?.cancel());
    for (const version of ["2", "3"]) {
      const answer = await send("DELETE", "/a/b");
      assert.equal(answer.status, 200);
      assert.equal(
        await answer.text(),
        `{"ok":true,"versionstamp":"000000000000000${version}0000"}`,
      );
    }
    const get = await send("GET", "/a/b");
    assert.equal(get.status, 404);
    assert.match(await get.text(), /^There is no value at this key\.$/m);
    assert.equal((await send("HEAD", "/a/b")).status, 404);
  });
});

Deno.test("reads that wait for their store are answered alike", async () => {
  await serve(async ({ send, store }) => {
    store.isRemote = true;
    await send("PUT", "/a", { body: "x" }).then((r) => r.body?.cancel());
    assert.equal(await (await send("GET", "/a")).text(), "x");
    const missing = await send("GET", "/b");
    assert.equal(missing.status, 404);
    await missing.body?.cancel();
  });
});

Deno.test("a client that has the value is not sent it again", async () => {
  await serve(async ({ send }) => {
    await send("PUT", "/a", { body: "x" }).then((r) => r.body?.cancel());
    const etag = '"00000000000000010000"';
    for (const tag of [etag, `W/${etag}`, `"x", ${etag}`, "*"]) {
      for (const method of ["GET", "HEAD"]) {
        const headers = { "if-none-match": tag };
        const answer = await send(method, "/a", { headers });
        assert.equal(answer.status, 304, tag);
        assert.equal(answer.headers.get("etag"), etag);
        assert.equal(await answer.text(), "");
      }
    }
    const headers = { "if-none-match": '"00000000000000020000"' };
    const answer = await send("GET", "/a", { headers });
    assert.equal(answer.status, 200);
    assert.equal(await answer.text(), "x");
    const missing = await send("GET", "/b", {
      headers: { "if-none-match": "*" },
    });
    assert.equal(missing.status, 404);
    await missing.body?.cancel();
  });
});

Deno.test("who may read and write", async () => {
  const bearer = (secret: string) => `Bearer ${secret}`;
  await serve(async ({ send }) => {
    for (const authorization of [SECRET, bearer(SECRET), bearer(TOKEN)]) {
      const headers = { authorization };
      const put = await send("PUT", "/a", { body: "x", headers });
      assert.equal(put.status, 200);
      await put.body?.cancel();
      const get = await send("GET", "/a", { headers });
      assert.equal(await get.text(), "x");
    }
    for (const authorization of ["", "wrong", TOKEN, bearer("wrong")]) {
      for (const method of ["GET", "HEAD", "PUT", "POST", "DELETE"]) {
        const answer = await send(method, "/a", { headers: { authorization } });
        assert.equal(answer.status, 401, `${method} ${authorization}`);
        assert.equal(answer.headers.get("www-authenticate"), "Bearer");
        await answer.body?.cancel();
      }
    }
  }, { publicReads: false });

  await serve(async ({ send }) => {
    const headers = { authorization: "" };
    const put = await send("POST", "/a", { body: "x", headers });
    assert.equal(put.status, 401);
    assert.match(await put.text(), /KVSTORE_SECRET.*Nothing was done\.$/m);
    const get = await send("GET", "/a", { headers });
    assert.equal(get.status, 404);
    await get.body?.cancel();
  });

  await serve(async ({ send }) => {
    const put = await send("POST", "/a", { body: "x" });
    assert.equal(put.status, 403);
    assert.match(await put.text(), /^Writes over REST are off: /);
    const get = await send("GET", "/a");
    assert.equal(get.status, 403);
    assert.match(await get.text(), /^Reads over REST are off: /);
  }, { publicReads: false, noSecret: true });
});

Deno.test("a read-only store takes no writes", async () => {
  await serve(async ({ send, store }) => {
    const refused = async () => {
      for (const method of ["PUT", "DELETE"]) {
        const answer = await send(method, "/a");
        assert.equal(answer.status, 403);
        assert.match(await answer.text(), /read-only/);
      }
    };
    store.outcome = { status: "writeDisabled" };
    await refused();
    store.isReadOnly = true;
    await refused();
  });
});

Deno.test("what the API does not do is refused, never ignored", async () => {
  await serve(async ({ send, url, store }) => {
    for (const method of ["PATCH", "OPTIONS", "PROPFIND"]) {
      const answer = await send(method, "/a");
      assert.equal(answer.status, 405);
      assert.equal(
        answer.headers.get("allow"),
        "GET, HEAD, POST, PUT, DELETE",
      );
      await answer.body?.cancel();
    }
    const refused: [string, string, Record<string, string>, string?][] = [
      ["PUT", "/a", { "if-match": '"1"' }],
      ["PUT", "/a", { "if-none-match": "*" }],
      ["DELETE", "/a", { "if-match": "*" }],
      ["POST", "/a", { "content-range": "bytes 0-1/2" }],
      ["POST", "/a", { "content-encoding": "gzip" }],
      ["POST", "/a?expireIn=5", {}],
      ["GET", "/a?x", {}],
      ["GET", "/%", {}],
      ["PUT", "/%FF", {}],
      ["PUT", "/a", { "content-type": "application/json" }, "{"],
      ["PUT", "/a", { "content-type": "application/json" }, ""],
      ["PUT", "/a", { "content-type": "application/json" }, "1e999"],
      ["PUT", "/a", { "content-type": "application/json" }, "NaN"],
      ["PUT", "/a", { "content-type": TYPED_JSON_TYPE }, '{"$nope":1}'],
      ["PUT", "/a", { "content-type": TYPED_JSON_TYPE }, '[{"$kvu64":"1"}]'],
      ["PUT", "/a", { "content-type": TYPED_JSON_TYPE }, '{"$kvu64":"-1"}'],
      ["PUT", "/a", { "content-type": TYPED_JSON_TYPE }, '{"$date":"today"}'],
      ["PUT", "/a", { "content-type": TYPED_JSON_TYPE }, '{"$ref":""}'],
    ];
    for (const [method, path, headers, body] of refused) {
      const answer = await send(method, path, { headers, body });
      const hint = `${method} ${path} ${JSON.stringify(headers)} ${body}`;
      assert.equal(answer.status, 400, hint);
      assert.match(await answer.text(), /^[A-Z"$].*\.\n$/, hint);
    }
    assert.match(await curl(`${url}/`), /names none/);
    assert.equal(store.get("a"), undefined);
  });
});

Deno.test("a value is limited to 65536 bytes as it is stored", async () => {
  await serve(async ({ send }) => {
    const json = { "content-type": "application/json" };
    const bytes = { "content-type": "application/octet-stream" };
    const cases: [Record<string, string>, string | Bytes, number][] = [
      [bytes, new Uint8Array(65_536), 200],
      [bytes, new Uint8Array(65_537), 413],
      // The stored form of a string of that length begins with 6 bytes.
      [{}, "x".repeat(65_530), 200],
      [{}, "x".repeat(65_531), 413],
      [{}, "ü".repeat(65_530), 200],
      [{}, "☃".repeat(40_000), 413],
      [{}, "x".repeat(600_000), 413],
      [json, `"${"\\u0041".repeat(65_530)}"`, 200],
      [json, `[${"1,".repeat(32_000)}1]`, 200],
      [json, `[${"1,".repeat(33_000)}1]`, 413],
      [json, `["${"☃".repeat(40_000)}"]`, 413],
    ];
    for (const [headers, body, status] of cases) {
      const answer = await send("PUT", "/a", { body, headers });
      assert.equal(answer.status, status, `${body.length} ${body.slice(0, 9)}`);
      await answer.body?.cancel();
    }
    // What does not fit is told how much would.
    const says: [Record<string, string>, string | Bytes, RegExp][] = [
      [bytes, new Uint8Array(70_000), /body may have at most 65536 bytes/],
      [{}, "x".repeat(65_531), /body of ASCII text may have 65530 bytes/],
      [{}, new Uint8Array(70_000).fill(0xff), /bytes may have 65536 of them/],
      [{}, "x".repeat(140_000), /body may have at most 131060 bytes/],
      [
        json,
        `"${"x".repeat(70_000)}"`,
        /at most 65536 bytes where it is stored/,
      ],
      [json, `"${"x".repeat(600_000)}"`, /body may have at most 524288 bytes/],
    ];
    for (const [headers, body, sentence] of says) {
      const answer = await send("PUT", "/a", { body, headers });
      assert.equal(answer.status, 413);
      assert.match(await answer.text(), sentence);
    }
    const long = "/" + "k".repeat(3000);
    const answer = await send("GET", long);
    assert.equal(answer.status, 413);
    await answer.body?.cancel();
  });
});

Deno.test("keys are read from the request line as it came", async () => {
  await serve(async ({ store, url }) => {
    const put = (path: string) =>
      curl(
        "-X",
        "PUT",
        "-H",
        `Authorization: ${SECRET}`,
        "-d",
        path,
        url + path,
      );
    await put("/a/../b/%2e%2e/%2Fc//");
    assert(store.get("a", "..", "b", "..", "/c", "", ""));
    await put("/%2D/%C3%BC");
    assert(store.get("-", "ü"));
    assert.equal(await curl(`${url}/%2D/%c3%bc`), "/%2D/%C3%BC");
  });
});

Deno.test("a value that cannot be shown is named, kept and never a 5xx", async () => {
  await serve(async ({ store, send }) => {
    const key = encodeKey(["bad"]);
    let doubled: unknown = [1];
    for (let i = 0; i < 40; i++) doubled = [doubled, doubled];
    const values = [
      Uint8Array.fromHex("ff0f6f"),
      Uint8Array.of(),
      utf8("no V8"),
      Uint8Array.fromHex("ff0f" + "4101".repeat(5000)),
      encodeV8(doubled, 65_536),
    ];
    for (const value of values) {
      store.put(key, value, Encoding.V8);
      for (const method of ["GET", "HEAD"]) {
        const answer = await send(method, "/bad");
        assert.equal(answer.status, 422);
        const sentence = await answer.text();
        if (method === "GET") assert.match(sentence, /It is kept as it is/);
      }
    }
    store.put(key, Uint8Array.of(1), Encoding.LE64);
    const answer = await send("GET", "/bad");
    assert.equal(answer.status, 422);
    await answer.body?.cancel();
  });
});

Deno.test("deeply nested values are shown by a running server", async () => {
  await serve(async ({ send, store }) => {
    const headers = { "content-type": "application/json" };
    const deepest = "[".repeat(MAX_VALUE_DEPTH) +
      "]".repeat(MAX_VALUE_DEPTH);
    const put = await send("PUT", "/deep", { body: deepest, headers });
    assert.equal(put.status, 200);
    await put.body?.cancel();
    assert.equal(await (await send("GET", "/deep")).text(), deepest);
    const deeper = await send("PUT", "/deep", {
      body: `[${deepest}]`,
      headers,
    });
    assert.equal(deeper.status, 400);
    await deeper.body?.cancel();
    let maps: unknown = 1n;
    for (let i = 0; i < MAX_VALUE_DEPTH - 1; i++) {
      const map = new StoredMap();
      map.entries.push([1, maps]);
      maps = map;
    }
    store.put(encodeKey(["maps"]), encodeV8(maps, 65_536), Encoding.V8);
    const typed = await send("GET", "/maps");
    assert.equal(typed.headers.get("content-type"), TYPED_JSON_TYPE);
    const body = await typed.text();
    const again = await send("PUT", "/again", {
      body,
      headers: { "content-type": TYPED_JSON_TYPE },
    });
    assert.equal(again.status, 200);
    await again.body?.cancel();
    assert.deepEqual(store.get("again")!.value, store.get("maps")!.value);
  });
});
