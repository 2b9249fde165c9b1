/**
 * Objects that were lost from the bucket: what is missing is said, nothing is
 * served or restored as if it were whole, and what is left is never deleted.
 */
import assert from "node:assert/strict";
import {
  type BackedUpTo,
  runCommand,
  ServerProcess,
  TestFolder,
} from "../support/server.ts";
import { startHttpProxy } from "../support/http_proxy.ts";
import {
  ARGS,
  type Bucket,
  isThere,
  keysOf,
  killedAfter,
  objectsOf,
  put,
  refusalOf,
  rowsOf,
  SHORT_LEASE,
  startBucket,
} from "./support.ts";

/** The sentence with which a start on a blank disk is refused. */
async function refusal(folder: TestFolder, backup: BackedUpTo) {
  const path = `${folder.path}/blank.sqlite`;
  const sentence = await refusalOf(path, backup);
  await assert.rejects(Deno.stat(path), Deno.errors.NotFound);
  return sentence;
}

Deno.test("s3: a lost segment of an epoch without a seal is named and refused, and never sealed", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const backup = bucket.at("lost");
  const stamps = await killedAfter(20, folder.database, backup);
  const objects = await objectsOf(bucket, backup);
  const segments = (await keysOf(objects)).filter((key) => /logs/.test(key));
  assert.equal(segments.length, 20);
  const { data } = (await objects.get(segments[7]))!;
  await objects.delete([segments[7]]);

  const output = `${folder.path}/restored.sqlite`;
  const run = (...args: string[]) =>
    runCommand(args, { backup, folder: folder.path });
  const from = ["--from", backup.url, "--s3-endpoint", backup.endpoint!];
  const at = ["--backup", backup.url, "--s3-endpoint", backup.endpoint!];
  const named = new RegExp(
    `misses segment 8 of epoch 1 .*--at ${stamps[6]}`,
    "s",
  );
  for (
    const args of [
      ["restore", ...from, "-o", output],
      ["restore", ...from, "-o", output, "--at", stamps[7]],
      ["restore", ...from, "-o", output, "--at", new Date().toISOString()],
      ["backup", "verify", ...at],
    ]
  ) {
    const { code, err } = await run(...args);
    assert.equal(code, 1, args.join(" "));
    assert.match(err, named);
    await assert.rejects(Deno.stat(output), Deno.errors.NotFound);
  }
  const status = await run("backup", "status", ...at, "--json");
  assert.equal(status.code, 1);
  assert.match(JSON.parse(status.out).damage, named);
  // Twice: the first refusal has left nothing that the second one believes.
  for (let i = 0; i < 2; i++) {
    assert.match(await refusal(folder, backup), named);
  }
  // The choice that the sentence gives.
  const until = await run("restore", ...from, "-o", output, "--at", stamps[6]);
  assert.equal(until.code, 0, until.err);
  assert.equal(rowsOf(output), 7);

  await objects.put(segments[7], data);
  await objects.close();
  await using server = await ServerProcess.start({
    path: `${folder.path}/again.sqlite`,
    backup,
    args: ARGS,
  });
  for (let i = 0; i < 20; i++) assert.ok(await isThere(server, `${i}`));
});

Deno.test("s3: the last segments of an epoch without a seal cannot be missing unnoticed", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const backup = bucket.at("tail");
  const objects = await objectsOf(bucket, backup);
  const { path } = folder;
  {
    await using server = await ServerProcess.start({
      path: folder.database,
      backup,
      args: ARGS,
    });
    for (let i = 0; i < 20; i++) await put(server, `${i}`);
    // The next renewal of the lease says how far the log goes.
    for (let lastTsn = 0; lastTsn < 20;) {
      await isThere(server, "0");
      const { data } = (await objects.get("manifest.json"))!;
      const { head } = JSON.parse(new TextDecoder().decode(data));
      lastTsn = head?.lastTsn ?? 0;
    }
    await server.kill();
  }
  const segments = (await keysOf(objects)).filter((key) => /logs/.test(key));
  assert.equal(segments.length, 20);
  await objects.delete(segments.slice(18));
  const named = /misses segment 19 of epoch 1 /;
  const output = `${path}/restored.sqlite`;
  const from = ["--from", backup.url, "--s3-endpoint", backup.endpoint!];
  const { code, err } = await runCommand(
    ["restore", ...from, "-o", output],
    { backup, folder: path },
  );
  assert.equal(code, 1);
  assert.match(err, named);
  await assert.rejects(Deno.stat(output), Deno.errors.NotFound);
  assert.match(await refusal(folder, backup), named);
  // Nor was the loss sealed by the first try.
  assert.match(await refusal(folder, backup), named);
  await objects.close();
});

