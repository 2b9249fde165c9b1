import assert from "node:assert/strict";
import { utf8 } from "../common/bytes.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { silentLogger } from "../common/log.ts";
import { UnavailableError } from "../common/errors.ts";
import { LAST_INDEX, LogEncoder } from "../log/entry.ts";
import { encodeKey } from "../protocol/key.ts";
import { Encoding, NEVER_MS } from "../protocol/messages.ts";
import type { LogRow } from "../store/backup_source.ts";
import { LogReaders } from "../store/log_readers.ts";
import { LogGoneError } from "../store/log_source.ts";
import { Answers } from "./answers.ts";
import {
  BATCH_BYTES,
  ChangeStreams,
  type FeedOptions,
  GATHER_MS,
  HEARTBEAT_MS,
  MAX_CHANGE_FEEDS,
  MAX_FEEDS_BYTES,
} from "./change_streams.ts";

const MIB = 1024 * 1024;
const VALUE_BYTES = 60_000;

/** A log in memory under the store's own readers. */
class Bench {
  readonly clock = new ManualClock(1000);
  readonly answers = new Answers({
    clock: this.clock,
    maxBytes: 16 * MIB,
    residentBytes: () => 0,
  });
  readonly streams = new ChangeStreams({
    clock: this.clock,
    logger: silentLogger,
    answers: this.answers,
    maxRetainedBytes: MIB,
  });
  private rows: LogRow[] = [];
  private version = 0;
  floorVersion = 0;
  /** How often rows were read out of it. */
  reads = 0;
  readonly log = new LogReaders(() => this.readable(), () => 0);

  private readable() {
    const after = (version: number) =>
      this.rows.filter((row) => row.version > version);
    return {
      floorVersion: this.floorVersion,
      durableVersion: this.version,
      rows: (version: number, upTo: number, maxBytes: number) => {
        this.reads++;
        const found: LogRow[] = [];
        let sizeBytes = 0;
        for (const row of after(version)) {
          if (row.version > upTo || sizeBytes >= maxBytes) break;
          found.push(row);
          sizeBytes += row.entries.length;
        }
        return found;
      },
      isInRow: (version: number) =>
        this.rows.some((row) =>
          row.firstVersion <= version && version <= row.version
        ),
      bytesAfter: (version: number) =>
        after(version).reduce((sum, { entries }) => sum + entries.length, 0),
      timeAfter: (version: number) => after(version)[0]?.timeMs,
    };
  }

  /** A commit of so many mutations, one version each. */
  commit(count = 1, sizeBytes = 10): number {
    const encoder = new LogEncoder();
    const version = ++this.version;
    for (let i = 0; i < count; i++) {
      encoder.append(
        version,
        0,
        i === count - 1 ? LAST_INDEX : i,
        encodeKey(["k", i]),
        utf8("x".repeat(sizeBytes)),
        Encoding.BYTES,
        NEVER_MS,
      );
    }
    this.rows.push({
      firstVersion: version,
      version,
      timeMs: version,
      entries: encoder.bytes.slice(),
    });
    this.log.durable(version);
    // Long enough after the one before for a feed not to gather them.
    this.clock.advance(GATHER_MS);
    return version;
  }

  open(options: Partial<FeedOptions> = {}): Consumer {
    const stream = this.streams.stream({
      log: this.log,
      afterVersion: 0,
      follows: true,
      format: "lines",
      prefixes: [],
      ...options,
    });
    return new Consumer(stream.getReader());
  }
}

// deno-lint-ignore no-explicit-any
type Line = any;

/** Reads a feed line by line, as slowly as the test wants. */
class Consumer {
  private text = "";
  constructor(
    readonly reader: ReadableStreamDefaultReader<Uint8Array>,
  ) {}

  /** Undefined at the end. */
  async line(): Promise<Line | undefined> {
    for (;;) {
      const at = this.text.indexOf("\n");
      if (at >= 0) {
        const line = JSON.parse(this.text.slice(0, at));
        this.text = this.text.slice(at + 1);
        return line;
      }
      const { done, value } = await this.reader.read();
      if (done) return undefined;
      this.text += new TextDecoder().decode(value);
    }
  }

