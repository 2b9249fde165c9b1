/**
 * A power cut, many times: under real load the files are copied as they stand,
 * the write-ahead log loses any part that no completed sync had covered, and
 * what opens has to hold every acknowledged write, and each write whole.
 */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { utf8 } from "../src/common/bytes.ts";
import { systemClock } from "../src/common/clock.ts";
import { silentLogger } from "../src/common/log.ts";
import {
  type Random,
  seededRandom,
  systemRandom,
} from "../src/common/random.ts";
import { decodeLogEntries } from "../src/log/entry.ts";
import { encodeKey } from "../src/protocol/key.ts";
import { Encoding, MutationType, NEVER_MS } from "../src/protocol/messages.ts";
import { localDurability } from "../src/store/durability.ts";
import { openSqliteStore } from "../src/store/sqlite/store.ts";
import { walBytes } from "../src/store/sqlite/wal.ts";
import { Writing } from "../src/store/sqlite/writing.ts";
import { verifyIntegrity } from "./support/faulty_server.ts";
import { testCount, TestFolder, testSeed } from "./support/server.ts";

const ROUNDS = testCount("DENOKV_TEST_POWER_CUTS", 60);
const PAIRS = 20;
const WRITERS = 12;

/** One atomic write: both halves of a pair, and a key that is never changed. */
interface Put {
  pair: number;
  number: number;
}

function mutation(name: string, text: string) {
  return {
    type: MutationType.SET,
    key: encodeKey([name]),
    value: utf8(text),
    encoding: Encoding.BYTES,
    expireAtMs: NEVER_MS,
    sumMin: null,
    sumMax: null,
    sumClamp: false,
  };
}

/** Writers that never stop, and what was acknowledged to them. */
class Load {
  readonly acknowledged = new Map<number, { put: Put; version: number }>();
  private isOver = false;
  private nextNumber = 1;
  private readonly writers: Promise<void>[];

  constructor(writing: Writing, random: Random) {
    this.writers = Array.from({ length: WRITERS }, async () => {
      while (!this.isOver) {
        const put = { pair: random.below(PAIRS), number: this.nextNumber++ };
        const text = `${put.number} ${"x".repeat(random.below(6000))}`;
        const outcome = await writing.write({
          checks: [],
          mutations: [
            mutation(`left ${put.pair}`, text),
            mutation(`once ${put.number}`, ""),
            mutation(`right ${put.pair}`, text),
          ],
          enqueues: [],
        });
        assert.equal(outcome.status, "committed");
        const { version } = outcome as { version: number };
        this.acknowledged.set(put.number, { put, version });
      }
    });
  }

  async stop(): Promise<void> {
    this.isOver = true;
    await Promise.all(this.writers);
  }
}

/** How the part of the log that no sync covered looks after the cut. */
const DAMAGES = ["cut", "zeros", "garbage", "torn page", "none"] as const;

function damage(
  walPath: string,
  certainBytes: number,
  random: Random,
): string {
  const log = Deno.readFileSync(walPath);
  const from = Math.min(certainBytes, log.length);
  const at = from + random.below(log.length - from + 1);
  const kind = DAMAGES[random.below(DAMAGES.length)];
  switch (kind) {
    case "cut":
      Deno.truncateSync(walPath, at);
      return `${kind} at ${at} of ${log.length}, certain ${from}`;
    case "zeros":
      log.fill(0, at);
      break;
    case "garbage":
      log.set(random.bytes(log.length - at), at);
      break;
    case "torn page":
      // A sector is lost; what was written behind it is there.
      log.set(random.bytes(Math.min(512, log.length - at)), at);
      break;
    case "none":
  }
  Deno.writeFileSync(walPath, log);
  return `${kind} at ${at} of ${log.length}, certain ${from}`;
}

/** What is in the files after the cut, read by SQL alone. */
function contents(path: string) {
  const db = new DatabaseSync(path);
  try {
    const rows = new Map<string, { text: string; version: number }>();
    for (
      const { k, v, version } of db.prepare("select k, v, version from kv")
        .all()
    ) {
      rows.set(String(k), {
        text: new TextDecoder().decode(v as Uint8Array),
        version: Number(version),
      });
    }
    const logged = new Map<string, number>();
    for (const row of db.prepare("select entries from denokv_log").all()) {
      const entries = decodeLogEntries(row.entries as Uint8Array<ArrayBuffer>);
      for (const entry of entries) {
        logged.set(String(entry.key), entry.version);
      }
    }
    const version = Number(
      db.prepare("select version from data_version").get()!.version,
    );
    return { rows, logged, version };
  } finally {
    db.close();
  }
}

