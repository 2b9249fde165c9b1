/**
 * Malformed input over every endpoint and both HTTP versions: never a 5xx, a
 * crash, a hang or a changed database. DENOKV_TEST_SEED goes through the same
 * requests again; DENOKV_TEST_REQUESTS sets how many.
 */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { type Random, seededRandom } from "../src/common/random.ts";
import { decodeAtomicWrite } from "../src/protocol/datapath.ts";
import { MutationType } from "../src/protocol/messages.ts";
import { keyOfPath } from "../src/server/rest_key.ts";
import { set, u64 } from "../src/store/contract/support.ts";
import { rawBytes, sendRaw } from "./fuzz/raw_tcp.ts";
import { type FuzzRequest, RequestMaker } from "./fuzz/requests.ts";
import { KvClient } from "./support/kv_client.ts";
import { decodeWriteAnswer } from "./support/kv_messages.ts";
import {
  ServerProcess,
  testCount,
  TestFolder,
  testSeed,
} from "./support/server.ts";
import {
  http1,
  http2Connection,
  request,
  type Transport,
} from "./support/transport.ts";

const REQUESTS = 20_000;
/** Connections of raw bytes: one for so many requests. */
const REQUESTS_PER_RAW = 25;
const AT_ONCE = 16;
const HANG_MS = 15_000;

Deno.test("malformed input: never a 5xx, a crash, a hang, or a changed database", async () => {
  const random = seededRandom(testSeed());
  const requests = testCount("DENOKV_TEST_REQUESTS", REQUESTS);
  await using folder = await TestFolder.make();
  await fill(folder.database);
  const before = dump(folder.database);
  const server = await ServerProcess.start({ path: folder.database });
  const accepted = new AcceptedWrites();
  try {
    const transports = [http1(server.url), http2Connection(server.url)];
    const exchanges = await Promise.all(
      [[1], [1, 2], [1, 2, 3]].map(async (versions) =>
        (await KvClient.open(transports[0], versions)).exchanged
      ),
    );
    const maker = new RequestMaker(random, exchanges);
    const statuses = new Map<number, number>();
    let left = requests;
    await Promise.all(Array.from({ length: AT_ONCE }, async (_, lane) => {
      while (left-- > 0) {
        const transport = transports[lane % 2];
        const made = maker.make();
        const status = await once(transport, made, accepted, server);
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }
    }));
    console.log(
      "answers by status:",
      JSON.stringify(Object.fromEntries([...statuses].sort())),
    );
    for (const transport of transports) transport.close();
    await rawConnections(
      server,
      random,
      Math.ceil(requests / REQUESTS_PER_RAW),
    );
    await stillWell(server);
    const { code } = await server.stop();
    assert.equal(code, 0, server.lastWords);
  } finally {
    await server.kill();
  }
  compare(before, dump(folder.database), accepted);
});

/** One request; its status. Fails the test on whatever must never happen. */
async function once(
  transport: Transport,
  made: FuzzRequest,
  accepted: AcceptedWrites,
  server: ServerProcess,
): Promise<number> {
  const { method, path, headers, body } = made;
  const describe = () =>
    `${transport.name} ${
      JSON.stringify({ ...made, body: body?.slice(0, 3000).toHex() })
    }\n${server.lastWords}`;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const hang = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`no answer: ${describe()}`)),
      HANG_MS,
    );
  });
  try {
    const answered = await Promise.race([
      answerTo(transport, method, path, headers, body),
      hang,
    ]);
    assert.ok(answered.status < 500, `${answered.status}: ${describe()}`);
    assert.ok(answered.status >= 200);
    if (answered.status >= 400 && method !== "HEAD") {
      const sentence = new TextDecoder().decode(answered.body);
      assert.match(sentence, /\S/, `no sentence: ${describe()}`);
    }
    if (answered.status === 200) accepted.note(made, answered.body);
    return answered.status;
  } catch (error) {
    if (error instanceof assert.AssertionError) throw error;
    throw new Error(`${error} at ${describe()}`);
  } finally {
    clearTimeout(timer);
  }
}

/** A watch that is taken goes on for ever: its status is enough. */
async function answerTo(
  transport: Transport,
  method: string,
  path: string,
  headers: Record<string, string>,
  body: Uint8Array | undefined,
) {
  if (!path.endsWith("/watch")) {
    return await request(transport, method, path, headers, body);
  }
  const stream = await transport.open(method, path, headers, body);
  const parts = [];
  if (stream.status === 200) stream.cancel();
  else for await (const chunk of stream.chunks) parts.push(...chunk);
  return { status: stream.status, body: new Uint8Array(parts) };
}

