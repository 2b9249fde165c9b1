/**
 * `backup repair` where the present generation has no whole snapshot any more:
 * it shows from where the backup can go on and what is lost then, and does it
 * once somebody has agreed. The machine that served last still has everything.
 */
import assert from "node:assert/strict";
import { ServerProcess } from "../support/server.ts";
import {
  ARGS,
  isThere,
  keysOf,
  killedAfter,
  put,
  refusalOf,
  rowsOf,
  snapshot,
  versionOf,
  World,
} from "./support.ts";

const LEAP = 2 ** 32;

/** Writes 0 to 3 in a first generation, 4 to 8 in a second; killed. */
async function twoGenerations(w: World): Promise<string[]> {
  const { folder, backup } = w;
  const path = folder.database;
  const stamps = await killedAfter(3, path, backup);
  await using server = await ServerProcess.start({ path, backup, args: ARGS });
  stamps.push(await put(server, "3"));
  await snapshot(server, folder);
  for (let i = 4; i < 9; i++) stamps.push(await put(server, `${i}`));
  await server.kill();
  return stamps;
}

/** The names of the generations that the manifest lists. */
async function generationsOf({ run, backup }: World): Promise<string[]> {
  const listed = await run([
    ...["backup", "list", "--backup", backup.url, "--json"],
  ]);
  assert.equal(listed.code, 0, listed.err);
  return JSON.parse(listed.out).generations
    .map(({ name }: { name: string }) => name);
}

/** What a backup's present snapshot can suffer. */
const DAMAGES: [string, (w: World, generation: string) => Promise<void>][] = [
  [
    "the index is missing",
    ({ objects }, name) => objects.delete([`${name}/snapshot.json`]),
  ],
  ["a part is missing", async ({ objects }, name) => {
    await objects.delete(await keysOf(objects, `${name}/snapshots/`));
  }],
  ["a part was changed", async ({ objects }, name) => {
    const [key] = await keysOf(objects, `${name}/snapshots/`);
    const { data } = (await objects.get(key))!;
    data[data.length >> 1] ^= 1;
    await objects.put(key, data);
  }],
];

for (const [i, [title, damage]] of DAMAGES.entries()) {
  Deno.test(`s3: where ${title} of the present snapshot, the backup goes on from the generation before, once somebody has agreed`, async () => {
    await using w = await World.begin(`snapshot-${i}`);
    if (w === undefined) return;
    const stamps = await twoGenerations(w);
    const { objects, backup, run } = w;
    const [former, present] = await generationsOf(w);
    await damage(w, present);
    const refused = await refusalOf(w.disk("blank"), backup);
    assert.match(refused, /`backup repair`/);

    const before = await keysOf(objects);
    const repair = ["backup", "repair", "--backup", backup.url];
    const shown = await run(repair);
    assert.equal(shown.code, 1, shown.out);
    const { out } = shown;
    assert.match(out, new RegExp(`${present} is not whole`));
    assert.match(out, new RegExp(`${stamps[3]} is the newest`));
    const range = `given up +what was written after ${stamps[3]}, up to ${
      stamps[8]
    }`;
    assert.match(out, new RegExp(range));
    assert.match(out, /a database file that still has it/);
    assert.match(shown.err, /Nothing was changed.*--yes/);
    const asJson = JSON.parse((await run([...repair, "--json"])).out);
    assert.deepEqual(asJson.generations, [former]);
    assert.deepEqual(asJson.lost, { after: stamps[3], until: stamps[8] });
    assert.deepEqual(await keysOf(objects), before);

    const done = await run([...repair, "--yes"]);
    assert.equal(done.code, 0, done.err);
    const verified = await run(["backup", "verify", "--backup", backup.url]);
    assert.equal(verified.code, 0, verified.err);
    const again = await run(repair);
    assert.match(again.out, /^Nothing to repair/);
    for (const at of [stamps[4], stamps[8]]) {
      const output = w.disk(`at-${at}`);
      const point = await run(
        ["restore", "--from", backup.url, "--at", at, "-o", output],
      );
      assert.equal(point.code, 1);
      assert.match(point.err, /given up/);
    }
    await using server = await ServerProcess.start({
      path: w.disk("blank"),
      backup,
      args: ARGS,
    });
    for (let key = 0; key < 9; key++) {
      assert.equal(await isThere(server, `${key}`), key < 4, `${key}`);
    }
    const next = await put(server, "next");
    assert.ok(versionOf(next) > versionOf(stamps[8]) + LEAP, next);
    const after = new Set(await keysOf(objects));
    assert.deepEqual(before.filter((key) => !after.has(key)), []);
    assert.equal((await server.stop()).code, 0);
    // The old owner's file comes too late now, and is kept.
    await using late = await ServerProcess.start({
      path: w.folder.database,
      backup,
      args: ARGS,
    });
    assert.match(late.lastWords, /was set aside; it is kept/);
    assert.ok(await isThere(late, "next"));
    assert.ok(!await isThere(late, "8"));
  });
}

Deno.test("s3: after such a repair the file of the last owner goes on with everything", async () => {
  await using w = await World.begin("snapshot-file");
  if (w === undefined) return;
  await twoGenerations(w);
  const { objects, backup, run } = w;
  const [, present] = await generationsOf(w);
  await objects.delete([`${present}/snapshot.json`]);
  assert.match(
    await refusalOf(w.folder.database, backup),
    /snapshot\.json is missing.*`backup repair`/s,
  );
  const done = await run(["backup", "repair", "--backup", backup.url, "--yes"]);
  assert.equal(done.code, 0, done.err);
  {
    await using server = await ServerProcess.start({
      path: w.folder.database,
      backup,
      args: ARGS,
    });
    for (let i = 0; i < 9; i++) assert.ok(await isThere(server, `${i}`));
    await put(server, "next");
    assert.equal((await server.stop()).code, 0);
  }
  const output = w.disk("restored");
  const restored = await run(["restore", "--from", backup.url, "-o", output]);
  assert.equal(restored.code, 0, restored.err);
  assert.equal(rowsOf(output), 10);
});

Deno.test("s3: where a server has it all, or no generation is whole, nothing is given up", async () => {
  await using w = await World.begin("snapshot-none");
  if (w === undefined) return;
  const { objects, backup, run } = w;
  const repair = ["backup", "repair", "--backup", backup.url, "--yes"];
  {
    await using server = await ServerProcess.start({
      path: w.folder.database,
      backup,
      args: ["--durability", "s3", "--backup-lease", "5m"],
    });
    await put(server, "0");
    await snapshot(server, w.folder);
    const [former, present] = await generationsOf(w);
    await objects.delete([`${present}/snapshot.json`]);
    const refused = await run(repair);
    assert.equal(refused.code, 1);
    assert.match(refused.err, /a server has it.*backup snapshot/);
    await put(server, "1");
    await objects.delete([`${former}/snapshot.json`]);
    assert.equal((await server.stop()).code, 0);
  }
  const before = (await objects.get("manifest.json"))!.data;
  const refused = await run(repair);
  assert.equal(refused.code, 1);
  assert.match(refused.err, /No generation.*is whole.*another URL/s);
  assert.deepEqual((await objects.get("manifest.json"))!.data, before);
});
