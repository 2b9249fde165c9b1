import assert from "node:assert/strict";
import { utf8 } from "../common/bytes.ts";
import { systemClock } from "../common/clock.ts";
import { UsageError } from "../common/errors.ts";
import { systemRandom } from "../common/random.ts";
import { ObjectStoreRefusedError } from "./object_store.ts";
import { openObjectStore, type OpenOptions } from "./open.ts";

const options: OpenOptions = { clock: systemClock, random: systemRandom };

Deno.test("a URL opens the store of its kind, and says what it is", async () => {
  const folder = await Deno.makeTempDir();
  try {
    for (
      const [given, url] of [
        ["s3://bucket", "s3://bucket"],
        ["s3://bucket/", "s3://bucket"],
        ["s3://my.bucket-1/a/b/", "s3://my.bucket-1/a/b"],
        ["gs://bucket/app", "gs://bucket/app"],
        [`file://${folder}/`, `file://${folder}`],
        ["memory://x", "memory://x"],
      ]
    ) {
      const store = await openObjectStore(given, {
        ...options,
        s3Region: "eu-central-1",
        gcsEndpoint: "http://127.0.0.1:1",
      });
      assert.equal(store.url, url);
      await store.close();
    }
    const file = await openObjectStore(`file://${folder}`, options);
    await file.put("a/b", utf8("x"));
    assert.equal(await Deno.readTextFile(`${folder}/a/b`), "x");
    // What a person writes is the folder's name, and what is shown opens it.
    const odd = `${folder}/50% #1?`;
    await Deno.mkdir(odd);
    const shown = `file://${folder}/50%25 %231%3F`;
    for (const url of [`file://${folder}/50%25 #1?`, shown]) {
      const store = await openObjectStore(url, options);
      assert.equal(store.url, shown);
      await store.put("x", utf8(url));
      assert.equal(await Deno.readTextFile(`${odd}/x`), url);
    }
    await assert.rejects(
      openObjectStore(`file://${folder}?mode=rw`, options),
      ObjectStoreRefusedError,
    );
    await assert.rejects(
      openObjectStore(`file://${folder}/missing`, options),
      ObjectStoreRefusedError,
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("objects in memory outlive the store that wrote them", async () => {
  const first = await openObjectStore("memory://outlive", options);
  await first.put("a", utf8("x"));
  await first.close();
  const second = await openObjectStore("memory://outlive", options);
  assert.deepEqual((await second.get("a"))!.data, utf8("x"));
  const other = await openObjectStore("memory://other", options);
  assert.equal(await other.get("a"), undefined);
});

Deno.test("a URL that is none says how to write one, without its secrets", async () => {
  for (
    const url of [
      "",
      "/var/backups",
      "bucket/prefix",
      "http://bucket/prefix",
      "s3:bucket",
      "s3://",
      "s3:///prefix",
      "s3://user:hunter2-secret@bucket/prefix",
      "s3://bucket:9000/prefix",
      "s3://bucket/a//b",
      "s3://bucket/a/../b",
      "gs:///x",
      "file://relative/folder",
    ]
  ) {
    await assert.rejects(openObjectStore(url, options), (error) => {
      assert.ok(error instanceof UsageError, `${url}: ${error}`);
      assert.ok(!error.message.includes("hunter2"));
      return true;
    });
  }
  for (const scheme of ["s3", "gs"]) {
    await assert.rejects(
      openObjectStore(`${scheme}://`, options),
      new RegExp(`Write it as ${scheme}://bucket/prefix`),
    );
  }
  for (
    const endpoint of [
      "localhost:9000",
      "ftp://localhost",
      "http://user:hunter2-secret@localhost:9000",
    ]
  ) {
    for (
      const [url, given, flag] of [
        ["s3://bucket", { s3Endpoint: endpoint }, "--s3-endpoint"],
        ["gs://bucket", { gcsEndpoint: endpoint }, "--gcs-endpoint"],
      ] as const
    ) {
      await assert.rejects(
        openObjectStore(url, { ...options, ...given }),
        (error) => {
          assert.ok(error instanceof UsageError, `${endpoint}: ${error}`);
          assert.ok(!error.message.includes("hunter2"));
          assert.ok(error.message.includes(flag), error.message);
          return true;
        },
      );
    }
  }
});
