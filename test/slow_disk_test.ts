/**
 * Promise 1 of the store on a disk whose fsync takes its time: what is not
 * durable yet is not shown, and what is durable is not held up. Nothing here
 * measures time: answers are counted and put in order.
 */
import assert from "node:assert/strict";
import { concatBytes, fromUtf8 } from "../src/common/bytes.ts";
import { FaultyServer, point, set, until } from "./support/faulty_server.ts";
import { KvClient } from "./support/kv_client.ts";
import { encodeWrite, message } from "./support/kv_messages.ts";
import { http1, http2Connection } from "./support/transport.ts";

for (const connect of [http1, http2Connection]) {
  Deno.test(`promise 1, ${connect.name}: a write, its reader and its watcher are answered after the fsync; others at once`, async () => {
    await using faulty = await FaultyServer.open();
    if (!faulty) return;
    const { shim } = faulty;
    await faulty.put({ stable: "1", removed: "1" });
    const client = await KvClient.open(connect(faulty.server.url));
    const { frames, cancel } = await client.watch([point("new").start]);
    assert.deepEqual((await frames.next()).value.entries, [null]);

    const events: string[] = [];
    const note = <T>(event: string, answer: Promise<T>) => {
      const noted = answer.then((value) => {
        events.push(event);
        return value;
      });
      // Where the test fails first, its own reason is the one to be told.
      noted.catch(() => {});
      return noted;
    };
    shim.set({ holdFsync: true, suffix: "-wal" });
    const write = note("write", client.commit([set("new", "1")]));
    await shim.until((counts) => counts.fsyncsHeld > 0);
    // Of what the first write did, these see all, or wait.
    const later = [
      note("read", client.read(point("new"))),
      note(
        "range",
        client.read({ ...point("a"), end: point("z").start, limit: 10 }),
      ),
      note(
        "failed check",
        client.write({
          checks: [{ key: point("new").start, version: -1, order: 0 }],
          mutations: [set("never", "1")],
          enqueues: [],
        }),
      ),
      note("second write", client.commit([set("new", "2")])),
    ];
    const watched = note("watch", frames.next());
    // By the time that all these are answered, the others were long asked.
    for (let i = 0; i < 200; i++) {
      const [[entry]] = await client.read(point("stable"));
      assert.deepEqual([...entry.value], [0x31]);
    }
    assert.equal(events.length, 0, events.join());
    events.push("released");
    shim.set({});
    const version = await write;
    const [read, range, check, second] = await Promise.all(later);
    const frame = await watched;
    assert.equal(events[0], "released");
    assert.equal(events.length, 7);

    const [[entry]] = read as Awaited<ReturnType<KvClient["read"]>>;
    assert.ok(entry.version >= version);
    assert.equal(
      (range as Awaited<ReturnType<KvClient["read"]>>)[0].length,
      3,
    );
    assert.deepEqual(check, { status: 2, version: -1, failedChecks: [0] });
    assert.ok(second as number > version);
    assert.ok(frame.value.entries[0].version >= version);
    cancel();
    client.close();
  });
}

Deno.test("promise 1: a deletion that is not durable yet is not shown", async () => {
  await using faulty = await FaultyServer.open();
  if (!faulty) return;
  const { shim, client } = faulty;
  await faulty.put({ stable: "1", removed: "1" });
  shim.set({ holdFsync: true, suffix: "-wal" });
  const deletion = { ...set("removed", ""), type: 2 as const };
  const write = client.commit([deletion]);
  await shim.until((counts) => counts.fsyncsHeld > 0);
  let isAnswered = false;
  const read = client.read(point("removed")).finally(() => isAnswered = true);
  const refused = Promise.all([
    assert.rejects(write, /503/),
    assert.rejects(read, /503/),
  ]);
  for (let i = 0; i < 100; i++) await faulty.get("stable");
  assert.equal(isAnswered, false);
  // The machine dies now: only the old state was ever told.
  shim.set({ fsyncFailures: "always", suffix: "-wal" });
  await refused;
  shim.set({});
  await faulty.untilReadiness(200);
  assert.equal(await faulty.get("removed"), "1");
});

