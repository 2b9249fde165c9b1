import assert from "node:assert/strict";
import { UsageError } from "../common/errors.ts";
import { type Invocation, parseCommandLine } from "./parse.ts";

function parse(
  args: string[],
  env: Record<string, string> = {},
): Invocation {
  return parseCommandLine(args, (name) => env[name]);
}

function run(args: string[], env: Record<string, string> = {}) {
  const invocation = parse(args, env);
  assert(invocation.kind === "run");
  return invocation;
}

function refused(
  args: string[],
  message: RegExp,
  env: Record<string, string> = {},
): void {
  assert.throws(() => parse(args, env), (error: unknown) => {
    assert(error instanceof UsageError, String(error));
    assert.match(error.message, message);
    // One line, ending as a sentence does.
    assert.match(error.message, /^[^\n]+[.?]$/);
    return true;
  });
}

Deno.test("options stand before or after the command, with = or without", () => {
  for (
    const args of [
      ["--sqlite-path", "a.sqlite", "serve", "--addr", "[::1]:80"],
      ["serve", "--sqlite-path=a.sqlite", "--addr=[::1]:80"],
      ["--addr=[::1]:80", "--sqlite-path", "a.sqlite", "serve"],
    ]
  ) {
    const { command, values } = run(args);
    assert.equal(command, "serve");
    assert.equal(values.sqlitePath, "a.sqlite");
    assert.equal(values.addr, "[::1]:80");
  }
});

Deno.test("a flag without a value does not swallow the command", () => {
  const { command, values } = run(["--read-only", "serve"]);
  assert.equal(command, "serve");
  assert.equal(values.readOnly, true);
});

Deno.test("defaults, environment, flag: each beats the one before", () => {
  const env = { DENO_KV_NUM_WORKERS: "3" };
  assert.equal(run(["serve"]).values.numWorkers, 1);
  assert.equal(run(["serve"]).sources.numWorkers, "default");
  assert.equal(run(["serve"], env).values.numWorkers, 3);
  assert.equal(run(["serve"], env).sources.numWorkers, "environment");
  const flagged = run(["serve", "--num-workers", "2"], env);
  assert.equal(flagged.values.numWorkers, 2);
  assert.equal(flagged.sources.numWorkers, "flag");
  // A flag is used even where the variable beside it makes no sense.
  assert.equal(
    run(["serve", "--num-workers=2"], { DENO_KV_NUM_WORKERS: "x" }).values
      .numWorkers,
    2,
  );
});

Deno.test("an empty variable is one that is not set", () => {
  const { values } = run(["serve"], {
    DENO_KV_SQLITE_PATH: "",
    DENO_KV_PUBLIC_READS: "",
    PORT: "",
  });
  assert.equal(values.sqlitePath, undefined);
  assert.equal(values.publicReads, false);
  assert.equal(values.port, undefined);
});

Deno.test("switches take the words that clap takes, and a flag can undo one", () => {
  for (const word of ["true", "1", "YES", "y", "on", "T"]) {
    const { values } = run(["serve"], { DENO_KV_PUBLIC_READS: word });
    assert.equal(values.publicReads, true, word);
  }
  for (const word of ["false", "0", "No", "n", "off", "f"]) {
    const { values } = run(["serve"], { DENO_KV_PUBLIC_READS: word });
    assert.equal(values.publicReads, false, word);
  }
  assert.equal(
    run(["serve", "--public-reads=false"], { DENO_KV_PUBLIC_READS: "1" })
      .values.publicReads,
    false,
  );
  refused(["serve"], /DENO_KV_PUBLIC_READS needs 'true' or 'false'/, {
    DENO_KV_PUBLIC_READS: "maybe",
  });
});

Deno.test("a command reads its own variables and no others", () => {
  const asked: string[] = [];
  parseCommandLine(["health"], (name) => {
    asked.push(name);
    return undefined;
  });
  assert.deepEqual(asked, ["PORT", "DENO_KV_HOST", "DENO_KV_ADDRESS_FILE"]);
});

