/**
 * `backup repair` on a real bucket: what it finds is shown, nothing is written
 * before somebody has agreed, and a launch afterwards goes on with everything
 * that was acknowledged, or with what the person was shown.
 */
import assert from "node:assert/strict";
import { utf8 } from "../../src/common/bytes.ts";
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

/** Two epochs and two generations with something in them; 9 keys. */
async function fill(w: World): Promise<string> {
  const { folder, backup } = w;
  await killedAfter(4, folder.database, backup);
  const path = `${folder.path}/second.sqlite`;
  await using server = await ServerProcess.start({ path, backup, args: ARGS });
  for (let i = 4; i < 6; i++) await put(server, `${i}`);
  await snapshot(server, folder);
  let last = "";
  for (let i = 6; i < 9; i++) last = await put(server, `${i}`);
  await server.kill();
  return last;
}

/** How many keys there were, or why it cannot be told. */
async function restoredAt(
  { folder, backup, run }: World,
  at: string,
): Promise<number | string> {
  const output = await Deno.makeTempFile({ dir: folder.path });
  await Deno.remove(output);
  const done = await run([
    ...["restore", "--from", backup.url, "--at", at, "-o", output],
  ]);
  return done.code === 0 ? rowsOf(output) : done.err;
}

/** A versionstamp never goes back, whatever file a launch finds. */
async function goesOnAbove(
  { backup }: World,
  above: string,
  path: string,
): Promise<void> {
  await using server = await ServerProcess.start({ path, backup, args: ARGS });
  const next = await put(server, "next");
  assert.ok(next > above, `${next} ${above}`);
  assert.equal((await server.stop()).code, 0);
}

/** A launch on a blank disk has all of it, and versions above it. */
async function goesOn(
  { folder, backup }: World,
  keys: number,
  above: string,
  name = "again",
): Promise<void> {
  await using server = await ServerProcess.start({
    path: `${folder.path}/${name}.sqlite`,
    backup,
    args: ARGS,
  });
  for (let i = 0; i < keys; i++) {
    assert.ok(await isThere(server, `${i}`), `${i}`);
  }
  const next = await put(server, "next");
  assert.ok(versionOf(next) > versionOf(above) + LEAP, `${next} ${above}`);
  assert.equal((await server.stop()).code, 0);
}

Deno.test("s3: a lost manifest is made anew from the newest copy, once somebody has agreed", async () => {
  await using w = await World.begin("repaired");
  if (w === undefined) return;
  const last = await fill(w);
  const { objects, backup, run } = w;
  const repair = ["backup", "repair", "--backup", backup.url];
  const whole = await run([...repair]);
  assert.equal(whole.code, 0, whole.err);
  assert.match(whole.out, /^Nothing to repair/);

  await objects.delete(["manifest.json"]);
  // A snapshot that was not finished is no generation.
  const unfinished = "20990101t000000z-00000002-abcd";
  await objects.put(`${unfinished}/snapshots/x.bin`, new Uint8Array([1]));
  const before = await keysOf(objects);
  const shown = await run([...repair]);
  assert.equal(shown.code, 1);
  assert.match(shown.out, /manifest\.json is missing/);
  assert.match(shown.out, new RegExp(`${last} is the newest`));
  assert.match(shown.out, new RegExp(`left out +${unfinished}`));
  assert.match(shown.err, /Nothing was changed.*--yes/);
  const asJson = await run([...repair, "--json"]);
  assert.equal(asJson.code, 1);
  assert.equal(JSON.parse(asJson.out).newest, last);
  assert.equal(JSON.parse(asJson.out).written, false);
  assert.deepEqual(await keysOf(objects), before);

  const done = await run([...repair, "--yes"]);
  assert.equal(done.code, 0, done.err);
  const verified = await run(["backup", "verify", "--backup", backup.url]);
  assert.equal(verified.code, 0, verified.err);
  await goesOn(w, 9, last);
  // Nothing of it was deleted, and the file of the last owner is not used.
  const after = new Set(await keysOf(objects));
  assert.deepEqual(before.filter((key) => !after.has(key)), []);
  await using server = await ServerProcess.start({
    path: `${w.folder.path}/second.sqlite`,
    backup,
    args: ARGS,
  });
  assert.ok(await isThere(server, "next"));
});

