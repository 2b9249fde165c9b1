/**
 * What programs around the server read: where it says that it is open and
 * listens, and in which form.
 */
import assert from "node:assert/strict";
import { environmentOf } from "../src/cli/options.ts";
import { VERSION } from "../src/cli/version.ts";
import {
  ACCESS_TOKEN,
  ServerProcess,
  type ServerSettings,
  TestFolder,
} from "./support/server.ts";

Deno.test("it says on standard error that it listens, whatever the level of the log, as the Rust server does", async () => {
  await using folder = await TestFolder.make();
  for (const args of [[], ["--read-only"]]) {
    const server = await ServerProcess.start({
      path: folder.database,
      args: ["--log-level", "error", ...args],
    });
    await server.stop();
    assert.equal(await server.printed, "");
    const [starting, opened, listening, ...rest] = server.lastWords.split("\n");
    assert.match(starting, / INFO {2}Starting\. version=/);
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
  assert.deepEqual(messages.slice(0, 3), [
    "Starting.",
    `Opened database at ${folder.database}`,
    `Listening on ${server.url}`,
  ]);

  const wrong = ServerProcess.starting({
    path: folder.database,
    args: [...args, "--durability", "s3"],
  });
  assert.equal(await wrong.exitCode, 2);
  assert.match(events(wrong)[0].message, /needs a backup/);
  const mistyped = ServerProcess.starting({
    path: folder.database,
    args: ["--durabilty", "s3"],
    env: { DENO_KV_LOG_FORMAT: "json" },
  });
  assert.equal(await mistyped.exitCode, 2);
  assert.equal(events(mistyped).length, 1);
  assert.match(events(mistyped)[0].message, /did you mean --durability/);
});

Deno.test("every start says what it does, for whom, and which of its variables it may not see", async () => {
  await using folder = await TestFolder.make();
  const started = async (settings: Partial<ServerSettings>) => {
    await using server = await ServerProcess.start({
      path: folder.database,
      ...settings,
    });
    const [line] = server.lastWords.split("\n");
    assert.doesNotMatch(server.lastWords, new RegExp(ACCESS_TOKEN));
    return line.slice(line.indexOf("Starting."));
  };
  const what =
    `version=${VERSION} database=${folder.database} durability=local`;
  assert.equal(
    await started({}),
    `Starting. ${what} backup="no backup" accessToken=set restSecret=set publicReads=no`,
  );
  // A backup that is set, and that it is not allowed to know of.
  assert.equal(
    await started({
      args: ["--public-reads"],
      env: { DENO_KV_BACKUP: "file:///nowhere" },
      seesOnly: ["KVSTORE_SECRET"],
    }),
    `Starting. ${what} backup="no backup" accessToken="not set" restSecret=set publicReads=yes mayNotSee="DENO_KV_*"`,
  );
  const some = await started({
    seesOnly: environmentOf("serve").filter((name) =>
      !["DENO_KV_BACKUP", "DENO_KV_DEV", "KVSTORE_SECRET", "PORT"].includes(
        name,
      )
    ),
  });
  // --addr is given, so PORT does not matter.
  assert(
    some.endsWith(' mayNotSee="KVSTORE_SECRET DENO_KV_{BACKUP,DEV}"'),
    some,
  );
  const backup = `${folder.path}/backup`;
  await Deno.mkdir(backup);
  const backedUp = await started({
    backup: { url: `file://${backup}`, folder: backup },
    args: ["--log-format", "json"],
  });
  assert.match(
    backedUp,
    new RegExp(`"durability":"local","backup":"file://${backup}"`),
  );
});

function events(server: ServerProcess): { level: string; message: string }[] {
  return server.lastWords.trimEnd().split("\n").map((line) => JSON.parse(line));
}
