/** A warm standby: it follows, takes over by itself, and never flaps. */
import assert from "node:assert/strict";
import { ManifestStore } from "../../src/backup/manifest_store.ts";
import { systemClock } from "../../src/common/clock.ts";
import { systemRandom } from "../../src/common/random.ts";
import { openObjectStore } from "../../src/object_store/open.ts";
import { startHttpProxy } from "../support/http_proxy.ts";
import { KvClient } from "../support/kv_client.ts";
import { auditAll, Writer } from "../support/ledger.ts";
import {
  ServerProcess,
  type ServerSettings,
  TestFolder,
} from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import { type Bucket, SHORT_LEASE, startBucket } from "./support.ts";

const HEADERS = { authorization: "denorocks" };

async function readiness(server: ServerProcess) {
  const answer = await fetch(`${server.url}/-/ready`);
  return { ...await answer.json(), status: answer.status };
}

async function until(holds: () => Promise<boolean> | boolean): Promise<void> {
  while (!await holds()) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function put(server: ServerProcess, key: string): Promise<Response> {
  return fetch(`${server.url}/${key}`, {
    method: "POST",
    body: key,
    headers: HEADERS,
  });
}

/** What stands before the instances: it sends to the one that is ready. */
class Balancer {
  private client: KvClient | undefined;
  /** The longest time between two acknowledgements. */
  longestGapMs = 0;
  private acknowledgedAtMs = performance.now();
  isStopped = false;

  constructor(readonly servers: ServerProcess[]) {}

  async write(writer: Writer): Promise<void> {
    while (!this.isStopped) {
      const client = this.client ?? await this.connect();
      if (client === undefined) continue;
      if (await writer.write(client)) {
        const nowMs = performance.now();
        this.longestGapMs = Math.max(
          this.longestGapMs,
          nowMs - this.acknowledgedAtMs,
        );
        this.acknowledgedAtMs = nowMs;
      } else this.client = undefined;
    }
  }

  async connect(): Promise<KvClient | undefined> {
    for (const { url } of this.servers) {
      try {
        return this.client = await KvClient.open(http1(url));
      } catch {
        // The other one, then.
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
    return undefined;
  }

  /** Once after which the gaps are counted anew. */
  begin(): void {
    this.longestGapMs = 0;
    this.acknowledgedAtMs = performance.now();
  }
}

/** Two instances behind a balancer, each with a folder of its own. */
async function startPair(bucket: Bucket, prefix: string, args: string[]) {
  const folders = [await TestFolder.make(), await TestFolder.make()];
  const settings = (i: number): ServerSettings => ({
    path: folders[i].database,
    backup: bucket.at(prefix),
    args,
  });
  const servers = [await ServerProcess.start(settings(0))];
  servers.push(await ServerProcess.bound(settings(1)));
  return {
    servers,
    folders,
    settings,
    async [Symbol.asyncDispose]() {
      await Promise.all(servers.map((server) => server.kill()));
      for (const folder of folders) await folder[Symbol.asyncDispose]();
    },
  };
}

Deno.test("s3: two instances that are restarted for ever: the other one takes over each time, and no acknowledged write is lost", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  const args = ["--durability", "s3", "--standby", ...SHORT_LEASE];
  await using pair = await startPair(bucket, "pair", args);
  const { servers, settings } = pair;
  const balancer = new Balancer(servers);
  const writers = Array.from({ length: 4 }, (_, i) => new Writer(`w${i}`));
  const load = Promise.all(writers.map((writer) => balancer.write(writer)));
  await servers[1].logged(/this one follows its backup/);
  const acknowledged = () =>
    writers.reduce((sum, each) => sum + each.acknowledged.length, 0);
  for (let round = 0; round < 6; round++) {
    const owner = round % 2;
    const other = servers[1 - owner];
    const before = acknowledged();
    await until(() => acknowledged() > before + 20);
    await until(async () => (await readiness(servers[owner])).status === 200);
    const standby = await readiness(other);
    assert.equal(standby.status, 503);
    assert.equal(standby.cause, "standby");
    assert.equal(standby.backup.state, "Standby");
    // Every other time in order: it gives the database up, and exits.
    const isKilled = round < 3;
    balancer.begin();
    if (isKilled) await servers[owner].kill();
    else assert.equal((await servers[owner].stop()).code, 0);
    await until(async () => (await readiness(other)).status === 200);
    const after = acknowledged();
    await until(() => acknowledged() > after + 20);
    console.log(
      `${isKilled ? "killed" : "stopped"}: ${
        Math.round(balancer.longestGapMs)
      } ms without an acknowledgement`,
    );
    servers[owner] = await ServerProcess.bound(settings(owner));
    balancer.servers[owner] = servers[owner];
    await servers[owner].logged(/this one follows its backup/);
  }
  balancer.isStopped = true;
  await load;
  const client = await balancer.connect();
  await auditAll(writers, client!);
  console.log(`${acknowledged()} writes acknowledged, none lost`);
});

Deno.test("an instance that was replaced stands by, and takes over again when the new one is gone", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  const args = ["--durability", "s3", ...SHORT_LEASE];
  await using pair = await startPair(bucket, "replaced", args);
  const [old, next] = pair.servers;
  assert.equal((await put(old, "first")).status, 200);
  // The new one asks, because it is started to replace the old one.
  await next.logged(/Listening on/);
  // One that is asked nothing finds out with the next request.
  await until(async () => {
    const answer = await fetch(`${old.url}/first`, { headers: HEADERS });
    await answer.body?.cancel();
    return (await readiness(old)).cause === "standby";
  });
  assert.equal((await put(next, "second")).status, 200);
  const refused = await put(old, "third");
  assert.equal(refused.status, 503);
  assert.match(await refused.text(), /Another instance serves this database/);
  await next.kill();
  await until(async () => (await readiness(old)).status === 200);
  for (const key of ["first", "second"]) {
    const answer = await fetch(`${old.url}/${key}`, { headers: HEADERS });
    assert.equal(await answer.text(), key);
  }
  // It does not ask for it: it was replaced once, and that was wanted.
  const again = await ServerProcess.bound({
    ...pair.settings(1),
    args: [...args, "--standby"],
  });
  pair.servers[1] = again;
  await again.logged(/this one follows its backup/);
  assert.equal((await put(old, "fourth")).status, 200);
  assert.equal((await readiness(again)).cause, "standby");
});

Deno.test("a launch that asked and is gone does not take the database out of service", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const backup = bucket.at("gone");
  await using server = await ServerProcess.start({
    path: folder.database,
    backup,
    args: SHORT_LEASE,
  });
  assert.equal((await put(server, "key")).status, 200);
  await server.logged(/The new generation is complete/);
  const objects = await openObjectStore(backup.url, {
    clock: systemClock,
    random: systemRandom,
    s3Endpoint: bucket.minio.endpoint,
    s3Credentials: bucket.minio,
  });
  const manifests = new ManifestStore(objects, systemClock, systemRandom);
  const handoverTo = crypto.randomUUID();
  // The server changes the manifest meanwhile, too.
  for (let hasWon = false; !hasWon;) {
    const found = (await manifests.read())!;
    const next = { ...found.manifest, handoverTo };
    hasWon = (await manifests.swap(found, next)).won;
  }
  // Requests keep its lease, so that it looks.
  let isDone = false;
  const declined = server.logged(/was not heard of since/)
    .then(() => isDone = true);
  let count = 0;
  while (!isDone) {
    assert.equal((await put(server, "key")).status, 200);
    if (++count % 10 === 0) await new Promise((go) => setTimeout(go, 50));
  }
  await declined;
  assert.equal((await put(server, "key")).status, 200);
  await until(async () =>
    (await manifests.read())!.manifest.handoverTo === null
  );
  await objects.close();
});

