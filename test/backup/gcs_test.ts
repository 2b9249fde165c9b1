/** A backup to Google Cloud Storage, as an emulator has it. */
import assert from "node:assert/strict";
import { BackupService } from "../../src/backup/backup_service.ts";
import { byteString } from "../../src/common/bytes.ts";
import { systemClock } from "../../src/common/clock.ts";
import { UnavailableError } from "../../src/common/errors.ts";
import { silentLogger } from "../../src/common/log.ts";
import {
  type Random,
  seededRandom,
  systemRandom,
} from "../../src/common/random.ts";
import { openObjectStore } from "../../src/object_store/open.ts";
import { atomic, range, set } from "../../src/store/contract/support.ts";
import { SqliteLocalEngine } from "../../src/store/sqlite/local_engine.ts";
import { startFakeGcs } from "../support/fake_gcs.ts";
import { OneWriteASecond } from "../support/gcs_limits.ts";
import { type Mishap, startHttpProxy } from "../support/http_proxy.ts";
import {
  backupArgs,
  runCommand,
  ServerProcess,
  TestFolder,
  testSeed,
} from "../support/server.ts";

async function open(
  gcsEndpoint: string,
  path: string,
): Promise<BackupService> {
  const parts = {
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
  };
  return await BackupService.open({
    objects: await openObjectStore("gs://denokv-test/app", {
      ...parts,
      gcsEndpoint,
    }),
    engine: new SqliteLocalEngine({ path, ...parts }),
    durability: "s3",
    intervalMs: 1000,
    retentionMs: 3_600_000,
    maxRetainedBytes: 1e9,
    verifyEveryMs: 0,
    allowUnfenced: false,
    ...parts,
  });
}

Deno.test("gs: a database comes back from its bucket, and its owner is fenced there", async () => {
  const gcs = await startFakeGcs();
  if (gcs === undefined) return;
  await using first = await TestFolder.make();
  await using second = await TestFolder.make();
  const proxy = await startHttpProxy(gcs.endpoint);
  const google = new OneWriteASecond();
  proxy.rule = (request) => google.rule(request);
  try {
    await gcs.createBucket("denokv-test");
    const a = await open(proxy.endpoint, first.database);
    // Of the probe, those that raced each other; the rest keeps to the limit.
    assert.equal(google.refused, 3);
    for (let i = 0; i < 20; i++) {
      await a.store.write(atomic([set(`${i}`, "x")]));
    }
    // The second one asks; the first one hands over.
    const b = await open(proxy.endpoint, second.database);
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

Deno.test("gs: nothing acknowledged is lost while requests fail in Google's ways", async () => {
  const gcs = await startFakeGcs();
  if (gcs === undefined) return;
  await using first = await TestFolder.make();
  await using second = await TestFolder.make();
  const proxy = await startHttpProxy(gcs.endpoint);
  const google = new OneWriteASecond();
  const random = seededRandom(testSeed());
  let mishaps = 0;
  proxy.rule = (request) => {
    const mishap = google.rule(request) ?? mishapOf(random);
    if (mishap !== undefined) mishaps++;
    return mishap;
  };
  const acknowledged: string[] = [];
  /** Whether it was acknowledged; false: another instance has the database. */
  const write = async (service: BackupService, name: string) => {
    for (;;) {
      try {
        await service.store.write(atomic([set(name, "x")]));
        acknowledged.push(name);
        return true;
      } catch (error) {
        if (!(error instanceof UnavailableError)) throw error;
        if (/handed|taken over/.test(error.message)) return false;
      }
    }
  };
  try {
    await gcs.createBucket("denokv-test");
    const a = await open(proxy.endpoint, first.database);
    for (let i = 0; i < 30; i++) await write(a, `a${i}`);
    const [b] = await Promise.all([
      open(proxy.endpoint, second.database),
      (async () => {
        for (let i = 0; await write(a, `during${i}`); i++);
      })(),
    ]);
    for (let i = 0; i < 30; i++) await write(b, `b${i}`);
    const [entries] = await b.store.read([
      range(new Uint8Array([0]), new Uint8Array([0xff])),
    ]);
    assert.ok(mishaps > 0);
    const found = new Set(entries.map(({ key }) => byteString(key)));
    for (const name of acknowledged) {
      assert.ok(found.has(byteString(set(name, "").key)), `${name} is lost`);
    }
    proxy.rule = () => undefined;
    assert.equal((await b.verify()).entries, entries.length);
    await a.close();
    await b.close();
  } finally {
    await proxy.stop().finally(() => gcs.stop());
  }
});

/** One request in forty suffers something: the probe at start has about fifteen. */
function mishapOf(random: Random): Mishap | undefined {
  const kinds: Mishap[] = [
    { kind: "answer", status: 429 },
    { kind: "answer", status: 503, body: "<html>busy</html>" },
    { kind: "answer", status: 200, body: '{"generation":' },
    { kind: "loseAnswer" },
    { kind: "cut" },
    { kind: "truncate", afterBytes: 20 },
  ];
  return kinds[random.below(kinds.length * 40)];
}

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
      // Its server has given it up.
      assert.equal(code, command === "status" ? 5 : 0, out + err);
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
