/** What Google Cloud Storage alone does: its errors, parts and credentials. */
import assert from "node:assert/strict";
import { startFakeGcs } from "../../test/support/fake_gcs.ts";
import { OneWriteASecond } from "../../test/support/gcs_limits.ts";
import {
  type HttpProxy,
  startHttpProxy,
} from "../../test/support/http_proxy.ts";
import { isUnavailable, refused } from "../../test/support/store_errors.ts";
import { utf8 } from "../common/bytes.ts";
import { systemClock } from "../common/clock.ts";
import { seededRandom } from "../common/random.ts";
import { GcsObjectStore, type GcsOptions } from "./gcs.ts";
import { probe } from "./probe.ts";

interface Setting {
  proxy: HttpProxy;
  open(options?: Partial<GcsOptions>): GcsObjectStore;
}

Deno.test("Google Cloud Storage when things go wrong", async (t) => {
  const gcs = await startFakeGcs();
  if (gcs === undefined) return;
  const proxy = await startHttpProxy(gcs.endpoint);
  const open = (options?: Partial<GcsOptions>) =>
    new GcsObjectStore({
      bucket: "bucket",
      prefix: "app",
      clock: systemClock,
      endpoint: proxy.endpoint,
      partSizeBytes: 256 * 1024,
      // The emulator has no such limit; one test here sets it again.
      writeIntervalMs: 0,
      ...options,
    });
  try {
    await gcs.createBucket("bucket");
    for (const [name, test] of Object.entries(CASES)) {
      await t.step(name, async () => {
        proxy.rule = () => undefined;
        await test({ proxy, open });
      });
    }
  } finally {
    await proxy.stop().finally(() => gcs.stop());
  }
});

