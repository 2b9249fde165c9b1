/**
 * Database files that a launch has set aside: told with their sizes, and
 * removed when they are old and hold nothing of their own.
 */
import assert from "node:assert/strict";
import { KvClient } from "../support/kv_client.ts";
import { set } from "../../src/store/contract/support.ts";
import {
  REST_SECRET,
  runCommand,
  ServerProcess,
  TestFolder,
} from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import { folderBackup, put, SHORT_LEASE } from "./support.ts";

interface Aside {
  path: string;
  sizeBytes: number;
  isInHistory: boolean;
}

Deno.test("a file that was set aside is told of, and removed only when all that it held is in the backup", async () => {
  await using folder = await TestFolder.make();
  const place = `${folder.path}/backup`;
  const elsewhere = `${folder.path}/elsewhere`;
  for (const path of [place, elsewhere]) await Deno.mkdir(path);
  const backup = folderBackup(place);
  const serve = (path: string, ...more: string[]) =>
    ServerProcess.start({
      path,
      backup,
      args: ["--durability", "s3", ...SHORT_LEASE, ...more],
    });
  const snapshot = async (server: ServerProcess) => {
    const host = new URL(server.url).host;
    const made = await runCommand(["backup", "snapshot", "--addr", host], {
      net: [host],
      folder: folder.path,
      env: { KVSTORE_SECRET: REST_SECRET },
    });
    assert.equal(made.code, 0, made.err);
  };
  const aside = async () => {
    const { out, err } = await runCommand([
      ...["backup", "status", "--backup", backup.url, "--json"],
      ...["--sqlite-path", folder.database],
    ], { backup, folder: folder.path });
    assert.ok(out !== "", err);
    return JSON.parse(out).aside as Aside[];
  };
  /** Another machine has gone on, with a generation of its own. */
  const elsewhereGoesOn = async () => {
    await using other = await serve(`${elsewhere}/denokv.sqlite`);
    await put(other, "elsewhere");
    await snapshot(other);
    await put(other, "later");
    assert.equal((await other.stop()).code, 0);
  };

  // Everything of the first one was shipped when it stopped.
  {
    await using server = await serve(folder.database);
    await put(server, "a");
    assert.equal((await server.stop()).code, 0);
  }
  await elsewhereGoesOn();
  {
    await using server = await serve(folder.database);
    assert.match(server.lastWords, /too far behind/);
    assert.equal((await server.stop()).code, 0);
  }
  let [known, ...others] = await aside();
  assert.deepEqual(others, []);
  assert.equal(known.isInHistory, true);
  assert.ok(known.sizeBytes > 4096);

  // The next one holds what was written without the backup.
  {
    await using alone = await ServerProcess.start({ path: folder.database });
    const client = await KvClient.open(http1(alone.url));
    await client.commit([set("alone", "x")]);
    client.close();
    assert.equal((await alone.stop()).code, 0);
  }
  await elsewhereGoesOn();
  {
    await using server = await serve(folder.database);
    await server.logged(/holds what the backup may not have/);
    assert.equal((await server.stop()).code, 0);
  }
  const both = await aside();
  assert.deepEqual(
    both.map(({ isInHistory }) => isInHistory).sort(),
    [false, true],
  );

  // Neither is young enough for a time of zero.
  {
    await using server = await serve(folder.database, "--keep-aside", "0s");
    await server.logged(/was set aside was removed/);
    await server.logged(/holds what the backup may not have/);
    assert.equal((await server.stop()).code, 0);
  }
  [known, ...others] = await aside();
  assert.deepEqual(others, []);
  assert.equal(known.isInHistory, false);
});