for (const fsyncMs of [2, 50]) {
  Deno.test(`an fsync of ${fsyncMs} ms: reads are not held up, writes share it`, async () => {
    await using faulty = await FaultyServer.open();
    if (!faulty) return;
    const { shim } = faulty;
    await faulty.put({ stable: "1" });
    shim.set({ fsyncDelayUs: fsyncMs * 1000 });
    const before = shim.counts().fsyncs;
    const rounds = 400 / fsyncMs;
    let isOver = false;
    let reads = 0;
    const readers = Array.from({ length: 4 }, async () => {
      for (; !isOver; reads++) assert.equal(await faulty.get("stable"), "1");
    });
    const writers = Array.from({ length: 16 }, async (_, writer) => {
      for (let i = 0; i < rounds; i++) {
        await faulty.put({ [`key ${writer}`]: `${i}` });
      }
    });
    await Promise.all(writers);
    isOver = true;
    await Promise.all(readers);
    const writes = 16 * rounds;
    const fsyncs = shim.counts().fsyncs - before;
    // A server that read behind its fsyncs would answer 4 reads for each.
    assert.ok(reads > 4 * fsyncs, `${reads} reads, ${fsyncs} fsyncs`);
    assert.ok(fsyncs < writes / 2, `${writes} writes, ${fsyncs} fsyncs`);
    await faulty.verify();
    await until(
      "the slow syncs in the metrics",
      async () => await faulty.metric("denokv_sync_seconds_sum") > 0.2,
    );
  });
}

/** As the disk hangs: readiness within seconds, and the log and the metrics. */
async function hangs(faulty: FaultyServer): Promise<void> {
  await faulty.untilReadiness(503);
  const { reason } = await faulty.readiness();
  assert.match(reason!, /not answered an fsync.*Look at the disk\.$/);
  assert.equal(await faulty.metric("denokv_ready"), 0);
  assert.ok(await faulty.metric("denokv_sync_pending_seconds") >= 2);
  await faulty.server.logged(/ERROR Writes wait.*not answered an fsync/);
}

Deno.test("an fsync that hangs: readiness says so, once in the log, and is back with the disk", async () => {
  await using faulty = await FaultyServer.open();
  if (!faulty) return;
  const { shim } = faulty;
  await faulty.put({ stable: "1" });
  assert.equal(await faulty.metric("denokv_sync_pending_seconds"), 0);
  shim.set({ holdFsync: true, suffix: "-wal" });
  const writes = Promise.all([faulty.put({ a: "1" }), faulty.put({ b: "1" })]);
  // Where the test fails first, its own reason is the one to be told.
  writes.catch(() => {});
  await hangs(faulty);
  assert.equal(await faulty.metric("denokv_waiting_writes"), 2);
  assert.ok(await faulty.metric("denokv_waiting_write_bytes") > 0);
  assert.equal(await faulty.get("stable"), "1");
  assert.equal(faulty.server.lastWords.match(/ERROR Writes wait/g)?.length, 1);
  shim.set({});
  await writes;
  assert.equal((await faulty.readiness()).status, 200);
  assert.equal(await faulty.metric("denokv_waiting_writes"), 0);
  assert.equal(await faulty.metric("denokv_waiting_write_bytes"), 0);
  await faulty.verify();
});

