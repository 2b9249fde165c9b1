/**
 * One file for three programs: Deno's embedded KV, the Rust server and this
 * one each read what another wrote, versionstamps, expiries and queues
 * included, one after the other.
 */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { serialize } from "node:v8";
import { ACCESS_TOKEN as RUST_TOKEN, rust, start } from "../bench/servers.ts";
import { encodeKey } from "../src/protocol/key.ts";
import { verifyIntegrity } from "./support/faulty_server.ts";
import { KvClient } from "./support/kv_client.ts";
import { programOrSkip } from "./support/programs.ts";
import { ACCESS_TOKEN, ServerProcess, TestFolder } from "./support/server.ts";
import { http1 } from "./support/transport.ts";

/** The database, open in one of the programs. */
interface Opened {
  kv: Deno.Kv;
  /** Of the program's data path; undefined for the embedded KV. */
  url: string | undefined;
  close(): Promise<void>;
}

interface Program {
  name: string;
  /** Undefined, after printing SKIPPED, where it cannot be had. */
  open(folder: TestFolder): Promise<Opened | undefined>;
}

async function openRemote(url: string, token: string): Promise<Deno.Kv> {
  Deno.env.set("DENO_KV_ACCESS_TOKEN", token);
  return await Deno.openKv(url);
}

const OURS: Program = {
  name: "this server",
  async open({ database }) {
    const server = await ServerProcess.start({ path: database });
    const kv = await openRemote(server.url, ACCESS_TOKEN);
    return {
      kv,
      url: server.url,
      async close() {
        kv.close();
        assert.equal((await server.stop()).code, 0);
      },
    };
  },
};

const EMBEDDED: Program = {
  name: "Deno's embedded KV",
  async open({ database }) {
    const kv = await Deno.openKv(database);
    return { kv, url: undefined, close: () => Promise.resolve(kv.close()) };
  },
};

const RUST: Program = {
  name: "the Rust server",
  async open({ path }) {
    if (!await programOrSkip("denokv")) return undefined;
    const server = await start(await rust({ folder: path }));
    const kv = await openRemote(server.url.href, RUST_TOKEN);
    return {
      kv,
      url: server.url.href,
      async close() {
        kv.close();
        await server[Symbol.asyncDispose]();
      },
    };
  },
};

const cyclic: Record<string, unknown> = { name: "a circle" };
cyclic.self = cyclic;

const VALUES: [name: string, value: unknown][] = [
  ["text", "grüße, 世界 😀"],
  ["lone surrogate", "\ud800"],
  ["long text", "x".repeat(20_000)],
  ["number", 42],
  ["fraction", -1.5e-300],
  ["minus zero", -0],
  ["not a number", NaN],
  ["bigint", -(2n ** 200n)],
  ["KvU64", new Deno.KvU64(2n ** 64n - 1n)],
  ["bytes", new Uint8Array([0, 1, 255])],
  ["no bytes", new Uint8Array(0)],
  ["floats", new Float64Array([1.5, NaN])],
  ["true", true],
  ["null", null],
  ["undefined", undefined],
  ["date", new Date(1_700_000_000_000)],
  ["regexp", /a+/gi],
  ["map", new Map<unknown, unknown>([["a", 1], [{ b: 2 }, [3]]])],
  ["set", new Set([1, "2", 3n])],
  ["object", { a: [1, { b: "c" }], d: undefined }],
  // deno-lint-ignore no-sparse-arrays
  ["sparse array", [1, , 3]],
  ["cyclic object", cyclic],
  ["error", new TypeError("of a kind")],
];

const KEYS: Deno.KvKey[] = [
  ["string"],
  [""],
  ["zero\0inside", "\u{10ffff}"],
  [new Uint8Array([0, 255, 0])],
  [0n],
  [-1n],
  [2n ** 100n],
  [-(2n ** 1000n)],
  [0],
  [-0],
  [NaN],
  [-Infinity],
  [1.5, "mixed", false, 7n],
  [true],
];

async function entriesOf(kv: Deno.Kv) {
  const entries = [];
  for await (const entry of kv.list({ prefix: [] })) entries.push(entry);
  return entries;
}

