/**
 * Answers of the KV Connect data path, as protobuf bytes.
 *
 * Messages and field numbers: the public schema `com.deno.kv.datapath`.
 */
import type { Bytes } from "../common/bytes.ts";
import type { Entry, WriteOutcome } from "./messages.ts";
import {
  dataFieldSize,
  ProtoWriter,
  varintSize,
  WIRE_LENGTH,
} from "./protobuf.ts";
import { VERSIONSTAMP_BYTES, writeVersionstamp } from "./versionstamp.ts";

const WRITE_STATUS_SUCCESS = 1;
const WRITE_STATUS_CHECK_FAILURE = 2;
const WRITE_STATUS_WRITE_DISABLED = 5;
const READ_STATUS_SUCCESS = 1;
const WATCH_STATUS_SUCCESS = 1;

/** One list of entries for each range, in the order asked. */
export function encodeSnapshotReadOutput(ranges: readonly Entry[][]): Bytes {
  let size = READ_END.length;
  for (const entries of ranges) size += dataFieldSize(rangeSize(entries));
  const writer = new ProtoWriter(new Uint8Array(size));
  for (const entries of ranges) {
    writer.tag(1, WIRE_LENGTH);
    writer.varint(rangeSize(entries));
    for (const entry of entries) {
      writer.tag(1, WIRE_LENGTH);
      writeEntry(writer, entry);
    }
  }
  writer.out.set(READ_END, writer.at);
  return writer.out;
}

/**
 * How the answer to a read ends: read_is_strongly_consistent (clients ask the
 * strong endpoint for eventual reads too, and exchange anew when this is
 * false) and the status.
 */
const READ_END: Bytes = new Uint8Array([
  4 << 3,
  1,
  8 << 3,
  READ_STATUS_SUCCESS,
]);

/**
 * The answer to a large read, made piece by piece as it is taken, so that
 * what is encoded never stands beside all of what was read.
 */
export class LargeReadOutput {
  readonly sizeBytes: number;
  private readonly rangeSizes: number[];

  constructor(private readonly ranges: Entry[][]) {
    this.rangeSizes = ranges.map(rangeSize);
    let size = READ_END.length;
    for (const range of this.rangeSizes) size += dataFieldSize(range);
    this.sizeBytes = size;
  }

  /**
   * The bytes, in pieces of about `pieceBytes`; an entry is never split, so a
   * piece may be larger by one. Lets go of each entry as it goes out: works
   * once.
   */
  *pieces(pieceBytes: number): Generator<Bytes> {
    const { ranges, rangeSizes } = this;
    for (let i = 0; i < ranges.length; i++) {
      const entries = ranges[i].splice(0).reverse();
      let size = dataFieldSize(rangeSizes[i]) - rangeSizes[i];
      let isFirst = true;
      do {
        const batch: Entry[] = [];
        while (entries.length > 0 && size < pieceBytes) {
          const entry = entries.pop()!;
          batch.push(entry);
          size += dataFieldSize(entrySize(entry));
        }
        const writer = new ProtoWriter(new Uint8Array(size));
        if (isFirst) {
          writer.tag(1, WIRE_LENGTH);
          writer.varint(rangeSizes[i]);
          isFirst = false;
        }
        for (const entry of batch) {
          writer.tag(1, WIRE_LENGTH);
          writeEntry(writer, entry);
        }
        yield writer.out;
        size = 0;
      } while (entries.length > 0);
    }
    yield READ_END;
  }
}

function rangeSize(entries: readonly Entry[]): number {
  let size = 0;
  for (let i = 0; i < entries.length; i++) {
    size += dataFieldSize(entrySize(entries[i]));
  }
  return size;
}

/** Key, value, a one-byte encoding field of 2 bytes, a 12-byte versionstamp field. */
function entrySize(entry: Entry): number {
  return dataFieldSize(entry.key.length) + dataFieldSize(entry.value.length) +
    14;
}

/** An embedded KvEntry, its length first. */
function writeEntry(writer: ProtoWriter, entry: Entry): void {
  writer.varint(entrySize(entry));
  writer.dataField(1, entry.key);
  writer.dataField(2, entry.value);
  writer.varintField(3, entry.encoding);
  writer.tag(4, WIRE_LENGTH);
  writer.varint(VERSIONSTAMP_BYTES);
  writeVersionstamp(writer.out, writer.at, entry.version, entry.order);
  writer.at += VERSIONSTAMP_BYTES;
}

