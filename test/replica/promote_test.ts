/** A replica becomes the owner while it runs. */
import assert from "node:assert/strict";
import { type Bucket, startBucket, until } from "../backup/support.ts";
import { startHttpProxy } from "../support/http_proxy.ts";
import {
  ACCESS_TOKEN,
  type BackedUpTo,
  runCommand,
  ServerProcess,
  TestFolder,
} from "../support/server.ts";
import {
  comesTo,
  History,
  Observer,
  readiness,
  startReplica,
} from "./support.ts";

const S3 = ["--durability", "s3", "--backup-lease", "1s"];
const QUICK = ["--replica-interval", "200ms"];

function startPrimary(
  path: string,
  backup: BackedUpTo,
  args = S3,
): Promise<ServerProcess> {
  return ServerProcess.start({ path, backup, args });
}

/** A live one, unless it is to follow the bucket. */
function startPromotable(
  path: string,
  backup: BackedUpTo,
  primary?: ServerProcess,
  args = S3,
): Promise<ServerProcess> {
  const source = primary
    ? ["--replica-of", primary.url]
    : ["--replica-from", backup.url];
  return ServerProcess.start({
    path,
    backup,
    net: primary && [new URL(primary.url).host],
    args: [...source, ...QUICK, ...args],
  });
}

/** The command, asked of a server. */
function promote(
  server: ServerProcess,
  folder: TestFolder,
  { token = ACCESS_TOKEN, more = ["--json"] } = {},
) {
  return runCommand(["promote", "--url", server.url, ...more], {
    net: [new URL(server.url).host],
    folder: folder.path,
    env: { DENO_KV_ACCESS_TOKEN: token },
  });
}

/** It takes writes over both entrances, and shows no replica any more. */
async function requireOwner(
  server: ServerProcess,
  said: string,
): Promise<void> {
  const { epoch, versionstamp } = JSON.parse(said);
  const ready = await readiness(server);
  assert.equal(ready.replica, undefined);
  assert.equal(ready.backup.epoch, epoch);
  const metrics = await server.metrics();
  assert.equal(metrics.get("denokv_replica_following"), undefined);
  assert.equal(metrics.get("denokv_backup_epoch"), epoch);
  const answer = await fetch(`${server.url}/rest`, {
    method: "PUT",
    headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
    body: "x",
  });
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  assert.ok(JSON.parse(text).versionstamp > versionstamp);
}

/** Writes without a pause until its server takes no more. */
class Load {
  readonly ended: Promise<void>;
  private isEnded = false;

  constructor(private readonly history: History) {
    this.ended = this.run();
  }

  private async run(): Promise<void> {
    while (!this.isEnded) {
      try {
        await this.history.commit();
      } catch {
        return;
      }
    }
  }

  async end(): Promise<void> {
    this.isEnded = true;
    await this.ended;
  }
}

async function withBucket(
  test: (bucket: Bucket, folder: TestFolder) => Promise<void>,
): Promise<void> {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  await test(bucket, folder);
}

Deno.test("s3: a live replica is promoted while its primary takes writes: nothing acknowledged is lost, no reader goes back, and the primary stands by", () =>
  withBucket(async (bucket, folder) => {
    const backup = bucket.at("app");
    const path = `${folder.path}/replica.sqlite`;
    await using primary = await startPrimary(folder.database, backup);
    const history = await History.of(primary);
    for (let i = 0; i < 10; i++) await history.commit();
    const replica = await startPromotable(path, backup, primary);
    await comesTo(replica, () => history.last);
    const observer = new Observer(() => replica.url, () => history.states);
    const load = new Load(history);
    const done = await promote(replica, folder);
    assert.equal(done.code, 0, `${done.err}\n${replica.lastWords}`);
    await load.ended;
    await history.goOn(replica);
    for (let i = 0; i < 10; i++) await history.commit();
    await comesTo(replica, () => history.last);
    await observer.end();
    assert.ok(observer.answers > 0);
    assert.doesNotMatch(replica.lastWords, /set aside|Restored from/);
    await requireOwner(replica, done.out);
    history.client.close();
    // What was the primary is a standby of it.
    await primary.logged(/this one follows its backup/);
    assert.equal((await fetch(`${primary.url}/-/ready`)).status, 503);

    // Asked once more it is the owner already.
    const again = await promote(replica, folder, { more: [] });
    assert.equal(again.code, 0, again.err);
    assert.match(again.out, /is the owner of the database and takes writes/);
    assert.equal((await replica.stop()).code, 0);
    // It takes over again, with what was written meanwhile.
    await until(async () => {
      const answer = await fetch(`${primary.url}/rest`, {
        headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
      });
      return await answer.text() === "x";
    });
  }));

Deno.test("s3: a live replica is promoted when its primary was killed, and started again with the same options", () =>
  withBucket(async (bucket, folder) => {
    const backup = bucket.at("app");
    const path = `${folder.path}/replica.sqlite`;
    const primary = await startPrimary(folder.database, backup);
    const history = await History.of(primary);
    const replica = await startPromotable(path, backup, primary);
    for (let i = 0; i < 20; i++) await history.commit();
    // A commit that changes nothing is in no segment.
    await history.client.commit([]);
    const { localVersion } = (await readiness(primary)).backup;
    await until(async () =>
      (await readiness(replica)).replica.version === localVersion
    );
    await primary.kill();
    const done = await promote(replica, folder);
    assert.equal(done.code, 0, `${done.err}\n${replica.lastWords}`);
    await history.goOn(replica);
    for (let i = 0; i < 5; i++) await history.commit();
    await comesTo(replica, () => history.last);
    assert.doesNotMatch(replica.lastWords, /set aside|Restored from/);
    await requireOwner(replica, done.out);
    history.client.close();
    await replica.kill();
    await using again = await startPromotable(path, backup, primary);
    assert.match(again.lastWords, /was promoted before/);
    const answer = await fetch(`${again.url}/rest`, {
      headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
    });
    assert.equal(await answer.text(), "x");
  }));