Deno.test("s3: without its manifest a backup is refused, and nothing of it is changed or deleted", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const backup = bucket.at("headless");
  await killedAfter(2, folder.database, backup);
  {
    // On another disk, so that there is a leap and a second epoch to know of.
    const path = `${folder.path}/second.sqlite`;
    await using server = await ServerProcess.start({
      path,
      backup,
      args: ARGS,
    });
    for (let i = 2; i < 5; i++) await put(server, `${i}`);
    await server.kill();
  }
  const objects = await objectsOf(bucket, backup);
  await objects.delete(["manifest.json"]);
  const before = await keysOf(objects);
  const [generation] = before[0].split("/");

  const named = new RegExp(`${generation}.*no manifest\\.json`, "s");
  assert.match(await refusal(folder, backup), named);
  // Nor does the database's own file go on beside a history it cannot see.
  const second = `${folder.path}/second.sqlite`;
  assert.match(await refusalOf(second, backup), named);
  const output = `${folder.path}/restored.sqlite`;
  const run = (...args: string[]) =>
    runCommand([...args, "--s3-endpoint", backup.endpoint!], {
      backup,
      folder: folder.path,
    });
  for (
    const args of [
      ["restore", "--from", backup.url, "-o", output],
      ["backup", "status", "--backup", backup.url],
      ["backup", "verify", "--backup", backup.url],
    ]
  ) {
    const { code, err } = await run(...args);
    assert.equal(code, 1, args.join(" "));
    assert.match(err, named);
  }
  assert.deepEqual(await keysOf(objects), before);
  // One way out that the sentence names; `repair_test.ts` has the other.
  const from = `${backup.url}/${generation}`;
  const restored = await run("restore", "--from", from, "-o", output);
  assert.equal(restored.code, 0, restored.err);
  assert.equal(rowsOf(output), 5);
  await objects.close();
});

Deno.test("s3: a place that holds something else is never written to", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const backup = bucket.at("theirs");
  const objects = await objectsOf(bucket, backup);
  // Such as a backup of another program, or somebody's pictures.
  for (const key of ["differential", "pictures/cat.jpg"]) {
    await objects.put(key, new Uint8Array([1]));
    assert.match(await refusal(folder, backup), new RegExp(`holds ${key}`));
    assert.deepEqual(await keysOf(objects), [key]);
    await objects.delete([key]);
  }
  // What a start that was killed may leave of its probe is no content.
  await objects.put("probe/0123", new Uint8Array([1]));
  await objects.close();
  await killedAfter(1, folder.database, backup);
});

/** Killed while its first snapshot is on its way, and never gets through. */
async function killedInFirstSnapshot(
  bucket: Bucket,
  path: string,
  prefix: string,
  whileItWaits?: (server: ServerProcess) => Promise<void>,
): Promise<void> {
  const proxy = await startHttpProxy(bucket.minio.endpoint);
  try {
    const asked = Promise.withResolvers<void>();
    proxy.rule = ({ method, path }) => {
      if (method !== "PUT" || !/snapshot/.test(path)) return undefined;
      asked.resolve();
      return { kind: "answer", status: 503 };
    };
    const backup = bucket.at(prefix, proxy.endpoint);
    await using server = ServerProcess.starting({
      path,
      backup,
      args: SHORT_LEASE,
    });
    await asked.promise;
    await whileItWaits?.(server);
    await server.kill();
  } finally {
    await proxy.stop();
  }
}

Deno.test("s3: killed in its first snapshot, a database that was there before is not begun anew from nothing", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const path = folder.database;
  {
    await using server = await ServerProcess.start({ path });
    await put(server, "old");
    assert.equal((await server.stop()).code, 0);
  }
  await killedInFirstSnapshot(
    bucket,
    path,
    "adopted",
    (server) => server.logged(/Listening/),
  );
  const backup = bucket.at("adopted");
  for (let i = 0; i < 2; i++) {
    assert.match(
      await refusal(folder, backup),
      /no whole snapshot .*Start the server with that file/s,
    );
  }
  {
    await using server = await ServerProcess.start({
      path,
      backup,
      args: ARGS,
    });
    assert.ok(await isThere(server, "old"));
    assert.equal((await server.stop()).code, 0);
  }
  await using server = await ServerProcess.start({
    path: `${folder.path}/blank.sqlite`,
    backup,
    args: ARGS,
  });
  assert.ok(await isThere(server, "old"));
});

Deno.test("s3: a new database acknowledges nothing before its first snapshot, and can begin again on a blank disk", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  await killedInFirstSnapshot(
    bucket,
    folder.database,
    "new",
    (server) => {
      assert.ok(!/Listening/.test(server.lastWords), "it serves");
      return Promise.resolve();
    },
  );
  const backup = bucket.at("new");
  await using server = await ServerProcess.start({
    path: `${folder.path}/blank.sqlite`,
    backup,
    args: ARGS,
  });
  await put(server, "first");
});

Deno.test("s3: where the present snapshot is lost, whoever has the whole file is told how to go on with it", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const backup = bucket.at("lost-snapshot");
  await killedAfter(3, folder.database, backup);
  const objects = await objectsOf(bucket, backup);
  const [index] = (await keysOf(objects))
    .filter((key) => /snapshot\.json/.test(key));
  await objects.delete([index]);
  const own = await refusalOf(folder.database, backup);
  assert.match(own, /snapshot\.json is missing.*give --backup another URL/s);
  const blank = await refusalOf(`${folder.path}/blank.sqlite`, backup);
  assert.doesNotMatch(blank, /local file/);
  await objects.close();
  await using server = await ServerProcess.start({
    path: folder.database,
    backup: bucket.at("another"),
    args: ARGS,
  });
  for (let i = 0; i < 3; i++) assert.ok(await isThere(server, `${i}`));
  await put(server, "next");
});