/**
 * What turned out to be a valid write after all, and was acknowledged: its
 * keys may have changed, and no others.
 */
class AcceptedWrites {
  private readonly keys = new Set<string>();
  /** Of versionstamped keys. */
  private readonly prefixes: string[] = [];
  private hasEnqueued = false;

  note({ method, path, body }: FuzzRequest, answer: Uint8Array): void {
    if (path.endsWith("/atomic_write") && method === "POST") {
      if (decodeWriteAnswer(answer).status !== 1) return;
      const write = decodeAtomicWrite(body!, Date.now());
      this.hasEnqueued ||= write.enqueues.length > 0;
      for (const { key, type } of write.mutations) {
        if (type === MutationType.SET_SUFFIX_VERSIONSTAMPED_KEY) {
          this.prefixes.push(key.toHex() + "02");
        } else this.keys.add(key.toHex());
      }
      return;
    }
    if (!["POST", "PUT", "DELETE"].includes(method)) return;
    const name = path.split("?")[0];
    const isKey = name !== "/" && !name.startsWith("/-/") &&
      !name.startsWith("/v2/");
    if (isKey) this.keys.add(keyOfPath(name).toHex());
  }

  mayHaveChanged(row: string): boolean {
    if (row.startsWith("queue")) return this.hasEnqueued;
    const key = row.slice(row.indexOf(" ") + 1, row.indexOf("="));
    return this.keys.has(key) ||
      this.prefixes.some((prefix) => key.startsWith(prefix));
  }
}

function compare(
  before: Set<string>,
  after: Set<string>,
  accepted: AcceptedWrites,
): void {
  const changed = [
    ...[...before].filter((row) => !after.has(row)),
    ...[...after].filter((row) => !before.has(row)),
  ].filter((row) => !accepted.mayHaveChanged(row));
  assert.deepEqual(changed, [], "rows that nothing accepted has changed");
}

/** Every row of the file that holds data, as text. */
function dump(path: string): Set<string> {
  const db = new DatabaseSync(path, { readOnly: true });
  try {
    const rows = new Set<string>();
    for (const row of db.prepare("select * from kv").all()) {
      const key = (row.k as Uint8Array).toHex();
      const value = (row.v as Uint8Array).toHex();
      const { v_encoding, version, seq, expiration_ms } = row;
      rows.add(
        `kv ${key}=${value} ${v_encoding} ${version} ${seq} ${expiration_ms}`,
      );
    }
    for (const table of ["queue", "queue_running"]) {
      for (const row of db.prepare(`select id from ${table}`).all()) {
        rows.add(`${table} ${row.id}=`);
      }
    }
    return rows;
  } finally {
    db.close();
  }
}

async function fill(path: string): Promise<void> {
  const server = await ServerProcess.start({ path });
  try {
    const client = await KvClient.open(http2Connection(server.url));
    for (let i = 0; i < 5; i++) {
      await client.commit(
        Array.from({ length: 100 }, (_, j) => set(`keep ${i} ${j}`, `${j}`)),
      );
    }
    await client.commit([
      set("keep", "keep"),
      set("keep for a while", "x", Date.now() + 3_600_000),
      u64(MutationType.SUM, "keep u64", 9n),
    ]);
    client.close();
    await server.stop();
  } finally {
    await server.kill();
  }
}

async function rawConnections(
  server: ServerProcess,
  random: Random,
  count: number,
): Promise<void> {
  let left = count;
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (left-- > 0) {
      const bytes = rawBytes(random);
      const answer = new TextDecoder("latin1").decode(
        await sendRaw(server.port, bytes),
      );
      const status = /^HTTP\/1\.[01] (5\d\d)/m.exec(answer)?.[1];
      assert.equal(
        status,
        undefined,
        `${
          new TextDecoder("latin1").decode(bytes.slice(0, 500))
        } got ${answer}`,
      );
      assert.ok(server.isRunning, server.lastWords);
    }
  }));
}

/** It still takes reads, writes and watches, and has counted no failure. */
async function stillWell(server: ServerProcess): Promise<void> {
  const client = await KvClient.open(http2Connection(server.url));
  const version = await client.commit([]);
  assert.ok(version > 0);
  client.close();
  const metrics = await server.metrics();
  for (const name of metrics.keys()) assert.ok(!name.includes('"5xx"'), name);
  const untilMs = performance.now() + HANG_MS;
  while ((await server.metrics()).get("denokv_watches") !== 0) {
    assert.ok(performance.now() < untilMs, "watches were left behind");
  }
  const rssMiB = metrics.get("process_resident_memory_bytes")! / 2 ** 20;
  assert.ok(rssMiB < 400, `${rssMiB} MiB resident`);
}
