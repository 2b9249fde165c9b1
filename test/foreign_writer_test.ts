/**
 * Another program on the same file: what it did is kept, and noticed, because
 * whoever follows the mutation log would otherwise miss it. What it did not do
 * is no gap.
 */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import {
  FaultyServer,
  point,
  set,
  until,
  verifyIntegrity,
  WatchedServer,
} from "./support/faulty_server.ts";
import { serialize } from "node:v8";
import { TestFolder } from "./support/server.ts";

const WARNING = /WARN .*Another program has written to the database since/;

function dataVersion(path: string): number {
  const db = new DatabaseSync(path);
  try {
    return Number(
      db.prepare("select version from data_version").get()!.version,
    );
  } finally {
    db.close();
  }
}

async function consumeOne(kv: Deno.Kv) {
  const { promise, resolve } = Promise.withResolvers<void>();
  const listening = kv.listenQueue(() => resolve());
  await promise;
  return { listening };
}

type Foreign = (kv: Deno.Kv) => Promise<unknown>;

const CASES: {
  title: string;
  act: Foreign;
  /** Whether the file then differs from what this server left there. */
  isGap: boolean;
  /** Whether `data_version` alone would tell. */
  advances: boolean;
}[] = [
  {
    title: "an entry was set",
    act: (kv) => kv.set(["theirs"], 1),
    isGap: true,
    advances: true,
  },
  {
    title: "an entry was deleted",
    act: (kv) => kv.delete(["ours"]),
    isGap: true,
    advances: true,
  },
  {
    title: "a commit held nothing but a check",
    act: (kv) =>
      kv.atomic().check({ key: ["none"], versionstamp: null }).commit(),
    isGap: true,
    advances: true,
  },
  {
    title: "a message was put into the queue",
    act: (kv) => kv.enqueue("theirs", { delay: 3_600_000 }),
    isGap: true,
    advances: true,
  },
  {
    title: "a message was consumed",
    act: consumeOne,
    isGap: true,
    advances: false,
  },
  {
    title: "the file was only opened",
    act: () => Promise.resolve(),
    isGap: false,
    advances: false,
  },
  {
    title: "entries were only read",
    act: async (kv) => {
      assert.equal((await kv.get(["ours"])).value, "1");
      assert.equal((await kv.get(["none"])).value, null);
    },
    isGap: false,
    advances: false,
  },
];

for (const { title, act, isGap, advances } of CASES) {
  for (const isKilled of [false, true]) {
    const when = isKilled ? "after kill -9" : "while stopped";
    Deno.test(`another program, ${when}: ${title}: ${isGap ? "a" : "no"} gap`, async () => {
      await using folder = await TestFolder.make();
      await using server = new WatchedServer(folder.database);
      await server.start();
      assert.doesNotMatch(server.server.lastWords, WARNING, "a new file");
      await server.client.commit([{
        ...set("ours", ""),
        value: new Uint8Array(serialize("1")),
        encoding: 1,
      }]);
      await server.client.write({
        checks: [],
        mutations: [],
        enqueues: [{
          payload: new Uint8Array(serialize("ours")),
          deadlineMs: title.includes("consumed") ? 1 : Date.now() + 3_600_000,
          keysIfUndelivered: [],
          backoffScheduleMs: null,
        }],
      });
      const floor = await server.metric("denokv_log_floor_version");
      const head = await server.metric("denokv_log_head_version");
      assert.ok(floor < head);
      if (isKilled) await server.crash();
      else await server.stop();

      const kv = await Deno.openKv(folder.database);
      await act(kv);
      kv.close();
      const version = dataVersion(folder.database);
      assert.equal(version > head, advances);

      await server.start();
      const newFloor = await server.metric("denokv_log_floor_version");
      if (isGap) {
        // The log begins anew behind everything the other program did.
        assert.ok(newFloor > version, `${newFloor} > ${version}`);
        assert.equal(
          await server.metric("denokv_log_head_version"),
          newFloor,
        );
        await until("a warning", () => WARNING.test(server.server.lastWords));
      } else {
        assert.equal(newFloor, floor);
        assert.equal(await server.metric("denokv_log_head_version"), head);
        assert.doesNotMatch(server.server.lastWords, WARNING);
      }
      const last = await server.client.commit([set("after", "1")]);
      assert.ok(last > newFloor);

      // It is said once: the next start finds its own trace.
      await server.crash();
      await server.start();
      assert.equal(await server.metric("denokv_log_floor_version"), newFloor);
      assert.doesNotMatch(server.server.lastWords, WARNING);
      assert.equal(await server.get("after"), "1");
    });
  }
}