  async all(): Promise<Line[]> {
    const lines: Line[] = [];
    for (let line; (line = await this.line()) !== undefined;) lines.push(line);
    return lines;
  }
}

const turn = () => new Promise((resolve) => setTimeout(resolve));

async function until(isSo: () => boolean): Promise<void> {
  for (let i = 0; i < 10_000 && !isSo(); i++) await turn();
  assert.ok(isSo());
}

Deno.test("a feed that does not follow ends with all there was when it began", async () => {
  const bench = new Bench();
  bench.commit(2);
  bench.commit(1);
  const feed = bench.open({ follows: false });
  bench.commit(1);
  const lines = await feed.all();
  assert.deepEqual(
    lines.map(({ type, versionstamp, last }) => [
      type,
      Number(versionstamp.slice(0, 16)),
      last,
    ]),
    [
      ["heartbeat", 0, undefined],
      ["set", 1, undefined],
      ["set", 1, true],
      ["set", 2, true],
      // Read in one go with what came meanwhile.
      ["set", 3, true],
      ["heartbeat", 3, undefined],
    ],
  );
  assert.equal(bench.streams.count, 0);
  assert.equal(bench.log.logReaders().length, 0);
  assert.equal(bench.clock.timers, 0);
});

Deno.test("a feed that follows says now and then that all is well, and what is newest", async () => {
  const bench = new Bench();
  const feed = bench.open();
  assert.equal((await feed.line()).type, "heartbeat");
  const next = feed.line();
  await turn();
  bench.clock.advance(HEARTBEAT_MS);
  assert.deepEqual(await next, {
    type: "heartbeat",
    versionstamp: "00000000000000000000",
    newest: "00000000000000000000",
    at: new Date(1000 + HEARTBEAT_MS).toISOString(),
  });
  const change = feed.line();
  bench.commit();
  assert.equal((await change).type, "set");
  const later = feed.line();
  // It looks after the log again first.
  await turn();
  await turn();
  bench.clock.advance(HEARTBEAT_MS);
  assert.equal((await later).versionstamp, "00000000000000010000");
  await feed.reader.cancel();
});

Deno.test("where nothing is taken, nothing is read and no heartbeats gather", async () => {
  const bench = new Bench();
  const feed = bench.open();
  await feed.line();
  for (let i = 0; i < 40; i++) bench.commit(10, VALUE_BYTES);
  assert.equal((await feed.line()).type, "set");
  const { reads } = bench;
  for (let i = 0; i < 10; i++) {
    bench.clock.advance(HEARTBEAT_MS);
    await turn();
  }
  assert.equal(bench.reads, reads);
  const heldBytes = bench.streams.budget.usedBytes;
  // A batch ends at its first row past its size, and a row has 600 KB here.
  assert.ok(heldBytes > 0 && heldBytes < BATCH_BYTES + 700_000, `${heldBytes}`);
  await feed.reader.cancel();
  assert.equal(bench.streams.budget.usedBytes, 0);
  assert.equal(bench.answers.count, 0);
  assert.equal(bench.log.logReaders().length, 0);
});

Deno.test("feeds that are slow together hold no more than their number of bytes; each gets all in the end", async () => {
  const bench = new Bench();
  const feeds = Array.from({ length: MAX_CHANGE_FEEDS }, () => bench.open());
  for (const feed of feeds) await feed.line();
  for (let i = 0; i < 3; i++) bench.commit(10, VALUE_BYTES);
  const { budget } = bench.streams;
  const first = feeds.map((feed) => feed.line());
  await until(() => budget.waiting > 0);
  assert.ok(budget.usedBytes <= MAX_FEEDS_BYTES, `${budget.usedBytes}`);
  await Promise.all(feeds.map(async (feed, i) => {
    const lines = [await first[i]];
    while (lines.length < 30) lines.push(await feed.line());
    assert.deepEqual(
      lines.map(({ versionstamp, index }) => [
        Number(versionstamp.slice(0, 16)),
        index,
      ]),
      Array.from({ length: 30 }, (_, j) => [1 + Math.floor(j / 10), j % 10]),
    );
    await feed.reader.cancel();
  }));
  assert.equal(budget.usedBytes, 0);
  assert.equal(budget.waiting, 0);
});

