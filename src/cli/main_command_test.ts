import assert from "node:assert/strict";
import { StartupError, UsageError } from "../common/errors.ts";
import { runCli } from "./main_command.ts";

async function run(
  args: string[],
  serve: () => Promise<number> = () => Promise.resolve(0),
) {
  const out: string[] = [];
  const err: string[] = [];
  const code = await runCli(
    args,
    (name) => ({ KVSTORE_SECRET: "denorocks" })[name],
    { out: (line) => out.push(line), err: (line) => err.push(line) },
    { serve },
  );
  return { code, out: out.join("\n"), err: err.join("\n") };
}

const SERVE = ["serve", "--sqlite-path", "a.sqlite"];

Deno.test("the exit code of a command is the process's", async () => {
  assert.deepEqual(await run(SERVE, () => Promise.resolve(3)), {
    code: 3,
    out: "",
    err: "",
  });
});

Deno.test("an error is one sentence and an exit code, never a stack", async () => {
  const failing = (error: unknown) => run(SERVE, () => Promise.reject(error));
  assert.deepEqual(await failing(new StartupError("The file is in use.")), {
    code: 1,
    out: "",
    err: "error: The file is in use.",
  });
  assert.deepEqual(await failing(new UsageError("No.")), {
    code: 2,
    out: "",
    err: "error: No.\n\nFor more information, try 'denokv serve --help'.",
  });
  for (const odd of [new TypeError("a\n  at b.ts:1"), "a\n  at b.ts:1"]) {
    assert.deepEqual(await failing(odd), {
      code: 1,
      out: "",
      err: "error: Unexpected, and the command stopped: a at b.ts:1",
    });
  }
});

Deno.test("asked-for help goes to standard output, unasked to standard error", async () => {
  const asked = await run(["--help"]);
  assert.equal(asked.code, 0);
  assert.match(asked.out, /Usage: denokv/);
  assert.equal(asked.err, "");
  const unasked = await run([]);
  assert.equal(unasked.code, 2);
  assert.match(unasked.err, /Usage: denokv/);
  assert.equal(unasked.out, "");
});

Deno.test("a wrong use exits with 2 and points at the help", async () => {
  const { code, err } = await run(["serve", "--nope"]);
  assert.equal(code, 2);
  assert.match(err, /^error: There is no option --nope\.\n\nFor more/);
});
