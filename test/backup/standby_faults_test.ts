/** A standby, and a start, while the object store answers oddly. */
import assert from "node:assert/strict";
import { type ProxiedRequest, startHttpProxy } from "../support/http_proxy.ts";
import { ServerProcess } from "../support/server.ts";
import {
  ARGS,
  isThere,
  put,
  readiness,
  SHORT_LEASE,
  until,
  World,
} from "./support.ts";

const STANDBY = [...ARGS, "--standby"];
const PAGE = "<html>We will be back soon.</html>";
/** Another one than the manifest has, so that the page is read. */
const TAG = '"a page"';

const isManifest = ({ path }: ProxiedRequest) => path.includes("manifest.json");

Deno.test("a standby outlives a proxy's page in the place of the manifest, and a time without permission, and still takes over", async () => {
  await using w = await World.begin("odd");
  if (w === undefined) return;
  const { proxy, backup, proxied } = w;
  await using owner = await ServerProcess.start({
    path: w.disk("first"),
    backup,
    args: STANDBY,
  });
  await put(owner, "key");
  await using standby = await ServerProcess.bound({
    path: w.disk("second"),
    backup: proxied,
    args: STANDBY,
  });
  await standby.logged(/its log is followed from here/);
  for (const status of [200, 403]) {
    let asked = 0;
    proxy.rule = (request) => {
      if (!isManifest(request)) return undefined;
      asked++;
      return { kind: "answer", status, body: PAGE, headers: { etag: TAG } };
    };
    await until(async () => {
      // An owner that is asked nothing may be taken over.
      await put(owner, "key");
      return asked >= 6 || !standby.isRunning;
    });
    assert.ok(standby.isRunning, standby.lastWords);
    assert.equal((await readiness(standby)).status, 503);
    proxy.rule = () => undefined;
    await until(async () => {
      await put(owner, "key");
      return (await readiness(standby)).cause === "standby";
    });
  }
  await owner.kill();
  await until(async () => (await readiness(standby)).status === 200);
  assert.ok(await isThere(standby, "key"));
});

Deno.test("a start that meets a proxy's page in the place of the manifest asks again", async () => {
  await using w = await World.begin("page");
  if (w === undefined) return;
  const { proxy, proxied } = w;
  const settings = {
    path: w.folder.database,
    backup: proxied,
    args: ARGS,
  };
  {
    await using server = await ServerProcess.start(settings);
    await put(server, "key");
    assert.equal((await server.stop()).code, 0);
  }
  let asked = 0;
  proxy.rule = (request) => {
    if (!isManifest(request)) return undefined;
    asked++;
    return { kind: "answer", status: 200, body: PAGE, headers: { etag: TAG } };
  };
  await using server = await ServerProcess.bound(settings);
  await until(() => asked >= 4 || !server.isRunning);
  assert.ok(server.isRunning, server.lastWords);
  proxy.rule = () => undefined;
  await server.logged(/Listening on/);
  assert.ok(await isThere(server, "key"));
});

Deno.test("--start-in-outage serves nothing when the manifest was seen before the store fell silent", async () => {
  await using w = await World.begin("seen");
  if (w === undefined) return;
  const { proxy, backup, proxied } = w;
  const settings = {
    path: w.disk("first"),
    backup: proxied,
    args: [...SHORT_LEASE, "--start-in-outage"],
  };
  {
    await using server = await ServerProcess.start(settings);
    await put(server, "before");
    assert.equal((await server.stop()).code, 0);
  }
  // Another instance has it now: the manifest says so, and nothing else does.
  await using owner = await ServerProcess.start({
    path: w.disk("second"),
    backup,
    args: SHORT_LEASE,
  });
  let refused = 0;
  proxy.rule = (request) => {
    if (isManifest(request)) return undefined;
    refused++;
    return { kind: "cut" };
  };
  await using alone = await ServerProcess.bound(settings);
  await until(() => refused >= 6);
  assert.equal((await readiness(alone)).status, 503);
  assert.doesNotMatch(alone.lastWords, /from its local file alone/);
  await put(owner, "key");
  proxy.rule = () => undefined;
  await alone.logged(/Listening on/);
  assert.ok(await isThere(alone, "key"));
});

