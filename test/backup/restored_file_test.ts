/**
 * What becomes of versionstamps when a backup is restored into a file beside
 * the database: the file is a database of its own, or the same one above every
 * version that the other may issue.
 */
import assert from "node:assert/strict";
import { set } from "../../src/store/contract/support.ts";
import { KvClient } from "../support/kv_client.ts";

import { runCommand, ServerProcess, TestFolder } from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import { folderBackup, SHORT_LEASE } from "./support.ts";

const SERVED = { args: ["--durability", "s3", ...SHORT_LEASE] };
const LEAP = 2 ** 32;

interface World extends AsyncDisposable {
  folder: TestFolder;
  place: string;
  backup: ReturnType<typeof folderBackup>;
  primary: ServerProcess;
}

/** A database with a backup, served, and a first write of 1. */
async function open(): Promise<World> {
  const folder = await TestFolder.make();
  const place = `${folder.path}/backup`;
  await Deno.mkdir(place);
  const backup = folderBackup(place);
  const primary = await ServerProcess.start({
    path: folder.database,
    backup,
    ...SERVED,
  });
  await write(primary, "1");
  return {
    folder,
    place,
    backup,
    primary,
    async [Symbol.asyncDispose]() {
      await primary.kill();
      await folder[Symbol.asyncDispose]();
    },
  };
}

async function write(server: ServerProcess, text: string) {
  const client = await KvClient.open(http1(server.url));
  const version = await client.commit([set("key", text)]);
  const { databaseId } = client.exchanged;
  client.close();
  return { version, databaseId };
}

async function restore(world: World, name: string, ...args: string[]) {
  const output = `${world.folder.path}/${name}`;
  const { code, out, err } = await runCommand(
    ["restore", "--from", world.backup.url, "-o", output, "--json", ...args],
    { backup: world.backup, folder: world.folder.path },
  );
  assert.equal(code, 0, err);
  return { path: output, ...JSON.parse(out) };
}

/** Serves a file without a backup, writes once, and stops. */
async function writeOnce(path: string) {
  await using server = await ServerProcess.start({ path });
  const written = await write(server, "in the restored file");
  assert.equal((await server.stop()).code, 0);
  return written;
}

Deno.test("a restored file is a database of its own: no two files of one id issue the same versionstamp", async () => {
  await using world = await open();
  const { folder, primary } = world;
  const restored = await restore(world, "restored.sqlite");
  const inPrimary = await write(primary, "2");
  const inRestored = await writeOnce(restored.path);
  // It goes on where the backup ended, as the other did: the numbers may meet.
  assert.ok(inRestored.version < inPrimary.version + LEAP);
  assert.notEqual(inRestored.databaseId, inPrimary.databaseId);
  assert.equal(restored.databaseId, inRestored.databaseId);

  // With the backup of the one it was made from, it is refused and untouched.
  const path = `${folder.path}/aside/denokv.sqlite`;
  await Deno.mkdir(`${folder.path}/aside`);
  await Deno.rename(restored.path, path);
  const wrong = ServerProcess.starting({ path, backup: world.backup });
  assert.equal(await wrong.exitCode, 1);
  assert.match(wrong.lastWords, /The backup holds database/);
  assert.match(wrong.lastWords, /give this file a backup URL of its own/);

  // With a place of its own it begins a backup, under its own id.
  await Deno.mkdir(`${folder.path}/other-backup`);
  const own = folderBackup(`${folder.path}/other-backup`);
  {
    await using server = await ServerProcess.start({
      path,
      backup: own,
      ...SERVED,
    });
    await write(server, "3");
    assert.equal((await server.stop()).code, 0);
  }
  const verified = await runCommand(
    ["backup", "verify", "--backup", own.url, "--sqlite-path", path],
    { backup: own, folder: folder.path },
  );
  assert.equal(verified.code, 0, verified.err);
  assert.match(verified.out, /equal to the database/);
});

