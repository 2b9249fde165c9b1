/**
 * Instances that are killed, paused and stopped at random, over each kind of
 * place: no acknowledged write is lost, none is there twice, no read misses
 * one, and the database comes back by itself each time.
 */
import assert from "node:assert/strict";
import { runChaos, type Trouble } from "../support/chaos.ts";
import { startFakeGcs } from "../support/fake_gcs.ts";
import { OneWriteASecond } from "../support/gcs_limits.ts";
import { startHttpProxy } from "../support/http_proxy.ts";
import {
  type BackedUpTo,
  testCount,
  TestFolder,
  testSeed,
} from "../support/server.ts";
import { folderBackup, startBucket } from "./support.ts";

/** Starts are what there is most of, so that mostly two or three run. */
const TROUBLES: Trouble[] = [
  ...["kill", "killWithDisk", "stop", "pause", "snapshot"] as const,
  ...["start", "start", "start"] as const,
];

/** A standby, one that asks, and one that is to end when it is replaced. */
async function chaos(backup: BackedUpTo, lease: string, everyMs: number) {
  const args = ["--durability", "s3", "--backup-lease", lease];
  const { acknowledged, reads, troubles, epochs } = await runChaos({
    seed: testSeed(),
    durationMs: testCount("DENOKV_CHAOS_MS", 12_000),
    everyMs,
    instances: [["--standby"], [], ["--exit-when-replaced"]].map((more) => ({
      backup,
      args: [...args, ...more],
    })),
    troubles: TROUBLES,
    writers: 3,
  });
  console.log(
    `${acknowledged} writes acknowledged and ${reads} reads; ${troubles.length} times trouble, ${epochs} changes of owner; without an acknowledgement: ${
      troubles.map(({ kind, gapMs }) => `${kind} ${gapMs} ms`).join(", ")
    }`,
  );
  // Nothing goes back and forth: each change of owner has its reason, and a
  // kill, a start or a pause may be the reason of two.
  assert.ok(
    epochs <= 2 * troubles.length + 3,
    "the owners change by themselves",
  );
}

Deno.test("chaos on s3: nothing acknowledged is lost or read too old", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await chaos(bucket.at("chaos"), "1s", 2000);
});

Deno.test("chaos on gs, with its limit of one write a second: nothing acknowledged is lost or read too old", async () => {
  const gcs = await startFakeGcs();
  if (gcs === undefined) return;
  const proxy = await startHttpProxy(gcs.endpoint);
  const google = new OneWriteASecond();
  proxy.rule = (request) => google.rule(request);
  try {
    await gcs.createBucket("denokv-test");
    const backup = { url: "gs://denokv-test/app", endpoint: proxy.endpoint };
    await chaos(backup, "5s", 4000);
  } finally {
    await proxy.stop().finally(() => gcs.stop());
  }
});

Deno.test("chaos on a folder: nothing acknowledged is lost or read too old", async () => {
  await using folder = await TestFolder.make();
  await chaos(folderBackup(folder.path), "1s", 2000);
});
