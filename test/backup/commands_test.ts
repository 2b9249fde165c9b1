/** The commands on a backup, used wrongly or with less than they ask for. */
import assert from "node:assert/strict";
import { runCommand, ServerProcess, TestFolder } from "../support/server.ts";
import { folderBackup } from "./support.ts";

/** A backup that nobody serves, beside an empty folder. */
async function backedUp(folder: TestFolder) {
  const place = `${folder.path}/backup`;
  const own = `${folder.path}/own`;
  await Deno.mkdir(place);
  await Deno.mkdir(own);
  const backup = folderBackup(place);
  await using server = await ServerProcess.start({
    path: folder.database,
    backup,
    args: ["--durability", "s3"],
  });
  assert.equal((await server.stop()).code, 0);
  return { place, own, url: backup.url };
}

Deno.test("a backup that may only be read is verified; only the note of it is missing", async () => {
  await using folder = await TestFolder.make();
  const { place, own, url } = await backedUp(folder);
  const { code, out, err } = await runCommand(
    ["backup", "verify", "--backup", url],
    { folder: own, reads: [place] },
  );
  assert.equal(code, 0, err);
  assert.match(out, /^Verified: 0 entries/);
  assert.match(err, /^warning: it could not be noted.*--allow-write=/);
  assert.deepEqual([...Deno.readDirSync(own)], []);
});

Deno.test("what keeps a verification from beginning is named", async () => {
  await using folder = await TestFolder.make();
  const { place, own, url } = await backedUp(folder);
  const verify = (args: string[], env: Record<string, string> = {}) =>
    runCommand(["backup", "verify", "--backup", url, ...args], {
      folder: own,
      reads: [place],
      env,
    });
  for (
    const [args, env, sentence] of [
      [[], { TMPDIR: place }, /folder for temporary files.*--allow-read and/],
      [
        ["--sqlite-path", `${own}/none.sqlite`],
        {},
        /^error: There is no database \S+none\.sqlite\. Nothing was verified/,
      ],
    ] as [string[], Record<string, string>, RegExp][]
  ) {
    const { code, err } = await verify(args, env);
    assert.equal(code, 1);
    assert.match(err, sentence);
  }
});

Deno.test("a place without a backup is named, and so is one to restore to that cannot be", async () => {
  await using folder = await TestFolder.make();
  const { place, own, url } = await backedUp(folder);
  const run = (...args: string[]) =>
    runCommand(args, { folder: own, reads: [place] });
  const none = `file://${own}`;
  const cases: [string[], RegExp][] = [
    [
      ["restore", "--from", none, "-o", `${own}/a.sqlite`],
      /There is no backup in file:\S+own: neither .*check the URL/,
    ],
    [["backup", "verify", "--backup", none], /There is no backup in file:/],
    [
      ["restore", "--from", url, "-o", `${own}/none/a.sqlite`],
      /The folder \S+none is not there/,
    ],
    [
      ["restore", "--from", url, "-o", `${place}/a.sqlite`],
      /permission to write .* is missing; add --allow-write=/,
    ],
  ];
  for (const [args, sentence] of cases) {
    const { code, err } = await run(...args);
    assert.equal(code, 1);
    assert.match(err, sentence);
    assert.doesNotMatch(err, /Unexpected/);
  }
});

Deno.test("the status says why the server was not asked, or what answered", async () => {
  await using folder = await TestFolder.make();
  const { place, own, url } = await backedUp(folder);
  await using other = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => new Response("<h1>hello</h1>"),
  );
  const address = `127.0.0.1:${other.addr.port}`;
  const status = (net: string[]) =>
    runCommand(["backup", "status", "--backup", url, "--addr", address], {
      folder: own,
      reads: [place],
      net,
    });
  const notAllowed = await status([]);
  assert.equal(notAllowed.code, 5, notAllowed.err);
  assert.match(
    notAllowed.out,
    new RegExp(`server {9}not asked: .*--allow-net=${address}`),
  );
  const foreign = await status([address]);
  assert.equal(foreign.code, 5, foreign.err);
  assert.match(foreign.out, /what answers at \S+ is no denokv server; the bu/);
});
