/** Live replicas as processes: their options, their sources, their clients. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { seededRandom } from "../../src/common/random.ts";
import { KvClient } from "../support/kv_client.ts";
import { startLyingProxy } from "../support/lying_proxy.ts";
import { npmPackage } from "../support/npm.ts";
import {
  ACCESS_TOKEN,
  type BackedUpTo,
  ServerProcess,
  type ServerSettings,
  TestFolder,
  testSeed,
} from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import { comesTo, History, Observer, readiness } from "./support.ts";

const CLIENTS = fileURLToPath(new URL("../clients/", import.meta.url));
const authorization = `Bearer ${ACCESS_TOKEN}`;

async function put(url: string, key: string, value: string): Promise<string> {
  const answer = await fetch(`${url}/${key}`, {
    method: "PUT",
    headers: { authorization },
    body: value,
  });
  assert.equal(answer.status, 200);
  return (await answer.json()).versionstamp;
}

/** One's own write, read elsewhere. */
async function get(
  url: string,
  key: string,
  minVersionstamp: string,
): Promise<[status: number, text: string]> {
  const answer = await fetch(`${url}/${key}`, {
    headers: {
      authorization,
      "x-denokv-min-versionstamp": minVersionstamp,
    },
  });
  return [answer.status, await answer.text()];
}

function startReplica(
  path: string,
  primaryUrl: string,
  more: Partial<ServerSettings> = {},
): Promise<ServerProcess> {
  return ServerProcess.start({
    ...more,
    path,
    net: [new URL(primaryUrl).host],
    args: ["--replica-of", primaryUrl, ...more.args ?? []],
  });
}

