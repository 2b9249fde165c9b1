/**
 * A segment: whole commits of the log as one object of a backup. It is the
 * `BackupMutationRange` of the Rust server's S3 sync, with three fields more
 * that other readers pass over (docs/formats/backup.md):
 *
 * | 1  | entries, as log/entry.ts has them                           |
 * | 2  | when its last commit was made, milliseconds since 1970      |
 * | 13 | when each was made (log/commit_times.ts), where they differ |
 * | 14 | the version that the history has before it; 0 for none      |
 * | 15 | SHA-256 of all bytes before this field                      |
 */
import { createHash } from "node:crypto";
import { type Bytes, concatBytes, equalBytes } from "../common/bytes.ts";
import {
  dataFieldSize,
  ProtoReader,
  ProtoWriter,
  varintSize,
  WIRE_LENGTH,
} from "../protocol/protobuf.ts";
import { readVersion } from "../protocol/versionstamp.ts";
import {
  type CommitTime,
  commitTimesOf,
  decodeCommitTimes,
  encodeCommitTimes,
} from "./commit_times.ts";

const SHA256_BYTES = 32;
/** Up to this, handing it to another thread takes longer than doing it. */
const MAX_HASHED_HERE_BYTES = 64 * 1024;
const STAMP_BYTES = 12;

export interface Segment {
  bytes: Bytes;
  /** The versionstamps of the first and last entry, 24 digits. */
  first: string;
  last: string;
  lastVersion: number;
}

/** A row of the log, as a segment takes it. */
export interface SegmentRow extends CommitTime {
  entries: Bytes;
}

export interface SegmentContents {
  /** To be read by `decodeLogEntries`. */
  entries: Bytes;
  /** When its last commit was made. */
  timeMs: number;
  /** Empty where all of it counts as made then. */
  times: CommitTime[];
  /** Undefined where another program wrote the segment. */
  previousVersion: number | undefined;
}

/**
 * Undefined where no row has an entry: commits that changed nothing are not
 * shipped.
 */
export async function encodeSegment(segment: {
  rows: readonly SegmentRow[];
  previousVersion: number;
}): Promise<Segment | undefined> {
  const { previousVersion } = segment;
  const rows = segment.rows.filter(({ entries }) => entries.length > 0);
  if (rows.length === 0) return undefined;
  const entries = rows.map((row) => row.entries);
  const first = firstStamp(entries[0]);
  const last = lastStamp(entries[entries.length - 1]);
  const runs = commitTimesOf(rows);
  const { timeMs } = runs[runs.length - 1];
  // Nearly always one row: then field 2 says it all.
  const times = runs.length > 1
    ? encodeCommitTimes(runs, previousVersion)
    : undefined;
  const trailer = new ProtoWriter(
    new Uint8Array(
      2 + varintSize(timeMs) + varintSize(previousVersion) +
        (times === undefined ? 0 : dataFieldSize(times.length)),
    ),
  );
  trailer.varintField(2, timeMs);
  if (times) trailer.dataField(13, times);
  trailer.varintField(14, previousVersion);
  const checked = concatBytes([...entries, trailer.out]);
  const sum = await sha256(checked);
  const bytes = new Uint8Array(checked.length + 2 + SHA256_BYTES);
  bytes.set(checked);
  bytes[checked.length] = (15 << 3) | WIRE_LENGTH;
  bytes[checked.length + 1] = SHA256_BYTES;
  bytes.set(sum, checked.length + 2);
  return {
    bytes,
    first: first.toHex(),
    last: last.toHex(),
    lastVersion: readVersion(last, 0),
  };
}

/** The SHA-256 of the bytes; large ones are hashed off this thread. */
export async function sha256(bytes: Bytes): Promise<Uint8Array> {
  return bytes.length <= MAX_HASHED_HERE_BYTES
    ? createHash("sha256").update(bytes).digest()
    : new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

function firstStamp(entries: Bytes): Bytes {
  const reader = new ProtoReader(entries);
  reader.next();
  return stampOf(reader.message());
}

function lastStamp(entries: Bytes): Bytes {
  const reader = new ProtoReader(entries);
  let last: ProtoReader | undefined;
  while (reader.next()) last = reader.message();
  return stampOf(last!);
}

/** It is the first field of every entry of ours. */
function stampOf(entry: ProtoReader): Bytes {
  entry.next();
  return entry.data().slice(0, STAMP_BYTES);
}

/**
 * Checks a segment and takes it apart.
 * @returns a sentence's part that says what is wrong, or the contents
 */
export async function readSegment(
  bytes: Bytes,
): Promise<SegmentContents | string> {
  const runs: Bytes[] = [];
  let runStart = 0;
  let timeMs = 0;
  let encodedTimes: Bytes | undefined;
  let times: CommitTime[] = [];
  let previousVersion: number | undefined;
  let sum: Bytes | undefined;
  let sumAt = 0;
  try {
    const reader = new ProtoReader(bytes);
    for (let at = 0; reader.next(); at = reader.position) {
      if (sum !== undefined) return "there is something behind its checksum";
      if (reader.field === 1) {
        reader.data();
        continue;
      }
      // Entries that lie together are handed on together, uncopied.
      if (at > runStart) runs.push(bytes.subarray(runStart, at));
      if (reader.field === 2) timeMs = reader.int64();
      else if (reader.field === 13) encodedTimes = reader.data();
      else if (reader.field === 14) previousVersion = reader.int64();
      else if (reader.field === 15) {
        sum = reader.data();
        sumAt = at;
      } else reader.skip();
      runStart = reader.position;
    }
    if (bytes.length > runStart) runs.push(bytes.subarray(runStart));
    if (encodedTimes && previousVersion !== undefined) {
      times = decodeCommitTimes(encodedTimes, previousVersion);
    }
  } catch {
    return "its bytes are not those of a segment";
  }
  if (sum !== undefined) {
    if (!equalBytes(await sha256(bytes.subarray(0, sumAt)), sum)) {
      return "its checksum does not fit its contents";
    }
  } else if (previousVersion !== undefined) return "its checksum is missing";
  const entries = runs.length === 1 ? runs[0] : concatBytes(runs);
  return { entries, timeMs, times, previousVersion };
}

/**
 * What is wrong with the entries of a segment that has no checksum, as a
 * sentence's part: cut short, out of order, or not those that its name says.
 * @param name versionstamps of 12 bytes, in hexadecimal
 */
export function entriesFault(
  entries: Bytes,
  name: { first: string; last: string },
): string | undefined {
  let before = "";
  try {
    const reader = new ProtoReader(entries);
    while (reader.next()) {
      if (reader.field !== 1) {
        reader.skip();
        continue;
      }
      const stamp = stampIn(reader.message());
      if (before === "" && stamp !== name.first) {
        return "it does not begin with the entry that its name says";
      }
      if (stamp <= before) {
        return `its entries are out of order: ${stamp} comes after ${before}`;
      }
      before = stamp;
    }
  } catch {
    return "its bytes are not those of log entries";
  }
  if (before !== name.last) {
    return "it does not hold what its name says: its end is missing";
  }
  return before.endsWith(LAST_OF_COMMIT)
    ? undefined
    : "its last commit is not whole";
}

/** The index of the last mutation of every commit. */
const LAST_OF_COMMIT = "ffff";

function stampIn(entry: ProtoReader): string {
  while (entry.next()) {
    if (entry.field === 1) return entry.data().toHex();
    entry.skip();
  }
  return "";
}