Deno.test("a new instance whose port is taken changes nothing for the one that serves", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using first = await TestFolder.make();
  await using second = await TestFolder.make();
  const backup = bucket.at("port");
  await using server = await ServerProcess.start({
    path: first.database,
    backup,
  });
  await assert.rejects(
    ServerProcess.start({ path: second.database, backup, port: server.port }),
    /127\.0\.0\.1/,
  );
  assert.equal((await put(server, "key")).status, 200);
  assert.ok(server.isRunning);
  assert.doesNotMatch(server.lastWords, /asks for this database/);
});

Deno.test("a start in an outage has its port, says what is waited for, and serves when the store is back", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const proxy = await startHttpProxy(bucket.minio.endpoint);
  await using _stopped = { [Symbol.asyncDispose]: () => proxy.stop() };
  const refuseAll = (isAway: boolean) => {
    proxy.rule = () => isAway ? { kind: "cut" } : undefined;
  };
  const settings = {
    path: folder.database,
    backup: bucket.at("outage", proxy.endpoint),
  };
  {
    await using server = await ServerProcess.start(settings);
    assert.equal((await put(server, "before")).status, 200);
    await server.logged(/The new generation is complete/);
    assert.equal((await server.stop()).code, 0);
  }
  refuseAll(true);
  {
    await using waiting = await ServerProcess.bound(settings);
    await waiting.logged(/does not answer; trying on/);
    await until(async () => (await readiness(waiting)).cause === "backup");
    const refused = await put(waiting, "key");
    assert.equal(refused.status, 503);
    assert.match(await refused.text(), /does not answer/);
    refuseAll(false);
    await waiting.logged(/Listening on/);
    assert.equal((await put(waiting, "key")).status, 200);
    assert.equal((await waiting.stop()).code, 0);
  }
  refuseAll(true);
  // What the operator has said beforehand: serve what is here.
  await using alone = await ServerProcess.start({
    ...settings,
    args: ["--start-in-outage"],
  });
  assert.equal((await put(alone, "alone")).status, 200);
  const ready = await readiness(alone);
  assert.deepEqual([ready.status, ready.backup.state], [200, "Unreachable"]);
  refuseAll(false);
  await until(async () => (await readiness(alone)).backup.state === "Active");
  // Nothing was set aside: another machine gets all of it, once it is shipped.
  await until(async () => {
    const answer = await fetch(`${alone.url}/alone`, { headers: HEADERS });
    await answer.body?.cancel();
    const { headers } = answer;
    return headers.get("durable-local") === headers.get("durable-backup");
  });
  await alone.kill();
  await using other = await TestFolder.make();
  await using restored = await ServerProcess.start({
    ...settings,
    path: other.database,
  });
  for (const key of ["before", "key", "alone"]) {
    const answer = await fetch(`${restored.url}/${key}`, { headers: HEADERS });
    assert.equal(await answer.text(), key);
  }
});