async function until(
  what: string,
  holds: () => Promise<boolean>,
): Promise<void> {
  const untilMs = performance.now() + 30_000;
  while (!await holds()) {
    assert.ok(performance.now() < untilMs, `never came: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

Deno.test("a live replica needs its primary's address alone, answers with one's own writes, and names the primary", async () => {
  await using folder = await TestFolder.make();
  await using primary = await ServerProcess.start({ path: folder.database });
  await put(primary.url, "before", "1");
  await using replica = await startReplica(
    `${folder.path}/replica.sqlite`,
    primary.url,
  );
  for (let i = 0; i < 20; i++) {
    const versionstamp = await put(primary.url, "a", `${i}`);
    assert.deepEqual(await get(replica.url, "a", versionstamp), [200, `${i}`]);
  }
  assert.equal((await get(replica.url, "before", "0".repeat(20)))[0], 200);
  const refused = await fetch(`${replica.url}/a`, {
    method: "PUT",
    headers: { authorization },
    body: "x",
  });
  assert.equal(refused.status, 403);
  assert.ok((await refused.text()).includes(primary.url));

  // What nobody has is waited for, and then not shown.
  const [status, sentence] = await get(replica.url, "a", "f".repeat(20));
  assert.equal(status, 503, sentence);
  assert.match(sentence, /does not have version f+ yet/);
  assert.equal((await get(primary.url, "a", "f".repeat(20)))[0], 503);
  assert.equal((await get(replica.url, "a", "7"))[0], 400);

  const metrics = await primary.metrics();
  assert.equal(metrics.get("denokv_live_replicas"), 1);
  assert.equal(
    metrics.get('denokv_log_reader_lag_bytes{reader="replica 1"}'),
    0,
  );
  const { replica: report } = await readiness(replica);
  assert.equal(report.via, "stream");
  assert.equal(report.source, primary.url);

  // A hand-over to nobody: the replica goes on answering, and comes back.
  const { port } = primary;
  const last = await put(primary.url, "a", "last");
  assert.deepEqual(await get(replica.url, "a", last), [200, "last"]);
  assert.equal((await primary.stop()).code, 0);
  assert.deepEqual(await get(replica.url, "a", last), [200, "last"]);
  await using again = await ServerProcess.start({
    path: folder.database,
    port,
  });
  const next = await put(again.url, "a", "next");
  await until("the next write", async () => {
    return (await get(replica.url, "a", next))[0] === 200;
  });
});

Deno.test("a live replica follows the backup while its primary is away, and says which it follows", async () => {
  await using folder = await TestFolder.make();
  const place = `${folder.path}/backup`;
  const backup: BackedUpTo = { url: `file://${place}`, folder: place };
  await Deno.mkdir(place);
  const options = ["--backup-interval", "100ms", "--backup-lease", "2s"];
  const first = await ServerProcess.start({
    path: folder.database,
    backup,
    args: options,
  });
  const { port, url } = first;
  await using replica = await startReplica(
    `${folder.path}/replica.sqlite`,
    url,
    {
      reaches: backup,
      args: ["--replica-from", backup.url, "--replica-interval", "200ms"],
    },
  );
  const versionstamp = await put(url, "a", "1");
  assert.deepEqual(await get(replica.url, "a", versionstamp), [200, "1"]);
  assert.equal((await first.stop()).code, 0);
  await until("the backup", async () => {
    return (await readiness(replica)).replica.via === "bucket";
  });
  assert.match(replica.lastWords, /its backup is, until it can/);
  // Another owner, elsewhere: the replica learns of its writes by the backup.
  await using second = await ServerProcess.start({
    path: `${folder.path}/second.sqlite`,
    backup,
    args: options,
  });
  const later = await put(second.url, "a", "2");
  await until("what another owner wrote", async () => {
    return (await get(replica.url, "a", later))[1] === "2";
  });
  assert.equal((await second.stop()).code, 0);
  await using third = await ServerProcess.start({
    path: folder.database,
    port,
    backup,
    args: options,
  });
  const newest = await put(third.url, "a", "3");
  await until("the stream again", async () => {
    return (await readiness(replica)).replica.via === "stream";
  });
  assert.deepEqual(await get(replica.url, "a", newest), [200, "3"]);
});

async function readEverywhere(
  program: string,
  args: string[],
): Promise<Record<string, string>> {
  const { code, stdout, stderr } = await new Deno.Command(program, {
    args,
    env: { DENO_KV_ACCESS_TOKEN: ACCESS_TOKEN, NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}

/** How many reads each server has answered over KV Connect. */
async function reads(server: ServerProcess): Promise<number> {
  const name = 'denokv_requests_total{endpoint="snapshot_read",status="2xx"}';
  return (await server.metrics()).get(name) ?? 0;
}

Deno.test("what the stock clients do with advertised replicas is what docs/replicas.md says", async () => {
  await using folder = await TestFolder.make();
  await using primary = await ServerProcess.start({ path: folder.database });
  const { port } = primary;
  await using replica = await startReplica(
    `${folder.path}/replica.sqlite`,
    primary.url,
  );
  await primary.stop();
  await using advertising = await ServerProcess.start({
    path: folder.database,
    port,
    args: ["--advertise-replica", `${replica.url}/`],
  });
  const versionstamp = await put(advertising.url, "a", "1");
  await until(
    "the replica",
    async () => (await get(replica.url, "a", versionstamp))[0] === 200,
  );
  const exchanged = async (url: string) => {
    const answer = await fetch(url, {
      method: "POST",
      headers: { authorization },
      body: '{"supportedVersions":[3]}',
    });
    return (await answer.json()).endpoints;
  };
  const DATA = "/-/kv/v2";
  await using strong = await startReplica(
    `${folder.path}/strong.sqlite`,
    advertising.url,
    { args: ["--replica-endpoint", "strong"] },
  );
  assert.deepEqual(await exchanged(strong.url), [
    { url: DATA, consistency: "strong" },
  ]);
  assert.deepEqual(await exchanged(advertising.url), [
    { url: DATA, consistency: "strong" },
    { url: replica.url + DATA, consistency: "eventual" },
  ]);
  assert.deepEqual(await exchanged(replica.url), [
    { url: advertising.url + DATA, consistency: "strong" },
    { url: DATA, consistency: "eventual" },
  ]);

  const installed = await npmPackage("@deno/kv", "0.14.0");
  const programs: [string, string, string[]][] = [[
    "deno",
    Deno.execPath(),
    [
      "run",
      "--quiet",
      "--no-prompt",
      "--unstable-kv",
      "--allow-net=127.0.0.1",
      "--allow-env=DENO_KV_ACCESS_TOKEN",
      `${CLIENTS}deno_consistency.mjs`,
    ],
  ]];
  if ("folder" in installed) {
    programs.push([
      "node",
      "node",
      [`${CLIENTS}node_consistency.mjs`, installed.folder],
    ]);
  } else console.log(`SKIPPED: npm @deno/kv: ${installed.skipped}`);
  const seen: Record<string, unknown> = {};
  for (const [name, program, args] of programs) {
    for (
      const [where, url] of [
        ["primary", advertising.url],
        ["replica", replica.url],
      ]
    ) {
      for (const consistency of ["strong", "eventual"]) {
        const before = [await reads(advertising), await reads(replica)];
        const value = await readEverywhere(program, [
          ...args,
          url,
          consistency,
        ]);
        assert.deepEqual(value, { value: "1" });
        const after = [await reads(advertising), await reads(replica)];
        seen[`${name} at the ${where}, ${consistency}`] = after[0] > before[0]
          ? "primary"
          : "replica";
      }
    }
  }
  // Deno's own client knows one endpoint; npm's takes the one for the read.
  const wanted: Record<string, string> = {
    "deno at the primary, strong": "primary",
    "deno at the primary, eventual": "primary",
    "deno at the replica, strong": "primary",
    "deno at the replica, eventual": "primary",
  };
  if (programs.length > 1) {
    Object.assign(wanted, {
      "node at the primary, strong": "primary",
      "node at the primary, eventual": "replica",
      "node at the replica, strong": "primary",
      "node at the replica, eventual": "replica",
    });
  }
  assert.deepEqual(seen, wanted);
  const before = await reads(strong);
  assert.deepEqual(
    await readEverywhere(programs[0][1], [
      ...programs[0][2],
      strong.url,
      "strong",
    ]),
    { value: "1" },
  );
  assert.ok(await reads(strong) > before);
});

Deno.test("three live replicas of a primary under load, killed at any moment as it is itself, show nothing that never was and never go back", async () => {
  const random = seededRandom(testSeed());
  await using folder = await TestFolder.make();
  const first = await ServerProcess.start({ path: folder.database });
  const { url, port } = first;
  const history = await History.of(first);
  await using servers = new AsyncDisposableStack();
  servers.use(first);
  let primary = first;
  const paths = [0, 1, 2].map((i) => `${folder.path}/replica${i}.sqlite`);
  const proxies = paths.map(() => servers.use(startLyingProxy(url, random)));
  for (let i = 0; i < 5; i++) await history.commit();
  const replicas = await Promise.all(
    paths.map((path, i) => startReplica(path, proxies[i].url)),
  );
  const observers = replicas.map((_, i) =>
    new Observer(() => replicas[i].url, () => history.states)
  );
  for (const proxy of proxies) proxy.bytesPerMishap = 20_000;
  for (let round = 0; round < 8; round++) {
    for (let i = 0; i < 25; i++) await history.commit();
    const at = random.below(4);
    if (at === 3) {
      await primary.kill();
      primary = servers.use(
        await ServerProcess.start({ path: folder.database, port }),
      );
      history.client.close();
      history.client = await KvClient.open(http1(url));
    } else {
      await replicas[at].kill();
      replicas[at] = await startReplica(paths[at], proxies[at].url);
    }
  }
  for (const proxy of proxies) proxy.bytesPerMishap = Infinity;
  await history.commit();
  for (const [i, replica] of replicas.entries()) {
    servers.use(replica);
    await comesTo(replica, () => history.last);
    await observers[i].end();
    assert.ok(observers[i].answers > 0);
  }
  history.client.close();
});

Deno.test("a live replica that has what a takeover lost begins anew, and shows nothing of it afterwards", async () => {
  await using folder = await TestFolder.make();
  const place = `${folder.path}/backup`;
  await Deno.mkdir(place);
  const backup: BackedUpTo = { url: `file://${place}`, folder: place };
  // Nothing but the first snapshot comes to the backup.
  const args = ["--backup-interval", "1h", "--backup-lease", "2s"];
  await using first = await ServerProcess.start({
    path: folder.database,
    backup,
    args,
  });
  const { url, port } = first;
  await put(url, "kept", "1");
  const made = await fetch(`${url}/-/backup/snapshot`, {
    method: "POST",
    headers: { authorization },
  });
  assert.equal(made.status, 200, await made.text());
  await using replica = await startReplica(
    `${folder.path}/replica.sqlite`,
    url,
  );
  const lost = await put(url, "lost", "1");
  assert.deepEqual(await get(replica.url, "lost", lost), [200, "1"]);
  await first.kill();
  await using second = await ServerProcess.start({
    path: `${folder.path}/second.sqlite`,
    port,
    backup,
    args,
  });
  const next = await put(second.url, "next", "1");
  await until("the new owner's write", async () => {
    return (await get(replica.url, "next", next))[0] === 200;
  });
  assert.equal((await get(replica.url, "kept", next))[0], 200);
  assert.equal((await get(replica.url, "lost", next))[0], 404);
  assert.match(replica.lastWords, /begin anew|does not go on/);
});
