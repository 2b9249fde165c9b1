/**
 * Every command against every kind of place, under exactly the permissions
 * that the launcher computes: nothing is asked for that they do not allow.
 */
import assert from "node:assert/strict";
import { COMMANDS } from "../src/cli/options.ts";
import { startFakeGcs } from "./support/fake_gcs.ts";
import { startMinio } from "./support/minio.ts";
import {
  runAudited,
  spawnAudited,
  type Variables,
} from "./support/launched.ts";
import { ServerLog, TestFolder } from "./support/server.ts";

const SECRET = "a secret of this test";
const TOKEN = "an access token of this test";
const LISTENING = /Listening on http:\/\/([^\s"]+)/;

interface Place {
  args: string[];
  url: string;
  /** For `restore`, which names the place by another option. */
  endpoint: string[];
  env: Variables;
}

Deno.test("a backup on MinIO", async () => {
  const minio = await startMinio();
  if (minio === undefined) return;
  try {
    await minio.createBucket("launched");
    const endpoint = ["--s3-endpoint", minio.endpoint];
    const url = "s3://launched/app";
    await everyCommand({
      args: ["--backup", url, ...endpoint],
      url,
      endpoint,
      env: minio.env(),
    });
  } finally {
    await minio.stop();
  }
});

Deno.test("MinIO with the credentials of a profile, a container and an instance", async () => {
  const minio = await startMinio();
  if (minio === undefined) return;
  await using folder = await TestFolder.make();
  const { accessKeyId, secretAccessKey } = minio;
  const answer = {
    Code: "Success",
    AccessKeyId: accessKeyId,
    SecretAccessKey: secretAccessKey,
    Token: "",
    Expiration: "2100-01-01T00:00:00Z",
  };
  // What a container and an instance ask for theirs.
  const metadata = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    (request) => {
      const { pathname } = new URL(request.url);
      if (pathname.endsWith("/token")) return new Response("token");
      return pathname.endsWith("/security-credentials/")
        ? new Response("role")
        : Response.json(answer);
    },
  );
  const host = `http://127.0.0.1:${metadata.addr.port}`;
  await Deno.mkdir(`${folder.path}/.aws`);
  const profile = `${folder.path}/.aws/credentials`;
  const keys =
    `[work]\naws_access_key_id=${accessKeyId}\naws_secret_access_key=${secretAccessKey}\n`;
  await Deno.writeTextFile(profile, keys);
  try {
    await minio.createBucket("launched");
    const args = [
      ...["backup", "status", "--backup", "s3://launched/none"],
      ...["--s3-endpoint", minio.endpoint],
    ];
    for (
      const env of [
        { AWS_PROFILE: "work" },
        { AWS_CONTAINER_CREDENTIALS_FULL_URI: `${host}/x` },
        { AWS_EC2_METADATA_SERVICE_ENDPOINT: host },
        // A service without a home: the SDK asks the system for one.
        { ...minio.env(), HOME: "" },
      ] as Variables[]
    ) {
      // The runtime's own cache is not where this HOME is.
      const own = { HOME: folder.path, DENO_DIR: await cacheFolder() };
      const { code, out, err } = await runAudited(
        args,
        { ...own, ...env },
        folder.path,
      );
      assert.match(out, /^Empty: /, err);
      assert.equal(code, 1);
    }
  } finally {
    await metadata.shutdown();
    await minio.stop();
  }
});

async function cacheFolder(): Promise<string> {
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json"],
  }).output();
  return JSON.parse(new TextDecoder().decode(stdout)).denoDir;
}

Deno.test("a backup on Google's emulator", async () => {
  const gcs = await startFakeGcs();
  if (gcs === undefined) return;
  try {
    await gcs.createBucket("launched");
    const endpoint = ["--gcs-endpoint", gcs.endpoint];
    const url = "gs://launched/app";
    await everyCommand({
      args: ["--backup", url, ...endpoint],
      url,
      endpoint,
      env: {},
    });
  } finally {
    await gcs.stop();
  }
});

Deno.test("a backup in a folder", async () => {
  await using folder = await TestFolder.make();
  const url = `file://${folder.path}`;
  await everyCommand({ args: ["--backup", url], url, endpoint: [], env: {} });
});

Deno.test("a backup in a folder that a link leads to", async () => {
  await using folder = await TestFolder.make();
  await using other = await TestFolder.make();
  await Deno.mkdir(`${other.path}/real`);
  await Deno.symlink("real", `${other.path}/link`);
  const url = `file://${other.path}/link`;
  const args = ["--backup", url];
  // The database's folder, too: /var/lib/denokv on another disk.
  await Deno.symlink(folder.path, `${other.path}/data`);
  for (const data of [folder.path, `${other.path}/data`]) {
    const place = { args, url, endpoint: [], env: {} };
    const server = await serve(folder, place, `${data}/denokv.sqlite`);
    for (const command of ["snapshot", "verify"]) {
      const database = command === "verify"
        ? ["--sqlite-path", `${data}/denokv.sqlite`]
        : [];
      const line = ["backup", command, ...args, ...database];
      const { code, err } = await runAudited(line, server.env, folder.path);
      assert.equal(code, 0, err);
    }
    await server.stop();
  }
});