Deno.test("s3: a manifest that cannot be read, or is an old one, is refused, and repaired", async () => {
  await using w = await World.begin("unreadable");
  if (w === undefined) return;
  let last = await fill(w);
  const { objects, backup, folder, run } = w;
  const copies = (await keysOf(objects)).filter((key) =>
    /manifest\//.test(key)
  );
  const manifest = (await objects.get("manifest.json"))!.data;
  const changed = new TextDecoder().decode(manifest)
    .replace(/"lastTsn": \d+/, '"lastTsn": 1');
  const inPlace: [Uint8Array, RegExp][] = [
    [utf8("<html>maintenance</html>"), /cannot be read/],
    [utf8(changed), /its checksum does not fit/],
    [(await objects.get(copies[0]))!.data, /is older than its history/],
  ];
  for (const [i, [bytes, named]] of inPlace.entries()) {
    await objects.put("manifest.json", bytes);
    for (
      const args of [
        ["restore", "--from", backup.url, "-o", `${folder.path}/r.sqlite`],
        ["backup", "verify", "--backup", backup.url],
        ["backup", "status", "--backup", backup.url],
      ]
    ) {
      const { code, err } = await run([...args]);
      assert.equal(code, 1, `${args} ${i}`);
      assert.match(err, named);
    }
    assert.match(await refusalOf(`${folder.path}/blank.sqlite`, backup), named);
    assert.deepEqual((await objects.get("manifest.json"))!.data, bytes);
    const done = await run([
      "backup",
      "repair",
      "--backup",
      backup.url,
      "--yes",
    ]);
    assert.equal(done.code, 0, done.err);
    await goesOn(w, 9, last, `again-${i}`);
    const listed = await run([
      "backup",
      "list",
      "--backup",
      backup.url,
      "--json",
    ]);
    last = JSON.parse(listed.out).newest.versionstamp;
  }
  // Of a newer version it is not ours to replace.
  await objects.put("manifest.json", utf8('{"format":2}'));
  const newer = await run([
    "backup",
    "repair",
    "--backup",
    backup.url,
    "--yes",
  ]);
  assert.equal(newer.code, 1);
  assert.match(newer.err, /has format 2/);
});

Deno.test("s3: where no copy can be read it is said what can be done", async () => {
  await using w = await World.begin("no-copy");
  if (w === undefined) return;
  await fill(w);
  const { objects, backup, folder, run } = w;
  const keys = await keysOf(objects);
  await objects.delete(
    keys.filter((key) => /manifest/.test(key)),
  );
  const refused = await run([
    "backup",
    "repair",
    "--backup",
    backup.url,
    "--yes",
  ]);
  assert.equal(refused.code, 1);
  const [, from] = /`restore --from (\S+)`/.exec(refused.err)!;
  const output = `${folder.path}/taken-out.sqlite`;
  const restored = await run(["restore", "--from", from, "-o", output]);
  assert.equal(restored.code, 0, restored.err);
  assert.equal(rowsOf(output), 9);
  const empty = await run([
    "backup",
    "repair",
    "--backup",
    `${backup.url}/nothing-here`,
    "--yes",
  ]);
  assert.equal(empty.code, 1);
  assert.match(empty.err, /is empty: there is nothing to repair/);
});

/** A history of 20 writes without its 8th, whose owner is gone. */
async function withGap(w: World): Promise<string[]> {
  const { folder, backup, objects } = w;
  const stamps = await killedAfter(20, folder.database, backup);
  const segments = (await keysOf(objects)).filter((key) => /logs/.test(key));
  await objects.delete([segments[7]]);
  // A refused launch waits for the lease of the one that was killed.
  const refused = await refusalOf(`${folder.path}/blank.sqlite`, backup);
  assert.match(refused, /misses segment 8.*`backup repair`/s);
  return stamps;
}

Deno.test("s3: a history with a hole ends before it, once somebody has agreed; its versions are not issued again", async () => {
  await using w = await World.begin("hole");
  if (w === undefined) return;
  const stamps = await withGap(w);
  const { objects, backup, folder, run } = w;
  const before = await keysOf(objects);
  const repair = ["backup", "repair", "--backup", backup.url];
  const shown = await run([...repair]);
  assert.equal(shown.code, 1);
  assert.match(
    shown.out,
    new RegExp(`written after ${stamps[6]}, up to ${stamps[19]}`),
  );
  assert.deepEqual(await keysOf(objects), before);
  const done = await run([...repair, "--yes"]);
  assert.equal(done.code, 0, done.err);
  const listed = await run(["backup", "list", "--backup", backup.url]);
  assert.match(listed.out, new RegExp(`lost +after ${stamps[6]}`));
  const betweenTime = new Date(
    JSON.parse(
      (await run(["backup", "list", "--backup", backup.url, "--json"]))
        .out,
    ).lost[0].decidedMs - 1,
  ).toISOString();
  await goesOn(w, 7, stamps[19]);
  // No point of what was given up is answered with the state before it.
  for (const at of [stamps[7], stamps[10], stamps[19], betweenTime]) {
    const refused = await restoredAt(w, at);
    assert.match(`${refused}`, /does not hold.*given up.*Nothing was restored/);
    assert.match(`${refused}`, new RegExp(`--at ${stamps[6]}`));
  }
  assert.equal(await restoredAt(w, stamps[6]), 7);
  const after = new Set(await keysOf(objects));
  assert.deepEqual(before.filter((key) => !after.has(key)), []);
  // The old owner's file comes too late now, and is kept.
  await using server = await ServerProcess.start({
    path: folder.database,
    backup,
    args: ARGS,
  });
  assert.match(server.lastWords, /was set aside; it is kept/);
  assert.ok(await isThere(server, "next"));
  assert.ok(!await isThere(server, "19"));
});

