/**
 * Damaged, missing and foreign objects: found, named, and never served as
 * data. And what the commands on a backup say of a whole one.
 */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { encodeKey } from "../../src/protocol/key.ts";
import { set } from "../../src/store/contract/support.ts";
import { type Faults, faultShim } from "../support/shim.ts";
import { freePort } from "../support/child_server.ts";
import { KvClient } from "../support/kv_client.ts";
import {
  REST_SECRET,
  runCommand,
  ServerProcess,
  TestFolder,
} from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import { folderBackup, SHORT_LEASE } from "./support.ts";

const headers = { authorization: "denorocks" };

/** A backup of a snapshot and several segments, and the folder it is in. */
async function makeBackup(folder: TestFolder) {
  const place = `${folder.path}/backup`;
  await Deno.mkdir(place);
  const backup = folderBackup(place);
  await using server = await ServerProcess.start({
    path: folder.database,
    backup,
    args: ["--durability", "s3"],
  });
  const put = async (key: string) => {
    const answer = await fetch(`${server.url}/${key}`, {
      method: "POST",
      body: `value of ${key}`,
      headers,
    });
    assert.equal(answer.status, 200);
    return (await answer.json()).versionstamp as string;
  };
  for (let i = 0; i < 30; i++) await put(`before-${i}`);
  const net = [new URL(server.url).host];
  const made = await runCommand(
    ["backup", "snapshot", "--addr", net[0], "--json"],
    { net, folder: folder.path, env: { KVSTORE_SECRET: "denorocks" } },
  );
  assert.equal(made.code, 0, made.err);
  const { generation } = JSON.parse(made.out) as { generation: string };
  const stamps: string[] = [];
  for (let i = 0; i < 6; i++) stamps.push(await put(`after-${i}`));
  const status = await runCommand(
    ["backup", "status", "--backup", backup.url, "--addr", net[0]],
    { backup, net, folder: folder.path },
  );
  assert.equal(status.code, 0, status.err);
  assert.match(status.out, /^Active: file:/);
  const verified = await runCommand(
    [
      "backup",
      "verify",
      "--backup",
      backup.url,
      "--sqlite-path",
      folder.database,
      "--addr",
      net[0],
    ],
    { backup, net, folder: folder.path },
  );
  assert.equal(verified.code, 0, verified.err);
  assert.match(
    verified.out,
    /^Verified: 36 entries .* equal to the database\.$/,
  );
  assert.equal((await server.stop()).code, 0);
  return { place, backup, generation, stamps };
}

async function filesOf(folder: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder)) names.push(name);
  return names.sort().map((name) => `${folder}/${name}`);
}

Deno.test("a damaged, truncated, missing or foreign object is named, and nothing is restored", async () => {
  await using folder = await TestFolder.make();
  const { place, backup, generation } = await makeBackup(folder);
  const output = `${folder.path}/restored.sqlite`;
  const restore = (...args: string[]) =>
    runCommand(["restore", "--from", backup.url, "-o", output, ...args], {
      backup,
      folder: folder.path,
    });
  const [part] = await filesOf(`${place}/${generation}/snapshots`);
  const segments = await filesOf(`${place}/${generation}/logs`);
  const flip = async (path: string) => {
    const bytes = await Deno.readFile(path);
    bytes[Math.floor(bytes.length / 2)] ^= 1;
    await Deno.writeFile(path, bytes);
  };
  const damages: [string, string, (path: string) => Promise<void>][] = [
    ["a segment with one bit changed", segments[2], flip],
    ["a part of the snapshot with one bit changed", part, flip],
    ["a segment cut short", segments[3], (path) => Deno.truncate(path, 20)],
    ["an empty segment", segments[1], (path) => Deno.truncate(path, 0)],
    ["a missing segment", segments[2], (path) => Deno.remove(path)],
    ["a missing part", part, (path) => Deno.remove(path)],
    [
      "another segment's contents",
      segments[4],
      (path) => Deno.copyFile(segments[3], path),
    ],
    [
      "a foreign file in a segment's place",
      segments[0],
      (path) => Deno.writeTextFile(path, "hello"),
    ],
    [
      "a damaged index",
      `${place}/${generation}/snapshot.json`,
      (path) => Deno.writeTextFile(path, "{"),
    ],
    [
      "a damaged manifest",
      `${place}/manifest.json`,
      (path) => Deno.writeTextFile(path, "{}"),
    ],
  ];
  for (const [what, path, damage] of damages) {
    const whole = await Deno.readFile(path);
    await damage(path);
    const { code, err } = await restore();
    assert.equal(code, 1, what);
    const name = path.slice(path.lastIndexOf("/") + 1);
    const isNamed = err.includes(name) || /segment 3 of epoch 1/.test(err);
    assert.ok(isNamed, `${what}: ${err}`);
    assert.ok(!/ at .*\.ts:\d/.test(err), `${what}: a stack trace`);
    await assert.rejects(Deno.stat(output), Deno.errors.NotFound);
    // What the sentence offers can be had.
    if (!path.endsWith("manifest.json")) {
      const [, before] = /`restore --at ([0-9a-f]{20})`/.exec(err)!;
      const offered = await restore("--at", before, "--json");
      assert.equal(offered.code, 0, `${what}: ${offered.err}`);
      assert.equal(JSON.parse(offered.out).versionstamp, before, what);
      await Deno.remove(output);
    }
    await Deno.writeFile(path, whole);
  }
  // Behind the seal, whatever lies there is no history, and is spoken of.
  const stray = segments.at(-1)!.replace(
    /_0000000100000006_/,
    "_0000000100000009_",
  );
  await Deno.copyFile(segments[0], stray);
  const status = await runCommand(
    [
      "backup",
      "status",
      "--backup",
      backup.url,
      "--json",
      "--addr",
      `127.0.0.1:${freePort()}`,
    ],
    { backup, folder: folder.path },
  );
  assert.equal(JSON.parse(status.out).strays.length, 1, status.out);
  const { code, out } = await restore("--json");
  assert.equal(code, 0);
  assert.equal(JSON.parse(out).entries, 30);
  assert.equal(JSON.parse(out).logEntries, 6);
  // A file that is there is never written over.
  const again = await restore();
  assert.equal(again.code, 1);
  assert.match(again.err, /is there already and was not changed/);
});