Deno.test("a standby that takes over, and is asked before it does", async () => {
  await using folder = await TestFolder.make();
  await using other = await TestFolder.make();
  await using backup = await TestFolder.make();
  const place = {
    args: ["--backup", `file://${backup.path}`, "--backup-lease", "1s"],
    url: "",
    endpoint: [],
    env: {},
  };
  const owner = await serve(folder, place);
  const env = {
    KVSTORE_SECRET: SECRET,
    DENO_KV_ADDRESS_FILE: `${other.path}/address`,
  };
  const standby = await spawnAudited(
    [
      ...["serve", "--sqlite-path", other.database, "--standby"],
      ...["--addr", "127.0.0.1:0", ...place.args],
    ],
    env,
    other.path,
  );
  const log = new ServerLog(standby.process.stderr);
  void standby.process.stdout.cancel();
  await log.until(/this one follows its backup/);
  // At its own address, which it has before it serves.
  const { code, out } = await runAudited(["health"], env, other.path);
  assert.equal(code, 0);
  assert.match(out, /^standby: http:\/\/127\.0\.0\.1:\d+\/-\/ready/);
  await owner.stop();
  await log.until(/Listening on /);
  const ready = await runAudited(["health"], env, other.path);
  assert.equal(ready.code, 0, ready.err);
  standby.process.kill("SIGTERM");
  assert.equal((await standby.process.status).code, 0);
  await standby.check();
});

Deno.test("no backup", async () => {
  await using folder = await TestFolder.make();
  const server = await serve(folder, {
    args: [],
    url: "",
    endpoint: [],
    env: {},
  });
  const { out } = await runAudited(
    ["health"],
    server.env,
    folder.path,
  );
  assert.match(out, /^ready: /);
  await server.stop();

  const data = `${folder.path}/new/denokv.sqlite`;
  const started = await spawnAudited(
    ["start", "--addr", "localhost:0", "--sqlite-path", data],
    {},
    folder.path,
  );
  await listens(started.process);
  started.process.kill("SIGTERM");
  assert.equal((await started.process.status).code, 0);
  await started.check();
});

async function everyCommand(place: Place): Promise<void> {
  await using folder = await TestFolder.make();
  const { path, database } = folder;
  const server = await serve(folder, place);
  const ran = new Set(["serve"]);
  const run = async (...args: string[]) => {
    ran.add(
      /^(backup|pitr)$/.test(args[0]) ? `${args[0]} ${args[1]}` : args[0],
    );
    const { code, out, err } = await runAudited(args, server.env, path);
    assert.equal(code, 0, `${args.join(" ")}: ${err}`);
    return out;
  };
  assert.match(await run("health"), /^ready: /);
  assert.match(await run("backup", "snapshot"), /^New generation /);
  const position = ["--resume-file", `${path}/position`];
  assert.match(await run("changes", "--from", "oldest", ...position), /"set"/);
  const status = ["backup", "status", ...place.args];
  assert.match(await run(...status), /^Active: /);
  assert.match(await run(...status, "--sqlite-path", database), /^Active: /);
  assert.match(await run("backup", "list", ...place.args), /newest/);
  assert.match(
    await run("backup", "verify", ...place.args, "--sqlite-path", database),
    /equal to the database/,
  );
  const replica = ["--sqlite-path", `${path}/replica.sqlite`];
  const source = ["--replica-from", place.url, ...place.endpoint];
  assert.match(
    await run("pitr", "sync", ...replica, ...source),
    new RegExp(server.versionstamp),
  );
  await run("pitr", "list", ...replica);
  assert.match(await run("pitr", "info", ...replica), /versionstamp/);
  await run("pitr", "checkout", ...replica, server.versionstamp);
  for (
    const primary of [source, ["--replica-of", `http://${server.address}`]]
  ) {
    await follows(folder, [...replica, ...primary], server.env);
    // A live replica begins with a copy of its own.
    replica[1] = `${path}/live.sqlite`;
  }
  await promotes(server, folder, place, (url) => run("promote", "--url", url));
  const restore = ["restore", "--from", place.url, ...place.endpoint];
  assert.match(await run(...restore, "-o", `${path}/a.sqlite`), /^Restored /);
  await server.stop();
  assert.match(
    await run(...restore, "--same-database", "-o", `${path}/b.sqlite`),
    /same database as before/,
  );
  const at = ["--to", server.versionstamp, "--branch", "kept", "--yes"];
  await run("backup", "rewind", ...place.args, ...at);
  assert.match(await run("backup", "branches", ...place.args), /kept/);
  const kept = ["--branch", "kept", "-o", `${path}/c.sqlite`];
  assert.match(await run(...restore, ...kept), /^Restored /);
  await run("backup", "branches", ...place.args, "--remove", "kept");
  if (place.url.startsWith("file:")) {
    // So that there is something to mend.
    await Deno.remove(new URL(`${place.url}/manifest.json`));
  }
  await run("backup", "repair", ...place.args, "--yes");
  // Whoever adds a command adds it here.
  const missing = Object.keys(COMMANDS).filter((command) => !ran.has(command));
  assert.deepEqual(missing, ["start"]);
  // From nothing but the backup.
  for (const { name } of Deno.readDirSync(path)) {
    if (name.startsWith("denokv.sqlite")) await Deno.remove(`${path}/${name}`);
  }
  const again = await serve(folder, place);
  const answer = await fetch(`http://${again.address}/key`);
  assert.equal(await answer.text(), "value");
  await again.stop();
}

