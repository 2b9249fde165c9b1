/**
 * A file that the Rust server's own sync made: what `pitr` says of it and does
 * with it has to be what the Rust server says and does.
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
import { type Bucket, objectsOf, startBucket } from "../backup/support.ts";
import { KvClient } from "../support/kv_client.ts";
import { programOrSkip } from "../support/programs.ts";
import {
  ACCESS_TOKEN,
  runCommand,
  ServerProcess,
  TestFolder,
} from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import { logObject, writeDeployBackup } from "./deploy_backup.ts";

const NEWEST = "f".repeat(20);
const EVERYTHING = range(encodeKey([]), new Uint8Array([0xff]));

/** As the tables have it, without what only one of the two programs keeps. */
function rowsOf(path: string): string[] {
  const db = new DatabaseSync(path, { readOnly: true });
  try {
    return db.prepare(
      "select k, v, v_encoding, version, seq from kv order by k",
    )
      .all().map((row) =>
        [
          (row.k as Uint8Array).toHex(),
          (row.v as Uint8Array).toHex(),
          row.v_encoding,
          row.version,
          row.seq,
        ].join(" ")
      );
  } finally {
    db.close();
  }
}

/** A generation of ours: sets, deletions, expiries and a queue message. */
async function ourBackup(bucket: Bucket, folder: string): Promise<string> {
  await using server = await ServerProcess.start({
    path: `${folder}/primary.sqlite`,
    backup: bucket.at("app"),
    args: ["--durability", "s3"],
  });
  const client = await KvClient.open(http1(server.url));
  for (let i = 0; i < 10; i++) await client.commit([set(`before ${i}`, "1")]);
  const made = await fetch(`${server.url}/-/backup/snapshot`, {
    method: "POST",
    headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
  });
  const { generation } = await made.json();
  for (let i = 0; i < 15; i++) {
    await client.commit([
      set(`after ${i % 4}`, `${i}`, i % 3 === 0 ? 3_600_000 : undefined),
      set("same", `${i}`),
      mutation(MutationType.DELETE, `before ${i}`),
    ]);
  }
  // It lies under a key of its own there.
  await client.write({
    ...atomic([set("last", "1")]),
    enqueues: [{
      payload: new Uint8Array([0x5f]),
      deadlineMs: Date.now() + 3_600_000,
      keysIfUndelivered: [],
      backoffScheduleMs: null,
    }],
  });
  client.close();
  assert.equal((await server.stop()).code, 0);
  return `app/${generation}/`;
}

/** With commits of one version, and several in one object. */
async function deployBackup(bucket: Bucket): Promise<string> {
  const prefix = "deploy/6aea9765-2b1e-41c7-8904-0bdcd70b21d3";
  const objects = await objectsOf(bucket, bucket.at(prefix));
  try {
    const startMs = Date.now() - 60_000;
    const { finish } = await writeDeployBackup(objects, startMs);
    let tsn = 2;
    for (let version = 200; version < 260; version += 10) {
      const commits = [0, 1, 5].map((order) => ({
        version,
        order,
        mutations: [
          { key: "a", value: `${version} ${order}` },
          { key: `key ${version % 40}`, value: `${order}` },
          { key: order === 1 ? "b" : "c" },
        ],
      }));
      const { key, bytes } = logObject(2, tsn++, commits, startMs + version);
      await objects.put(key, bytes);
    }
    await finish();
  } finally {
    await objects.close();
  }
  return `${prefix}/`;
}

for (
  const [whose, backup] of [
    ["this program's", ourBackup],
    ["Deno Deploy's", deployBackup],
  ] as const
) {
  Deno.test(`a file that the Rust server synced from ${whose} backup: the same list, info and checkouts`, async () => {
    const rust = await programOrSkip("denokv");
    if (rust === undefined) return;
    await using bucket = await startBucket();
    if (bucket === undefined) return;
    await using folder = await TestFolder.make();
    const prefix = await backup(bucket, folder.path);
    const theirs = `${folder.path}/theirs.sqlite`;
    const ours = `${folder.path}/ours.sqlite`;
    const run = async (path: string, ...args: string[]) => {
      const { code, stdout, stderr } = await new Deno.Command(rust, {
        args: ["--sqlite-path", path, ...args],
        env: { ...bucket.minio.env(), AWS_EC2_METADATA_DISABLED: "true" },
      }).output();
      const text = new TextDecoder();
      assert.equal(code, 0, text.decode(stderr));
      return text.decode(stdout).trim();
    };
    const own = async (path: string, ...args: string[]) => {
      const { code, out, err } = await runCommand(
        ["--sqlite-path", path, ...args],
        { folder: folder.path },
      );
      assert.equal(code, 0, err);
      return out;
    };
    await run(
      theirs,
      "pitr",
      "sync",
      "--s3-bucket",
      bucket.name,
      "--s3-prefix",
      prefix,
      "--s3-endpoint",
      bucket.minio.endpoint,
    );
    await Deno.copyFile(theirs, ours);

    const list = await run(theirs, "pitr", "list");
    const stamps = list.split("\n").map((line) => line.split("\t")[0]);
    const times = list.split("\n").map((line) => line.split("\t")[1]);
    assert.ok(stamps.length >= 12, list);
    assert.equal(await own(ours, "pitr", "list"), list);
    const between = ["--start", times[9], "--end", times[2]];
    assert.equal(
      await own(ours, "pitr", "list", ...between),
      await run(theirs, "pitr", "list", ...between),
    );
    assert.equal(
      await own(ours, "pitr", "info"),
      await run(theirs, "pitr", "info"),
    );
    // Looking changes nothing.
    assert.deepEqual(await Deno.readFile(ours), await Deno.readFile(theirs));

    const last = stamps.length - 1;
    for (
      const target of [7, 3, last, 0, 5, 1, last - 1].map((i) => stamps[i])
    ) {
      const told = await own(ours, "pitr", "checkout", target);
      assert.equal(told, await run(theirs, "pitr", "checkout", target));
      assert.deepEqual(rowsOf(ours), rowsOf(theirs), target);
      assert.equal(await own(ours, "pitr", "list"), list);
      assert.equal(
        await own(ours, "pitr", "info"),
        await run(theirs, "pitr", "info"),
      );
    }
    // What this program did, the Rust server goes on from, and the other way.
    assert.equal(await run(ours, "pitr", "list"), list);
    for (const [first, second] of [[ours, theirs], [theirs, ours]]) {
      for (const target of [stamps[2], stamps[6], NEWEST]) {
        const told = await run(first, "pitr", "checkout", target);
        assert.equal(await own(second, "pitr", "checkout", target), told);
        assert.deepEqual(rowsOf(first), rowsOf(second));
      }
    }

    // By time: the last commit at or before it.
    await own(ours, "pitr", "checkout", times[4]);
    const at = times.indexOf(times[4]);
    assert.match(
      await own(ours, "pitr", "info"),
      new RegExp(`: ${stamps[at]}$`),
    );
    await run(theirs, "pitr", "checkout", stamps[at]);

    await using server = await ServerProcess.start({
      path: ours,
      args: ["--read-only"],
    });
    const client = await KvClient.open(http1(server.url));
    const [entries] = await client.read(EVERYTHING);
    client.close();
    const served = entries.map(({ key, value, encoding, version }) =>
      [key.toHex(), value.toHex(), encoding, version].join(" ")
    );
    assert.deepEqual(
      served,
      rowsOf(theirs).filter((row) => !row.startsWith("ff"))
        .map((row) => row.split(" ").slice(0, 4).join(" ")),
    );
  });
}