Deno.test("s3: a replica that follows the bucket is promoted", () =>
  withBucket(async (bucket, folder) => {
    const backup = bucket.at("app");
    const path = `${folder.path}/replica.sqlite`;
    const primary = await startPrimary(folder.database, backup);
    const history = await History.of(primary);
    for (let i = 0; i < 10; i++) await history.commit();
    await using replica = await startPromotable(path, backup);
    await comesTo(replica, () => history.last);
    const observer = new Observer(() => replica.url, () => history.states);
    const load = new Load(history);
    const done = await promote(replica, folder);
    assert.equal(done.code, 0, `${done.err}\n${replica.lastWords}`);
    await load.ended;
    await history.goOn(replica);
    await history.commit();
    await comesTo(replica, () => history.last);
    await observer.end();
    assert.doesNotMatch(replica.lastWords, /set aside|Restored from/);
    await requireOwner(replica, done.out);
    history.client.close();
    await primary.kill();
  }));

Deno.test("local: what a killed primary had not shipped is set aside, and said", () =>
  withBucket(async (bucket, folder) => {
    const backup = bucket.at("app");
    const path = `${folder.path}/replica.sqlite`;
    const args = ["--backup-lease", "1s"];
    const primary = await startPrimary(folder.database, backup, [
      ...args,
      ...["--backup-interval", "1h"],
    ]);
    const history = await History.of(primary);
    const replica = await startPromotable(path, backup, primary, args);
    // Its first generation is there, and no segment of these.
    for (let i = 0; i < 10; i++) await history.commit();
    await comesTo(replica, () => history.last);
    await primary.kill();
    history.client.close();
    const done = await promote(replica, folder);
    assert.equal(done.code, 0, `${done.err}\n${replica.lastWords}`);
    assert.match(replica.lastWords, /set aside; it is kept/);
    assert.match(replica.lastWords, /did not ship before another took over/);
    await requireOwner(replica, done.out);
    assert.equal((await replica.stop()).code, 0);
  }));

Deno.test("a promotion is refused without --backup, with a wrong token, and where there is no manifest", () =>
  withBucket(async (bucket, folder) => {
    const backup = bucket.at("app");
    await using primary = await startPrimary(folder.database, backup);
    const history = await History.of(primary);
    await history.commit();
    history.client.close();
    await using reader = await startReplica(
      `${folder.path}/reader.sqlite`,
      backup,
    );
    const none = await promote(reader, folder);
    assert.equal(none.code, 1);
    assert.match(none.err, /refused \(409\).*started without --backup/s);
    const owner = await promote(primary, folder);
    assert.equal(owner.code, 1);
    assert.match(owner.err, /is no replica/);
    await using replica = await startPromotable(
      `${folder.path}/replica.sqlite`,
      backup,
    );
    const wrong = await promote(replica, folder, { token: "a wrong one here" });
    assert.equal(wrong.code, 1);
    assert.match(wrong.err, /does not know this secret/);
    const { generation } = (await readiness(primary)).backup;
    await using part = await startPromotable(
      `${folder.path}/part.sqlite`,
      bucket.at(`app/${generation}`),
    );
    await comesTo(part, () => history.last);
    const folderAlone = await promote(part, folder);
    assert.equal(folderAlone.code, 1);
    assert.match(folderAlone.err, /without a manifest\.json.*as a replica/s);
    // Nothing of it has changed anything.
    for (const each of [reader, replica, part]) {
      await comesTo(each, () => history.last);
      assert.equal((await readiness(each)).replica.state, "Following");
    }
    assert.equal((await readiness(primary)).status, "ready");
  }));

Deno.test("while the object store is away a promotion fails, and the replica goes on; a stop during one ends in order", () =>
  withBucket(async (bucket, folder) => {
    const proxy = await startHttpProxy(bucket.minio.endpoint);
    const path = `${folder.path}/replica.sqlite`;
    const backup = bucket.at("app");
    const args = ["--backup-lease", "5m"];
    const primary = await startPrimary(folder.database, backup, args);
    try {
      const history = await History.of(primary);
      await history.commit();
      await using replica = await startPromotable(
        path,
        bucket.at("app", proxy.endpoint),
        primary,
        args,
      );
      await comesTo(replica, () => history.last);
      proxy.rule = () => ({ kind: "answer", status: 503 });
      const done = await promote(replica, folder);
      assert.equal(done.code, 1, done.out);
      assert.match(done.err, /refused \(503\).*goes on as a replica/s);
      await history.commit();
      await comesTo(replica, () => history.last);
      history.client.close();

      // Its lease runs for minutes: a promotion waits for it.
      proxy.rule = () => undefined;
      await primary.kill();
      const waiting = promote(replica, folder);
      await replica.logged(/Another instance serves this database/);
      await comesTo(replica, () => history.last);
      assert.equal((await replica.stop()).code, 0, replica.lastWords);
      const ended = await waiting;
      assert.equal(ended.code, 1);
      assert.match(ended.err, /server is stopping/);
    } finally {
      await primary.kill();
      await proxy.stop();
    }
  }));
