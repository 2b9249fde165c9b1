/** What S3 alone does: its errors, its parts, and the stores that pose as it. */
import * as aws from "@aws-sdk/client-s3";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import {
  type HttpProxy,
  startHttpProxy,
} from "../../test/support/http_proxy.ts";
import { type Minio, startMinio } from "../../test/support/minio.ts";
import { utf8 } from "../common/bytes.ts";
import { systemClock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import { seededRandom } from "../common/random.ts";
import { ObjectStoreRefusedError } from "./object_store.ts";
import { probe } from "./probe.ts";
import { S3ObjectStore, type S3Options } from "./s3.ts";

const MIB = 1024 * 1024;
const HOUR_MS = 3_600_000;

/** As proxies and other programs answer. */
const PAGES = [
  "<html>\r\n<body>\r\n<h1>404 Not Found</h1><hr>nginx</body>\r\n</html>",
  "<html><body><h1>404 Not Found</h1></body></html>",
  "404 page not found\n",
  '{"error":"no route"}',
  "",
];

interface Setting {
  minio: Minio;
  proxy: HttpProxy;
  /** A store that reaches MinIO through the proxy. */
  open(options?: Partial<S3Options>): S3ObjectStore;
}

Deno.test("S3 when things go wrong", async (t) => {
  const minio = await startMinio();
  if (minio === undefined) return;
  const proxy = await startHttpProxy(minio.endpoint);
  const stores: S3ObjectStore[] = [];
  const setting: Setting = {
    minio,
    proxy,
    open(options) {
      const store = new S3ObjectStore({
        bucket: "bucket",
        prefix: "app",
        clock: systemClock,
        endpoint: proxy.endpoint,
        credentials: minio,
        partSizeBytes: 5 * MIB,
        ...options,
      });
      stores.push(store);
      return store;
    },
  };
  try {
    await minio.createBucket("bucket");
    await minio.createBucket("open", { open: true });
    for (const [name, test] of Object.entries(CASES)) {
      await t.step(name, async () => {
        proxy.rule = () => undefined;
        await test(setting);
      });
    }
  } finally {
    // Whatever fails here, no process and no file is left behind.
    await Promise.allSettled(stores.map((store) => store.close()));
    await proxy.stop().finally(() => minio.stop());
  }
});

const CASES: Record<string, (setting: Setting) => Promise<void>> = {
  async "an outage can be tried again, and is over when it is over"(
    { open, proxy },
  ) {
    const store = open();
    const tag = await store.put("a", utf8("1"));
    for (const status of [500, 502, 503, 504, 429, 408]) {
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

  async "nobody listens"({ open }) {
    const store = open({ endpoint: "http://127.0.0.1:1" });
    await isUnavailable(store.get("a"));
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
    // It was carried out all the same: the caller reads and finds its own.
    proxy.rule = () => undefined;
    assert.deepEqual((await store.get("once"))!.data, utf8("mine"));
    assert.equal((await store.create("once", utf8("x"))).written, false);
  },

  async "an answer that breaks off is no answer"({ open, proxy }) {
    const store = open();
    await store.put("a", new Uint8Array(MIB));
    proxy.rule = () => ({ kind: "truncate", afterBytes: 1000 });
    await isUnavailable(store.get("a"));
    await isUnavailable(store.getRange("a", 0, 500_000));
    proxy.rule = () => ({ kind: "truncate", afterBytes: 10 });
    await isUnavailable(Array.fromAsync(store.list("")));
  },

  async "a request that is not answered ends at its time limit"(
    { open, proxy },
  ) {
    const store = open({ timeoutMs: 100 });
    proxy.rule = () => ({ kind: "hang" });
    await isUnavailable(store.get("a"), "100 ms");
    await isUnavailable(store.get("a", { timeoutMs: 50 }), "50 ms");
    await isUnavailable(store.put("slow", utf8("x")), "may have");
    proxy.rule = () => undefined;
    // A busy machine may take longer for it than the limit above.
    const { data } = (await store.get("slow", { timeoutMs: 10_000 }))!;
    assert.deepEqual(data, utf8("x"));
  },

  async "a caller that gives up under way is free at once"({ open, proxy }) {
    const store = open();
    const reason = new Error("enough");
    for (
      const ask of [
        (signal: AbortSignal) => store.get("a", { signal }),
        (signal: AbortSignal) => store.put("b", utf8("b"), { signal }),
        (signal: AbortSignal) => Array.fromAsync(store.list("", { signal })),
      ]
    ) {
      const controller = new AbortController();
      const arrived = Promise.withResolvers<void>();
      proxy.rule = () => {
        arrived.resolve();
        return { kind: "hang" };
      };
      const asked = ask(controller.signal);
      await arrived.promise;
      controller.abort(reason);
      await assert.rejects(asked, (error) => error === reason);
    }
  },

  async "a closed store ends what is under way"({ open, proxy }) {
    const store = open();
    const arrived = Promise.withResolvers<void>();
    proxy.rule = () => {
      arrived.resolve();
      return { kind: "hang" };
    };
    const asked = store.get("a");
    await arrived.promise;
    await store.close();
    await isUnavailable(asked, "closed");
  },

  async "wrong credentials are refused, and not told"({ open, minio }) {
    const secretAccessKey = "not-the-secret-of-this-store";
    const wrong = [
      { accessKeyId: minio.accessKeyId, secretAccessKey },
      { accessKeyId: "nobody", secretAccessKey },
    ];
    for (const credentials of wrong) {
      const store = open({ credentials });
      for (
        const ask of [
          () => store.get("a"),
          () => store.put("a", utf8("x")),
          () => store.create("a", utf8("x")),
          () => Array.fromAsync(store.list("")),
        ]
      ) {
        const error = await refused(ask());
        assert.ok(!Deno.inspect(error).includes(secretAccessKey));
      }
    }
  },

  async "a clock that is far off is put right by the first answer"({ open }) {
    const clock = {
      ...systemClock,
      nowMs: () => systemClock.nowMs() + HOUR_MS,
    };
    const store = open({ clock });
    await isUnavailable(store.put("clock", utf8("x")), "RequestTimeTooSkewed");
    await store.put("clock", utf8("y"));
    assert.deepEqual((await store.get("clock"))!.data, utf8("y"));
  },

  async "names that have to be encoded are signed as they are sent"({ open }) {
    const store = open();
    for (const key of ["a b/c+d", "~!'()*&=@:,$", "\u00fcmlaut/\u{1f600}%2F"]) {
      const tag = await store.put(key, utf8(key));
      assert.deepEqual((await store.get(key))!.data, utf8(key));
      assert.deepEqual(await store.getRange(key, 0, 1), utf8(key).slice(0, 1));
      assert.equal((await store.head(key))!.tag, tag);
      assert.equal((await store.replace(key, utf8("2"), tag)).written, true);
      await store.delete([key]);
    }
  },

  async "a bucket that is not there is named"({ open }) {
    const store = open({ bucket: "no-such-bucket" });
    for (
      const ask of [
        () => store.get("a"),
        () => store.put("a", utf8("x")),
        () => store.create("a", utf8("x")),
        () => store.replace("a", utf8("x"), '"tag"'),
        () => store.delete(["a"]),
        () => Array.fromAsync(store.list("")),
      ]
    ) {
      const { message } = await refused(ask());
      assert.match(message, /no-such-bucket/);
      assert.match(message, /Create the bucket/);
    }
  },

  async "what answers in the store's place is not taken for an empty bucket"(
    { open, proxy },
  ) {
    const store = open();
    for (const body of PAGES) {
      proxy.rule = () => ({ kind: "answer", status: 404, body });
      for (
        const ask of [
          () => store.get("manifest.json"),
          () => store.getRange("manifest.json", 0, 10),
          () => store.put("a", utf8("x")),
          () => store.replace("a", utf8("x"), '"tag"'),
          () => Array.fromAsync(store.list("")),
        ]
      ) {
        const { message } = await refused(ask());
        assert.match(message, /is not an S3's \(status 404\)\. .*endpoint/);
        assert.doesNotMatch(message, /XML|<|carried it out/);
      }
      proxy.rule = () => ({ kind: "answer", status: 502, body });
      await isUnavailable(store.get("manifest.json"), "tried again");
    }
    proxy.rule = () => undefined;
    assert.equal(await store.get("manifest.json"), undefined);
  },

  async "an object that is sent in pieces is there whole, or not at all"(
    { open },
  ) {
    const store = open();
    const data = seededRandom(5).bytes(300_000);
    const { sha256, other } = {
      sha256: createHash("sha256").update(data).digest("hex"),
      other: createHash("sha256").update("other").digest("hex"),
    };
    const tag = await store.put("pieces", data, { sha256, pauseMs: 1 });
    const found = (await store.get("pieces"))!;
    assert.equal(found.tag, tag);
    assert.equal(Buffer.compare(found.data, data), 0);
    // The digest is of the data, for the store as well.
    await assert.rejects(
      store.put("pieces", data.slice(1), { sha256: other, pauseMs: 1 }),
    );
    assert.equal((await store.head("pieces"))!.tag, tag);
  },

  async "a large object that cannot be finished leaves nothing"(
    { open, proxy, minio },
  ) {
    const store = open();
    const data = seededRandom(1).bytes(11 * MIB);
    proxy.rule = ({ path }) =>
      path.includes("partNumber=2")
        ? { kind: "answer", status: 503 }
        : undefined;
    await isUnavailable(store.put("large", data), "part 2");
    assert.equal(await store.head("large"), undefined);
    assert.deepEqual(await unfinished(minio), []);

    const controller = new AbortController();
    proxy.rule = ({ path }) => {
      if (!path.includes("partNumber=3")) return undefined;
      controller.abort(new Error("enough"));
      return { kind: "hang" };
    };
    await assert.rejects(
      store.put("large", data, { signal: controller.signal }),
      /enough/,
    );
    assert.deepEqual(await unfinished(minio), []);

    // Parts may arrive in any order.
    proxy.rule = ({ path }) =>
      path.includes("partNumber=1")
        ? { kind: "delay", delayMs: 50 }
        : undefined;
    await store.put("large", data);
    assert.equal(Buffer.compare((await store.get("large"))!.data, data), 0);
  },

  async "the probe refuses a store that ignores conditions"({ open, proxy }) {
    const ignoring = (...names: string[]) => {
      // The bucket is open to all: the signature covers what is taken away.
      proxy.rule = ({ headers }) => {
        for (const name of Object.keys(headers)) {
          if (/^(authorization|x-amz-.*)$/.test(name)) delete headers[name];
        }
        for (const name of names) delete headers[name];
        return undefined;
      };
    };
    const store = open({ bucket: "open" });
    const random = seededRandom(2);
    ignoring();
    assert.deepEqual(await probe(store, random), { ok: true });

    // One that lets nobody delete is used, and said to grow.
    proxy.rule = ({ method }) =>
      method === "DELETE"
        ? {
          kind: "answer",
          status: 403,
          body: "<Error><Code>AccessDenied</Code></Error>",
        }
        : undefined;
    const keeping = await probe(open({ bucket: "open" }), seededRandom(9));
    assert.match((keeping as { keepsAll: string }).keepsAll, /delete/i);
    const left = await Array.fromAsync(store.list(""));
    assert.equal(left.length, 3);
    ignoring();
    await store.delete(left.map(({ key }) => key));

    ignoring("if-none-match");
    const creates = await probe(store, random);
    assert.match(creates.ok ? "" : creates.reason, /already there/);

    ignoring("if-match");
    const replaces = await probe(store, random);
    assert.match(replaces.ok ? "" : replaces.reason, /had changed/);

    ignoring();
    assert.deepEqual(await Array.fromAsync(store.list("")), []);
  },

  async "the probe says nothing where it cannot know"({ open, proxy }) {
    proxy.rule = ({ number }) =>
      number % 3 === 0 ? { kind: "answer", status: 503 } : undefined;
    await isUnavailable(probe(open(), seededRandom(3)));
    proxy.rule = () => undefined;
    await refused(probe(open({ bucket: "no-such-bucket" }), seededRandom(4)));
  },
};

async function isUnavailable(
  asked: Promise<unknown>,
  part = "",
): Promise<void> {
  await assert.rejects(asked, (error) => {
    assert.ok(error instanceof UnavailableError, Deno.inspect(error));
    assert.ok(error.message.includes(part), error.message);
    return true;
  });
}

async function refused(asked: Promise<unknown>): Promise<Error> {
  const error = await asked.then(() => undefined, (error: unknown) => error);
  assert.ok(error instanceof ObjectStoreRefusedError, Deno.inspect(error));
  return error;
}

/** The uploads that were begun and neither finished nor given up. */
async function unfinished(minio: Minio): Promise<string[]> {
  const client = new aws.S3Client({
    endpoint: minio.endpoint,
    region: minio.region,
    credentials: minio,
    forcePathStyle: true,
  });
  try {
    const { Uploads } = await client.send(
      new aws.ListMultipartUploadsCommand({
        Bucket: "bucket",
        Prefix: "app/large",
      }),
    );
    return (Uploads ?? []).map(({ Key }) => Key ?? "");
  } finally {
    client.destroy();
  }
}