Deno.test("a database that was just restored is verified at once", async () => {
  await using folder = await TestFolder.make();
  const { place, backup } = await makeBackup(folder);
  await Deno.mkdir(`${folder.path}/again`);
  const path = `${folder.path}/again/denokv.sqlite`;
  await using server = await ServerProcess.start({ path, backup });
  const net = [new URL(server.url).host];
  const { code, out, err } = await runCommand(
    [
      "backup",
      "verify",
      "--backup",
      backup.url,
      "--sqlite-path",
      path,
      "--addr",
      net[0],
    ],
    { backup: { ...backup, folder: place }, net, folder: folder.path },
  );
  assert.equal(code, 0, err);
  assert.match(out, /36 entries .* equal to the database/);
  // Its versions have leapt, and the bucket will never have that version: the
  // server was not asked again and again whether it has come.
  const asked = [...await server.metrics()].filter(([name]) =>
    /requests_total.*service/.test(name)
  ).reduce((sum, [, count]) => sum + count, 0);
  assert.ok(asked > 0 && asked < 5, `${asked}`);
});

Deno.test("a disk that fails during a restore is a sentence, and nothing is left behind", async () => {
  await using folder = await TestFolder.make();
  const { backup } = await makeBackup(folder);
  const place = `${folder.path}/failing`;
  await Deno.mkdir(place);
  await using shim = await faultShim(place);
  if (shim === undefined) return;
  const output = `${place}/restored.sqlite`;
  const restore = () =>
    runCommand(["restore", "--from", backup.url, "-o", output], {
      backup,
      folder: folder.path,
      env: shim.env,
    });
  const faults: [Faults, RegExp][] = [
    [{ writeFailures: "always" }, /error: The database .* disk is full/],
    [{ fsyncFailures: "always" }, /error: .* could not be restored: .*place/],
  ];
  for (const [fault, sentence] of faults) {
    shim.set(fault);
    const { code, err } = await restore();
    assert.equal(code, 1);
    assert.match(err, sentence);
    assert.deepEqual([...Deno.readDirSync(place)], []);
    // Nor does a server come up on half a database.
    await using server = ServerProcess.starting({
      path: `${place}/denokv.sqlite`,
      backup,
      env: shim.env,
    });
    assert.equal(await server.exitCode, 1);
    assert.match(server.lastWords, sentence);
    await Deno.remove(`${place}/denokv.sqlite-lock`);
    assert.deepEqual([...Deno.readDirSync(place)], []);
  }
  shim.set({});
  assert.equal((await restore()).code, 0);
});