Deno.test("with --same-database it keeps the id, and goes on above every version that may have been issued", async () => {
  await using world = await open();
  const { folder, primary } = world;
  const before = await write(primary, "2");
  const first = await restore(world, "first.sqlite", "--same-database");
  const second = await restore(world, "second.sqlite", "--same-database");
  const versions = [
    (await write(primary, "3")).version,
    (await writeOnce(first.path)).version,
    (await writeOnce(second.path)).version,
  ];
  const { databaseId } = await writeOnce(second.path);
  assert.equal(databaseId, before.databaseId);
  assert.equal(first.databaseId, before.databaseId);
  assert.ok(versions[1] > before.version + LEAP);
  // Nor does the next file restored from the backup meet the first one's.
  assert.ok(versions[2] > versions[1] + LEAP / 2);

  // And the primary, when it loses its file, goes on above both of them.
  assert.equal((await primary.stop()).code, 0);
  const path = `${folder.path}/elsewhere/denokv.sqlite`;
  await Deno.mkdir(`${folder.path}/elsewhere`);
  await using anew = await ServerProcess.start({
    path,
    backup: world.backup,
    ...SERVED,
  });
  const last = await write(anew, "4");
  assert.equal(last.databaseId, before.databaseId);
  assert.ok(last.version > versions[2] + LEAP / 2);

  // The leap is no part of the history: what was restored is what was there.
  const { code, out, err } = await runCommand(
    ["backup", "verify", "--backup", world.backup.url, "--sqlite-path", path],
    { backup: world.backup, folder: folder.path },
  );
  assert.equal(code, 0, err);
  assert.match(out, /equal to the database/);
});

Deno.test("a restore to an earlier point with --same-database leaps over what came later, too", async () => {
  await using world = await open();
  const { primary } = world;
  const at = await write(primary, "2");
  const later = await write(primary, "3");
  const stamp = at.version.toString(16).padStart(16, "0") + "0000";
  const restored = await restore(
    world,
    "earlier.sqlite",
    "--at",
    stamp,
    "--same-database",
  );
  assert.equal(restored.versionstamp, stamp);
  const { version } = await writeOnce(restored.path);
  assert.ok(version > later.version + LEAP);
});

Deno.test("with the old backup a file of the same database would be a fork: it is set aside, and kept", async () => {
  await using world = await open();
  const { folder, primary, backup } = world;
  const restored = await restore(world, "restored.sqlite", "--same-database");
  const inRestored = await writeOnce(restored.path);
  assert.equal((await primary.stop()).code, 0);
  await using server = await ServerProcess.start({
    path: restored.path,
    backup,
    ...SERVED,
  });
  assert.match(
    server.lastWords,
    /was set aside; it is kept.*never served with/,
  );
  const kept = [...Deno.readDirSync(folder.path)].map(({ name }) => name)
    .filter((name) => name.startsWith("restored.sqlite.epoch-none-"));
  assert.equal(kept.length, 1);
  // What it may have issued is leapt over as well.
  assert.ok((await write(server, "5")).version > inRestored.version + LEAP / 2);
});

Deno.test("--same-database is refused where the backup may not be written, and nothing is left", async () => {
  await using world = await open();
  const { folder, place, backup } = world;
  const output = `${folder.path}/out/restored.sqlite`;
  await Deno.mkdir(`${folder.path}/out`);
  const args = ["restore", "--from", backup.url, "-o", output];
  const run = (...more: string[]) =>
    runCommand([...args, ...more], {
      folder: `${folder.path}/out`,
      reads: [place],
    });
  const refused = await run("--same-database");
  assert.equal(refused.code, 1);
  assert.match(refused.err, /Nothing was restored/);
  assert.match(refused.err, new RegExp(`--allow-write=${place}`));
  assert.match(refused.err, /without --same-database/);
  assert.deepEqual([...Deno.readDirSync(`${folder.path}/out`)], []);
  // Without it, a backup is only read.
  const { code, out, err } = await run();
  assert.equal(code, 0, err);
  assert.match(out, /It is a database of its own, with the id [0-9a-f-]{36}/);
});