Deno.test("waiting writes are bounded by what they hold; one more is refused at once, and nobody else notices", async () => {
  await using faulty = await FaultyServer.open(["--max-waiting-mib", "16"]);
  if (!faulty) return;
  const { shim, server } = faulty;
  await faulty.put({ stable: "1" });
  shim.set({ holdFsync: true, suffix: "-wal" });
  const first = faulty.put({ first: "1" });
  await shim.until((counts) => counts.fsyncsHeld > 0);
  // 700 KiB of a field that no one knows: nothing of it is kept.
  const client = await KvClient.open(http2Connection(server.url));
  const body = concatBytes([
    encodeWrite({ checks: [], mutations: [set("a", "1")], enqueues: [] }),
    message([15, new Uint8Array(700_000)]),
  ]);
  const padded = Array.from(
    { length: 40 },
    () => client.post("atomic_write", body),
  );
  await until(
    "the padded ones",
    async () => await faulty.metric("denokv_waiting_writes") === 41,
  );
  assert.ok(await faulty.metric("denokv_waiting_write_bytes") < 512 * 1024);
  // 31 MB of values, of which 16 MiB may wait.
  const large = Array.from({ length: 60 }, async (_, i) => {
    const write = encodeWrite({
      checks: [],
      mutations: Array.from(
        { length: 10 },
        (_, j) => set(`large ${i} ${j}`, "x".repeat(52_000)),
      ),
      enqueues: [],
    });
    const answer = await client.post("atomic_write", write);
    if (answer.status !== 200) {
      assert.equal(answer.status, 503);
      assert.match(fromUtf8(answer.body)!, /More writes are waiting/);
    }
    return answer.status;
  });
  await until(
    "all of them",
    async () =>
      await faulty.metric("denokv_waiting_writes") +
          await faulty.metric("denokv_refused_writes_total") === 101,
  );
  const refused = await faulty.metric("denokv_refused_writes_total");
  assert.ok(refused >= 60 - 31, `${refused}`);
  const held = await faulty.metric("denokv_waiting_write_bytes");
  assert.ok(held <= 16 * 1024 * 1024, `${held}`);
  assert.equal(await faulty.get("stable"), "1");
  shim.set({});
  await first;
  for (const { status } of await Promise.all(padded)) assert.equal(status, 200);
  const statuses = await Promise.all(large);
  assert.equal(statuses.filter((status) => status === 503).length, refused);
  client.close();
});

Deno.test("an fsync that hangs for 10 s: writes in no transaction yet are answered, and were not applied", async () => {
  await using faulty = await FaultyServer.open();
  if (!faulty) return;
  const { shim } = faulty;
  await faulty.put({ stable: "1" });
  shim.set({ holdFsync: true, suffix: "-wal" });
  const answers: Promise<string>[] = [];
  // One after the other: at most four syncs run, so the last ones have to wait.
  for (let i = 0; i < 8; i++) {
    answers.push(
      faulty.client.commit([set(`key ${i}`, "x")]).then(
        () => "committed",
        (error) => String(error),
      ),
    );
    await until(
      "the write",
      async () => await faulty.metric("denokv_waiting_writes") === i + 1,
    );
  }
  const sentence = await answers[7];
  assert.match(sentence, /503: .*fsync.*Nothing of this write was applied/);
  assert.equal((await faulty.readiness()).status, 503);
  shim.set({});
  const outcomes = await Promise.all(answers);
  assert.equal(outcomes[0], "committed");
  for (let i = 0; i < 8; i++) {
    const isThere: boolean = await faulty.get(`key ${i}`) !== undefined;
    assert.deepEqual(isThere, outcomes[i] === "committed");
  }
  await faulty.untilReadiness(200);
});

Deno.test("SIGTERM while an fsync hangs: the server ends within 10 s, and nothing acknowledged is lost", async () => {
  await using faulty = await FaultyServer.open();
  if (!faulty) return;
  const { shim, server } = faulty;
  await faulty.put({ stable: "1" });
  shim.set({ holdFsync: true });
  const write = faulty.put({ lost: "1" });
  const failed = assert.rejects(write);
  await shim.until((counts) => counts.fsyncsHeld > 0);
  const { code, tookMs } = await server.stop();
  await failed;
  assert.equal(code, 1);
  // The rest is for a busy machine.
  assert.ok(tookMs < 20_000, `${tookMs} ms`);
  assert.match(server.lastWords, /could not be closed in time/);
  shim.set({});
  faulty.client.close();
  await faulty.start();
  await faulty.verify();
  await faulty.verifyAfterCrash();
});
