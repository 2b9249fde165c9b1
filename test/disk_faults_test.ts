/**
 * A disk that fails under a real server: it stops acknowledging at once, says
 * so, goes on reading what is durable, and comes back by itself without
 * having lost or invented anything.
 */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { FaultyServer, until } from "./support/faulty_server.ts";
import type { Faults } from "./support/shim.ts";

/** As in src/store/sqlite/checkpointer.ts. */
const CHECKPOINT_AT_BYTES = 8 * 1024 * 1024;

function faultTest(
  title: string,
  run: (faulty: FaultyServer) => Promise<void>,
): void {
  Deno.test(`disk faults: ${title}`, async () => {
    await using faulty = await FaultyServer.open();
    if (!faulty) return;
    await faulty.putNext("stable", "1");
    await run(faulty);
  });
}

/** Reads of durable data are answered while the disk fails. */
async function readsGoOn(faulty: FaultyServer, forMs: number): Promise<void> {
  const untilMs = performance.now() + forMs;
  while (performance.now() < untilMs) {
    assert.equal(await faulty.get("stable"), "1");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The whole of what has to happen while and after a disk fails. */
async function outage(faulty: FaultyServer, faults: Faults): Promise<void> {
  const { shim } = faulty;
  shim.set(faults);
  const sentence = await faulty.putRefused("lost", "never acknowledged");
  assert.match(sentence, /acknowledged/);
  const { status, reason } = await faulty.readiness();
  assert.equal(status, 503);
  assert.equal(reason, sentence);
  assert.match(faulty.server.lastWords, /ERROR .*Writes are refused/);
  assert.equal(await faulty.metric("denokv_ready"), 0);
  // Longer than some attempts to recover take.
  const reading = readsGoOn(faulty, 1800);
  for (let i = 0; i < 5; i++) {
    await faulty.putRefused(`refused ${i}`, "x");
  }
  await reading;
  assert.equal((await faulty.readiness()).status, 503);
  assert.equal(
    faulty.server.lastWords.match(/Writes are refused/g)?.length,
    1,
    "said once, not at every attempt",
  );

  shim.set({});
  await faulty.untilReadiness(200);
  assert.match(faulty.server.lastWords, /INFO .*takes writes again/);
  await faulty.verify();
  for (let i = 0; i < 5; i++) await faulty.putNext(`refused ${i}`, "again");
}

faultTest("fsync fails, everywhere", async (faulty) => {
  await outage(faulty, { fsyncFailures: "always" });
  assert.equal(await faulty.get("lost"), undefined);
  assert.ok(await faulty.metric("denokv_sync_failures_total") > 0);
  await faulty.verifyAfterCrash();
  assert.equal(await faulty.get("lost"), undefined);
});

faultTest("fsync of the write-ahead log fails", async (faulty) => {
  await outage(faulty, { fsyncFailures: "always", suffix: "-wal" });
  assert.equal(await faulty.get("lost"), undefined);
  await faulty.verifyAfterCrash();
});

faultTest("the disk is full", async (faulty) => {
  await outage(faulty, { writeFailures: "always", suffix: "-wal" });
  assert.equal(await faulty.get("lost"), undefined);
  assert.ok(await faulty.metric("denokv_commit_failures_total") > 0);
  assert.equal(await faulty.metric("denokv_sync_failures_total"), 0);
  await faulty.verifyAfterCrash();
});

faultTest("fsync fails, and then the disk is full", async (faulty) => {
  const { shim } = faulty;
  shim.set({ fsyncFailures: "always" });
  await faulty.putRefused("lost", "x");
  shim.set({ writeFailures: "always" });
  await readsGoOn(faulty, 1500);
  assert.equal((await faulty.readiness()).status, 503);
  shim.set({});
  await faulty.untilReadiness(200);
  assert.equal(await faulty.get("lost"), undefined);
  await faulty.putNext("found", "x");
  await faulty.verifyAfterCrash();
});

faultTest(
  "fsync fails, and the server is stopped meanwhile",
  async (faulty) => {
    const { shim } = faulty;
    shim.set({ fsyncFailures: "always" });
    await faulty.putRefused("lost", "x");
    faulty.client.close();
    assert.equal((await faulty.server.stop()).code, 0);
    shim.set({});
    await faulty.start();
    await faulty.verify();
    assert.equal(await faulty.get("lost"), undefined);
    await faulty.verifyAfterCrash();
  },
);

faultTest("fsync fails under load, again and again", async (faulty) => {
  const { shim } = faulty;
  let isOver = false;
  let failures = 0;
  const writers = Array.from({ length: 8 }, async (_, writer) => {
    for (let i = 0; !isOver; i++) {
      try {
        await faulty.put({
          [`one ${writer}`]: `${i}`,
          [`other ${writer}`]: `${i}`,
        });
      } catch (error) {
        assert.match(String(error), /503/);
        failures++;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  });
  for (let round = 0; round < 4; round++) {
    const before = faulty.acknowledged.get("one 3")?.version ?? 0;
    await until(
      "writes",
      () => (faulty.acknowledged.get("one 3")?.version ?? 0) > before,
    );
    shim.set({ fsyncFailures: 1 + round });
    await shim.until((counts) => counts.fsyncsFailed > round);
    await faulty.untilReadiness(503);
    await faulty.untilReadiness(200);
  }
  shim.set({});
  isOver = true;
  await Promise.all(writers);
  assert.ok(failures >= 4);
  // The write after the last acknowledged one may be there, whole.
  for (let writer = 0; writer < 8; writer++) {
    assert.equal(
      await faulty.get(`one ${writer}`),
      await faulty.get(`other ${writer}`),
    );
  }
  await faulty.verify();
  await faulty.verifyAfterCrash();
});

faultTest(
  "a write whose fsync failed is not seen: cutting the log fails at first",
  async (faulty) => {
    faulty.shim.set({ fsyncFailures: 1, truncateFailures: 2, suffix: "-wal" });
    await faulty.putRefused("lost", "x");
    await faulty.untilReadiness(200);
    assert.equal(faulty.shim.counts().truncatesFailed, 2);
    assert.equal(await faulty.get("lost"), undefined);
    await faulty.verifyAfterCrash();
  },
);

faultTest(
  "a write whose fsync failed is not seen: it was the first after a checkpoint",
  async (faulty) => {
    const text = "x".repeat(60_000);
    do await faulty.putNext("big", text); while (
      await faulty.metric("denokv_wal_bytes") < CHECKPOINT_AT_BYTES
    );
    await until(
      "a checkpoint",
      async () => await faulty.metric("denokv_checkpoints_total") > 0,
    );
    // The log is copied back in full, so the next commit begins it anew: first
    // SQLite syncs the new header, then the server syncs the commit.
    const walBytes = await faulty.metric("denokv_wal_bytes");
    const { shim } = faulty;
    const before = shim.counts().fsyncs;
    shim.set({ fsyncDelayUs: 200_000, suffix: "-wal" });
    const refused = faulty.putRefused("lost", "x");
    await shim.until((counts) => counts.fsyncs === before + 2);
    shim.set({ fsyncFailures: "always", suffix: "-wal" });
    await refused;
    assert.ok(await faulty.metric("denokv_wal_bytes") < walBytes);
    faulty.shim.set({});
    await faulty.untilReadiness(200);
    assert.equal(await faulty.get("lost"), undefined);
    await faulty.verifyAfterCrash();
  },
);

faultTest(
  "a write whose fsync failed is not seen: another program has the file open",
  async (faulty) => {
    const other = new DatabaseSync(faulty.path);
    try {
      const count = () => other.prepare("select count(*) as n from kv").get();
      assert.equal(count()?.n, 1);
      faulty.shim.set({ fsyncFailures: 1, suffix: "-wal" });
      await faulty.putRefused("lost", "x");
      // The log cannot be cut under another's feet: it is said, and reads go on.
      await until("the reason", async () => {
        const { reason } = await faulty.readiness();
        return /another program/i.test(reason ?? "");
      });
      await readsGoOn(faulty, 1200);
      assert.equal((await faulty.readiness()).status, 503);
      await faulty.putRefused("lost too", "x");
      assert.ok(count());
    } finally {
      other.close();
    }
    await faulty.untilReadiness(200);
    assert.equal(await faulty.get("lost"), undefined);
    await faulty.putNext("found", "x");
    await faulty.verifyAfterCrash();
  },
);

faultTest(
  "checkpoints fail: writes go on, also after an fsync that failed then",
  async (faulty) => {
    const { shim } = faulty;
    const text = "x".repeat(60_000);
    const walBytes = () => faulty.metric("denokv_wal_bytes");
    // The database file itself: a checkpoint copies everything, and cannot
    // make it durable.
    shim.set({ fsyncFailures: "always", suffix: ".sqlite" });
    do await faulty.putNext("big", text); while (
      await walBytes() < CHECKPOINT_AT_BYTES
    );
    await until(
      "the warning",
      () => /WARN .*checkpoint failed/.test(faulty.server.lastWords),
    );
    await faulty.putNext("big", text);
    assert.ok(await walBytes() > CHECKPOINT_AT_BYTES);
    assert.equal((await faulty.readiness()).status, 200);

    shim.set({ fsyncFailures: "always" });
    await faulty.putRefused("lost", "x");
    await readsGoOn(faulty, 700);
    shim.set({});
    await faulty.untilReadiness(200);
    await faulty.verify();
    await faulty.putNext("found", "x");
    // The half of a checkpoint was made whole before the log was cut.
    assert.ok(await walBytes() < CHECKPOINT_AT_BYTES);
    await faulty.verifyAfterCrash();
  },
);
