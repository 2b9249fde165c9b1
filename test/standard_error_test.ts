/**
 * What programs around the server read: where it says that it is open and
 * listens, and in which form.
 */
import assert from "node:assert/strict";
import { ServerProcess, TestFolder } from "./support/server.ts";

Deno.test("it says on standard error that it listens, whatever the level of the log, as the Rust server does", async () => {
  await using folder = await TestFolder.make();
  for (const args of [[], ["--read-only"]]) {
    const server = await ServerProcess.start({
      path: folder.database,
      args: ["--log-level", "error", ...args],
    });
    await server.stop();
    assert.equal(await server.printed, "");
    const [opened, listening, ...rest] = server.lastWords.split("\n");
    assert.ok(
      opened.endsWith(` Opened database at ${folder.database}`),
    );
    // What stands behind these words is the address, up to the line's end.
    assert.equal(
      listening.split("Listening on http://")[1],
      `127.0.0.1:${server.port}`,
    );
    assert.deepEqual(rest, [""]);
  }
});

Deno.test("with --log-format json every line on standard error is JSON, also the last words", async () => {
  await using folder = await TestFolder.make();
  const args = ["--log-format", "json"];
  const server = await ServerProcess.start({ path: folder.database, args });
  // The same file again: it ends with a sentence.
  const second = ServerProcess.starting({ path: folder.database, args });
  assert.equal(await second.exitCode, 1);
  assert.match(events(second).at(-1)!.message, /Another denokv server has/);
  assert.equal(events(second).at(-1)!.level, "error");
  await server.stop();
  assert.equal(await server.printed, "");
  const messages = events(server).map(({ message }) => message);
  assert.deepEqual(messages.slice(0, 2), [
    `Opened database at ${folder.database}`,
    `Listening on ${server.url}`,
  ]);

  const wrong = ServerProcess.starting({
    path: folder.database,
    args: [...args, "--durability", "s3"],
  });
  assert.equal(await wrong.exitCode, 2);
  assert.match(events(wrong)[0].message, /needs a backup/);
});

function events(server: ServerProcess): { level: string; message: string }[] {
  return server.lastWords.trimEnd().split("\n").map((line) => JSON.parse(line));
}