Deno.test("s3: after such a repair the file of the last owner goes on with everything", async () => {
  await using w = await World.begin("hole-with-file");
  if (w === undefined) return;
  const stamps = await withGap(w);
  const { backup, folder, run } = w;
  const done = await run(["backup", "repair", "--backup", backup.url, "--yes"]);
  assert.equal(done.code, 0, done.err);
  {
    await using server = await ServerProcess.start({
      path: folder.database,
      backup,
      args: ARGS,
    });
    for (let i = 0; i < 20; i++) assert.ok(await isThere(server, `${i}`));
    assert.equal((await server.stop()).code, 0);
  }
  const output = `${folder.path}/restored.sqlite`;
  const restored = await run(["restore", "--from", backup.url, "-o", output]);
  assert.equal(restored.code, 0, restored.err);
  assert.equal(rowsOf(output), 20);
  // What was given up is there again, every point of it.
  for (const i of [6, 7, 19]) {
    assert.equal(await restoredAt(w, stamps[i]), i + 1);
  }
});

Deno.test("s3: generations that are not whole any more are left out, and nothing else takes their place", async () => {
  await using w = await World.begin("left-out");
  if (w === undefined) return;
  const { objects, backup, folder, run } = w;
  // One machine, and then another one, with two generations more.
  const stamps = await killedAfter(3, folder.database, backup);
  const path = `${folder.path}/second.sqlite`;
  const times: string[] = [];
  {
    await using server = await ServerProcess.start({
      path,
      backup,
      args: ARGS,
    });
    for (const group of [1, 2]) {
      await snapshot(server, folder);
      for (let i = 0; i < 3; i++) {
        stamps.push(await put(server, `${group}-${i}`));
        if (i === 1) times.push(new Date().toISOString());
      }
    }
    assert.equal((await server.stop()).code, 0);
  }
  const generations: string[] = JSON.parse(
    (await run(["backup", "list", "--backup", backup.url, "--json"])).out,
  ).generations.map(({ name }: { name: string }) => name);
  const repair = async () => {
    await objects.delete(["manifest.json"]);
    const done = await run([
      "backup",
      "repair",
      "--backup",
      backup.url,
      "--yes",
    ]);
    assert.equal(done.code, 0, done.err);
    return done.out;
  };
  await objects.delete([`${generations[1]}/snapshot.json`]);
  assert.match(await repair(), new RegExp(`left out +${generations[1]}`));
  for (const i of [0, 1, 2, 6, 7, 8]) {
    assert.equal(await restoredAt(w, stamps[i]), i + 1);
  }
  for (const at of [stamps[3], stamps[4], times[0]]) {
    assert.match(`${await restoredAt(w, at)}`, /does not hold that state/);
  }

  // And the newest: what the first machine's file would go on from is past.
  await objects.delete([`${generations[2]}/snapshot.json`]);
  assert.match(await repair(), /given up +what was written after/);
  await goesOnAbove(w, stamps[8], folder.database);
  for (const at of [stamps[6], stamps[8], times[1]]) {
    assert.match(`${await restoredAt(w, at)}`, /does not hold that/);
  }
  assert.equal(await restoredAt(w, stamps[2]), 3);
});

Deno.test("s3: a running server is not repaired away from under its clients", async () => {
  await using w = await World.begin("running");
  if (w === undefined) return;
  const { objects, backup, folder, run } = w;
  await using server = await ServerProcess.start({
    path: folder.database,
    backup,
    args: ["--durability", "s3", "--backup-lease", "5m"],
  });
  for (let i = 0; i < 3; i++) await put(server, `${i}`);
  const segments = (await keysOf(objects)).filter((key) => /logs/.test(key));
  await objects.delete([segments[1]]);
  const refused = await run([
    "backup",
    "repair",
    "--backup",
    backup.url,
    "--yes",
  ]);
  assert.equal(refused.code, 1);
  assert.match(refused.err, /a server has it.*backup snapshot/);
  await put(server, "3");
});
