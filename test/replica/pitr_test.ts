/** `pitr` on a replica of our own, from a real bucket, as a person uses it. */
import assert from "node:assert/strict";
import { encodeKey } from "../../src/protocol/key.ts";
import { range, set } from "../../src/store/contract/support.ts";
import { World } from "../backup/support.ts";
import { KvClient } from "../support/kv_client.ts";
import { programOrSkip } from "../support/programs.ts";
import { runCommand, ServerProcess } from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import { History, startReplica, stateOf } from "./support.ts";

const EVERYTHING = range(encodeKey([]), new Uint8Array([0xff]));

Deno.test("pitr on a file of pitr sync: list, info and checkout, by versionstamp and by time", async () => {
  await using world = await World.begin("app");
  if (world === undefined) return;
  const { backup, run } = world;
  const path = world.disk("replica");
  const states: { versionstamp: string; state: string; timeMs: number }[] = [];
  {
    await using server = await ServerProcess.start({
      path: world.disk("primary"),
      backup,
      args: ["--durability", "s3"],
    });
    const history = await History.of(server);
    for (let i = 0; i < 12; i++) {
      await history.commit();
      const client = await KvClient.open(http1(server.url));
      const [entries] = await client.read(EVERYTHING);
      client.close();
      const version = Math.max(...entries.map((entry) => entry.version));
      states.unshift({
        versionstamp: version.toString(16).padStart(16, "0") + "0000",
        state: history.last,
        timeMs: Date.now(),
      });
    }
    history.client.close();
    assert.equal((await server.stop()).code, 0);
  }
  const pitr = async (...args: string[]) => {
    const { code, out, err } = await runCommand(
      ["--sqlite-path", path, "pitr", ...args],
      { folder: world.folder.path },
    );
    return { code, out, err };
  };
  const shown = async (file: string) => {
    await using server = await ServerProcess.start({
      path: file,
      args: ["--read-only"],
    });
    const client = await KvClient.open(http1(server.url));
    try {
      return await stateOf(client);
    } finally {
      client.close();
    }
  };

  // Nothing to go back in yet.
  const missing = await pitr("list");
  assert.equal(missing.code, 1);
  assert.match(missing.err, /is not there/);
  const primary = await runCommand(
    [
      "--sqlite-path",
      world.disk("primary"),
      "pitr",
      "checkout",
      "f".repeat(20),
    ],
    { folder: world.folder.path },
  );
  assert.equal(primary.code, 1);
  assert.match(primary.err, /is no replica.*Nothing was changed/);

  const place = ["--replica-from", backup.url];
  const synced = await run(["--sqlite-path", path, "pitr", "sync", ...place]);
  assert.equal(synced.code, 0, synced.err);

  const { out: list } = await pitr("list");
  const lines = list.split("\n").map((line) => line.split("\t"));
  const newest = states[0].versionstamp;
  assert.ok(lines.every(([, time]) => new Date(time).toISOString() === time));
  const stamps = lines.map(([stamp]) => stamp);
  for (const { versionstamp } of states) {
    assert.ok(stamps.includes(versionstamp), versionstamp);
  }
  const json = (await pitr("list", "--json")).out.split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    json.map(({ versionstamp, timeMs }) => [
      versionstamp,
      new Date(timeMs).toISOString(),
    ]),
    lines,
  );
  assert.equal((await pitr("info")).out, `Current versionstamp: ${newest}`);
  const rust = await programOrSkip("denokv");
  if (rust !== undefined) {
    const { stdout } = await new Deno.Command(rust, {
      args: ["--sqlite-path", path, "pitr", "list"],
    }).output();
    assert.equal(new TextDecoder().decode(stdout).trim(), list);
  }

  const old = states[7];
  const { out: told } = await pitr("checkout", old.versionstamp);
  assert.equal(told, `Snapshot is now at versionstamp ${old.versionstamp}`);
  assert.equal(await shown(path), old.state);
  const info = JSON.parse((await pitr("info", "--json")).out);
  assert.equal(info.current.versionstamp, old.versionstamp);
  assert.equal(info.newest.versionstamp, newest);
  assert.ok(info.earliest.versionstamp <= stamps.at(-1)!);
  assert.equal((await pitr("list")).out, list);

  // The last commit at or before the time of one.
  const time = lines[stamps.indexOf(states[3].versionstamp)][1];
  const at = lines.find((line) => line[1] === time)![0];
  const moved = await pitr("checkout", "--json", time);
  assert.equal(JSON.parse(moved.out).versionstamp, at);
  const future = await pitr("checkout", "2999-01-01");
  assert.equal(future.code, 1);
  assert.match(future.err, /lies in the future.*Nothing was changed/);
  const before = await pitr("checkout", "2001-01-01");
  assert.equal(before.code, 1);
  assert.match(before.err, /history begins.*Nothing was changed/);
  const wrong = await pitr("checkout", "yesterday");
  assert.equal(wrong.code, 2);

  // While a server follows into it, it stays where it is.
  await pitr("checkout", old.versionstamp);
  {
    await using server = await startReplica(path, backup);
    const busy = await pitr("checkout", old.versionstamp);
    assert.equal(busy.code, 1);
    assert.match(busy.err, /Another denokv server has .* open/);
    // It went forward again, and said so.
    await server.logged(/goes forward to that one first/);
    const client = await KvClient.open(http1(server.url));
    assert.equal(await stateOf(client), states[0].state);
    client.close();
    assert.equal((await server.stop()).code, 0);
  }

  // As a database of its own: above every version that the history has.
  await pitr("checkout", old.versionstamp);
  await using own = await ServerProcess.start({ path });
  const client = await KvClient.open(http1(own.url));
  assert.equal(await stateOf(client), old.state);
  const version = await client.commit([set("mine", "1")]);
  assert.ok(version > parseInt(newest.slice(0, 16), 16));
  client.close();
  assert.equal((await own.stop()).code, 0);
  const ended = await pitr("checkout", newest);
  assert.equal(ended.code, 1);
  assert.match(ended.err, /was written to by a server/);
});
