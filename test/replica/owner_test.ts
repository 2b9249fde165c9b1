/** The file of a replica becomes that of the owner. */
import assert from "node:assert/strict";
import { startBucket } from "../backup/support.ts";
import { runCommand, ServerProcess, TestFolder } from "../support/server.ts";
import { comesTo, History, replicaArgs, startReplica } from "./support.ts";

const ARGS = ["--durability", "s3", "--backup-lease", "1s"];

Deno.test("s3: started with the backup, a replica's file takes over with all that was acknowledged, without a restore", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const backup = bucket.at("app");
  const path = `${folder.path}/replica.sqlite`;
  const first = await ServerProcess.start({
    path: folder.database,
    backup,
    args: ARGS,
  });
  const history = await History.of(first);
  for (let i = 0; i < 20; i++) await history.commit();
  const replica = await startReplica(path, backup);
  await comesTo(replica, () => history.last);
  assert.equal((await replica.stop()).code, 0);
  // What the replica has not seen comes out of the bucket.
  for (let i = 0; i < 5; i++) await history.commit();
  await first.kill();
  await using second = await ServerProcess.start({
    path,
    backup,
    args: ARGS,
  });
  assert.doesNotMatch(second.lastWords, /set aside|Restored from the backup/);
  await history.goOn(second);
  await comesTo(second, () => history.states[25]);
  await history.commit();
  assert.equal((await second.stop()).code, 0);

  // It is an owner's file now, and nobody follows with it any more.
  const refused = await runCommand([
    "--sqlite-path",
    path,
    "pitr",
    "sync",
    ...replicaArgs(backup).slice(0, 4),
  ], { folder: folder.path, backup });
  assert.equal(refused.code, 1);
  assert.match(refused.err, /is no replica/);
});

Deno.test("the file of a live replica, which stands in the middle of a segment, takes over without a restore", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const backup = bucket.at("app");
  const path = `${folder.path}/replica.sqlite`;
  const first = await ServerProcess.start({
    path: folder.database,
    backup,
    // One segment, which is put when it stops.
    args: ["--backup-interval", "1h"],
  });
  const history = await History.of(first);
  for (let i = 0; i < 5; i++) await history.commit();
  const replica = await ServerProcess.start({
    path,
    net: [new URL(first.url).host],
    args: ["--replica-of", first.url],
  });
  for (let i = 0; i < 5; i++) await history.commit();
  await comesTo(replica, () => history.last);
  assert.equal((await replica.stop()).code, 0);
  for (let i = 0; i < 5; i++) await history.commit();
  history.client.close();
  assert.equal((await first.stop()).code, 0);
  await using second = await ServerProcess.start({ path, backup, args: ARGS });
  assert.doesNotMatch(second.lastWords, /set aside|Restored from the backup/);
  await comesTo(second, () => history.last);
  await history.goOn(second);
  await history.commit();
  await comesTo(second, () => history.last);
  history.client.close();
  assert.equal((await second.stop()).code, 0);
});
