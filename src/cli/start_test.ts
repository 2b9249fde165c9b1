import assert from "node:assert/strict";
import { join } from "node:path";
import type { ServeConfig } from "./config.ts";
import type { CliIo } from "./io.ts";
import { runCli } from "./main_command.ts";
import { instructions, shellQuote } from "./start.ts";

Deno.test("start serves with a kept token and then says how to connect", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const tokens: (string | undefined)[] = [];
    for (let launch = 0; launch < 2; launch++) {
      const out: string[] = [];
      const err: string[] = [];
      const io: CliIo = {
        out: (line) => out.push(line),
        err: (line) => err.push(line),
      };
      const code = await runCli(
        ["start", "--sqlite-path", join(folder, "data", "kv.sqlite")],
        () => undefined,
        io,
        {
          serve(config: ServeConfig, serveIo: CliIo) {
            tokens.push(config.accessToken);
            assert.equal(config.restSecret, undefined);
            assert.deepEqual(out, [], "nothing is promised before it listens");
            serveIo.onListening?.("http://localhost:4512");
            return Promise.resolve(7);
          },
        },
      );
      assert.equal(code, 7);
      assert.deepEqual(err, []);
      const text = out.join("\n");
      assert.match(text, /Deno\.openKv\("http:\/\/localhost:4512"\)/);
      assert.match(text, /curl .*http:\/\/localhost:4512\/greeting/);
      const tokenPath = await Deno.realPath(join(folder, "data/access-token"));
      assert(text.includes(tokenPath));
      // It is in its file, and neither in the terminal nor in a log.
      assert(!text.includes(tokens[launch]!));
    }
    assert.match(tokens[0]!, /^[0-9a-f]{48}$/);
    assert.equal(tokens[1], tokens[0]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a token file that others can read is pointed out", async () => {
  if (Deno.build.os === "windows") return;
  const folder = await Deno.makeTempDir();
  try {
    const path = join(folder, "access-token");
    await Deno.writeTextFile(path, "a-token-of-my-own\n");
    await Deno.chmod(path, 0o644);
    const err: string[] = [];
    const code = await runCli(
      ["start", "--sqlite-path", join(folder, "kv.sqlite")],
      () => undefined,
      { out() {}, err: (line) => err.push(line) },
      {
        serve: (config) =>
          Promise.resolve(config.accessToken === "a-token-of-my-own" ? 0 : 1),
      },
    );
    assert.equal(code, 0);
    assert.match(err.join("\n"), /others .* can read .*chmod 600/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("the lines stay one shell word each, whatever the folder is called", async () => {
  assert.equal(shellQuote("/a/b-c.d"), "/a/b-c.d");
  assert.equal(shellQuote("/it's $HOME"), `'/it'\\''s $HOME'`);
  if (Deno.build.os === "windows") return;
  const folder = await Deno.makeTempDir({ prefix: "it's a $HOME " });
  try {
    const path = join(folder, "access-token");
    await Deno.writeTextFile(path, "the-token-in-it\n");
    const line = instructions("http://localhost:1", path)
      .find((line) => line.includes("curl -H"))!;
    const { stdout } = await new Deno.Command("sh", {
      args: ["-c", line.replace("curl", "printf '%s|'")],
    }).output();
    assert.equal(
      new TextDecoder().decode(stdout),
      "-H|Authorization: Bearer the-token-in-it|http://localhost:1/greeting|",
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
