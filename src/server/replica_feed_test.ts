import assert from "node:assert/strict";
import { systemClock } from "../common/clock.ts";
import { silentLogger } from "../common/log.ts";
import { type Frame, FrameReader } from "../log/frames.ts";
import { readSnapshotRange } from "../log/snapshot_range.ts";
import { versionstampHex } from "../protocol/versionstamp.ts";
import { commitsOf } from "../store/contract/log.ts";
import { commit, eventually, set } from "../store/contract/support.ts";
import type { Store } from "../store/store.ts";
import { openSqliteStore } from "../store/sqlite/store.ts";
import { MAX_LOG_STREAMS } from "./log_streams.ts";
import { type RunningServer, startServer } from "./server.ts";
import { MAX_SNAPSHOT_STREAMS } from "./snapshot_streams.ts";

const TOKEN = "a token";

class Primary implements AsyncDisposable {
  private readonly folder = Deno.makeTempDirSync({ prefix: "denokv-test-" });
  store!: Store;
  server!: RunningServer;
  private readonly answers: Response[] = [];

  static async start(maxLogBytes?: number): Promise<Primary> {
    const primary = new Primary();
    primary.store = await openSqliteStore({
      path: `${primary.folder}/denokv.sqlite`,
      maxLogBytes,
    });
    primary.server = startServer({
      store: primary.store,
      clock: systemClock,
      logger: silentLogger,
      hostname: "127.0.0.1",
      port: 0,
      version: "0",
      accessToken: TOKEN,
      restSecret: "another",
      publicReads: false,
      maxInFlightBytes: 1024 * 1024,
      corsOrigins: [],
      logsAccess: false,
      replicaRetainedBytes: 2 * 1024 * 1024,
    });
    return primary;
  }

  async get(
    path: string,
    token = TOKEN,
    encoding = "identity",
  ): Promise<Response> {
    const url = `http://127.0.0.1:${this.server.port}${path}`;
    const answer = await fetch(url, {
      headers: {
        authorization: `Bearer ${token}`,
        "accept-encoding": encoding,
      },
    });
    this.answers.push(answer);
    return answer;
  }