const CASES: Record<string, (setting: Setting) => Promise<void>> = {
  async "an outage can be tried again, and is over when it is over"(
    { open, proxy },
  ) {
    const store = open();
    const tag = await store.put("a", utf8("1"));
    for (const status of [500, 503, 429, 408]) {
      proxy.rule = () => ({ kind: "answer", status, body: "<html>no</html>" });
      await isUnavailable(store.get("a"), String(status));
      await isUnavailable(store.getRange("a", 0, 1));
      await isUnavailable(store.head("a"));
      await isUnavailable(store.put("a", utf8("2")));
      await isUnavailable(store.create("b", utf8("2")));
      await isUnavailable(store.replace("a", utf8("2"), tag));
      await isUnavailable(store.delete(["a"]));
      await isUnavailable(Array.fromAsync(store.list("")));
    }
    proxy.rule = () => ({ kind: "cut" });
    await isUnavailable(store.get("a"));
    await isUnavailable(store.put("a", utf8("2")));
    proxy.rule = () => undefined;
    assert.deepEqual((await store.get("a"))!.data, utf8("1"));
  },

  async "an answer that is not what Google gives can be tried again"(
    { open, proxy },
  ) {
    const store = open();
    const tag = await store.put("a", utf8("1"));
    const bodies = ["<html>", "", '{"generation":"1', "null", "{}", "[]", "1"];
    for (const body of bodies) {
      proxy.rule = () => ({ kind: "answer", status: 200, body });
      await isUnavailable(store.get("a"));
      await isUnavailable(store.head("a"), "not Google's");
      await isUnavailable(store.put("b", utf8("2")), "not Google's");
      await isUnavailable(store.create("c", utf8("2")), "not Google's");
      await isUnavailable(store.replace("a", utf8("2"), tag), "not Google's");
      // An empty page of a list is an empty object.
      if (body === "{}") continue;
      await isUnavailable(Array.fromAsync(store.list("")), "not Google's");
    }
    for (const items of ["1", "[null]", '[{"name":1}]']) {
      const body = `{"items":${items}}`;
      proxy.rule = () => ({ kind: "answer", status: 200, body });
      await isUnavailable(Array.fromAsync(store.list("")), "not Google's");
    }
    // Of a large object, the answer to the last part.
    proxy.rule = ({ method }) =>
      method === "PUT"
        ? { kind: "answer", status: 200, body: '{"generation":' }
        : undefined;
    const large = new Uint8Array(200 * 1024);
    await isUnavailable(
      open({ partSizeBytes: 256 * 1024 }).put("d", new Uint8Array(257 * 1024)),
    );
    await isUnavailable(
      open({ partSizeBytes: 128 * 1024 }).put("d", large),
    );
  },

  async "data that was damaged on its way does not become an object"(
    { open, proxy },
  ) {
    const store = open();
    const tag = await store.put("a", utf8("whole and well"));
    proxy.rule = ({ method }) =>
      method === "POST"
        ? {
          kind: "corrupt",
          change(body) {
            const at = new TextDecoder("latin1").decode(body).indexOf("whole");
            if (at >= 0) body[at] ^= 1;
          },
        }
        : undefined;
    const data = utf8("whole and better");
    await isUnavailable(store.put("a", data), "on its way");
    await isUnavailable(store.create("damaged", data), "on its way");
    await isUnavailable(store.replace("a", data, tag), "on its way");
    proxy.rule = () => undefined;
    assert.deepEqual((await store.get("a"))!.data, utf8("whole and well"));
    assert.equal(await store.get("damaged"), undefined);

    // In parts the emulator does not look; the answer tells all the same.
    proxy.rule = ({ method }) =>
      method === "PUT"
        ? { kind: "corrupt", change: (body) => void (body[0] ^= 1) }
        : undefined;
    await isUnavailable(
      store.put("large", new Uint8Array(300 * 1024)),
      "on its way",
    );
  },

  async "nothing between here and the bucket may keep a copy"(
    { open, proxy },
  ) {
    await open().create("manifest.json", utf8("{}"));
    const url = `${proxy.endpoint}/storage/v1/b/bucket/o/app%2Fmanifest.json`;
    const { cacheControl, contentType } = await (await fetch(url)).json();
    assert.equal(cacheControl, "no-store");
    assert.equal(contentType, "application/octet-stream");
  },

  async "an upload whose session has expired begins anew"({ open, proxy }) {
    const store = open();
    const data = new Uint8Array(600 * 1024).fill(7);
    for (const status of [404, 410]) {
      proxy.rule = ({ method }) =>
        method === "PUT" ? { kind: "answer", status } : undefined;
      await isUnavailable(store.put("large", data), "expired");
    }
    proxy.rule = () => undefined;
    await store.put("large", data);
    assert.deepEqual((await store.get("large"))!.data, data);
  },

  async "with one write a second for an object, as Google has it, the probe gets through"(
    { open, proxy },
  ) {
    const store = open({ writeIntervalMs: undefined });
    const google = new OneWriteASecond();
    proxy.rule = (request) => google.rule(request);
    assert.deepEqual(await probe(store, seededRandom(2)), { ok: true });
    // Those that raced each other, of which one got through.
    assert.equal(google.refused, 3);
    assert.deepEqual(await Array.fromAsync(store.list("probe/")), []);
  },

  async "changes to one object keep to one a second, and others do not wait"(
    { open, proxy },
  ) {
    const store = open({ writeIntervalMs: undefined, timeoutMs: 400 });
    const google = new OneWriteASecond();
    proxy.rule = (request) => google.rule(request);
    const first = await store.create("paced", utf8("1"));
    assert.ok(first.written);
    // The wait is none of the request's time.
    const second = store.replace("paced", utf8("2"), first.tag);
    for (let i = 0; i < 20; i++) await store.put(`segment-${i}`, utf8("x"));
    assert.equal(text((await store.get("paced"))!), "1");
    assert.ok((await second).written);
    // One that fails to come through counts too, and waiting can be given up.
    const reason = new Error("enough");
    const controller = new AbortController();
    const third = store.put("paced", utf8("3"), { signal: controller.signal });
    controller.abort(reason);
    await assert.rejects(third, (error) => error === reason);
    await store.delete(["paced"]);
    assert.equal(google.refused, 0);
    const late = store.put("paced", utf8("4"));
    await store.close();
    await isUnavailable(late, "closed");
  },

  async "no request is sent twice behind the caller's back"({ open, proxy }) {
    const store = open();
    let requests = 0;
    proxy.rule = () => {
      requests++;
      return { kind: "loseAnswer" };
    };
    await isUnavailable(store.create("once", utf8("mine")));
    assert.equal(requests, 1);
    proxy.rule = () => undefined;
    assert.deepEqual((await store.get("once"))!.data, utf8("mine"));
    assert.equal((await store.create("once", utf8("x"))).written, false);
  },

  async "an answer that breaks off is no answer"({ open, proxy }) {
    const store = open();
    await store.put("a", new Uint8Array(1024 * 1024));
    proxy.rule = () => ({ kind: "truncate", afterBytes: 1000 });
    await isUnavailable(store.get("a"));
    await isUnavailable(store.getRange("a", 0, 500_000));
  },

  async "a request that is not answered ends at its time limit"(
    { open, proxy },
  ) {
    const store = open({ timeoutMs: 100 });
    proxy.rule = () => ({ kind: "hang" });
    await isUnavailable(store.get("a"), "100 ms");
    await isUnavailable(store.put("slow", utf8("x")), "may have");
    proxy.rule = () => undefined;
    assert.deepEqual((await store.get("slow"))!.data, utf8("x"));
  },

  async "a caller that gives up under way is free at once"({ open, proxy }) {
    const store = open();
    const reason = new Error("enough");
    const controller = new AbortController();
    const arrived = Promise.withResolvers<void>();
    proxy.rule = () => {
      arrived.resolve();
      return { kind: "hang" };
    };
    const asked = store.get("a", { signal: controller.signal });
    await arrived.promise;
    controller.abort(reason);
    await assert.rejects(asked, (error) => error === reason);
  },

  async "denied, and a bucket that is not there, are refused"(
    { open, proxy },
  ) {
    const store = open();
    for (const status of [401, 403]) {
      proxy.rule = () => ({
        kind: "answer",
        status,
        body: '{"error":{"message":"no storage.objects.get access"}}',
      });
      const { message } = await refused(store.get("a"));
      assert.match(message, /no storage\.objects\.get access/);
      await refused(store.create("a", utf8("x")));
    }
    // As Google says it; the emulator has other words.
    proxy.rule = () => ({
      kind: "answer",
      status: 404,
      body: '{"error":{"message":"The specified bucket does not exist."}}',
    });
    for (
      const ask of [
        () => store.get("a"),
        () => store.head("a"),
        () => store.put("a", utf8("x")),
        () => store.create("a", utf8("x")),
        () => store.replace("a", utf8("x"), "1"),
        () => store.delete(["a"]),
        () => Array.fromAsync(store.list("")),
      ]
    ) {
      const { message } = await refused(ask());
      assert.match(message, /Create the bucket/);
    }
    proxy.rule = () => undefined;
    await refused(open({ bucket: "no-such-bucket" }).put("a", utf8("x")));
  },

  async "what answers in the store's place is not taken for an empty bucket"(
    { open, proxy },
  ) {
    const store = open();
    proxy.rule = () => ({
      kind: "answer",
      status: 404,
      body: "<!DOCTYPE html><h1>404 Not Found</h1>",
    });
    for (
      const ask of [
        () => store.get("a"),
        () => store.head("a"),
        () => store.delete(["a"]),
        () => Array.fromAsync(store.list("")),
      ]
    ) {
      const { message } = await refused(ask());
      assert.match(message, /is not Google's \(status 404\)/);
    }
  },

  async "a store that ignores conditions is refused by the probe"(
    { open, proxy },
  ) {
    const store = open();
    proxy.rule = (request) => {
      request.path = request.path.replace(/&?ifGenerationMatch=\d+/, "");
      return undefined;
    };
    const result = await probe(store, seededRandom(1));
    assert.match(result.ok ? "" : result.reason, /already there/);
  },
};

Deno.test("a part that Google keeps only in part, or refuses, ends the upload", async () => {
  let answer = (): Response => new Response(null);
  const fake = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    (request) =>
      request.method === "POST"
        ? new Response(null, { headers: { location: "/session" } })
        : answer(),
  );
  const store = new GcsObjectStore({
    bucket: "bucket",
    prefix: "",
    clock: systemClock,
    endpoint: `http://127.0.0.1:${fake.addr.port}`,
    partSizeBytes: 10,
    writeIntervalMs: 0,
  });
  try {
    const resume = (range: string) => () =>
      new Response(null, { status: 308, headers: { range } });
    answer = resume("bytes=0-8");
    await isUnavailable(store.put("a", new Uint8Array(25)), "cut short");
    answer = () => new Response(null, { status: 308 });
    await isUnavailable(store.put("a", new Uint8Array(25)), "cut short");
    answer = () => new Response(null, { status: 503 });
    await isUnavailable(store.put("a", new Uint8Array(25)), "503");
    answer = () => new Response(null, { status: 403 });
    await refused(store.put("a", new Uint8Array(25)));
  } finally {
    await fake.shutdown();
  }
});

function text(object: { data: Uint8Array }): string {
  return new TextDecoder().decode(object.data);
}