/** What the other programs keep in the file, as it is there. */
function tablesOf({ database }: TestFolder) {
  const db = new DatabaseSync(database);
  try {
    const rows = (sql: string) =>
      db.prepare(sql).all().map((row) => ({ ...row }));
    return {
      kv: rows("select * from kv order by k"),
      queue: rows("select * from queue order by ts, id"),
      running: rows("select * from queue_running order by deadline, id"),
      schema: rows(
        "select name, sql from sqlite_schema where name not like 'denokv_%' and name not like 'sqlite_%' order by name",
      ),
      journal: rows("pragma journal_mode"),
      migration: rows("select * from migration_state"),
    };
  } finally {
    db.close();
  }
}

/** Writes something of every kind; one entry has expired when it returns. */
async function fill(kv: Deno.Kv): Promise<void> {
  for (const [name, value] of VALUES) await kv.set(["value", name], value);
  for (const key of KEYS) await kv.set(["key", ...key], "found");
  await kv.atomic()
    .sum(["counter"], 5n)
    .max(["largest"], 7n)
    .set(["lasting"], "later gone", { expireIn: 3_600_000 })
    .set(["fleeting"], "gone", { expireIn: 1 })
    .commit();
  await kv.set(["deleted"], 1);
  await kv.delete(["deleted"]);
}

/** Changes entries on the strength of versionstamps that another issued. */
async function change(kv: Deno.Kv): Promise<void> {
  const seen = await kv.get(["value", "text"]);
  const stale = await kv.atomic()
    .check({ key: ["value", "text"], versionstamp: "0".repeat(20) })
    .set(["value", "text"], "stale")
    .commit();
  assert.equal(stale.ok, false);
  const fresh = await kv.atomic()
    .check(seen)
    .check({ key: ["deleted"], versionstamp: null })
    .set(["value", "text"], "changed")
    .sum(["counter"], 2n)
    .min(["largest"], 3n)
    .delete(["value", "map"])
    .commit();
  assert.ok(fresh.ok);
  assert.ok(fresh.versionstamp > seen.versionstamp!);
}

const PAIRS: [writer: Program, reader: Program][] = [
  [EMBEDDED, OURS],
  [OURS, EMBEDDED],
  [RUST, OURS],
  [OURS, RUST],
];

for (const [writer, reader] of PAIRS) {
  Deno.test(`interchange: ${reader.name} opens the file of ${writer.name}, and back`, async () => {
    await using folder = await TestFolder.make();
    const first = await writer.open(folder);
    if (!first) return;
    await fill(first.kv);
    const isGone = async (kv: Deno.Kv) =>
      (await kv.get(["fleeting"])).value === null;
    if (writer === OURS) assert.ok(await isGone(first.kv));
    const written = (await entriesOf(first.kv))
      .filter(({ key }) => key[0] !== "fleeting");
    await first.close();
    const before = tablesOf(folder);

    const second = await reader.open(folder);
    if (!second) return;
    if (reader === OURS) assert.ok(await isGone(second.kv));
    const read = (await entriesOf(second.kv))
      .filter(({ key }) => key[0] !== "fleeting");
    assert.deepEqual(read, written);
    assert.equal(read.length, VALUES.length + KEYS.length + 3);
    for (const [name, value] of VALUES) {
      assert.deepEqual((await second.kv.get(["value", name])).value, value);
    }
    await second.close();
    // Opening and reading has changed nothing but what had expired.
    const after = tablesOf(folder);
    const lasting = ({ kv, ...rest }: typeof before) => ({
      ...rest,
      kv: kv.filter((row) =>
        Number(row.expiration_ms) < 0 ||
        Number(row.expiration_ms) > Date.now()
      ),
    });
    assert.deepEqual(lasting(after), lasting(before));

    const third = await reader.open(folder);
    assert.ok(third);
    await change(third.kv);
    const changed = await entriesOf(third.kv);
    await third.close();
    const fourth = await writer.open(folder);
    assert.ok(fourth);
    assert.deepEqual(await entriesOf(fourth.kv), changed);
    assert.deepEqual(
      (await fourth.kv.get(["counter"])).value,
      new Deno.KvU64(7n),
    );
    assert.deepEqual(
      (await fourth.kv.get(["largest"])).value,
      new Deno.KvU64(3n),
    );
    await fourth.kv.set(["last"], "word");
    await fourth.close();
    verifyIntegrity(folder.database);
  });
}