Deno.test("a feed that takes nothing gives its room to others that wait", async () => {
  const bench = new Bench();
  const slow = bench.open();
  await slow.line();
  bench.commit(10, VALUE_BYTES);
  await slow.line();
  const { budget } = bench.streams;
  assert.ok(budget.tryTake(budget.limitBytes - budget.usedBytes - 1000));
  const quick = bench.open();
  await quick.line();
  let next = quick.line();
  await until(() => budget.waiting === 1);
  bench.clock.advance(60_000);
  while ((await next).type === "heartbeat") next = quick.line();
  assert.equal((await next).type, "set");
  await assert.rejects(slow.all(), /did not take/);
  assert.equal(bench.answers.cut, 1);
  await quick.reader.cancel();
});

Deno.test("a feed that the log has gone on without ends with the oldest point that there is", async () => {
  const bench = new Bench();
  const feed = bench.open();
  await feed.line();
  bench.commit();
  await feed.line();
  bench.commit();
  bench.commit();
  bench.floorVersion = 2;
  const lines = await feed.all();
  assert.deepEqual(lines.map(({ type, status }) => [type, status]), [
    ["end", 410],
  ]);
  assert.match(
    lines[0].message,
    /no longer reaches back to 00000000000000010000: the oldest .* is 00000000000000020000/,
  );
  assert.equal(bench.streams.count, 0);
  assert.throws(() => bench.open({ afterVersion: 1 }), LogGoneError);
  assert.equal(bench.streams.count, 0, "a feed that was refused holds a place");
});

Deno.test("a feed ends in order when the database is given up, and when the server stops", async () => {
  const bench = new Bench();
  const [given, stopped] = [bench.open(), bench.open()];
  await given.line();
  await stopped.line();
  const end = given.line();
  const other = stopped.line();
  await turn();
  bench.streams.endAll("The server is stopping.");
  for (const last of [await end, await other]) {
    assert.deepEqual(last, {
      type: "end",
      status: 503,
      message: "The server is stopping.",
    });
  }
  const again = bench.open();
  await again.line();
  const gone = again.line();
  await turn();
  bench.log.end(new UnavailableError("Another instance has it."));
  assert.equal((await gone).message, "Another instance has it.");
  assert.equal(await again.line(), undefined);
  assert.equal(bench.clock.timers, 0);
});

Deno.test("one feed too many is refused", async () => {
  const bench = new Bench();
  const feeds = Array.from({ length: MAX_CHANGE_FEEDS }, () => bench.open());
  assert.throws(() => bench.open(), /32 change feeds open/);
  const names = () => bench.log.logReaders().map(({ name }) => name).sort();
  const all = names();
  assert.equal(new Set(all).size, MAX_CHANGE_FEEDS);
  await feeds[3].reader.cancel();
  const again = bench.open();
  assert.deepEqual(names(), all, "each consumer would be a series of its own");
  await again.reader.cancel();
  for (const feed of feeds) await feed.reader.cancel();
});

Deno.test("other work comes in between the slices of a large commit", async () => {
  const bench = new Bench();
  bench.commit(20_000);
  const feed = bench.open({ follows: false });
  let turns = 0;
  let isDone = false;
  const counting = (async () => {
    while (!isDone) {
      await new Promise((resolve) => setTimeout(resolve));
      turns++;
    }
  })();
  assert.equal((await feed.all()).length, 20_002);
  isDone = true;
  await counting;
  assert.ok(turns > 20, `${turns} turns`);
});