Deno.test("another program writes while this server runs: nothing of either is lost, and it is said", async () => {
  await using folder = await TestFolder.make();
  await using server = new WatchedServer(folder.database);
  await server.start();
  await server.put({ shared: "0" });
  const floor = await server.metric("denokv_log_floor_version");
  const { frames, cancel } = await server.client.watch([
    point("shared").start,
  ]);
  await frames.next();

  const count = 100;
  const other = new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      "--unstable-kv",
      `const kv = await Deno.openKv(Deno.args[0]);
       for (let i = 0; i < ${count}; i++) {
         const { versionstamp } = await kv.set(["theirs", i], i);
         console.log(versionstamp);
       }
       await kv.set(["shared"], new TextEncoder().encode("theirs"));
       kv.close();`,
      folder.database,
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let isOver = false;
  const versions: number[] = [];
  const writers = Array.from({ length: 4 }, async (_, writer) => {
    for (let i = 0; !isOver || i < 20; i++) {
      versions.push(await server.put({ [`ours ${writer} ${i % 50}`]: `${i}` }));
    }
  });
  const { success, stdout } = await other.output();
  assert.ok(success);
  const theirs = new TextDecoder().decode(stdout).trim().split("\n")
    .map((line) => parseInt(line.slice(0, 16), 16));
  isOver = true;
  await Promise.all(writers);
  // A commit of ours takes note of theirs.
  await server.put({ last: "1" });
  assert.equal(await server.get("shared"), "theirs");
  const frame = (await frames.next()).value;
  assert.equal(new TextDecoder().decode(frame.entries[0].value), "theirs");
  cancel();
  server.acknowledged.delete("shared");

  assert.equal(theirs.length, count);
  const all = [...versions, ...theirs];
  assert.equal(new Set(all).size, all.length, "no versionstamp twice");
  for (let i = 1; i < count; i++) assert.ok(theirs[i] > theirs[i - 1]);
  await until(
    "a warning",
    () => /WARN .*while this server had it open/.test(server.server.lastWords),
  );
  assert.ok(
    await server.metric("denokv_log_floor_version") >
      Math.max(floor, ...theirs.slice(0, -1)),
  );
  await server.verify();
  await server.crash();
  await server.start();
  assert.doesNotMatch(server.server.lastWords, WARNING);
  await server.verify();
  await server.stop();
  verifyIntegrity(folder.database);
  const kv = await Deno.openKv(folder.database);
  for (let i = 0; i < count; i++) {
    assert.equal((await kv.get(["theirs", i])).value, i);
  }
  kv.close();
});

Deno.test("another program consumes a message while this server runs: the next start notices", async () => {
  await using folder = await TestFolder.make();
  await using server = new WatchedServer(folder.database);
  await server.start();
  await server.client.write({
    checks: [],
    mutations: [],
    enqueues: [{
      payload: new Uint8Array(serialize("ours")),
      deadlineMs: 1,
      keysIfUndelivered: [],
      backoffScheduleMs: null,
    }],
  });
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      "--unstable-kv",
      `const kv = await Deno.openKv(Deno.args[0]);
       const { promise, resolve } = Promise.withResolvers();
       const listening = kv.listenQueue(resolve);
       await promise; kv.close(); await listening;`,
      folder.database,
    ],
  }).output();
  assert.ok(success);
  await server.put({ after: "1" });
  const floor = await server.metric("denokv_log_floor_version");
  await server.crash();
  await server.start();
  assert.ok(await server.metric("denokv_log_floor_version") > floor);
  await until("a warning", () => WARNING.test(server.server.lastWords));
});

for (const isReopened of [false, true]) {
  const when = isReopened ? "after kill -9" : "at once";
  Deno.test(`the file is put back as sqlite3 .restore does; writes go on ${when}: none is answered before its sync, no version comes twice`, async () => {
    await using faulty = await FaultyServer.open();
    if (!faulty) return;
    const { shim, client, path } = faulty;
    const old = `${path}.old`;
    await faulty.putNext("a", "old");
    await copyContents(path, old);
    for (let i = 0; i < 20; i++) await faulty.putNext("a", `${i}`);
    const last = faulty.acknowledged.get("a")!.version;
    await copyContents(old, path);
    faulty.acknowledged.clear();

    shim.set({ holdFsync: true, suffix: "-wal" });
    let isAnswered = false;
    const write = client.commit([set("b", "1")]).finally(() =>
      isAnswered = true
    );
    await shim.until((counts) => counts.fsyncsHeld > 0);
    // By the time that these are answered, it was long committed.
    for (let i = 0; i < 100; i++) await client.read(point("c"));
    assert.equal(isAnswered, false);
    shim.set({});
    const next = await write;
    assert.ok(next > last, `${next} > ${last}`);
    assert.equal(await faulty.get("a"), "old");
    assert.ok(await faulty.metric("denokv_log_floor_version") > last);
    await until(
      "a warning",
      () => /WARN .*put older contents/.test(faulty.server.lastWords),
    );
    if (isReopened) {
      await faulty.crash();
      await faulty.start();
    }
    await faulty.putNext("d", "1");
    assert.ok(faulty.acknowledged.get("d")!.version > next);
    assert.equal(await faulty.get("b"), "1");
  });
}

/**
 * Puts the contents of one database into another, in a process of its own: what
 * the `sqlite3` program does for `.backup` and `.restore`, by the same means.
 */
async function copyContents(from: string, to: string): Promise<void> {
  const code = `import { backup, DatabaseSync } from "node:sqlite";
    using source = new DatabaseSync(Deno.args[0], { readOnly: true });
    await backup(source, Deno.args[1]);`;
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", code, from, to],
  }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
}
