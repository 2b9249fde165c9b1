/**
 * Live replicas: what they show is what the primary had, whatever happens to
 * the connection, to them, or to the primary.
 */
import assert from "node:assert/strict";
import { seededRandom } from "../../src/common/random.ts";
import { startLyingProxy } from "../support/lying_proxy.ts";
import { TestFolder, testSeed } from "../support/server.ts";
import { atomic, range, set } from "../../src/store/contract/support.ts";
import { LiveReplica, Primary } from "./live_support.ts";

Deno.test("live replica: a first copy without a bucket, then commit after commit, over restarts of both", async () => {
  await using folder = await TestFolder.make();
  await using primary = await Primary.start(folder.path);
  for (let i = 0; i < 50; i++) await primary.write("x".repeat(1000));
  await using replica = LiveReplica.start(
    `${folder.path}/replica.sqlite`,
    primary.url,
  );
  let version = await primary.write();
  await replica.reaches(version);
  replica.check(primary.history);
  for (let i = 0; i < 20; i++) {
    version = await primary.write();
    await replica.reaches(version);
    replica.check(primary.history);
  }
  assert.equal(replica.report.via, "stream");
  await replica.stop();
  for (let i = 0; i < 20; i++) version = await primary.write();
  replica.open();
  await replica.reaches(version);
  replica.check(primary.history);
  await primary.restart();
  version = await primary.write();
  await replica.reaches(version);
  replica.check(primary.history);
});

Deno.test("live replica: one that was away for longer than the log reaches back begins anew by itself", async () => {
  await using folder = await TestFolder.make();
  await using primary = await Primary.start(folder.path, 0);
  await using replica = LiveReplica.start(
    `${folder.path}/replica.sqlite`,
    primary.url,
  );
  await replica.reaches(await primary.write());
  await replica.stop();
  let version = 0;
  for (let i = 0; i < 60; i++) {
    version = await primary.write("x".repeat(20_000));
  }
  replica.open();
  await replica.reaches(version);
  replica.check(primary.history);
  assert.equal(replica.report.via, "stream");
});

Deno.test("live replica: where an older copy of the primary gave its version to another commit, it begins anew", async () => {
  await using folder = await TestFolder.make();
  const file = `${folder.path}/primary.sqlite`;
  await using primary = await Primary.start(folder.path);
  await primary.write();
  const { port } = primary.server;
  await primary.close();
  await Deno.copyFile(file, `${folder.path}/copy.sqlite`);
  await primary.open(port);
  await using replica = LiveReplica.start(
    `${folder.path}/replica.sqlite`,
    primary.url,
  );
  let version = await primary.write();
  await replica.reaches(version);
  await primary.write();
  version = await primary.write("one line");
  await replica.reaches(version);
  await replica.stop();
  await primary.close();
  // The copy on another machine; versions are drawn, so it may take some.
  let last = 0;
  for (let tries = 0; last !== version; tries++) {
    assert.ok(tries < 500);
    for (const name of ["", "-wal", "-shm", "-lock"]) {
      await Deno.remove(file + name).catch(() => {});
    }
    await Deno.copyFile(`${folder.path}/copy.sqlite`, file);
    await primary.open(port);
    while ((last = await primary.write("another line")) < version);
    if (last !== version) await primary.close();
  }
  const next = await primary.store.write(atomic([set("z", "behind it")]));
  replica.open();
  await replica.reaches((next as { version: number }).version);
  const all = [range("a", "zz")];
  assert.deepEqual(replica.read(all), await primary.store.read(all));
});

Deno.test("live replicas: three under load behind a proxy that cuts, changes and holds up show nothing that never was, and do not go back", async () => {
  const random = seededRandom(testSeed());
  await using folder = await TestFolder.make();
  await using primary = await Primary.start(folder.path);
  await primary.write();
  await using proxies = new AsyncDisposableStack();
  const replicas: LiveReplica[] = [];
  const lying = [0, 1, 2].map((i) => {
    const proxy = proxies.use(startLyingProxy(primary.url, random));
    const replica = LiveReplica.start(
      `${folder.path}/replica${i}.sqlite`,
      proxy.url,
    );
    replicas.push(replica);
    return proxy;
  });
  try {
    for (const replica of replicas) await replica.reaches(1);
    for (const proxy of lying) proxy.bytesPerMishap = 300_000;
    let version = 0;
    for (let round = 0; round < 150; round++) {
      const written = await Promise.all(
        Array.from(
          { length: 1 + random.below(20) },
          () => primary.write("x".repeat(random.below(200))),
        ),
      );
      version = Math.max(version, ...written);
      for (const replica of replicas) replica.check(primary.history);
      if (random.below(40) === 0) await replicas[random.below(3)].restart();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const mishaps = lying.flatMap(({ mishaps }) => Object.values(mishaps))
      .reduce((sum, count) => sum + count, 0);
    assert.ok(mishaps > 0, "nothing went wrong");
    for (const proxy of lying) proxy.bytesPerMishap = Infinity;
    for (const replica of replicas) {
      await replica.reaches(version);
      replica.check(primary.history);
    }
  } finally {
    await Promise.all(replicas.map((replica) => replica.stop()));
  }
});
