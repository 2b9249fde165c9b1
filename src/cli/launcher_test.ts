import assert from "node:assert/strict";
import type { Surroundings } from "../common/permission_list.ts";
import { launchOf, printedLine } from "./launcher.ts";
import { type CommandName, COMMANDS, environmentOf } from "./options.ts";

const TOKEN = "a-token-that-is-long";

function around(env: Record<string, string>): Surroundings {
  return {
    env: (name) => env[name],
    readText: () => undefined,
    realPath: (path) => path,
  };
}

function launched(args: string[], env: Record<string, string> = {}) {
  return launchOf(args, around(env), "main.ts");
}

/** One list of the flags; empty where the flag is not given. */
function granted(kind: string, args: string[], env?: Record<string, string>) {
  const start = `--allow-${kind}=`;
  return launched(args, env).args.find((flag) => flag.startsWith(start))
    ?.slice(start.length).split(",") ?? [];
}

Deno.test("a server is allowed its address, its folder and its variables", () => {
  const args = ["--sqlite-path", "/data/x.sqlite", "serve"];
  // What it does not read is no mistake either.
  assert.deepEqual(
    granted("net", ["backup", "snapshot", "--s3-prefix=p"]),
    ["127.0.0.1:4512"],
  );
  assert.deepEqual(granted("net", args), ["0.0.0.0:4512"]);
  assert.deepEqual(granted("net", [...args, "--addr=[::1]:0"]), ["[::1]"]);
  assert.deepEqual(granted("net", args, { PORT: "8000" }), ["0.0.0.0:8000"]);
  assert.deepEqual(granted("net", ["serve", "--dev"]), [
    "localhost:8000",
    "localhost:9000",
  ]);
  assert.deepEqual(granted("read", args), ["/data"]);
  assert.deepEqual(granted("write", args), ["/data"]);
  assert.deepEqual(granted("sys", args), []);
  for (const command of Object.keys(COMMANDS) as CommandName[]) {
    assert.deepEqual(
      granted("env", [...command.split(" ")]),
      environmentOf(command),
    );
  }
  assert.deepEqual(
    granted("read", args, { DENO_KV_ACCESS_TOKEN_FILE: "/run/secrets/t" }),
    ["/data", "/run/secrets/t"],
  );
});

Deno.test("a path with a comma is refused: the runtime would take it for two", () => {
  assert.throws(
    () => launched(["serve", "--sqlite-path=/a,/etc/x"]),
    /"\/a,\/etc" has a comma in it.*Nothing was opened/,
  );
});

Deno.test("a command line with a mistake gets the variables and nothing else", () => {
  for (
    const args of [
      ["serv"],
      ["serve", "--sqlite-pth=/x"],
      ["serve", "--sqlite-path=/x", "--addr=nowhere"],
      ["serve", "--sqlite-path=/x", "--s3-prefix=p", "--print-permissions"],
    ]
  ) {
    const launch = launched(args);
    assert.equal(launch.isPrinted, false);
    assert.deepEqual(
      launch.args.filter((arg) =>
        arg.startsWith("--allow-") && !arg.startsWith("--allow-env=")
      ),
      [],
    );
    const own = args.filter((arg) => arg !== "--print-permissions");
    assert.deepEqual(launch.args.slice(-own.length), own);
  }
  for (const args of [[], ["--help"], ["--version"], ["help", "serve"]]) {
    assert.doesNotMatch(launched(args).args.join(" "), /--allow/);
  }
});

Deno.test("a token of the command line goes into the environment, and counts as before", () => {
  const rest = ["serve", "--sqlite-path=/x"];
  for (
    const args of [
      ["--access-token", TOKEN, ...rest],
      [...rest, `--access-token=${TOKEN}`],
    ]
  ) {
    const launch = launched(args, { DENO_KV_ACCESS_TOKEN_FILE: "/t" });
    assert.equal(launch.env.DENO_KV_ACCESS_TOKEN, TOKEN);
    // A flag beats the environment, the file's too.
    assert.ok("DENO_KV_ACCESS_TOKEN_FILE" in launch.env);
    assert.equal(launch.env.DENO_KV_ACCESS_TOKEN_FILE, undefined);
    assert.deepEqual(launch.args.slice(-2), rest);
    assert.doesNotMatch(launch.args.join(" "), new RegExp(TOKEN));
  }
});

Deno.test("--print-permissions gives a line that a shell takes, without a secret", () => {
  const launch = launched([
    "serve",
    "--sqlite-path=/a b/x",
    "--print-permissions",
    "--access-token",
    TOKEN,
  ]);
  assert.equal(launch.isPrinted, true);
  const line = printedLine("/usr/bin/deno", launch);
  assert.match(
    line,
    /^\/usr\/bin\/deno run --quiet --no-prompt --cached-only /,
  );
  assert.match(line, / '--allow-read=\/a b' /);
  assert.ok(line.endsWith(" main.ts serve '--sqlite-path=/a b/x'"), line);
  assert.doesNotMatch(line, new RegExp(TOKEN));
});