  async log(after: number): Promise<FrameReader> {
    const answer = await this.get(`/-/log?after=${versionstampHex(after, 0)}`);
    assert.equal(answer.status, 200);
    assert.equal(
      answer.headers.get("x-denokv-database-id"),
      this.store.databaseId,
    );
    return new FrameReader(answer.body!, "the primary");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const drained = this.server.drain(5000);
    for (const { body } of this.answers) {
      if (!body?.locked) await body?.cancel().catch(() => {});
    }
    await drained;
    await this.store.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

async function nextOf<K extends Frame["kind"]>(
  reader: FrameReader,
  kind: K,
): Promise<Extract<Frame, { kind: K }>> {
  for (;;) {
    const frame = await reader.next();
    assert.ok(frame, `the stream ended before a frame "${kind}"`);
    if (frame.kind === kind) return frame as Extract<Frame, { kind: K }>;
    assert.equal(frame.kind, "beat");
  }
}

Deno.test("a replica's stream begins with where it is, goes on with every commit, beats, and ends in order", async () => {
  await using primary = await Primary.start();
  const { store } = primary;
  const first = await commit(store, [set("a", "1")]);
  const reader = await primary.log(first);
  const begin = await nextOf(reader, "beat");
  assert.deepEqual([begin.version, begin.durableVersion], [first, first]);
  const versions: number[] = [];
  let position = first;
  const got: number[] = [];
  for (let round = 0; round < 5; round++) {
    for (let i = 0; i < 20; i++) {
      versions.push(await commit(store, [set(`k${i}`, "x".repeat(100))]));
    }
    while (position < versions.at(-1)!) {
      const frame = await nextOf(reader, "commits");
      assert.equal(frame.previousVersion, position);
      const commits = commitsOf([{
        firstVersion: 0,
        version: frame.version,
        timeMs: 0,
        entries: frame.entries,
      }]);
      got.push(...commits.map(([version]) => version));
      assert.equal(frame.times.at(-1)!.version, frame.version);
      position = frame.version;
    }
  }
  assert.deepEqual(got, versions);
  const beat = await nextOf(reader, "beat");
  assert.deepEqual([beat.version, beat.durableVersion], [position, position]);
  const [{ name, lagBytes }] = store.log!.logReaders();
  assert.deepEqual([name, lagBytes], ["replica 1", 0]);
  // From the middle, within whatever rows there are.
  const again = await primary.log(versions[30]);
  const late = await nextOf(again, "commits");
  assert.equal(late.previousVersion, versions[30]);
  await again.cancel();
  await eventually(
    "the reader's end",
    () => store.log!.logReaders().length === 1,
  );
  const drained = primary.server.drain(5000);
  const end = await nextOf(reader, "end");
  assert.equal(end.status, 503);
  assert.match(end.sentence, /stopping/);
  assert.equal(await reader.next(), null);
  assert.deepEqual(await drained, { isComplete: true });
});

Deno.test("what a replica may not have is refused in a sentence", async () => {
  await using primary = await Primary.start(0);
  const { store } = primary;
  const sentence = async (path: string, status: number, token?: string) => {
    const answer = await primary.get(path, token);
    const text = await answer.text();
    assert.equal(answer.status, status, text);
    assert.match(text, /\.\n?$/);
    return text;
  };
  const at = (version: number) => `/-/log?after=${versionstampHex(version, 0)}`;
  const first = await commit(store, [set("a", "1")]);
  await sentence(at(first), 401, "wrong");
  // It is for clients of the REST API, which sees single keys.
  await sentence("/-/snapshot", 401, "another");
  await sentence("/-/log", 400);
  await sentence("/-/log?after=ffffffffffffffff0000", 400);
  assert.match(await sentence(at(first + 1), 409), /was never at/);
  const text = "x".repeat(60_000);
  for (let i = 0; i < 60; i++) await commit(store, [set("a", text)]);
  assert.match(await sentence(at(first), 410), /no longer reaches back/);
});

Deno.test("a state between two commits is of another line of the history", async () => {
  await using primary = await Primary.start();
  const { store } = primary;
  const versions: number[] = [];
  for (let i = 0; i < 30; i++) {
    versions.push(await commit(store, [set("a", "")]));
  }
  const log = store.log!;
  for (const version of versions) assert.ok(log.hasBeenAt(version));
  const gap = versions.find((version, i) => versions[i + 1] > version + 1)!;
  assert.equal(log.hasBeenAt(gap + 1), false);
  const answer = await primary.get(
    `/-/log?after=${versionstampHex(gap + 1, 0)}`,
  );
  assert.equal(answer.status, 409);
  const time = Date.now() - 1_000_000;
  const asked = `/-/log?after=${versionstampHex(versions[20], 0)}`;
  const other = await primary.get(`${asked}&time=${time}`);
  assert.equal(other.status, 409);
  assert.equal((await primary.get(`${asked}&time=x`)).status, 400);
  // Whose refusal it is, for a replica that may hold another database.
  const id = answer.headers.get("x-denokv-database-id");
  assert.equal(id, store.databaseId);
  assert.equal(answer.headers.get("x-denokv-epoch"), "0");
  assert.match(await answer.text(), /begin anew with a snapshot/);
});

Deno.test("a replica that is too slow loses its place at the log's limit, and is told", async () => {
  await using primary = await Primary.start(0);
  const { store } = primary;
  const reader = await primary.log(store.log!.durableVersion);
  await nextOf(reader, "beat");
  const text = "x".repeat(65_000);
  // More than what the sockets take, and than the log holds for it.
  const isBehind = () => {
    const held = store.log!.logReaders().at(0);
    // Where it wanted more in between it has lost its place already.
    return held === undefined || held.version < store.log!.logFloorVersion;
  };
  for (let i = 0; i < 1000 && !isBehind(); i++) {
    await Promise.all(
      Array.from({ length: 20 }, (_, i) => commit(store, [set(`${i}`, text)])),
    );
  }
  assert.ok(isBehind());
  let frame = await reader.next();
  while (frame?.kind === "commits" || frame?.kind === "beat") {
    frame = await reader.next();
  }
  assert.ok(frame?.kind === "end");
  assert.equal(frame.status, 410);
  assert.match(frame.sentence, /no longer reaches back/);
  assert.equal(await reader.next(), null);
});

Deno.test("a first copy is a state that was acknowledged, and the log goes on behind it", async () => {
  await using primary = await Primary.start(0);
  const { store } = primary;
  const text = "x".repeat(50_000);
  for (let i = 0; i < 60; i++) await commit(store, [set(`k${i}`, text)]);
  const answer = await primary.get("/-/snapshot");
  const reader = new FrameReader(answer.body!, "the primary");
  const begin = await nextOf(reader, "snapshot");
  assert.equal(begin.version, store.log!.durableVersion);
  let entries = 0;
  let frame = await reader.next();
  let parts = 0;
  while (frame?.kind === "part") {
    assert.equal(frame.number, parts++);
    entries += readSnapshotRange(frame.bytes, () => {});
    // Written meanwhile; the log would forget its begin.
    for (let i = 0; i < 2; i++) await commit(store, [set("k", text)]);
    frame = await reader.next();
  }
  assert.ok(frame?.kind === "snapshotEnd");
  assert.deepEqual([frame.version, frame.parts], [begin.version, parts]);
  assert.equal(entries, 60);
  assert.equal(await reader.next(), null);
  const log = await primary.log(begin.version);
  const first = await nextOf(log, "commits");
  assert.equal(first.previousVersion, begin.version);
});

Deno.test("a replica that takes compressed frames gets them where it pays", async () => {
  await using primary = await Primary.start();
  const { store } = primary;
  const begin = store.log!.durableVersion;
  const text = "what repeats itself ".repeat(3000);
  for (let i = 0; i < 20; i++) await commit(store, [set(`k${i}`, text)]);
  const sizes: number[] = [];
  for (const encoding of ["identity", "deflate-raw"]) {
    const copy = await primary.get("/-/snapshot", TOKEN, encoding);
    const bytes = await copy.bytes();
    sizes.push(bytes.length);
    const frames = new FrameReader(ReadableStream.from([bytes]), "it");
    let entries = 0;
    for (let frame; (frame = await frames.next()) !== null;) {
      if (frame.kind !== "part") continue;
      entries += readSnapshotRange(frame.bytes, () => {});
    }
    assert.equal(entries, 20);
    const path = `/-/log?after=${versionstampHex(begin, 0)}`;
    const answer = await primary.get(path, TOKEN, encoding);
    const log = new FrameReader(answer.body!, "it");
    const { entries: logged, version } = await nextOf(log, "commits");
    assert.ok(logged.length > 60_000 && version > begin);
    await log.cancel();
  }
  assert.ok(sizes[1] < sizes[0] / 10, `${sizes}`);
});

Deno.test("streams and first copies are few at a time", async () => {
  await using primary = await Primary.start();
  const { store } = primary;
  const at = `/-/log?after=${versionstampHex(store.log!.durableVersion, 0)}`;
  for (let i = 0; i < MAX_LOG_STREAMS; i++) {
    assert.equal((await primary.get(at)).status, 200);
  }
  const refused = await primary.get(at);
  assert.equal(refused.status, 429);
  await refused.body!.cancel();
  for (let i = 0; i < 200; i++) {
    await commit(store, [set(`k${i}`, "x".repeat(60_000))]);
  }
  for (let i = 0; i < MAX_SNAPSHOT_STREAMS; i++) {
    assert.equal((await primary.get("/-/snapshot")).status, 200);
  }
  assert.equal((await primary.get("/-/snapshot")).status, 429);
});