Deno.test("the server of another database says nothing of a backup", async () => {
  await using folder = await TestFolder.make();
  const { backup } = await makeBackup(folder);
  await Deno.mkdir(`${folder.path}/other`);
  await Deno.mkdir(`${folder.path}/other-backup`);
  await using other = await ServerProcess.start({
    path: `${folder.path}/other/denokv.sqlite`,
    backup: folderBackup(`${folder.path}/other-backup`),
    args: ["--durability", "s3"],
  });
  const net = [new URL(other.url).host];
  const status = async (env: Record<string, string>) => {
    const { code, out } = await runCommand(
      ["backup", "status", "--backup", backup.url, "--addr", net[0]],
      { backup, net, folder: folder.path, env },
    );
    // Its own server has given it up.
    assert.equal(code, 5);
    return out;
  };
  const KVSTORE_SECRET = REST_SECRET;
  assert.match(
    await status({ KVSTORE_SECRET }),
    /the one at --addr does not serve this backup/,
  );
  assert.match(await status({}), /it tells to the holder of its secret/);
});

Deno.test("a backup is restored to any versionstamp", async () => {
  await using folder = await TestFolder.make();
  const { backup, stamps } = await makeBackup(folder);
  for (const [i, stamp] of stamps.entries()) {
    const output = `${folder.path}/at-${i}.sqlite`;
    const { code, err } = await runCommand(
      ["restore", "--from", backup.url, "--at", stamp, "-o", output],
      { backup, folder: folder.path },
    );
    assert.equal(code, 0, err);
    const db = new DatabaseSync(output, { readOnly: true });
    const { count } = db.prepare("select count(*) as count from kv").get()!;
    db.close();
    assert.equal(count, 30 + i + 1);
  }
  // Beyond the end it is a mistake, and no other way to say "everything".
  const last = stamps.at(-1)!;
  const tomorrow = new Date(Date.now() + 86_400_000).toISOString();
  const beyond = last.replace(/^0/, "1");
  for (const at of [beyond, tomorrow]) {
    const output = `${folder.path}/beyond.sqlite`;
    const { code, err } = await runCommand(
      ["restore", "--from", backup.url, "--at", at, "-o", output],
      { backup, folder: folder.path },
    );
    assert.equal(code, 1);
    assert.match(err, new RegExp(`newest point is ${last}`));
    await assert.rejects(Deno.stat(output), Deno.errors.NotFound);
  }
  const early = await runCommand(
    [
      "restore",
      "--from",
      backup.url,
      "--at",
      "2001-01-01T00:00:00Z",
      "-o",
      `${folder.path}/early.sqlite`,
    ],
    { backup, folder: folder.path },
  );
  assert.equal(early.code, 1);
  assert.match(early.err, /does not reach that far back/);
});

Deno.test("queue messages, expiry times and the database id survive the loss of the file", async () => {
  await using folder = await TestFolder.make();
  const place = `${folder.path}/backup`;
  await Deno.mkdir(place);
  const backup = folderBackup(place);
  const args = ["--durability", "s3", ...SHORT_LEASE];
  const rows = () => {
    const db = new DatabaseSync(folder.database, { readOnly: true });
    const read = (sql: string) =>
      db.prepare(sql).all().map((row) => ({ ...row }));
    const found = {
      id: read("select v from denokv_state where k = 'database_id'"),
      queue: read(
        "select ts, id, data, backoff_schedule, keys_if_undelivered from queue order by id",
      ),
      kv: read(
        "select k, v, v_encoding, version, expiration_ms from kv order by k",
      ),
    };
    db.close();
    return found;
  };
  const run = async (fills: boolean) => {
    await using server = await ServerProcess.start({
      path: folder.database,
      backup,
      args,
    });
    if (fills) {
      const client = await KvClient.open(http1(server.url));
      const inAnHourMs = Date.now() + 3_600_000;
      const payload = new Uint8Array([0xff, 0x0f, 0x5f]);
      await client.write({
        checks: [],
        mutations: [
          { ...set("expires", "1"), expireAtMs: inAnHourMs },
          set("stays", "2"),
        ],
        enqueues: [
          {
            payload,
            deadlineMs: inAnHourMs,
            keysIfUndelivered: [encodeKey(["undelivered"])],
            backoffScheduleMs: [10, 20],
          },
          {
            payload,
            deadlineMs: inAnHourMs + 1,
            keysIfUndelivered: [],
            backoffScheduleMs: null,
          },
        ],
      });
      client.close();
    }
    await server.stop();
    return rows();
  };
  const before = await run(true);
  assert.equal(before.queue.length, 2);
  assert.equal(before.kv.length, 2);
  for (const end of ["", "-lock"]) await Deno.remove(folder.database + end);
  assert.deepEqual(await run(false), before);
});
