/**
 * The Rust server as a reader of our bucket: what it serves, lists and checks
 * out has to be our own history.
 */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { encodeKey } from "../../src/protocol/key.ts";
import {
  atomic,
  mutation,
  range,
  set,
} from "../../src/store/contract/support.ts";
import { MutationType } from "../../src/protocol/messages.ts";
import { freePort } from "../support/child_server.ts";
import { KvClient } from "../support/kv_client.ts";
import { programOrSkip } from "../support/programs.ts";
import { ACCESS_TOKEN, ServerProcess, TestFolder } from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import { startBucket } from "./support.ts";

const everything = range(encodeKey([]), new Uint8Array([0xff]));

function contents(
  entries: { key: Uint8Array; value: Uint8Array; version: number }[],
) {
  return entries.map(({ key, value, version }) => [
    key.toHex(),
    value.toHex(),
    version,
  ]);
}

function hex(version: number): string {
  return version.toString(16).padStart(16, "0") + "0000";
}

/** It has no word for being ready but its first answer. */
async function opened(url: string): Promise<KvClient> {
  const deadlineMs = Date.now() + 30_000;
  for (;;) {
    try {
      return await KvClient.open(http1(url));
    } catch (error) {
      if (Date.now() > deadlineMs) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

Deno.test("the Rust server serves, lists and checks out the history in our bucket", async () => {
  const rust = await programOrSkip("denokv");
  if (rust === undefined) return;
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using ours = await TestFolder.make();
  await using theirs = await TestFolder.make();
  const backup = bucket.at("app");
  const states = new Map<number, ReturnType<typeof contents>>();
  let final: ReturnType<typeof contents>;
  let generation: string;
  {
    await using server = await ServerProcess.start({
      path: ours.database,
      backup,
      args: ["--durability", "s3"],
    });
    const client = await KvClient.open(http1(server.url));
    const all = async () => contents((await client.read(everything))[0]);
    for (let i = 0; i < 50; i++) await client.commit([set(`before ${i}`, "1")]);
    // A second generation, with a snapshot that holds something.
    const made = await fetch(`${server.url}/-/backup/snapshot`, {
      method: "POST",
      headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
    });
    generation = (await made.json()).generation;
    for (let i = 0; i < 12; i++) {
      const version = await client.commit([
        set(`after ${i}`, `${i}`),
        set("same", `${i}`),
        mutation(MutationType.DELETE, `before ${i}`),
      ]);
      states.set(version, await all());
    }
    // A message in the queue is invisible to it, and harmless.
    await client.write({
      ...atomic([set("last", "1")]),
      enqueues: [{
        payload: new Uint8Array([0x5f]),
        deadlineMs: Date.now() + 3_600_000,
        keysIfUndelivered: [],
        backoffScheduleMs: null,
      }],
    });
    final = await all();
    client.close();
    assert.equal((await server.stop()).code, 0);
  }

  const env = {
    ...bucket.minio.env(),
    AWS_EC2_METADATA_DISABLED: "true",
    DENO_KV_ACCESS_TOKEN: ACCESS_TOKEN,
  };
  const database = `${theirs.path}/replica.sqlite`;
  const place = [
    "--s3-bucket",
    bucket.name,
    "--s3-prefix",
    `app/${generation}/`,
    "--s3-endpoint",
    bucket.minio.endpoint,
  ];
  const run = async (...args: string[]) => {
    const { code, stdout, stderr } = await new Deno.Command(rust, {
      args: ["--sqlite-path", database, ...args],
      env,
    }).output();
    const text = new TextDecoder();
    assert.equal(code, 0, text.decode(stderr));
    return text.decode(stdout);
  };

  await run("pitr", "sync", ...place);
  const listed = (await run("pitr", "list")).trim().split("\n")
    .map((line) => line.split("\t")[0]);
  // Its own edge: the first commit after the snapshot is not in its list.
  const versions = [...states.keys()].slice(1).map(hex).reverse();
  for (const version of versions) assert.ok(listed.includes(version), version);

  const port = freePort();
  const serving = new Deno.Command(rust, {
    args: [
      "--sqlite-path",
      database,
      "serve",
      "--addr",
      `127.0.0.1:${port}`,
      "--sync-from-s3",
      ...place,
    ],
    env,
    stdout: "null",
    stderr: "null",
  }).spawn();
  try {
    const client = await opened(`http://127.0.0.1:${port}`);
    const [entries] = await client.read(everything);
    assert.deepEqual(contents(entries), final);
    client.close();
  } finally {
    serving.kill();
    await serving.status;
  }

  const [version, state] = [...states][6];
  await run("pitr", "checkout", hex(version));
  const db = new DatabaseSync(database, { readOnly: true });
  const rows = db.prepare("select k, v, version from kv order by k").all();
  db.close();
  const visible = rows.filter((row) => (row.k as Uint8Array)[0] !== 0xff)
    .map((row) => [
      (row.k as Uint8Array).toHex(),
      (row.v as Uint8Array).toHex(),
      Number(row.version),
    ]);
  assert.deepEqual(visible, state);
});
