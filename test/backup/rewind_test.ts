/**
 * `backup rewind` on a real bucket: the database goes on from the chosen
 * point, what it was is kept, no versionstamp is issued twice, and killed at
 * any moment it leaves the old state or the new one.
 */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { readNewestManifest } from "../../src/backup/copies.ts";
import { planRestore } from "../../src/backup/history.ts";
import { ManifestStore } from "../../src/backup/manifest_store.ts";
import { systemClock } from "../../src/common/clock.ts";
import { systemRandom } from "../../src/common/random.ts";
import type { ObjectStore } from "../../src/object_store/object_store.ts";
import { startHttpProxy } from "../support/http_proxy.ts";
import {
  type BackedUpTo,
  runCommand,
  ServerProcess,
  TestFolder,
} from "../support/server.ts";
import {
  ARGS,
  type Bucket,
  isThere,
  objectsOf,
  put,
  SHORT_LEASE,
  startBucket,
} from "./support.ts";

const LEAP = 2 ** 32;

function versionOf(stamp: string): number {
  return Number(BigInt(`0x${stamp.slice(0, 16)}`));
}

function runner(folder: TestFolder, backup: BackedUpTo) {
  return (args: string[], more: { killedBy?: AbortSignal } = {}) =>
    runCommand([...args, "--s3-endpoint", backup.endpoint!], {
      backup,
      folder: folder.path,
      ...more,
    });
}

function rewindArgs({ url }: BackedUpTo, to: string, ...more: string[]) {
  return [
    ...["backup", "rewind", "--backup", url, "--to", to],
    ...SHORT_LEASE,
    ...more,
  ];
}

function keysIn(path: string): number {
  const db = new DatabaseSync(path, { readOnly: true });
  const { count } = db.prepare("select count(*) as count from kv").get()!;
  db.close();
  return Number(count);
}

Deno.test("s3: a bad deploy is undone in one command, beside the server, and can be had again", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const backup = bucket.at("deploy");
  const run = runner(folder, backup);
  const path = folder.database;
  const stamps: string[] = [];
  await using first = await ServerProcess.start({ path, backup, args: ARGS });
  for (let i = 0; i < 10; i++) stamps.push(await put(first, `${i}`));

  // Nobody can be asked here.
  const shown = await run(rewindArgs(backup, stamps[4]));
  assert.equal(shown.code, 1);
  assert.match(shown.out, /is kept as the branch before-/);
  assert.match(shown.err, /Nothing was changed.*--yes/);
  assert.ok(await isThere(first, "9"));
  for (
    const [to, sentence] of [
      ["2001-01-01", /does not reach that far back/],
      [stamps[9].replace(/^0/, "1"), /beyond the end/],
      ["2999-01-01", /lies in the future/],
    ] as const
  ) {
    const refused = await run(rewindArgs(backup, to, "--yes"));
    assert.equal(refused.code, 1);
    assert.match(refused.err, sentence);
  }
  assert.ok(await isThere(first, "9"));

  const branch = ["--branch", "bad-deploy"];
  const done = await run(
    rewindArgs(backup, stamps[4], ...branch, "--yes", "--json"),
  );
  assert.equal(done.code, 0, done.err);
  const said = JSON.parse(done.out);
  assert.equal(said.versionstamp, stamps[4]);
  assert.equal(said.former, stamps[9]);
  assert.deepEqual(
    [...Deno.readDirSync(folder.path)].filter(({ name }) =>
      /scratch/.test(name)
    ),
    [],
  );
  await first.kill();

  // On the machine with the old file, and on a blank one.
  for (const at of [path, `${folder.path}/blank.sqlite`]) {
    await using server = await ServerProcess.start({
      path: at,
      backup,
      args: ARGS,
    });
    if (at === path) {
      assert.match(
        server.lastWords,
        /was set aside; it is kept.*rewound since.*bad-deploy/,
      );
    }
    for (let i = 0; i < 10; i++) {
      assert.equal(await isThere(server, `${i}`), i < 5, `${i}`);
    }
    const next = await put(server, "next");
    assert.ok(versionOf(next) > versionOf(stamps[9]) + LEAP);
    assert.ok(versionOf(next) > versionOf(said.after));
    assert.equal((await server.stop()).code, 0);
  }
  const verified = await run(["backup", "verify", "--backup", backup.url]);
  assert.equal(verified.code, 0, verified.err);

  // What it was is there: as the branch, and as any point of its history.
  const listed = await run(["backup", "list", "--backup", backup.url]);
  assert.match(listed.out, new RegExp(`bad-deploy: until ${stamps[9]}`));
  const restores: [string[], number][] = [
    [["--branch", "bad-deploy"], 10],
    [["--at", stamps[7]], 8],
    [["--at", stamps[4]], 5],
    [[], 6],
  ];
  for (const [i, [args, rows]] of restores.entries()) {
    const output = `${folder.path}/restored-${i}.sqlite`;
    const restored = await run(
      ["restore", "--from", backup.url, "-o", output, ...args],
    );
    assert.equal(restored.code, 0, restored.err);
    assert.equal(keysIn(output), rows, args.join(" "));
  }

  // And it can be gone back to, as to any other point.
  const again = await run(rewindArgs(backup, stamps[9], "--yes"));
  assert.equal(again.code, 0, again.err);
  {
    await using server = await ServerProcess.start({
      path,
      backup,
      args: ARGS,
    });
    for (let i = 0; i < 10; i++) assert.ok(await isThere(server, `${i}`));
    assert.ok(!await isThere(server, "next"));
  }
  const taken = await run(rewindArgs(backup, stamps[9], ...branch, "--yes"));
  assert.equal(taken.code, 1);
  assert.match(taken.err, /has a branch bad-deploy already/);
  const branches = ["backup", "branches", "--backup", backup.url];
  const removed = await run([...branches, "--remove", "bad-deploy"]);
  assert.equal(removed.code, 0, removed.err);
  const left = JSON.parse((await run([...branches, "--json"])).out).branches;
  assert.equal(left.length, 1);
  const unknown = await run([...branches, "--remove", "bad-deploy"]);
  assert.equal(unknown.code, 1);
  assert.match(unknown.err, /no branch bad-deploy; it has before-/);
});

