/** `--read-only`: beside a server that writes the file, and alone on it. */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { point, set, until, WatchedServer } from "./support/faulty_server.ts";
import { KvClient } from "./support/kv_client.ts";
import { REST_SECRET, ServerProcess, TestFolder } from "./support/server.ts";
import { http1, http2Connection } from "./support/transport.ts";

const READ_ONLY = ["--read-only"];

const textOf = (entry: { value: Uint8Array } | null | undefined) =>
  entry && new TextDecoder().decode(entry.value);

async function get(client: KvClient, name: string) {
  return textOf((await client.read(point(name)))[0][0]);
}

async function everyWriteIsRefused(
  server: ServerProcess,
  client: KvClient,
): Promise<void> {
  const check = { key: point("a").start, version: -1, order: 0 };
  const enqueue = {
    payload: new Uint8Array([0xff, 0x0f, 0x5f]),
    deadlineMs: 1,
    keysIfUndelivered: [],
    backoffScheduleMs: null,
  };
  for (
    const write of [
      { checks: [], mutations: [set("a", "x")], enqueues: [] },
      { checks: [check], mutations: [], enqueues: [] },
      { checks: [], mutations: [], enqueues: [enqueue] },
      { checks: [], mutations: [], enqueues: [] },
    ]
  ) {
    // Write disabled, not a check failure and not an error.
    assert.equal((await client.write(write)).status, 5);
  }
  for (const method of ["POST", "PUT", "DELETE"]) {
    const answer = await fetch(`${server.url}/a`, {
      method,
      headers: { authorization: REST_SECRET },
      body: method === "DELETE" ? undefined : "x",
    });
    assert.ok([403, 405].includes(answer.status), `${answer.status}`);
    assert.match(await answer.text(), /read-only|only reads|takes no writes/i);
  }
}

Deno.test("a read-only server beside a writing one shows what that commits, and writes nothing", async () => {
  await using folder = await TestFolder.make();
  await using writer = new WatchedServer(folder.database);
  await writer.start();
  await writer.putNext("a", "1");
  await using reader = await ServerProcess.start({
    path: folder.database,
    args: READ_ONLY,
  });
  assert.equal((await fetch(`${reader.url}/-/ready`)).status, 200);
  for (const connect of [http1, http2Connection]) {
    const client = await KvClient.open(connect(reader.url));
    assert.equal(
      client.exchanged.databaseId,
      writer.client.exchanged.databaseId,
    );
    for (let i = 0; i < 20; i++) {
      await writer.putNext("a", `${i}`);
      assert.equal(await get(client, "a"), `${i}`);
    }
    await everyWriteIsRefused(reader, client);
    assert.equal(await get(client, "a"), "19");
    client.close();
  }
  const answer = await fetch(`${reader.url}/a`, {
    headers: { authorization: REST_SECRET },
  });
  assert.equal(answer.status, 200);
  assert.equal(await answer.text(), "19");
  await writer.verify();
  assert.equal((await reader.stop()).code, 0);
  await writer.verifyAfterCrash();
});

Deno.test("a read-only server's watch sees the other server's commits and expiries", async () => {
  await using folder = await TestFolder.make();
  await using writer = new WatchedServer(folder.database);
  await writer.start();
  await writer.putNext("a", "0");
  await using reader = await ServerProcess.start({
    path: folder.database,
    args: READ_ONLY,
  });
  const client = await KvClient.open(http2Connection(reader.url));
  const { frames, cancel } = await client.watch([
    point("a").start,
    point("b").start,
  ]);
  const next = async () => (await frames.next()).value.entries.map(textOf);
  assert.deepEqual(await next(), ["0", null]);
  await writer.putNext("a", "1");
  assert.deepEqual(await next(), ["1", null]);
  // Whatever it skips, the latest state comes.
  for (let i = 0; i <= 100; i++) {
    await writer.put({ a: `${i}`, b: `${i}` });
  }
  for (let state = await next(); state[0] !== "100"; state = await next()) {
    assert.equal(state[0], state[1], "one snapshot");
  }
  const fleeting = { ...set("b", "soon gone"), expireAtMs: Date.now() + 400 };
  await writer.client.commit([fleeting]);
  assert.deepEqual(await next(), ["100", "soon gone"]);
  assert.deepEqual(await next(), ["100", null]);
  // The writer dies and comes back: the watch lives on.
  writer.acknowledged.delete("b");
  await writer.crash();
  assert.equal(await get(client, "a"), "100");
  await writer.start();
  await writer.putNext("a", "after the crash");
  assert.deepEqual(await next(), ["after the crash", null]);
  cancel();
  client.close();
});