Deno.test(`power cut: nothing acknowledged is lost, nothing is there in part (${ROUNDS} times)`, async () => {
  const random = seededRandom(testSeed());
  await using folder = await TestFolder.make();
  const writing = await Writing.open({
    path: folder.database,
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
    durability: localDurability,
    batchTimeoutMs: 0,
  });
  const load = new Load(writing, random);
  let shortened = 0;
  try {
    for (let round = 0; round < ROUNDS; round++) {
      // Some commits later, at any moment between two of them.
      const pauseTurns = 1 + random.below(60);
      for (let i = 0; i < pauseTurns; i++) {
        await new Promise<void>((resolve) => systemClock.endOfTurn(resolve));
      }
      const copy = `${folder.path}/cut-${round}.sqlite`;
      const { acknowledged, committedVersion, floorVersion, certainBytes } =
        freeze(
          writing,
          load,
          folder.database,
          copy,
        );
      const what = `round ${round}: ${
        damage(`${copy}-wal`, certainBytes, random)
      }`;
      const opened = await openSqliteStore({ path: copy });
      const { log, durableVersion } = opened.stats();
      await opened.close();
      verifyIntegrity(copy);
      const { rows, logged, version } = contents(copy);

      const key = (name: string) => String(encodeKey([name]));
      const newest = new Map<number, number>();
      let last = 0;
      for (const { put, version } of acknowledged) {
        const once = rows.get(key(`once ${put.number}`));
        assert.equal(once?.version, version, `${what}: ${put.number} is lost`);
        newest.set(
          put.pair,
          Math.max(newest.get(put.pair) ?? 0, put.number),
        );
        last = Math.max(last, version);
      }
      for (let pair = 0; pair < PAIRS; pair++) {
        const left = rows.get(key(`left ${pair}`));
        const right = rows.get(key(`right ${pair}`));
        assert.deepEqual(left, right, `${what}: a write is there in part`);
        if (left === undefined) continue;
        const number = parseInt(left.text);
        const once = rows.get(key(`once ${number}`));
        assert.equal(once?.version, left.version, what);
        // Numbers are given out in the order of the commits.
        assert.ok(number >= (newest.get(pair) ?? 0), what);
      }
      // The log tells of exactly these writes, as far as it reaches back.
      assert.ok(log.floorVersion <= floorVersion, `${what}: a false gap`);
      for (const [name, row] of rows) {
        if (row.version > log.floorVersion) {
          assert.equal(logged.get(name), row.version, what);
        }
      }
      for (const name of logged.keys()) assert.ok(rows.has(name), what);
      assert.ok(version >= last, what);
      assert.equal(log.headVersion, version, what);
      assert.equal(durableVersion, version, what);
      if (version < committedVersion) shortened++;
      for (const suffix of ["", "-lock"]) Deno.removeSync(copy + suffix);
    }
    assert.ok(writing.stats().checkpoints > 0, "some in a new run of the log");
  } finally {
    await load.stop();
    await writing.close();
  }
  assert.ok(shortened > 0, "some cuts took unacknowledged writes away");
});

/** Copies the files as they are; nothing is written meanwhile. */
function freeze(writing: Writing, load: Load, path: string, copy: string) {
  const { session, writer } = writing.current();
  session.reader.endTurn();
  // By another process: opening the database in this one drops its locks.
  for (const suffix of ["", "-wal"]) {
    const { success } = new Deno.Command("cp", {
      args: [path + suffix, copy + suffix],
    }).outputSync();
    assert.ok(success);
  }
  const { log, checkpointed } = session.walFrames();
  // A checkpoint syncs the log before it copies: nothing of what it may have
  // copied can be lost.
  const certain = writing["checkpointer"]["running"]
    ? log
    : Math.max(writer.certainFrames, checkpointed);
  return {
    acknowledged: [...load.acknowledged.values()],
    committedVersion: session.dataVersion(),
    floorVersion: session.log.floorVersion,
    certainBytes: walBytes(certain, session.pageBytes),
  };
}
