/**
 * The launcher as a process: what it launches is this process, with its own
 * exit code, signals and streams, and no secret in the list of processes.
 */
import assert from "node:assert/strict";
import {
  LAUNCHER_FLAGS,
  launcherCommand,
  ownVariables,
  type Variables,
} from "./support/launched.ts";
import { ServerLog, TestFolder } from "./support/server.ts";

const TOKEN = "a token that nobody may read";

async function run(args: string[], env: Variables = {}, cwd?: string) {
  const { code, stdout, stderr } = await launcherCommand(args, env, cwd)
    .output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
}

function listening(args: string[], env: Variables, cwd?: string) {
  const child = launcherCommand(args, env, cwd).spawn();
  void child.stdout.cancel();
  return { child, log: new ServerLog(child.stderr) };
}

Deno.test("a server that was launched is this process, and gets its signals; its token is in no list of processes", async () => {
  if (Deno.build.os !== "linux") return;
  await using folder = await TestFolder.make();
  for (
    const [signal, code] of [["SIGTERM", 0], ["SIGINT", 0]] as const
  ) {
    const { child, log } = listening([
      ...["serve", "--sqlite-path", folder.database],
      ...["--addr", "127.0.0.1:0", "--access-token", TOKEN],
    ], {});
    await log.until(/Listening on /);
    const shown = await processFile(child.pid, "cmdline");
    // One process: no launcher is left, and nothing to be orphaned.
    assert.match(shown, /main\.ts\0serve\0/);
    assert.doesNotMatch(shown, /denokv\.ts|token that/);
    assert.equal(
      await processFile(child.pid, `task/${child.pid}/children`),
      "",
    );
    const url = /http:\/\/\S+/.exec(log.text)![0];
    const answer = await fetch(`${url}/key`, {
      headers: { authorization: `Bearer ${TOKEN}` },
    });
    await answer.body?.cancel();
    assert.equal(answer.status, 404);
    child.kill(signal);
    assert.equal((await child.status).code, code);
    await log.isRead;
    assert.match(
      log.text,
      / Starting\. .* backup="no backup" accessToken=set /,
    );
    assert.doesNotMatch(log.text, /mayNotSee|token that/);
  }
});

/** By another program: the runtime itself reads none of these. */
async function processFile(pid: number, name: string): Promise<string> {
  const { stdout } = await new Deno.Command("cat", {
    args: [`/proc/${pid}/${name}`],
  }).output();
  return new TextDecoder().decode(stdout);
}

Deno.test("a mistake is told as the command tells it, whatever it may see", async () => {
  for (
    const [args, env, message] of [
      [["serv"], {}, /^error: There is no command 'serv'; did you mean/],
      [
        ["serve", "--sqlite-path=x"],
        { DENO_KV_NUM_WORKERS: "many" },
        /DENO_KV_NUM_WORKERS needs a whole number .* got 'many'/,
      ],
      [["serve", "--sqlite-path=x"], {}, /^error: Nobody could get in/],
      [
        ["serve", "--sqlite-path=x"],
        { KVSTORE_SECRET: "s", DENO_KV_S3_BUCKET: "b" },
        /without --backup/,
      ],
      [["restore", "--from=file:///nowhere"], {}, /--output \(-o\) is missing/],
      [
        ["serve", "--sqlite-path=x", "--access-token-file=/nowhere/token"],
        {},
        /The access token file \/nowhere\/token cannot be read: No such file/,
      ],
    ] as [string[], Variables, RegExp][]
  ) {
    const { code, out, err } = await run(args, env);
    assert.equal(code, 2, err);
    assert.equal(out, "");
    assert.match(err, message);
    assert.doesNotMatch(err, /permission|Requires|\n\s+at /);
  }
});