/**
 * What a launch would restore, where each segment is a new key; and nobody has
 * to wait for the lease of a command that was killed.
 */
async function lookInto(objects: ObjectStore) {
  const manifests = new ManifestStore(objects, systemClock, systemRandom);
  const found = (await readNewestManifest(objects, manifests))!;
  const plan = await planRestore(objects, found.manifest, { kind: "latest" });
  await manifests.swap(found, { ...found.manifest, owner: null });
  return {
    rows: plan.snapshot.totals!.entries + plan.segments.length,
    branches: found.manifest.branches ?? [],
  };
}

/** A backup of 6 keys, and the versionstamp at which there were 3. */
async function sixKeys(folder: TestFolder, backup: BackedUpTo) {
  await using server = await ServerProcess.start({
    path: folder.database,
    backup,
    args: ARGS,
  });
  let middle = "";
  for (let i = 0; i < 6; i++) {
    const stamp = await put(server, `${i}`);
    if (i === 2) middle = stamp;
  }
  assert.equal((await server.stop()).code, 0);
  return middle;
}

/** @returns whether it came to its end before that write */
async function killedAt(
  bucket: Bucket,
  folder: TestFolder,
  prefix: string,
  middle: string,
  branch: string,
  carriesOut: boolean,
  /** Which of its writes to the bucket. */
  write: number,
): Promise<boolean> {
  const proxy = await startHttpProxy(bucket.minio.endpoint);
  const killing = new AbortController();
  let count = 0;
  proxy.rule = ({ method }) => {
    if (method !== "PUT" || ++count < write) return undefined;
    killing.abort();
    // The store has carried it out, or never heard of it.
    return { kind: carriesOut ? "hang" : "cut" };
  };
  const through = bucket.at(prefix, proxy.endpoint);
  const { code } = await runner(folder, through)(
    // A lease that is not renewed meanwhile: each write is one of the work.
    [
      ...["backup", "rewind", "--backup", through.url, "--to", middle],
      ...["--yes", "--branch", branch, "--backup-lease", "5m"],
    ],
    { killedBy: killing.signal },
  );
  await proxy.stop();
  // Where it makes fewer, it has done all of its work.
  assert.equal(code === 0, count < write);
  return code === 0;
}

Deno.test("s3: killed at any of its writes, a rewind leaves the old state or the new one, whole", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const backup = bucket.at("killed");
  const objects = await objectsOf(bucket, backup);
  const middle = await sixKeys(folder, backup);
  const seen = new Set<number>();
  let kept = 0;
  let isDone = false;
  // Taking over, a leap, what is begun, the snapshot, going over, giving up.
  for (let n = 1; !isDone; n++) {
    for (const carriesOut of [false, true]) {
      const branch = `killed-${n}-${carriesOut}`;
      isDone = await killedAt(
        bucket,
        folder,
        "killed",
        middle,
        branch,
        carriesOut,
        n,
      );
      const { rows, branches } = await lookInto(objects);
      const isNew = branches.some(({ name }) => name === branch);
      seen.add(rows);
      assert.equal(branches.length, isNew ? kept + 1 : kept);
      kept = branches.length;
      // Once it has gone over, the next one rewinds what is rewound.
      assert.equal(rows, kept > 0 ? 3 : 6, `killed at write ${n}`);
    }
    assert.ok(n < 100, "it never ends");
  }
  assert.deepEqual([...seen], [6, 3]);
  await objects.close();
  // Whoever starts next goes on, with all that was left lying about.
  await using server = await ServerProcess.start({
    path: folder.database,
    backup,
    args: ARGS,
  });
  for (let i = 0; i < 6; i++) {
    assert.equal(await isThere(server, `${i}`), i < 3);
  }
});