/** For every outcome but `refused`, which is an error and not an answer. */
export function encodeAtomicWriteOutput(
  outcome: Exclude<WriteOutcome, { status: "refused" }>,
): Bytes {
  switch (outcome.status) {
    case "committed": {
      const out = new Uint8Array(14);
      out[0] = 1 << 3;
      out[1] = WRITE_STATUS_SUCCESS;
      out[2] = (2 << 3) | WIRE_LENGTH;
      out[3] = VERSIONSTAMP_BYTES;
      writeVersionstamp(out, 4, outcome.version, outcome.order);
      return out;
    }
    case "checkFailed": {
      const { failedChecks } = outcome;
      let packed = 0;
      for (const index of failedChecks) packed += varintSize(index);
      const writer = new ProtoWriter(
        new Uint8Array(2 + (packed > 0 ? dataFieldSize(packed) : 0)),
      );
      writer.varintField(1, WRITE_STATUS_CHECK_FAILURE);
      if (packed > 0) {
        writer.tag(4, WIRE_LENGTH);
        writer.varint(packed);
        for (const index of failedChecks) writer.varint(index);
      }
      return writer.out;
    }
    case "writeDisabled":
      return new Uint8Array([1 << 3, WRITE_STATUS_WRITE_DISABLED]);
  }
}

/** A keep-alive: a frame of no message. */
export const WATCH_PING: Bytes = new Uint8Array(4);

/** From this size on an entry is a piece of its own, for all who watch it. */
const LARGE_ENTRY_BYTES = 2048;

/** Whether an entry is a piece of its own in a frame. */
export function isLargeEntry(entry: Entry): boolean {
  return entry.value.length >= LARGE_ENTRY_BYTES;
}

/** A large entry as it stands in a frame: the field that holds it. */
export function encodeWatchEntry(entry: Entry): Bytes {
  const writer = new ProtoWriter(new Uint8Array(watchEntrySize(entry)));
  writer.tag(2, WIRE_LENGTH);
  writeEntry(writer, entry);
  return writer.out;
}

/** The length of what `encodeWatchEntry` makes. */
export function watchEntrySize(entry: Entry): number {
  return dataFieldSize(entrySize(entry));
}

/**
 * A frame of a watch, in pieces: 4 bytes of little-endian length and a
 * WatchOutput in which every key is `changed`.
 * @param entries one for each watched key; null where the key is absent
 * @param large gives the piece of a large entry
 */
export function watchFramePieces(
  entries: readonly (Entry | null)[],
  large: (entry: Entry) => Bytes = encodeWatchEntry,
): [Bytes, ...Bytes[]] {
  const sizes = entries.map((entry) =>
    2 + (entry ? dataFieldSize(entrySize(entry)) : 0)
  );
  let size = 2;
  for (const keySize of sizes) size += dataFieldSize(keySize);
  const pieces: Bytes[] = [];
  let writer = new ProtoWriter(
    new Uint8Array(smallSize(entries, sizes, 0) + 6),
  );
  new DataView(writer.out.buffer).setUint32(0, size, true);
  writer.at = 4;
  writer.varintField(1, WATCH_STATUS_SUCCESS);
  for (let i = 0; i < entries.length; i++) {
    writer.tag(2, WIRE_LENGTH);
    writer.varint(sizes[i]);
    writer.varintField(1, 1);
    const entry = entries[i];
    if (entry === null) continue;
    if (isLargeEntry(entry)) {
      pieces.push(writer.out, large(entry));
      writer = new ProtoWriter(
        new Uint8Array(smallSize(entries, sizes, i + 1)),
      );
    } else {
      writer.tag(2, WIRE_LENGTH);
      writeEntry(writer, entry);
    }
  }
  if (writer.out.length > 0) pieces.push(writer.out);
  return pieces as [Bytes, ...Bytes[]];
}

/** What the keys from `from` on take up to the next large entry. */
function smallSize(
  entries: readonly (Entry | null)[],
  sizes: readonly number[],
  from: number,
): number {
  let size = 0;
  for (let i = from; i < entries.length; i++) {
    const entry = entries[i];
    const whole = dataFieldSize(sizes[i]);
    if (entry && isLargeEntry(entry)) {
      return size + whole - dataFieldSize(entrySize(entry));
    }
    size += whole;
  }
  return size;
}