Deno.test("help and version", () => {
  assert.deepEqual(parse([]), { kind: "help", asked: false });
  assert.deepEqual(parse(["--help"]), {
    kind: "help",
    command: undefined,
    asked: true,
  });
  assert.deepEqual(parse(["help"]), { kind: "help", asked: true });
  for (
    const args of [["serve", "--help"], ["-h", "serve"], ["help", "serve"]]
  ) {
    assert.deepEqual(parse(args), {
      kind: "help",
      command: "serve",
      asked: true,
    });
  }
  assert.deepEqual(parse(["--version"]), { kind: "version" });
  assert.deepEqual(parse(["-V"]), { kind: "version" });
  refused(["help", "serv"], /no command 'serv'; did you mean 'serve'\?/);
});

Deno.test("a mistyped option or command is named, with what was meant", () => {
  refused(["serve", "--acess-token=x"], /--acess-token; did you mean --acc/);
  refused(["serve", "--sqlite", "x"], /--sqlite; did you mean --sqlite-path/);
  refused(["serve", "--frobnicate"], /no option --frobnicate\.$/);
  refused(["serve", "-x"], /no option -x\.$/);
  refused(["srve"], /no command 'srve'; did you mean 'serve'/);
  refused(
    ["frobnicate"],
    /the commands are start, serve, backup status, .*, health/,
  );
  refused(["--read-only"], /A command is missing/);
  refused(["serve", "more"], /takes options only, but got 'more'/);
  refused(["health", "--read-only"], /belongs to `start` and `serve`, not/);
});

Deno.test("a missing, bad or contradictory value is named", () => {
  refused(["serve", "--addr"], /--addr needs a value: --addr=<HOST:PORT>/);
  refused(["serve", "--addr", "--read-only"], /--addr needs a value/);
  refused(["serve", "--sqlite-path="], /--sqlite-path must not be empty/);
  for (const bad of ["x", "0", "-1", "1.5", "1e2", "0x10", " 1", "257", ""]) {
    refused(
      ["serve", "--num-workers", bad],
      /--num-workers needs a whole number from 1 to 256, but got '/,
    );
  }
  refused(["serve"], /The environment variable PORT needs a whole number/, {
    PORT: "65536",
  });
  refused(["serve", "--log-format", "xml"], /needs 'text' or 'json', but got/);
  refused(["serve", "--num-workers=1", "--num-workers=2"], /given twice/);
  refused(["serve", "--read-only", "--read-only=false"], /given twice/);
  assert.equal(
    run(["serve", "--num-workers=2", "--num-workers=2"]).values.numWorkers,
    2,
  );
});

Deno.test("the Rust server's flags for a replica are taken as they are", () => {
  const args = ["serve", "--sync-from-s3", "--s3-bucket=b", "--s3-prefix=p/"];
  const { values } = run(args);
  assert.equal(values.syncFromS3, true);
  assert.equal(values.s3Bucket, "b");
  assert.equal(
    run(["serve"], { DENO_KV_SYNC_FROM_S3: "true" }).values.syncFromS3,
    true,
  );
  const sync = run(["--sqlite-path=x", "pitr", "sync", "--s3-bucket=b"]);
  assert.equal(sync.command, "pitr sync");
});

Deno.test("no mistake repeats a secret", () => {
  const secret = "hunter2hunter2";
  const environment = { DENO_KV_ACCESS_TOKEN: secret, KVSTORE_SECRET: secret };
  for (
    const args of [
      ["serve", `--access-token=${secret}`, `--access-token=other`],
      ["serve", `--acces-token=${secret}`],
      ["serve", "--acces-token", secret],
      // A secret with a space in it that was not quoted.
      ["serve", "--access-token", "first", secret],
      ["--access-token", "first", secret, "serve"],
      ["serve", "--num-workers", "x"],
    ]
  ) {
    assert.throws(() => parse(args, environment), (error: unknown) => {
      assert(error instanceof UsageError);
      assert(!error.message.includes(secret), error.message);
      return true;
    });
  }
});
