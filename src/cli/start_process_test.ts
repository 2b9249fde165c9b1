/** `start` as a person meets it: the process, its permissions, its lines. */
import assert from "node:assert/strict";
import { launcherCommand } from "../../test/support/launched.ts";
import { shellQuote } from "./start.ts";

/** Starts it in a folder and resolves with what it printed until it is ready. */
async function launch(folder: string) {
  const data = `${folder}/data`;
  // As `deno task start`, but for the port.
  const child = launcherCommand([
    "start",
    "--addr=localhost:0",
    `--sqlite-path=${data}/denokv.sqlite`,
  ], {}).spawn();
  const log = new Response(child.stderr).text();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let out = "";
  while (!/curl -H .*\n/.test(out)) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`It ended early: ${out}${await log}`);
    out += value;
  }
  return {
    lines: out.split("\n"),
    async stop(): Promise<{ code: number; log: string }> {
      child.kill("SIGTERM");
      const { code } = await child.status;
      await reader.cancel();
      return { code, log: await log };
    },
  };
}

Deno.test("start serves with the permissions of the task, and its lines work as they are", async () => {
  if (Deno.build.os === "windows") return;
  const folder = await Deno.makeTempDir();
  try {
    const tokens: string[] = [];
    for (let run = 0; run < 2; run++) {
      const { lines, stop } = await launch(folder);
      try {
        // The lines for people, and nothing else, are standard output.
        assert.equal(lines[0], "");
        assert.match(lines[1], /^Try it from Deno/);
        const pasted = lines.find((line) => line.includes("deno eval"))!;
        const { success, stdout, stderr } = await new Deno.Command("sh", {
          // This Deno, wherever it is.
          args: [
            "-c",
            pasted.replace(" deno ", ` ${shellQuote(Deno.execPath())} `),
          ],
        }).output();
        assert(success, new TextDecoder().decode(stderr));
        assert.equal(new TextDecoder().decode(stdout), "hello\n");
      } finally {
        const { code, log } = await stop();
        assert.equal(code, 0, log);
        assert.match(log, /Opened database at .*denokv\.sqlite\n/);
        assert.match(log, /Listening on http:\/\/localhost:\d+\n/);
      }
      tokens.push(await Deno.readTextFile(`${folder}/data/access-token`));
    }
    assert.equal(tokens[1], tokens[0]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