Deno.test("what --print-permissions prints is run by a shell as the launcher runs it", async () => {
  if (Deno.build.os === "windows") return;
  await using folder = await TestFolder.make();
  const file = `${folder.path}/it's an "address"`;
  const args = ["health", "--address-file", file];
  const env = { PORT: "1" };
  const { code, out } = await run([...args, "--print-permissions"], env);
  assert.equal(code, 0);
  const { code: exitCode, stderr } = await new Deno.Command("sh", {
    args: ["-c", out],
    clearEnv: true,
    env: { ...ownVariables(), ...env },
  }).output();
  assert.equal(exitCode, 1);
  const launched = await run(args, env);
  assert.equal(new TextDecoder().decode(stderr), launched.err);
  assert.match(launched.err, /^not ready: http:\/\/127\.0\.0\.1:1\//);
});

Deno.test("with --log-format json every line of a launched server is JSON, a mistake's too", async () => {
  await using folder = await TestFolder.make();
  const args = [
    ...["serve", "--sqlite-path", folder.database],
    ...["--addr", "127.0.0.1:0", "--log-format", "json"],
  ];
  const { child, log } = listening(args, { KVSTORE_SECRET: TOKEN });
  await log.until(/Listening on /);
  child.kill("SIGTERM");
  await child.status;
  await log.isRead;
  const wrong = await run([...args, "--durability=s3"], {
    KVSTORE_SECRET: TOKEN,
  });
  assert.equal(wrong.code, 2);
  const unknown = await run([...args, "--nothing"]);
  assert.equal(unknown.code, 2);
  const lines = [log.text, wrong.err, unknown.err].join("").trim().split("\n");
  assert.deepEqual(
    lines.map((line) => JSON.parse(line).message.split(" ")[0]),
    [
      ...["Starting.", "Opened", "Listening", "Stopping.", "Stopped;"],
      ...["--durability", "There"],
    ],
  );
});

Deno.test("deno.json, the Dockerfile and the README start it alike", async () => {
  const flags = `${LAUNCHER_FLAGS.join(" ")} denokv.ts`;
  const root = new URL("../", import.meta.url);
  for (const name of ["deno.json", "Dockerfile", "README.md"]) {
    const text = await Deno.readTextFile(new URL(name, root));
    assert.ok(text.includes(flags), name);
  }
});

Deno.test("without the permission that it needs the launcher says which", async () => {
  if (Deno.build.os !== "linux") return;
  const launcher = new URL("../denokv.ts", import.meta.url).pathname;
  const said = async (flags: string[], args: string[]) => {
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-prompt", ...flags, launcher, ...args],
      env: { NO_COLOR: "1" },
    }).output();
    assert.equal(code, 1);
    return new TextDecoder().decode(stderr);
  };
  assert.match(
    await said(["--allow-env"], ["health"]),
    /^error: The permission .*; add --allow-ffi[^\n]*\n$/,
  );
  assert.match(
    await said([], ["health"]),
    /^error: The permission "env" .*\n$/,
  );
  const line = await said(
    ["--allow-env"],
    ["serve", "--sqlite-path=x", "--log-format=json"],
  );
  assert.match(JSON.parse(line).message, /add --allow-/);
});

Deno.test("where a process cannot be replaced, the child gets the signals and gives its exit code", async () => {
  if (Deno.build.os === "windows") return;
  const module = new URL("../src/cli/replace_process.ts", import.meta.url).href;
  const child = `
    Deno.addSignalListener("SIGTERM", () => Deno.exit(7));
    console.log("listening");
    setInterval(() => {}, 1000);
  `;
  const parent = `
    import { runAsChild } from ${JSON.stringify(module)};
    Deno.exit(await runAsChild(Deno.execPath(), ["eval", ${
    JSON.stringify(child)
  }]));
  `;
  const process = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--allow-run", "-"],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = process.stdin.getWriter();
  await writer.write(new TextEncoder().encode(parent));
  await writer.close();
  const log = new ServerLog(process.stdout);
  await log.until(/listening/);
  process.kill("SIGTERM");
  assert.equal((await process.status).code, 7);
});

Deno.test("no package is loaded without a backup; with one, what is missing in the cache is said", async () => {
  await using folder = await TestFolder.make();
  const env = {
    DENO_DIR: `${folder.path}/deno`,
    KVSTORE_SECRET: TOKEN,
    // No way to a registry.
    HTTPS_PROXY: "http://127.0.0.1:9",
  };
  const args = [
    ...["serve", "--sqlite-path", folder.database],
    ...["--addr", "127.0.0.1:0"],
  ];
  const { child, log } = listening(args, env);
  await log.until(/Listening on /);
  child.kill("SIGTERM");
  assert.equal((await child.status).code, 0);
  await log.isRead;
  for (const [url, module] of [["s3://bucket", "s3"], ["gs://bucket", "gcs"]]) {
    const { code, err } = await run([...args, "--backup", url], env);
    assert.equal(code, 1);
    assert.match(
      err,
      new RegExp(
        `error: .* not in Deno's cache, and a start asks no registry.* \\\`deno cache /.*/src/object_store/${module}.ts\\\` `,
      ),
    );
  }
});