/** Consumes messages until all wished for have come; the rest throws. */
async function consume(
  path: string,
  wished: number,
  handle: (message: unknown) => void = () => {},
): Promise<unknown[]> {
  const kv = await Deno.openKv(path);
  const messages: unknown[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const listening = kv.listenQueue((message) => {
    messages.push(message);
    if (messages.length === wished) resolve();
    handle(message);
  });
  await promise;
  kv.close();
  await listening;
  return messages;
}

Deno.test("interchange: messages that came over KV Connect are consumed by Deno's embedded KV", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({ path: folder.database });
  const client = await KvClient.open(http1(server.url));
  const nowMs = Date.now();
  const enqueue = (message: unknown, more = {}) => ({
    payload: new Uint8Array(serialize(message)),
    deadlineMs: nowMs,
    keysIfUndelivered: [],
    backoffScheduleMs: null,
    ...more,
  });
  const answer = await client.write({
    checks: [],
    mutations: [],
    enqueues: [
      enqueue({ now: new Map([[1n, new Date(0)]]) }),
      enqueue("a little later", { deadlineMs: nowMs + 300 }),
      enqueue("far away", { deadlineMs: nowMs + 3_600_000 }),
      enqueue("fails twice", { backoffScheduleMs: [10] }),
      enqueue("undeliverable", {
        backoffScheduleMs: [1],
        keysIfUndelivered: [encodeKey(["dead", "letter"]), encodeKey([7])],
      }),
    ],
  });
  assert.equal(answer.status, 1);
  client.close();
  assert.equal((await server.stop()).code, 0);
  assert.equal(tablesOf(folder).queue.length, 5);

  const failing = new Set(["fails twice", "undeliverable"]);
  const messages = await consume(folder.database, 6, (message) => {
    if (failing.has(message as string)) throw new Error("as the test wants");
  });
  assert.deepEqual(
    messages.map((message) => typeof message === "string" ? message : "")
      .sort(),
    [
      "",
      "a little later",
      "fails twice",
      "fails twice",
      "undeliverable",
      "undeliverable",
    ],
  );
  assert.deepEqual(
    messages.find((message) => typeof message === "object"),
    { now: new Map([[1n, new Date(0)]]) },
  );
  const kv = await Deno.openKv(folder.database);
  assert.equal((await kv.get(["dead", "letter"])).value, "undeliverable");
  assert.equal((await kv.get([7])).value, "undeliverable");
  kv.close();
  const { queue } = tablesOf(folder);
  assert.deepEqual(queue.map((row) => row.ts), [nowMs + 3_600_000]);

  // What the embedded KV left there, delayed or undelivered, is kept by ours.
  const opened = (await OURS.open(folder))!;
  assert.equal(
    (await opened.kv.get(["dead", "letter"])).value,
    "undeliverable",
  );
  await opened.close();
  assert.deepEqual(tablesOf(folder).queue, queue);
});

Deno.test("interchange: messages of Deno's embedded KV pass through this server unchanged", async () => {
  await using folder = await TestFolder.make();
  const kv = await Deno.openKv(folder.database);
  await kv.enqueue("ready");
  await kv.enqueue("delayed", {
    delay: 3_600_000,
    keysIfUndelivered: [["dead", 1n], [new Uint8Array([0])]],
    backoffSchedule: [1, 2, 3],
  });
  kv.close();
  const before = tablesOf(folder);
  assert.equal(before.queue.length, 2);
  const opened = (await OURS.open(folder))!;
  await opened.kv.set(["a"], 1);
  await opened.close();
  const after = tablesOf(folder);
  assert.deepEqual([after.queue, after.running], [
    before.queue,
    before.running,
  ]);
  assert.deepEqual(await consume(folder.database, 1), ["ready"]);
});

Deno.test("interchange: a message that a dead consumer had taken is still delivered", async () => {
  await using folder = await TestFolder.make();
  // Taken, and killed before it was done: it stays in queue_running.
  const consumer = new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      "--unstable-kv",
      `const kv = await Deno.openKv(Deno.args[0]);
       await kv.enqueue("taken");
       kv.listenQueue(() => { console.log("taken"); return new Promise(() => {}); });`,
      folder.database,
    ],
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const reader = consumer.stdout.getReader();
  await reader.read();
  consumer.kill("SIGKILL");
  while (!(await reader.read()).done);
  await consumer.status;
  const before = tablesOf(folder);
  assert.equal(before.running.length, 1);
  const opened = (await OURS.open(folder))!;
  await opened.kv.set(["a"], 1);
  await opened.close();
  assert.deepEqual(tablesOf(folder).running, before.running);
  // The consumer's minute for it passes.
  const db = new DatabaseSync(folder.database);
  db.exec("update queue_running set deadline = 1");
  db.close();
  assert.deepEqual(await consume(folder.database, 1), ["taken"]);
});
