/**
 * What the server needs of files: names the permission that it lacks, and
 * leaves its data readable for nobody else.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { DatabaseSync } from "node:sqlite";
import { until } from "./support/faulty_server.ts";
import { TestFolder } from "./support/server.ts";

const MAIN = fileURLToPath(new URL("../main.ts", import.meta.url));

/** The command under an umask, with the permissions given and no others. */
function denokv(umask: string, permissions: string[], path: string) {
  return new Deno.Command("sh", {
    args: [
      "-c",
      `umask ${umask}; exec "$0" "$@"`,
      Deno.execPath(),
      "run",
      "--quiet",
      "--no-prompt",
      "--no-check",
      "--cached-only",
      "--allow-net=127.0.0.1:0",
      "--allow-env=DENO_KV_ACCESS_TOKEN",
      ...permissions,
      MAIN,
      "--sqlite-path",
      path,
      "serve",
      "--addr",
      "127.0.0.1:0",
    ],
    env: { DENO_KV_ACCESS_TOKEN: "an access token", NO_COLOR: "1" },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  });
}

Deno.test("a missing permission is named with the flag that gives it, and nothing is opened", async () => {
  await using folder = await TestFolder.make();
  const { path } = folder;
  for (
    const [permissions, missing] of [
      [[], `to read ${folder.database} is missing; add --allow-read=${path} `],
      [
        [`--allow-read=${path}`],
        `to write ${folder.database}-lock is missing; add --allow-write=${path} `,
      ],
      [
        [`--allow-read=${path}`, `--allow-write=${folder.database}-lock`],
        `to write ${folder.database} is missing; add --allow-write=${path} `,
      ],
    ] as [string[], string][]
  ) {
    const { code, stderr } = await denokv("022", permissions, folder.database)
      .output();
    const text = new TextDecoder().decode(stderr);
    assert.equal(code, 1);
    const [starting, said, ...rest] = text.split("\n");
    assert.match(starting, / Starting\. /);
    assert.ok(said.startsWith(`error: The permission ${missing}`), text);
    assert.match(said, /Nothing was opened\.$/);
    assert.deepEqual(rest, [""], text);
  }
});

Deno.test("a database is made for its owner alone, whatever the umask; the mode of one that is there stays", async () => {
  if (Deno.build.os === "windows") return;
  await using folder = await TestFolder.make();
  const modes = () => {
    const all: Record<string, string> = {};
    for (const { name, isFile } of Deno.readDirSync(folder.path)) {
      if (!isFile) continue;
      const { mode } = Deno.statSync(`${folder.path}/${name}`);
      all[name] = (mode! & 0o777).toString(8);
    }
    // Made and removed in its own time.
    assert.equal(all["denokv.sqlite-reserve"] ?? "600", "600");
    delete all["denokv.sqlite-reserve"];
    return all;
  };
  const serveOnce = async () => {
    const server = denokv("022", [
      `--allow-read=${folder.path}`,
      `--allow-write=${folder.path}`,
    ], folder.database).spawn();
    const words = readAll(server.stderr);
    await until(
      "the log beside the database",
      () => modes()["denokv.sqlite-shm"] !== undefined,
    );
    const found = modes();
    server.kill("SIGTERM");
    await server.status;
    await words;
    return found;
  };
  assert.deepEqual(await serveOnce(), {
    "denokv.sqlite": "600",
    "denokv.sqlite-wal": "600",
    "denokv.sqlite-shm": "600",
    "denokv.sqlite-lock": "600",
  });
  await Deno.chmod(folder.database, 0o640);
  await Deno.chmod(`${folder.database}-lock`, 0o644);
  assert.deepEqual(await serveOnce(), {
    "denokv.sqlite": "640",
    "denokv.sqlite-wal": "640",
    "denokv.sqlite-shm": "640",
    "denokv.sqlite-lock": "644",
  });
  // It is still a database.
  new DatabaseSync(folder.database).close();
});

async function readAll(stream: ReadableStream<Uint8Array>): Promise<void> {
  for await (const _ of stream);
}