Deno.test("s3: a stop in a launch that waits for an object store that is gone ends in order", async () => {
  await using w = await World.begin("stop");
  if (w === undefined) return;
  const { proxy, proxied } = w;
  const settings = {
    path: w.folder.database,
    backup: proxied,
    args: ARGS,
  };
  // What is written without the store is to be shipped at the next launch.
  {
    await using server = await ServerProcess.start({
      ...settings,
      args: [],
    });
    await put(server, "before");
    await server.logged(/The new generation is complete/);
    proxy.rule = () => ({ kind: "cut" });
    await put(server, "alone");
    await server.kill();
  }
  // It becomes the owner, and then nothing can be put.
  let refused = 0;
  proxy.rule = ({ method, path }) => {
    if (method !== "PUT" || !path.includes("/logs/")) return undefined;
    refused++;
    return { kind: "cut" };
  };
  await using server = await ServerProcess.bound(settings);
  await until(() => refused >= 2 || !server.isRunning);
  const { code, tookMs } = await server.stop();
  assert.equal(code, 0, server.lastWords);
  // 10 s are what is promised; the rest is for a busy machine.
  assert.ok(tookMs < 20_000, `${tookMs} ms`);
});

Deno.test("an owner that is asked for the database serves on until its first snapshot is whole", async () => {
  await using w = await World.begin("first");
  if (w === undefined) return;
  const { proxy, proxied } = w;
  // A database that was there before its backup.
  {
    await using server = await ServerProcess.start({ path: w.disk("first") });
    await put(server, "before");
    assert.equal((await server.stop()).code, 0);
  }
  let isHeld = true;
  proxy.rule = ({ method, path }) =>
    isHeld && method === "PUT" && path.includes("/snapshots/")
      ? { kind: "cut" }
      : undefined;
  const args = SHORT_LEASE;
  await using owner = await ServerProcess.start({
    path: w.disk("first"),
    backup: proxied,
    args,
  });
  // Alive and ready, as the owner has to see; it asks as soon as it may.
  const asked = await startHttpProxy(w.bucket.minio.endpoint);
  await using _ended = { [Symbol.asyncDispose]: () => asked.stop() };
  let beats = 0;
  asked.rule = ({ method, path }) => {
    if (method === "PUT" && path.includes("handover.json")) beats++;
    return undefined;
  };
  await using next = await ServerProcess.bound({
    path: w.disk("second"),
    backup: w.bucket.at("first", asked.endpoint),
    args,
  });
  await until(async () => {
    await put(owner, "key");
    return beats >= 5;
  });
  for (let i = 0; i < 10; i++) await put(owner, `${i}`);
  isHeld = false;
  await next.logged(/Listening on/);
  for (const key of ["before", "key", "9"]) {
    assert.ok(await isThere(next, key), key);
  }
});

Deno.test("an owner that is asked nothing keeps the database while a new instance restores it", async () => {
  await using w = await World.begin("idle");
  if (w === undefined) return;
  const { proxy, backup, proxied } = w;
  const settings = { backup, args: ARGS };
  await using owner = await ServerProcess.start({
    path: w.disk("first"),
    ...settings,
  });
  await put(owner, "before");
  // Its lease is over, by any clock.
  await until(async () => {
    const head = await w.objects.head("manifest.json", { now: true });
    return head!.nowMs! - head!.modifiedMs > 4000;
  });
  let restoring = 0;
  proxy.rule = ({ method, path }) => {
    const isRead = method === "GET" && path.includes("/logs/");
    if (!isRead || path.includes("list-type")) return undefined;
    restoring++;
    return { kind: "delay", delayMs: 2000 };
  };
  await using next = await ServerProcess.bound({
    path: w.disk("second"),
    ...settings,
    backup: proxied,
  });
  await until(() => restoring > 0);
  await put(owner, "meanwhile");
  await next.logged(/Listening on/);
  for (const key of ["before", "meanwhile"]) {
    assert.ok(await isThere(next, key), key);
  }
});
