/**
 * When the commits of a segment were made: for each run of commits of one time
 * the version of the last one and the time, both as what they are more than
 * those of the run before. Times never go back from version to version
 * (docs/formats/log.md).
 */
import type { Bytes } from "../common/bytes.ts";
import { ProtoReader, ProtoWriter, varintSize } from "../protocol/protobuf.ts";

/** Commits that were made in one moment, up to the one of this version. */
export interface CommitTime {
  version: number;
  timeMs: number;
}

/** The runs of rows that come in order; a row's time counts for all of it. */
export function commitTimesOf(rows: readonly CommitTime[]): CommitTime[] {
  const runs: CommitTime[] = [];
  for (const { version, timeMs } of rows) {
    const last = runs.at(-1);
    // A log that an older program wrote may go back.
    if (last && timeMs <= last.timeMs) last.version = version;
    else runs.push({ version, timeMs });
  }
  return runs;
}

export function encodeCommitTimes(
  runs: readonly CommitTime[],
  previousVersion: number,
): Bytes {
  const numbers: number[] = [];
  let before: CommitTime = { version: previousVersion, timeMs: 0 };
  for (const run of runs) {
    numbers.push(run.version - before.version, run.timeMs - before.timeMs);
    before = run;
  }
  let size = 0;
  for (const number of numbers) size += varintSize(number);
  const writer = new ProtoWriter(new Uint8Array(size));
  for (const number of numbers) writer.varint(number);
  return writer.out;
}

/** @throws InvalidRequestError where the bytes are none of them */
export function decodeCommitTimes(
  bytes: Bytes,
  previousVersion: number,
): CommitTime[] {
  const reader = new ProtoReader(bytes);
  const runs: CommitTime[] = [];
  let version = previousVersion;
  let timeMs = 0;
  while (!reader.done) {
    version += reader.int64();
    timeMs += reader.int64();
    runs.push({ version, timeMs });
  }
  return runs;
}

/** The last commit that was made at or before `timeMs`; 0 for none. */
export function lastVersionAt(
  runs: readonly CommitTime[],
  timeMs: number,
): number {
  return runs.findLast((run) => run.timeMs <= timeMs)?.version ?? 0;
}

/** When the commit was made; undefined where it comes after all of them. */
export function timeOf(
  runs: readonly CommitTime[],
  version: number,
): number | undefined {
  return runs.find((run) => version <= run.version)?.timeMs;
}
