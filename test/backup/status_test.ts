/** What `backup status` says, and with which exit code, whatever is gone. */
import assert from "node:assert/strict";
import {
  ACCESS_TOKEN,
  runCommand,
  ServerProcess,
  TestFolder,
} from "../support/server.ts";
import { folderBackup, SHORT_LEASE } from "./support.ts";

const SECRET = { DENO_KV_ACCESS_TOKEN: ACCESS_TOKEN };
/** Of a lease of a second, on a busy machine. */
const LEASE_LIMIT_MS = 60_000;

Deno.test("a server that is paused, killed or stopped is not Active, and each has its exit code", async () => {
  await using folder = await TestFolder.make();
  const place = `${folder.path}/backup`;
  await Deno.mkdir(place);
  const backup = folderBackup(place);
  const start = () =>
    ServerProcess.start({
      path: folder.database,
      backup,
      // With `s3` it listens when the first generation is whole.
      args: [...SHORT_LEASE, "--durability", "s3"],
    });
  const status = async (server: ServerProcess) => {
    const address = `127.0.0.1:${server.port}`;
    const { code, out, err } = await runCommand(
      [
        "backup",
        "status",
        "--json",
        "--backup",
        backup.url,
        "--addr",
        address,
      ],
      { folder: folder.path, net: [address], env: SECRET },
    );
    assert.equal(err, "");
    return { code, ...JSON.parse(out) };
  };
  /** Once the lease in the manifest has run out. */
  const afterLease = async (server: ServerProcess) => {
    const deadlineMs = performance.now() + LEASE_LIMIT_MS;
    for (;;) {
      const told = await status(server);
      if (told.state !== "Active" || performance.now() > deadlineMs) {
        return told;
      }
    }
  };
  await using server = await start();
  assert.partialDeepStrictEqual(await status(server), {
    code: 0,
    state: "Active",
    server: { state: "Active" },
  });
  const { requests } = (await status(server)).server;
  assert(requests.put > 0 && requests.get > 0 && requests.forMs > 0);
  const counted = (await server.metrics()).get(
    'denokv_backup_requests_total{kind="put"}',
  );
  assert(counted! >= requests.put);
  server.signal("SIGSTOP");
  const paused = await afterLease(server);
  assert.partialDeepStrictEqual(paused, { code: 7, state: "Unknown" });
  assert.match(paused.notAsked, /no answer within/);
  server.signal("SIGCONT");
  assert.equal((await status(server)).state, "Active");
  await server.kill();
  const killed = await afterLease(server);
  assert.partialDeepStrictEqual(killed, { code: 7, state: "Unknown" });
  assert.match(killed.notAsked, /Nothing listens there/);
  await using next = await start();
  assert.equal((await next.stop()).code, 0);
  assert.partialDeepStrictEqual(await status(next), {
    code: 5,
    state: "Stopped",
  });
});

Deno.test("what the retention takes is told beforehand, with its time", async () => {
  await using folder = await TestFolder.make();
  const place = `${folder.path}/backup`;
  await Deno.mkdir(place);
  const backup = folderBackup(place);
  await using server = await ServerProcess.start({
    path: folder.database,
    backup,
    args: ["--durability", "s3"],
  });
  const answer = await fetch(`${server.url}/-/backup/snapshot`, {
    method: "POST",
    headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
  });
  await answer.body?.cancel();
  assert.equal(answer.status, 200);
  const at = `127.0.0.1:${server.port}`;
  const status = async (...args: string[]) =>
    (await runCommand(
      ["backup", "status", "--backup", backup.url, "--addr", at, ...args],
      { folder: folder.path, net: [at], env: SECRET },
    )).out;
  const [former] = JSON.parse(await status("--json")).expiring;
  const goes = new Date(former.endedMs + 3_600_000).toISOString();
  const lines = (await status("--backup-retention", "1h")).split("\n")
    .filter((line) => line.includes("will go"));
  assert.deepEqual(lines.map((line) => line.trim()), [
    `will go        ${former.name}, with the first new generation after ${goes}`,
  ]);
});

