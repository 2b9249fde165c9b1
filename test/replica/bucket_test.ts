/** Replicas of a backup of ours, in a real MinIO. */
import assert from "node:assert/strict";
import { encodeKey } from "../../src/protocol/key.ts";
import { atomic, set } from "../../src/store/contract/support.ts";
import { startBucket } from "../backup/support.ts";
import { KvClient } from "../support/kv_client.ts";
import {
  ACCESS_TOKEN,
  runCommand,
  ServerProcess,
  TestFolder,
} from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import {
  comesTo,
  History,
  Observer,
  readiness,
  replicaArgs,
  startReplica,
} from "./support.ts";

const S3 = ["--durability", "s3", "--backup-lease", "2s"];
/** Of KV Connect. */
const WRITE_DISABLED = 5;
const authorization = `Bearer ${ACCESS_TOKEN}`;

Deno.test("a replica follows a backup over generations, is read and watched meanwhile, and refuses writes", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const backup = bucket.at("app");
  await using primary = await ServerProcess.start({
    path: folder.database,
    backup,
    args: [...S3, "--advertise-url", "http://primary.example:4512"],
  });
  const history = await History.of(primary);
  for (let i = 0; i < 20; i++) await history.commit();
  await using replica = await startReplica(
    `${folder.path}/replica.sqlite`,
    backup,
  );
  assert.match(
    replica.lastWords,
    /Initial snapshot is complete, starting sync\./,
  );
  const observer = new Observer(() => replica.url, () => history.states);
  await comesTo(replica, () => history.last);

  // A watch is told as soon as something was applied.
  const client = await KvClient.open(http1(replica.url));
  const watch = await client.watch([encodeKey(["watched"])]);
  const first = await watch.frames.next();
  assert.equal(first.done, false);
  await history.write([set("watched", "now")]);
  const told = await watch.frames.next();
  assert.equal(told.done, false);
  watch.cancel();
  await history.commit();

  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 30; i++) await history.commit();
    const made = await fetch(`${primary.url}/-/backup/snapshot`, {
      method: "POST",
      headers: { authorization },
    });
    assert.equal(made.status, 200);
    await made.body?.cancel();
    for (let i = 0; i < 10; i++) await history.commit();
  }
  await comesTo(replica, () => history.last);
  await observer.end();
  assert.ok(observer.answers > 20, `${observer.answers} answers`);

  // Nothing is written here, and it is said where it would be.
  const refused = await client.write(atomic([set("a", "b")]));
  assert.equal(refused.status, WRITE_DISABLED);
  const rest = await fetch(`${replica.url}/a`, {
    method: "PUT",
    body: "b",
    headers: { authorization },
  });
  assert.equal(rest.status, 403);
  assert.match(
    await rest.text(),
    /read-only.*Writes are taken at http:\/\/primary\.example:4512\./,
  );
  client.close();

  const { status, replica: report } = await readiness(replica);
  assert.equal(status, "ready");
  assert.equal(report.state, "Following");
  assert.equal(report.via, "bucket");
  assert.equal(report.lagVersions, 0);
  const page = await (await fetch(`${replica.url}/-/metrics`)).text();
  assert.match(
    page,
    /denokv_replica_following\{[^}]*state="Following"[^}]*\} 1/,
  );
  assert.match(page, /denokv_replica_lag_seconds \d/);
  assert.equal((await replica.stop()).code, 0);
});

Deno.test("killed at any moment, a replica goes on where it was", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const backup = bucket.at("app");
  const path = `${folder.path}/replica.sqlite`;
  await using primary = await ServerProcess.start({
    path: folder.database,
    backup,
    args: S3,
  });
  const history = await History.of(primary);
  await history.commit();
  let url = "";
  const observer = new Observer(() => url, () => history.states);
  let isWriting = true;
  const writing = (async () => {
    while (isWriting) await history.commit();
  })();
  // A test that has failed already says why.
  writing.catch(() => {});
  for (let life = 0; life < 6; life++) {
    await using replica = await startReplica(path, backup);
    url = replica.url;
    if (life > 0) {
      assert.doesNotMatch(replica.lastWords, /first snapshot is loaded/);
    }
    // Some moment of its work.
    await new Promise((resolve) => setTimeout(resolve, 150 * life));
    await replica.kill();
  }
  isWriting = false;
  await writing;
  await using replica = await startReplica(path, backup);
  url = replica.url;
  await comesTo(replica, () => history.last);
  await observer.end();
});

Deno.test("pitr sync brings a file to the end, and serve goes on from it", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const backup = bucket.at("app");
  const path = `${folder.path}/replica.sqlite`;
  await using primary = await ServerProcess.start({
    path: folder.database,
    backup,
    args: S3,
  });
  const history = await History.of(primary);
  const sync = (...args: string[]) => {
    const place = replicaArgs(backup).slice(0, 4);
    return runCommand([
      "--sqlite-path",
      path,
      "pitr",
      "sync",
      ...place,
      ...args,
    ], {
      folder: folder.path,
      backup,
    });
  };
  for (let i = 0; i < 10; i++) await history.commit();
  const first = await sync();
  assert.equal(first.code, 0, first.err);
  assert.match(first.err, /Initial snapshot is complete, starting sync\./);
  assert.match(first.out, /is at [0-9a-f]{20}, the end of what s3:/);
  for (let i = 0; i < 10; i++) await history.commit();
  const second = await sync("--json");
  assert.equal(second.code, 0, second.err);
  assert.ok(JSON.parse(second.out).logEntries >= 20, second.out);
  // It is what it says, whoever serves it.
  {
    await using plain = await ServerProcess.start({
      path,
      args: ["--read-only"],
    });
    await comesTo(plain, () => history.last);
  }
  await history.commit();
  await using replica = await startReplica(path, backup);
  await comesTo(replica, () => history.last);

  // A file that is no replica is left alone.
  const own = `${folder.path}/own.sqlite`;
  {
    await using _server = await ServerProcess.start({ path: own });
  }
  const refused = await runCommand([
    "--sqlite-path",
    own,
    "pitr",
    "sync",
    ...replicaArgs(backup).slice(0, 4),
  ], { folder: folder.path, backup });
  assert.equal(refused.code, 1);
  assert.match(refused.err, /is no replica.*Nothing was changed/s);
});

Deno.test("with --replica-idle-pause a replica that nobody reads asks its bucket nothing", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const backup = bucket.at("app");
  await using primary = await ServerProcess.start({
    path: folder.database,
    backup,
    args: S3,
  });
  const history = await History.of(primary);
  await history.commit();
  await using replica = await startReplica(
    `${folder.path}/replica.sqlite`,
    backup,
    { args: ["--replica-idle-pause", "1s"] },
  );
  const requests = async () => {
    const { head, list, get } = (await readiness(replica)).replica.requests;
    return head + list + get;
  };
  // Six of its looks are in this time; where it makes none, it pauses.
  const deadlineMs = Date.now() + 30_000;
  for (let before = -1;;) {
    const now = await requests();
    if (now === before) break;
    assert.ok(Date.now() < deadlineMs, `it goes on asking: ${now}`);
    before = now;
    await new Promise((resolve) => setTimeout(resolve, 1200));
  }
  await history.commit();
  // The first read is of what was there, and wakes it.
  await comesTo(replica, () => history.last);
});
