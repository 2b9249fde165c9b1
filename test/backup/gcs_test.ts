/** A backup to Google Cloud Storage, as an emulator has it. */
import assert from "node:assert/strict";
import { BackupService } from "../../src/backup/backup_service.ts";
import { systemClock } from "../../src/common/clock.ts";
import { silentLogger } from "../../src/common/log.ts";
import { systemRandom } from "../../src/common/random.ts";
import { openObjectStore } from "../../src/object_store/open.ts";
import { atomic, range, set } from "../../src/store/contract/support.ts";
import { SqliteLocalEngine } from "../../src/store/sqlite/local_engine.ts";
import { startFakeGcs } from "../support/fake_gcs.ts";
import { OneWriteASecond } from "../support/gcs_limits.ts";
import { startHttpProxy } from "../support/http_proxy.ts";
import {
  backupArgs,
  runCommand,
  ServerProcess,
  TestFolder,
} from "../support/server.ts";

Deno.test("gs: a database comes back from its bucket, and its owner is fenced there", async () => {
  const gcs = await startFakeGcs();
  if (gcs === undefined) return;
  await using first = await TestFolder.make();
  await using second = await TestFolder.make();
  const proxy = await startHttpProxy(gcs.endpoint);
  const google = new OneWriteASecond();
  proxy.rule = (request) => google.rule(request);
  const open = async (path: string) =>
    await BackupService.open({
      objects: await openObjectStore("gs://denokv-test/app", {
        clock: systemClock,
        random: systemRandom,
        gcsEndpoint: proxy.endpoint,
      }),
      engine: new SqliteLocalEngine({
        path,
        clock: systemClock,
        random: systemRandom,
        logger: silentLogger,
      }),
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
      durability: "s3",
      intervalMs: 1000,
      retentionMs: 3_600_000,
      maxRetainedBytes: 1e9,
      verifyEveryMs: 0,
      allowUnfenced: false,
    });
  try {
    await gcs.createBucket("denokv-test");
    const a = await open(first.database);
    // Of the probe, those that raced each other; the rest keeps to the limit.
    assert.equal(google.refused, 3);
    for (let i = 0; i < 20; i++) {
      await a.store.write(atomic([set(`${i}`, "x")]));
    }
    // The second one asks; the first one hands over.
    const b = await open(second.database);
    assert.equal((await a.ended).kind, "handedOver");
    await assert.rejects(a.store.write(atomic([set("late", "x")])));
    await a.close();
    const [entries] = await b.store.read([
      range(new Uint8Array([0]), new Uint8Array([0xff])),
    ]);
    assert.equal(entries.length, 20);
    assert.equal((await b.verify()).entries, 20);
    await b.close();
  } finally {
    await proxy.stop().finally(() => gcs.stop());
  }
});

Deno.test("gs: the server and the commands reach an endpoint, with the least permissions", async () => {
  const gcs = await startFakeGcs();
  if (gcs === undefined) return;
  await using folder = await TestFolder.make();
  const own = `${folder.path}/own`;
  await Deno.mkdir(own);
  const backup = { url: "gs://denokv-test/app", endpoint: gcs.endpoint };
  try {
    await gcs.createBucket("denokv-test");
    await using server = await ServerProcess.start({
      path: folder.database,
      backup,
      args: ["--durability", "s3"],
    });
    assert.equal((await server.stop()).code, 0);
    for (const command of ["status", "verify"]) {
      const { code, out, err } = await runCommand(
        ["backup", command, ...backupArgs(backup)],
        { folder: own, backup },
      );
      assert.equal(code, 0, out + err);
    }
    const { code, err } = await runCommand([
      ...["restore", "--from", backup.url, "--gcs-endpoint", backup.endpoint],
      ...["-o", `${own}/restored.sqlite`],
    ], { folder: own, backup });
    assert.equal(code, 0, err);
  } finally {
    await gcs.stop();
  }
});
