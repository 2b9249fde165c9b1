/**
 * A backup that Deno Deploy wrote, followed by this program and by the Rust
 * server, from the same bucket.
 */
import assert from "node:assert/strict";
import { encodeKey } from "../../src/protocol/key.ts";
import { range } from "../../src/store/contract/support.ts";
import { objectsOf, startBucket } from "../backup/support.ts";
import { freePort } from "../support/child_server.ts";
import { KvClient } from "../support/kv_client.ts";
import { programOrSkip } from "../support/programs.ts";
import { ACCESS_TOKEN, ServerProcess, TestFolder } from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import { logObject, writeDeployBackup } from "./deploy_backup.ts";
import { readiness } from "./support.ts";

const EVERYTHING = range(encodeKey([]), new Uint8Array([0xff]));

async function contentsAt(url: string): Promise<string[]> {
  const client = await KvClient.open(http1(url));
  try {
    const [entries] = await client.read(EVERYTHING);
    return entries.map(({ key, value, version, order }) =>
      `${key.toHex()} ${new TextDecoder().decode(value)} ${version} ${order}`
    );
  } finally {
    client.close();
  }
}

/** Asked again until it answers what is wanted, within a generous time. */
async function until(
  what: () => Promise<boolean>,
  why: () => string,
  withinMs = 60_000,
): Promise<void> {
  const deadlineMs = Date.now() + withinMs;
  while (!await what().catch(() => false)) {
    assert.ok(Date.now() < deadlineMs, why());
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

Deno.test("a backup of Deno Deploy is followed as the Rust server follows it", async () => {
  const rust = await programOrSkip("denokv");
  if (rust === undefined) return;
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const place = bucket.at("deploy/6aea9765-2b1e-41c7-8904-0bdcd70b21d3");
  const objects = await objectsOf(bucket, place);
  const { finish } = await writeDeployBackup(objects, Date.now());
  const flags = [
    "--sync-from-s3",
    "--s3-bucket",
    bucket.name,
    "--s3-prefix",
    "deploy/6aea9765-2b1e-41c7-8904-0bdcd70b21d3/",
    "--s3-endpoint",
    place.endpoint!,
  ];
  await using ours = await ServerProcess.bound({
    path: `${folder.path}/ours.sqlite`,
    args: [...flags, "--replica-interval", "200ms"],
    reaches: place,
    env: place.env,
  });
  // The snapshot is waited for until it is said to be whole.
  await ours.logged(/is waited for/);
  assert.equal((await readiness(ours)).status, "not ready");
  await finish();
  await ours.logged(/Listening on/);

  const port = freePort();
  const theirUrl = `http://127.0.0.1:${port}`;
  const theirs = new Deno.Command(rust, {
    args: [
      "--sqlite-path",
      `${folder.path}/theirs.sqlite`,
      "serve",
      "--addr",
      `127.0.0.1:${port}`,
      ...flags,
    ],
    env: { ...place.env, DENO_KV_ACCESS_TOKEN: ACCESS_TOKEN },
    stdout: "null",
    stderr: "null",
  }).spawn();
  try {
    await until(
      async () => (await contentsAt(theirUrl)).length > 0,
      () => "the Rust server does not serve",
    );
    // It does not carry a snapshot's expiries over, so it shows that one.
    const isShown = (line: string) => !line.includes("is over");
    const sameAsTheirs = async () => {
      const wanted = (await contentsAt(theirUrl)).filter(isShown);
      assert.deepEqual(await contentsAt(ours.url), wanted);
    };
    await sameAsTheirs();
    assert.ok(
      (await contentsAt(ours.url)).some((line) => line.includes("b at 130")),
    );

    // More of the log, commits of one version in two objects among it.
    const more = [
      logObject(2, 2, [{
        version: 160,
        order: 0,
        mutations: [{ key: "a" }, { key: "g", value: "g at 160" }],
      }], Date.now()),
      logObject(2, 5, [{
        version: 160,
        order: 1,
        mutations: [{ key: "g", value: "g at 160 again" }],
      }, {
        version: 170,
        order: 0,
        mutations: [{ key: "last", value: "last" }],
      }], Date.now()),
    ];
    for (const { key, bytes } of more) await objects.put(key, bytes);
    const hasLast = async (url: string) =>
      (await contentsAt(url)).some((line) => line.includes("last 170"));
    await until(() => hasLast(ours.url), () => ours.lastWords);
    // That one asks every 10 to 15 s.
    await until(() => hasLast(theirUrl), () => "the Rust server is behind");
    await sameAsTheirs();
  } finally {
    theirs.kill();
    await theirs.status;
    await objects.close();
  }
});

Deno.test("a log that is cut short or out of order is told, and what was there is served", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  const next = logObject(2, 2, [
    { version: 160, order: 0, mutations: [{ key: "x", value: "x" }] },
    { version: 161, order: 0, mutations: [{ key: "y", value: "y" }] },
  ], 0);
  const whole = next.bytes;
  // Where its second entry begins.
  const cut = logObject(2, 2, [
    { version: 160, order: 0, mutations: [{ key: "x", value: "x" }] },
  ], 0).bytes.length - 2;
  const old = logObject(2, 9, [
    { version: 140, order: 0, mutations: [{ key: "x", value: "old" }] },
  ], 0);
  const swapped = logObject(2, 2, [
    { version: 161, order: 0, mutations: [{ key: "y", value: "y" }] },
    { version: 160, order: 0, mutations: [{ key: "x", value: "x" }] },
  ], 0);
  const cases = [
    { key: next.key, bytes: whole.slice(0, cut), why: /its end is missing/ },
    { key: next.key, bytes: whole.slice(0, cut + 5), why: /not those of/ },
    { key: old.key, bytes: old.bytes, why: /out of order.*not after/ },
    {
      key: next.key,
      bytes: swapped.bytes,
      why: /does not begin with the entry that its name says/,
    },
  ];
  for (const [i, { key, bytes, why }] of cases.entries()) {
    await using folder = await TestFolder.make();
    const place = bucket.at(`deploy-${i}`);
    const objects = await objectsOf(bucket, place);
    const { finish } = await writeDeployBackup(objects, Date.now());
    await finish();
    await using replica = await ServerProcess.start({
      path: folder.database,
      args: [
        "--replica-from",
        place.url,
        "--s3-endpoint",
        place.endpoint!,
        "--replica-interval",
        "200ms",
      ],
      reaches: place,
      env: place.env,
    });
    const before = await contentsAt(replica.url);
    await objects.put(key, bytes);
    await until(
      async () => (await readiness(replica)).replica.state === "Stopped",
      () => replica.lastWords,
    );
    const { status, replica: report } = await readiness(replica);
    assert.equal(status, "ready");
    assert.match(report.lastError, why);
    assert.equal(report.lastErrorKind, "damaged");
    assert.match(replica.lastWords, /cannot be followed at present/);
    assert.deepEqual(await contentsAt(replica.url), before);
    const page = await (await fetch(`${replica.url}/-/metrics`)).text();
    assert.match(
      page,
      /denokv_replica_following\{[^}]*error="damaged"[^}]*\} 0/,
    );
    // Brought back as it was written, it is followed again.
    await objects.delete([key]);
    await objects.put(next.key, whole);
    await until(
      async () => (await contentsAt(replica.url)).length === before.length + 2,
      () => replica.lastWords,
    );
    await objects.close();
  }
});
