/**
 * A replica behind a network that delays, drops, refuses, cuts and truncates,
 * while its primary is killed, taken over from, and rewound.
 */
import assert from "node:assert/strict";
import { seededRandom } from "../../src/common/random.ts";
import { startBucket } from "../backup/support.ts";
import { startHttpProxy } from "../support/http_proxy.ts";
import {
  type BackedUpTo,
  runCommand,
  ServerProcess,
  TestFolder,
  testSeed,
} from "../support/server.ts";
import { comesTo, History, Observer, startReplica } from "./support.ts";

const ROUNDS = 6;
const LEASE = ["--backup-lease", "1s"];

function startPrimary(
  path: string,
  backup: BackedUpTo,
): Promise<ServerProcess> {
  const args = ["--durability", "s3", ...LEASE];
  return ServerProcess.start({ path, backup, args });
}

Deno.test("through takeovers and rewinds, over a bad network, a replica shows what its primary was, and never goes back", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  const random = seededRandom(testSeed());
  const proxy = await startHttpProxy(bucket.minio.endpoint);
  const good = () => undefined;
  const bad: typeof proxy.rule = () => {
    const draw = random.below(100);
    if (draw < 8) return { kind: "delay", delayMs: random.below(300) };
    if (draw < 11) return { kind: "cut" };
    if (draw < 14) return { kind: "answer", status: 503 };
    if (draw < 17) return { kind: "truncate", afterBytes: random.below(40) };
    return undefined;
  };
  await using folder = await TestFolder.make();
  const direct = bucket.at("app");
  const throughProxy = bucket.at("app", proxy.endpoint);
  const replicaPath = `${folder.path}/replica.sqlite`;
  let primary = await startPrimary(`${folder.path}/primary-0.sqlite`, direct);
  const history = await History.of(primary);
  await history.commit();
  proxy.rule = good;
  let replica = await startReplica(replicaPath, throughProxy);
  let url = replica.url;
  const observer = new Observer(() => url, () => history.states);
  const troubles: string[] = [];
  try {
    for (let round = 0; round < ROUNDS; round++) {
      proxy.rule = bad;
      const writes = 10 + random.below(20);
      for (let i = 0; i < writes; i++) await history.commit();
      const trouble = round < 3 ? round : random.below(3);
      if (trouble === 0) {
        troubles.push("takeover");
        // Some write is on its way; another machine takes over.
        const last = history.commit().catch(() => {});
        await primary.kill();
        await last;
        primary = await startPrimary(
          `${folder.path}/primary-${round + 1}.sqlite`,
          direct,
        );
        await history.goOn(primary);
      } else if (trouble === 1) {
        troubles.push("rewind");
        const versions = history.last.split("\n")
          .map((line) => Number(line.slice(line.lastIndexOf("@") + 1)));
        const oldest = Math.min(...versions).toString(16).padStart(16, "0");
        assert.equal((await primary.stop()).code, 0);
        const done = await runCommand([
          "backup",
          "rewind",
          "--backup",
          direct.url,
          "--s3-endpoint",
          direct.endpoint!,
          "--to",
          `${oldest}0000`,
          "--yes",
          ...LEASE,
        ], { backup: direct, folder: folder.path });
        assert.equal(done.code, 0, done.err);
        primary = await startPrimary(
          `${folder.path}/primary-${round + 1}.sqlite`,
          direct,
        );
        await history.goOn(primary);
      } else {
        troubles.push("restart of the replica");
        await replica.kill();
        replica = await startReplica(replicaPath, throughProxy);
        url = replica.url;
      }
      await history.commit();
    }
    proxy.rule = good;
    await comesTo(replica, () => history.last);
    await observer.end();
    assert.ok(observer.answers > ROUNDS, `${observer.answers} answers`);
    assert.equal((await replica.stop()).code, 0, replica.lastWords);
    console.log(`${observer.answers} answers through ${troubles.join(", ")}`);
  } finally {
    history.client.close();
    await replica.kill();
    await primary.kill();
    await proxy.stop();
  }
});
