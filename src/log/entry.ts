/**
 * Entries of the mutation log, in the bytes that a backup ships: each is field
 * 1 of a `BackupMutationRange`, tag and length included, so that any number of
 * them put one behind the other is a valid message (docs/formats/log.md).
 *
 * Results are logged, not operations: a sum is the set of what it came to.
 */
import { type Bytes, EMPTY_BYTES } from "../common/bytes.ts";
import { type Encoding, NEVER_MS } from "../protocol/messages.ts";
import {
  dataFieldSize,
  ProtoReader,
  ProtoWriter,
  varintSize,
  WIRE_LENGTH,
} from "../protocol/protobuf.ts";
import {
  readOrder,
  readVersion,
  writeVersionstamp,
} from "../protocol/versionstamp.ts";

/** What an entry does to its key. The numbers are the format's. */
export const LogKind = { SET: 1, CLEAR: 2 } as const;
export type LogKind = (typeof LogKind)[keyof typeof LogKind];

/** Commit versionstamp (10 bytes) and index of the mutation (2 bytes). */
const LOG_VERSIONSTAMP_BYTES = 12;
/** The index that the last entry of every commit has. */
export const LAST_INDEX = 0xffff;

export interface LogEntry {
  version: number;
  order: number;
  /** Position within the commit; `LAST_INDEX` for its last entry. */
  index: number;
  kind: LogKind;
  key: Bytes;
  /** Empty for a clear. */
  value: Bytes;
  encoding: Encoding | 0;
  expireAtMs: number;
}

const FIRST_CAPACITY_BYTES = 64 * 1024;

/** Gathers the entries of one or more commits into one run of bytes. */
export class LogEncoder {
  private readonly writer = new ProtoWriter(
    new Uint8Array(FIRST_CAPACITY_BYTES),
  );

  get sizeBytes(): number {
    return this.writer.at;
  }

  /** A view that the next `append` after a `clear` overwrites. */
  get bytes(): Bytes {
    return this.writer.out.subarray(0, this.writer.at);
  }

  clear(): void {
    this.writer.at = 0;
    // One group of large values shall not hold its memory for ever.
    if (this.writer.out.length > 16 * FIRST_CAPACITY_BYTES) {
      this.writer.out = new Uint8Array(FIRST_CAPACITY_BYTES);
    }
  }

  /** @param value null for a clear */
  append(
    version: number,
    order: number,
    index: number,
    key: Uint8Array,
    value: Uint8Array | null,
    encoding: number,
    expireAtMs: number,
  ): void {
    const hasExpiry = value !== null && expireAtMs !== NEVER_MS;
    let size = 2 + LOG_VERSIONSTAMP_BYTES + 2 + dataFieldSize(key.length);
    if (value !== null) size += dataFieldSize(value.length) + 2;
    if (hasExpiry) size += 1 + varintSize(expireAtMs);
    this.reserve(dataFieldSize(size));
    const writer = this.writer;
    writer.tag(1, WIRE_LENGTH);
    writer.varint(size);
    writer.tag(1, WIRE_LENGTH);
    writer.varint(LOG_VERSIONSTAMP_BYTES);
    writeVersionstamp(writer.out, writer.at, version, order);
    writer.out[writer.at + 10] = index >>> 8;
    writer.out[writer.at + 11] = index;
    writer.at += LOG_VERSIONSTAMP_BYTES;
    writer.varintField(2, value === null ? LogKind.CLEAR : LogKind.SET);
    writer.dataField(3, key);
    if (value === null) return;
    writer.dataField(4, value);
    writer.varintField(5, encoding);
    if (hasExpiry) writer.varintField(6, expireAtMs);
  }

  private reserve(more: number): void {
    const { out, at } = this.writer;
    if (at + more <= out.length) return;
    const larger = new Uint8Array(Math.max(at + more, out.length * 2));
    larger.set(out.subarray(0, at));
    this.writer.out = larger;
  }
}

/**
 * Reads a run of entries. A Worker gets it as text, together with the names
 * that it and what it calls make use of (store/sqlite/replica_worker.ts).
 * @throws InvalidRequestError where the bytes are no entries
 */
export function decodeLogEntries(bytes: Bytes): LogEntry[] {
  const reader = new ProtoReader(bytes);
  const entries: LogEntry[] = [];
  while (reader.next()) {
    if (reader.field === 1) entries.push(decodeLogEntry(reader.message()));
    else reader.skip();
  }
  return entries;
}

/**
 * One entry: for whoever reads a run of them bit by bit.
 * @throws InvalidRequestError where the bytes are no entry
 */
export function decodeLogEntry(reader: ProtoReader): LogEntry {
  const entry: LogEntry = {
    version: 0,
    order: 0,
    index: 0,
    kind: LogKind.SET,
    key: EMPTY_BYTES,
    value: EMPTY_BYTES,
    encoding: 0,
    expireAtMs: NEVER_MS,
  };
  while (reader.next()) {
    switch (reader.field) {
      case 1: {
        const stamp = reader.data();
        entry.version = readVersion(stamp, 0);
        entry.order = readOrder(stamp, 0);
        entry.index = (stamp[10] << 8) | stamp[11];
        break;
      }
      case 2:
        entry.kind = reader.int32() as LogKind;
        break;
      case 3:
        entry.key = reader.data();
        break;
      case 4:
        entry.value = reader.data();
        break;
      case 5:
        entry.encoding = reader.int32() as Encoding;
        break;
      case 6:
        // 0 stands for never, as in the field's absence.
        entry.expireAtMs = reader.int64() || NEVER_MS;
        break;
      default:
        reader.skip();
    }
  }
  return entry;
}