Deno.test("in an outage of the object store the server is asked, and the answer is Unreachable", async () => {
  await using folder = await TestFolder.make();
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  listener.close();
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () =>
      Response.json({
        status: "ready",
        backup: { state: "Unreachable", lagMs: 7000 },
      }),
  );
  const address = `127.0.0.1:${server.addr.port}`;
  const endpoint = `http://127.0.0.1:${port}`;
  const status = (...args: string[]) =>
    runCommand(
      [
        "backup",
        "status",
        "--backup=s3://bucket/app",
        `--s3-endpoint=${endpoint}`,
        `--addr=${address}`,
        ...args,
      ],
      {
        folder: folder.path,
        net: [address],
        backup: {
          url: "s3://bucket/app",
          endpoint,
          env: {
            AWS_ACCESS_KEY_ID: "id",
            AWS_SECRET_ACCESS_KEY: "secret",
            AWS_EC2_METADATA_DISABLED: "true",
          },
        },
      },
    );
  const { code, out, err } = await status();
  assert.equal(code, 6, err);
  assert.equal(err, "");
  assert.match(out, /^Unreachable: s3:\/\/bucket\/app\n {2}object store +\S/);
  assert.match(out, /server +Unreachable, 7000 ms behind/);
  const told = JSON.parse((await status("--json")).out);
  assert.partialDeepStrictEqual(told, {
    state: "Unreachable",
    url: "s3://bucket/app",
    server: { state: "Unreachable", lagMs: 7000 },
  });
  assert.match(told.reason, /\S/);
});

Deno.test("the points that can be restored are listed out of the manifest alone", async () => {
  await using folder = await TestFolder.make();
  const place = `${folder.path}/backup`;
  await Deno.mkdir(place);
  const backup = folderBackup(place);
  await using server = await ServerProcess.start({
    path: folder.database,
    backup,
    args: ["--durability", "s3"],
  });
  const write = async () => {
    const answer = await fetch(`${server.url}/a`, {
      method: "POST",
      body: "b",
      headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
    });
    return (await answer.json()).versionstamp as string;
  };
  const first = await write();
  const address = `127.0.0.1:${server.port}`;
  const snapshot = await runCommand(
    ["backup", "snapshot", "--addr", address],
    { folder: folder.path, net: [address], env: SECRET },
  );
  assert.equal(snapshot.code, 0, snapshot.err);
  const last = await write();
  const list = async (...args: string[]) => {
    const { code, out, err } = await runCommand(
      ["backup", "list", "--backup", backup.url, ...args],
      { folder: folder.path },
    );
    assert.equal(code, 0, err);
    return out;
  };
  const serving = JSON.parse(await list("--json"));
  assert.equal(serving.url, backup.url);
  assert.equal(serving.generations.length, 2);
  const [former, present] = serving.generations;
  assert(former.startedMs <= present.startedMs);
  assert(former.endedMs >= present.startedMs);
  assert.equal(present.endedMs, null);
  assert(former.versionstamp < first);
  assert(present.versionstamp >= first);
  assert.equal(serving.newest.isExact, false);
  assert(serving.newest.versionstamp < last);
  assert.match(
    await list(),
    new RegExp(`newest +at least ${present.versionstamp}`),
  );
  assert.equal((await server.stop()).code, 0);
  const { newest } = JSON.parse(await list("--json"));
  assert.deepEqual(newest, { versionstamp: last, isExact: true });
  const lines = (await list()).split("\n");
  assert.equal(lines[0], backup.url);
  for (const { name, startedMs, versionstamp } of serving.generations) {
    const time = new Date(startedMs).toISOString();
    assert(
      lines.some((line) =>
        [name, time, versionstamp].every((text) => line.includes(text))
      ),
      lines.join("\n"),
    );
  }
  assert.match(lines.join("\n"), new RegExp(`newest +${last}`));
  // What is listed can be restored.
  for (const at of [former.versionstamp, present.versionstamp, last]) {
    const { code, err } = await runCommand(
      [
        "restore",
        "--from",
        backup.url,
        "--at",
        at,
        "-o",
        `${folder.path}/at-${at}.sqlite`,
      ],
      { folder: folder.path },
    );
    assert.equal(code, 0, err);
  }
});

Deno.test("a place without a backup has no points to list", async () => {
  await using folder = await TestFolder.make();
  const { code, out, err } = await runCommand(
    ["backup", "list", "--backup", `file://${folder.path}`],
    { folder: folder.path },
  );
  assert.equal(code, 1);
  assert.equal(out, "");
  assert.match(err, /There is no backup in file:.*check the URL/);
});

Deno.test("a start that hangs on the object store says at intervals what it waits for", async () => {
  await using folder = await TestFolder.make();
  // Takes connections, and never says a word.
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const endpoint = `http://127.0.0.1:${port}`;
  await using server = ServerProcess.starting({
    path: folder.database,
    backup: {
      url: "s3://bucket/app",
      endpoint,
      env: {
        AWS_ACCESS_KEY_ID: "id",
        AWS_SECRET_ACCESS_KEY: "secret",
        AWS_EC2_METADATA_DISABLED: "true",
      },
    },
  });
  await server.logged(
    /WARN {2}The object store has not answered; it is waited for\. waitingFor="[^"]+" store=s3:\/\/bucket\/app endpoint=\S+ forMs=\d+/,
  );
  assert.match(server.lastWords, /backup=s3:\/\/bucket\/app/);
});
