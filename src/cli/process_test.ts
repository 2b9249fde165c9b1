/** The command line as a person meets it: a process of its own. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { VERSION } from "./version.ts";

const MAIN = fileURLToPath(new URL("../../main.ts", import.meta.url));

async function denokv(
  args: string[],
  options: {
    env?: Record<string, string>;
    permissions?: string[];
    script?: string;
    /** The working folder. Default: the one of the tests. */
    cwd?: string;
  } = {},
) {
  const { env = {}, permissions = ["--allow-env"], script = MAIN, cwd } =
    options;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-prompt", ...permissions, script, ...args],
    cwd,
    // Only what a test names; the runtime finds its caches by HOME or DENO_DIR.
    clearEnv: true,
    env: { ...inherited("HOME", "DENO_DIR", "PATH"), ...env },
  }).output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
}

function inherited(...names: string[]): Record<string, string> {
  return Object.fromEntries(names.flatMap((name) => {
    const value = Deno.env.get(name);
    return value === undefined ? [] : [[name, value]];
  }));
}

Deno.test("version and help, on standard output", async () => {
  assert.deepEqual(await denokv(["--version"], { permissions: [] }), {
    code: 0,
    out: `denokv ${VERSION}\n`,
    err: "",
  });
  const { code, out, err } = await denokv(["serve", "--help"]);
  assert.equal(code, 0);
  assert.match(out, /--sqlite-path <PATH>/);
  assert.equal(err, "");
});

Deno.test("used wrongly: one sentence, exit code 2, no stack", async () => {
  const token = { DENO_KV_ACCESS_TOKEN: "a-token-that-is-long" };
  for (
    const [args, env, message] of [
      [["serv"], {}, /no command 'serv'; did you mean 'serve'\?/],
      [["serve", "--sqlite-pth=x"], {}, /did you mean --sqlite-path\?/],
      [["serve", "--sqlite-path"], {}, /--sqlite-path needs a value/],
      [["serve"], token, /--sqlite-path .* is missing/],
      [["serve", "--sqlite-path=x"], {}, /^error: Nobody could get in/],
      [
        ["--sqlite-path=x", "serve"],
        { DENO_KV_ACCESS_TOKEN: "elevenchars" },
        /too short: it needs at least 12 characters/,
      ],
      [
        ["serve", "--sqlite-path=x", "--addr=4512"],
        token,
        /--addr needs a host and a port/,
      ],
      [
        ["serve", "--sqlite-path=x"],
        { ...token, DENO_KV_NUM_WORKERS: "many" },
        /DENO_KV_NUM_WORKERS needs a whole number .* got 'many'/,
      ],
      [
        ["serve", "--sqlite-path=x", "--sync-from-s3"],
        token,
        /--sync-from-s3 needs --s3-bucket/,
      ],
      [
        ["serve", "--sqlite-path=x", "--s3-bucket=b", "--s3-prefix=app"],
        token,
        /without --backup/,
      ],
      [["--sqlite-path=x", "pitr", "sync"], {}, /--s3-bucket .* is missing/],
    ] as [string[], Record<string, string>, RegExp][]
  ) {
    const { code, out, err } = await denokv(args, { env });
    assert.equal(code, 2, err);
    assert.equal(out, "");
    assert.match(err, message);
    assert.match(err, /^error: [^\n]+\n\nFor more information, try 'denokv/);
    assert.doesNotMatch(err, /\n\s+at |elevenchars/);
  }
});

Deno.test("a variable that may not be read is one that is not set", async () => {
  const { code, err } = await denokv(["serve", "--sqlite-path=x"], {
    permissions: ["--allow-env=DENO_KV_SQLITE_PATH"],
    env: { KVSTORE_SECRET: "denorocks", DENO_KV_NUM_WORKERS: "many" },
  });
  assert.equal(code, 2);
  assert.match(err, /^error: Nobody could get in/);
});

Deno.test("a permission that is missing is told in a sentence that names its flag", async () => {
  const token = ["--access-token-file=/etc/denokv-token"];
  const place = "--sqlite-path=/nowhere/x.sqlite";
  // Where nobody has run `start` yet.
  const cwd = await Deno.makeTempDir({ prefix: "denokv-test-" });
  for (
    const [args, permissions, code, message] of [
      [["start"], [], 1, /to read data is missing; add --allow-read=data /],
      [
        ["start"],
        ["--allow-read=data"],
        1,
        /to write data is missing; add --allow-write=data /,
      ],
      [
        ["serve", place, ...token],
        [],
        2,
        /to read \/etc\/denokv-token is missing; add --allow-read=\/etc /,
      ],
      [
        ["serve", place],
        ["--allow-env"],
        1,
        /is missing; add --allow-read=\/nowhere /,
      ],
      [
        ["backup", "status", "--backup=file:///nowhere"],
        [],
        1,
        /is missing; add --allow-read=\/nowhere /,
      ],
      [
        ["restore", "--from=file:///nowhere", "-o", "x"],
        [],
        1,
        /is missing; add --allow-read=\/nowhere /,
      ],
      [
        ["backup", "snapshot", "--addr=127.0.0.1:4599"],
        ["--allow-env"],
        1,
        /"net" for 127\.0\.0\.1:4599 is missing; add --allow-net=127\.0\.0\.1:4599 /,
      ],
      [
        ["health", "--addr=127.0.0.1:4599"],
        [],
        1,
        /"net" for 127\.0\.0\.1:4599 is missing; add --allow-net=127\.0\.0\.1:4599 /,
      ],
    ] as [string[], string[], number, RegExp][]
  ) {
    const found = await denokv(args, {
      permissions,
      env: { KVSTORE_SECRET: "denorocks" },
      cwd,
    });
    assert.match(found.err, message);
    assert.equal(found.code, code);
    assert.doesNotMatch(found.err, /\n\s+at |Unexpected|Requires/);
  }
  await Deno.remove(cwd);
});

Deno.test("health: nobody there is exit code 1", async () => {
  const { code, err } = await denokv(["health", "--addr=127.0.0.1:1"], {
    permissions: ["--allow-net=127.0.0.1:1"],
  });
  assert.equal(code, 1);
  assert.match(err, /^not ready: http:\/\/127\.0\.0\.1:1\/-\/ready could not/);
});

Deno.test("a failure that nobody awaits ends the process with a sentence", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const module = JSON.stringify(new URL("process.ts", import.meta.url).href);
    const broke = "Unexpected, and the command stopped: it broke in two";
    for (
      const [failure, message] of [
        [`Promise.reject(new TypeError("it broke\\nin two"))`, broke],
        [`reportError(new TypeError("it broke\\nin two"))`, broke],
        // Whatever forgot to say it better.
        [
          `Deno.readTextFileSync("/etc/x")`,
          "The permission to read /etc/x is missing; add --allow-read=/etc to the command and run it again.",
        ],
      ]
    ) {
      const script = `${folder}/main.ts`;
      await Deno.writeTextFile(
        script,
        `import { runProcess } from ${module};
         await runProcess({ serve() { ${failure}; return new Promise(() => {}); } });`,
      );
      assert.deepEqual(
        await denokv(["serve", "--sqlite-path=x"], {
          script,
          env: { KVSTORE_SECRET: "denorocks" },
        }),
        {
          code: 1,
          out: "",
          err: `error: ${message}\n`,
        },
      );
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
