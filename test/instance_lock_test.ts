/** One server per file: the second is refused with a sentence, and exits. */
import assert from "node:assert/strict";
import { WatchedServer } from "./support/faulty_server.ts";
import { ServerProcess, TestFolder } from "./support/server.ts";

/** What a server says that does not start, with its exit code in front. */
async function refusal(path: string, args: string[] = []): Promise<string> {
  try {
    await using server = await ServerProcess.start({ path, args });
    return `it started: ${server.lastWords}`;
  } catch (error) {
    return (error as Error).message;
  }
}

const SENTENCE =
  /Another denokv server has \S+ open \(it holds \S+-lock\)\. Nothing was opened or changed; stop that server first/;

Deno.test("a second server on one file is refused, and the first goes on", async () => {
  await using folder = await TestFolder.make();
  await using first = new WatchedServer(folder.database);
  await first.start();
  await first.putNext("a", "1");
  await Deno.symlink("denokv.sqlite", `${folder.path}/link.sqlite`);
  await Deno.mkdir(`${folder.path}/aside`);
  await Deno.symlink("aside/../link.sqlite", `${folder.path}/again.sqlite`);
  for (
    const path of [
      folder.database,
      `${folder.path}/./denokv.sqlite`,
      `${folder.path}/link.sqlite`,
      `${folder.path}/aside/../again.sqlite`,
    ]
  ) {
    assert.match(await refusal(path), SENTENCE, path);
  }
  await first.putNext("a", "2");
  await first.verifyAfterCrash();
  // Nothing was left beside the links.
  const names = [...Deno.readDirSync(folder.path)].map((entry) => entry.name);
  assert.ok(!names.includes("link.sqlite-lock"), names.join());

  const { code, stderr } = await exitOf(folder.database);
  assert.equal(code, 1);
  assert.match(stderr, SENTENCE);
  // What it was to do, and why it did not.
  assert.equal(stderr.trim().split("\n").length, 2, stderr);
});

/** The command as a person runs it. */
async function exitOf(path: string): Promise<{ code: number; stderr: string }> {
  const folder = path.slice(0, path.lastIndexOf("/"));
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--no-check",
      "--allow-net=127.0.0.1:0",
      `--allow-read=${folder}`,
      `--allow-write=${folder}`,
      "--allow-env=DENO_KV_ACCESS_TOKEN",
      new URL("../main.ts", import.meta.url).pathname,
      "--sqlite-path",
      path,
      "serve",
      "--addr",
      "127.0.0.1:0",
    ],
    env: { DENO_KV_ACCESS_TOKEN: "an access token", NO_COLOR: "1" },
    stdin: "null",
    stdout: "null",
  }).output();
  return { code, stderr: new TextDecoder().decode(stderr) };
}

Deno.test("a server starts at once when the one before it was killed", async () => {
  await using folder = await TestFolder.make();
  await using server = new WatchedServer(folder.database);
  await server.start();
  for (let i = 0; i < 5; i++) {
    await server.putNext("a", `${i}`);
    await server.crash();
    await server.start();
    await server.verify();
  }
});

Deno.test("a server behind a link keeps its log beside the file itself", async () => {
  await using folder = await TestFolder.make();
  await Deno.mkdir(`${folder.path}/real`);
  await Deno.symlink("real/data.sqlite", `${folder.path}/link.sqlite`);
  await using server = new WatchedServer(`${folder.path}/link.sqlite`);
  await server.start();
  await server.putNext("a", "1");
  const names = [...Deno.readDirSync(`${folder.path}/real`)]
    .map((entry) => entry.name)
    // Made in its own time.
    .filter((name) => !name.endsWith("-reserve")).sort();
  assert.deepEqual(
    names,
    ["", "-lock", "-shm", "-wal"].map((suffix) => `data.sqlite${suffix}`),
  );
  await server.verifyAfterCrash();
});

Deno.test("a link that leads in a circle is refused", async () => {
  await using folder = await TestFolder.make();
  await Deno.symlink("b.sqlite", `${folder.path}/a.sqlite`);
  await Deno.symlink("a.sqlite", `${folder.path}/b.sqlite`);
  const { code, stderr } = await exitOf(`${folder.path}/a.sqlite`);
  assert.equal(code, 1);
  assert.match(stderr, /leads in a circle\. Nothing was opened\./);
});