Deno.test("another program's exclusive lock on a file without a log: a read-only server says so, and goes on", async () => {
  await using folder = await TestFolder.make();
  const kv = await Deno.openKv(folder.database);
  await kv.set(["a"], new TextEncoder().encode("1"));
  kv.close();
  const other = new DatabaseSync(folder.database);
  other.exec("pragma journal_mode = delete");
  await using reader = await ServerProcess.start({
    path: folder.database,
    args: READ_ONLY,
  });
  const client = await KvClient.open(http1(reader.url));
  const { frames, cancel } = await client.watch([point("a").start]);
  await frames.next();
  other.exec("begin exclusive");
  // So many looks at the file fail as fit between these answers.
  const untilMs = performance.now() + 600;
  let refused = 0;
  while (performance.now() < untilMs) {
    const answer = await fetch(`${reader.url}/a`, {
      headers: { authorization: REST_SECRET },
    });
    assert.equal(answer.status, 503);
    assert.match(await answer.text(), /holds the database locked/);
    refused++;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.ok(refused > 0);
  other.exec(
    "update kv set version = version + 1; update data_version set version = version + 1; commit",
  );
  other.close();
  await frames.next();
  assert.equal((await client.read(point("a")))[0].length, 1);
  cancel();
  client.close();
  assert.equal((await reader.stop()).code, 0);
});

Deno.test("a read-only server that is read without a pause does not let the writer's log grow", async () => {
  await using folder = await TestFolder.make();
  await using writer = new WatchedServer(folder.database);
  await writer.start();
  await writer.putNext("a", "0");
  await using reader = await ServerProcess.start({
    path: folder.database,
    args: READ_ONLY,
  });
  const client = await KvClient.open(http1(reader.url));
  let isOver = false;
  const readers = Array.from({ length: 4 }, async () => {
    while (!isOver) assert.equal(await get(client, "a"), "0");
  });
  const text = "x".repeat(60_000);
  let longest = 0;
  for (let i = 0; i < 400; i++) {
    await writer.put({ [`big ${i % 20}`]: text });
    if (i % 10) continue;
    const { size } = await Deno.stat(`${folder.database}-wal`);
    longest = Math.max(longest, size);
  }
  isOver = true;
  await Promise.all(readers);
  client.close();
  // It begins anew at 8 MiB; some more is written until it is copied back.
  assert.ok(longest < 24 * 1024 * 1024, `${longest} bytes`);
  await until(
    "checkpoints",
    async () => await writer.metric("denokv_checkpoints_total") >= 2,
  );
});

Deno.test("a read-only server answers while the writer stops, is killed and starts", async () => {
  await using folder = await TestFolder.make();
  await using writer = new WatchedServer(folder.database);
  await writer.start();
  await writer.putNext("a", "0");
  await using reader = await ServerProcess.start({
    path: folder.database,
    args: READ_ONLY,
  });
  const client = await KvClient.open(http1(reader.url));
  let isOver = false;
  const readers = Array.from({ length: 4 }, async () => {
    while (!isOver) assert.equal(await get(client, "a"), "0");
  });
  for (let i = 0; i < 10; i++) {
    await writer.put({ b: "x".repeat(50_000) });
    await (i % 2 ? writer.crash() : writer.stop());
    if (i % 2 === 0) {
      // In the database, though the reader keeps the log from being deleted.
      const db = new DatabaseSync(folder.database);
      const log = db.prepare("pragma wal_checkpoint(noop)").get()!;
      assert.equal(log.checkpointed, log.log);
      db.close();
    }
    await writer.start();
  }
  isOver = true;
  await Promise.all(readers);
  client.close();
});

Deno.test("a read-only server alone on a file leaves it as it is", async () => {
  await using folder = await TestFolder.make();
  const kv = await Deno.openKv(folder.database);
  await kv.set(["a"], new TextEncoder().encode("1"));
  await kv.set(["gone"], 1, { expireIn: 1 });
  await kv.enqueue("message", { delay: 3_600_000 });
  kv.close();
  const contents = () => {
    const db = new DatabaseSync(folder.database);
    try {
      return ["kv", "queue", "data_version", "sqlite_schema"].map((table) =>
        db.prepare(`select * from ${table}`).all()
      );
    } finally {
      db.close();
    }
  };
  const before = contents();
  const ids = new Set<string>();
  for (let i = 0; i < 2; i++) {
    await using reader = await ServerProcess.start({
      path: folder.database,
      args: READ_ONLY,
    });
    const client = await KvClient.open(http1(reader.url));
    // No server of ours has ever given it an id; it is the same all the same.
    ids.add(client.exchanged.databaseId);
    assert.equal(await get(client, "a"), "1");
    assert.equal(await get(client, "gone"), undefined);
    await everyWriteIsRefused(reader, client);
    client.close();
    assert.equal((await reader.stop()).code, 0);
    assert.deepEqual(contents(), before);
  }
  assert.equal(ids.size, 1);
});

Deno.test("a read-only server does not make a file, nor bring one up to date", async () => {
  await using folder = await TestFolder.make();
  const start = () =>
    ServerProcess.start({ path: folder.database, args: READ_ONLY });
  await assert.rejects(start(), /denokv\.sqlite cannot be opened/);
  assert.deepEqual([...Deno.readDirSync(folder.path)], []);

  const db = new DatabaseSync(folder.database);
  db.exec(`
    pragma journal_mode = wal;
    create table migration_state (k integer not null primary key, version integer not null);
    insert into migration_state values (0, 2);
    create table data_version (k integer primary key, version integer not null);
    create table kv (k blob primary key, v blob not null, v_encoding integer not null, version integer not null) without rowid;
  `);
  db.close();
  await assert.rejects(
    start(),
    /older schema and cannot be brought up to date read-only\. It was not changed/,
  );
});