/** A replica that shows the key. */
async function follows(
  { path }: TestFolder,
  args: string[],
  env: Variables,
): Promise<void> {
  const { process, check } = await spawnAudited(
    [
      ...["serve", "--addr", "127.0.0.1:0", "--public-reads", ...args],
    ],
    { ...env, DENO_KV_ADDRESS_FILE: `${path}/replica-address` },
    path,
  );
  const { address } = await listens(process);
  let answer = await fetch(`http://${address}/key`);
  while (answer.status === 503) {
    await answer.body?.cancel();
    answer = await fetch(`http://${address}/key`);
  }
  assert.equal(await answer.text(), "value");
  process.kill("SIGTERM");
  assert.equal((await process.status).code, 0);
  await check();
}

/** A replica that becomes the owner; then it is the first one's turn again. */
async function promotes(
  server: { env: Variables; address: string },
  { path }: TestFolder,
  { args }: Place,
  run: (url: string) => Promise<string>,
): Promise<void> {
  const { process, check } = await spawnAudited(
    [
      ...["serve", "--sqlite-path", `${path}/promoted.sqlite`],
      ...["--addr", "127.0.0.1:0", "--replica-of", `http://${server.address}`],
      ...args,
    ],
    { ...server.env, DENO_KV_ADDRESS_FILE: `${path}/replica-address` },
    path,
  );
  const { address } = await listens(process);
  assert.match(await run(`http://${address}`), /is the owner of the database/);
  process.kill("SIGTERM");
  assert.equal((await process.status).code, 0);
  await check();
  for (;;) {
    const answer = await fetch(`http://${server.address}/-/ready`);
    await answer.body?.cancel();
    if (answer.status === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** One that has a key, and says where it listens to those that ask. */
async function serve(
  { path, database: usual }: TestFolder,
  place: Place,
  database = usual,
) {
  const env = {
    ...place.env,
    KVSTORE_SECRET: SECRET,
    DENO_KV_ACCESS_TOKEN: TOKEN,
    DENO_KV_ADDRESS_FILE: `${path}/address`,
    TMPDIR: path,
  };
  const { process, check } = await spawnAudited(
    [
      ...["serve", "--sqlite-path", database, "--addr", "127.0.0.1:0"],
      ...["--public-reads", "--verify-every", "1s", ...place.args],
    ],
    env,
    path,
  );
  const { address } = await listens(process);
  const put = await fetch(`http://${address}/key`, {
    method: "POST",
    headers: { authorization: `Bearer ${SECRET}` },
    body: "value",
  });
  const said = await put.text();
  assert.equal(put.status, 200, said);
  return {
    env,
    address,
    versionstamp: String(JSON.parse(said).versionstamp),
    async stop() {
      process.kill("SIGTERM");
      assert.equal((await process.status).code, 0);
      await check();
    },
  };
}

/** Resolves when it has said so; all that it says is checked in the end. */
async function listens(
  process: Deno.ChildProcess,
): Promise<{ address: string }> {
  void process.stdout.cancel();
  const found = Promise.withResolvers<string>();
  void (async () => {
    let log = "";
    for await (
      const text of process.stderr.pipeThrough(new TextDecoderStream())
    ) {
      log += text;
      const address = LISTENING.exec(log)?.[1];
      if (address !== undefined) found.resolve(address);
    }
    found.reject(new Error(`it ended: ${log}`));
  })();
  return { address: (await found.promise).replace("0.0.0.0", "127.0.0.1") };
}
