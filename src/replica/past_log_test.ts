import assert from "node:assert/strict";
import { concatBytes } from "../common/bytes.ts";
import { UnavailableError } from "../common/errors.ts";
import { LAST_INDEX, LogEncoder } from "../log/entry.ts";
import { encodeSegment, readSegment } from "../log/segment.ts";
import type { LogRow } from "../store/backup_source.ts";
import {
  LogGoneError,
  type LogReader,
  type LogSource,
} from "../store/log_source.ts";
import { BackupPastLog, rowsOf } from "./past_log.ts";
import type { Next, Position } from "./source.ts";

function entriesOf(version: number) {
  const encoder = new LogEncoder();
  const key = new Uint8Array([version]);
  encoder.append(version, 0, 0, key, key, 3, -1);
  encoder.append(version, 0, LAST_INDEX, key, null, 0, -1);
  return encoder.bytes.slice();
}

function commits(version: number, timeMs = version): Next {
  return {
    kind: "commits",
    entries: entriesOf(version),
    afterVersion: version - 1,
    times: [],
    position: { version, timeMs, epoch: 1, place: `at ${version}` },
  };
}

/** A log whose rows have one version each, and begin after the floor. */
function logOf(floorVersion: number, durableVersion: number) {
  const state = { floorVersion, open: 0 };
  const openLogReader: LogSource["openLogReader"] = ({ afterVersion }) => {
    if (afterVersion < state.floorVersion) {
      throw new LogGoneError(state.floorVersion, "gone");
    }
    state.open++;
    let version = afterVersion;
    const reader: Pick<LogReader, "next" | "close"> & { version: number } = {
      get version() {
        return version;
      },
      next() {
        if (version < state.floorVersion) {
          return Promise.reject(new LogGoneError(state.floorVersion, "gone"));
        }
        if (version >= durableVersion) return Promise.resolve(null);
        version++;
        const entries = entriesOf(version);
        const row = { firstVersion: version, version, timeMs: 0, entries };
        return Promise.resolve([row]);
      },
      close() {
        state.open--;
      },
    };
    return reader as unknown as LogReader;
  };
  return { state, log: { openLogReader } as LogSource };
}

function pastOf(answer: (position: Position) => Next) {
  return new BackupPastLog(() => ({
    next: (position) => Promise.resolve(answer(position)),
  }));
}

const options = (afterVersion: number) => ({
  name: "a test",
  afterVersion,
  maxRetainedBytes: 0,
  maxBatchBytes: 1,
});

async function versionsOf(reader: LogReader): Promise<number[]> {
  const versions: number[] = [];
  for (;;) {
    const rows: LogRow[] | null = await reader.next();
    if (rows === null) return versions;
    versions.push(...rows.map(({ version }) => version));
  }
}

Deno.test("what the log no longer has comes out of the backup, then the log goes on", async () => {
  const { log, state } = logOf(5, 8);
  const asked: number[] = [];
  const past = pastOf(({ version }) => {
    asked.push(version);
    return commits(version + 1);
  });
  const reader = past.openLogReader(log, options(2));
  assert.deepEqual(await versionsOf(reader), [3, 4, 5, 6, 7, 8]);
  assert.deepEqual(asked, [2, 3, 4]);
  assert.equal(reader.version, 8);
  reader.close();
  assert.equal(state.open, 0);
});

Deno.test("the log alone is read while it has all of it, and the backup when it has moved on", async () => {
  const { log, state } = logOf(0, 8);
  const past = pastOf(({ version }) => commits(version + 1));
  const reader = past.openLogReader(log, options(1));
  assert.equal((await reader.next())![0].version, 2);
  state.floorVersion = 6;
  assert.deepEqual(await versionsOf(reader), [3, 4, 5, 6, 7, 8]);
  reader.close();
  assert.equal(state.open, 0);
});

Deno.test("what neither has is gone", async () => {
  for (
    const answer of [
      { kind: "end" },
      { kind: "beginAnew", why: "a test says so" },
    ] as Next[]
  ) {
    const { log } = logOf(5, 8);
    const reader = pastOf(() => answer).openLogReader(log, options(2));
    await assert.rejects(reader.next(), LogGoneError);
    reader.close();
  }
});

Deno.test("two readers at once are given what is past, and one that leaves makes room", async () => {
  const { log } = logOf(50, 80);
  const past = pastOf(({ version }) => commits(version + 1));
  const [one, two, three] = [1, 2, 3].map(() =>
    past.openLogReader(log, options(2))
  );
  await one.next();
  await two.next();
  await assert.rejects(three.next(), UnavailableError);
  one.close();
  assert.equal((await three.next())![0].version, 3);
  two.close();
  three.close();
});

Deno.test("a segment becomes a row for each time at which its commits were made", async () => {
  const rows = [[3, 10], [4, 10], [6, 20], [9, 35]].map((
    [version, timeMs],
  ) => ({ version, timeMs, entries: entriesOf(version) }));
  const segment = await encodeSegment({ rows, previousVersion: 2 });
  const read = await readSegment(segment!.bytes);
  assert.ok(typeof read !== "string");
  const made = rowsOf({
    kind: "commits",
    entries: read.entries,
    times: read.times,
    afterVersion: 2,
    position: { version: 9, timeMs: read.timeMs, epoch: 1, place: "" },
  });
  assert.deepEqual(
    made.map(({ firstVersion, version, timeMs }) => [
      firstVersion,
      version,
      timeMs,
    ]),
    [[3, 4, 10], [6, 6, 20], [9, 9, 35]],
  );
  assert.deepEqual(
    concatBytes(made.map(({ entries }) => entries)),
    read.entries,
  );
});
