/**
 * Rows of the log as the text of a change feed: a line of JSON for every
 * mutation, as JSON lines or as server-sent events (docs/changes.md). The text
 * is made in slices, so that a large commit keeps nobody waiting.
 *
 * A commit is all that has one version. Only its last mutation has `last`, and
 * only that one is a point to resume from: who has less of a commit gets the
 * whole of it again.
 */
import type { Bytes } from "../common/bytes.ts";
import { fromUtf8 } from "../common/bytes.ts";
import { decodeLogEntry, type LogEntry, LogKind } from "../log/entry.ts";
import { QUEUE_PREFIX } from "../log/queue_message.ts";
import { keyJson } from "../protocol/key_json.ts";
import { Encoding, NEVER_MS } from "../protocol/messages.ts";
import { ProtoReader } from "../protocol/protobuf.ts";
import { UnreadableValueError } from "../protocol/stored_value.ts";
import { toJson } from "../protocol/typed_json.ts";
import { decodeV8 } from "../protocol/v8_value.ts";
import { versionstampHex } from "../protocol/versionstamp.ts";
import type { LogRow } from "../store/backup_source.ts";

/** `lines`: a line each; `events`: as the EventSource of a browser reads them. */
export type ChangeFormat = "lines" | "events";

/** A slice ends at the first mutation past this many characters… */
const SLICE_CHARS = 32 * 1024;
/** …or this many entries: those that are filtered out take time too. */
const SLICE_ENTRIES = 512;

/**
 * No stored byte needs more than 20 bytes of JSON, so only a value that holds
 * one object very often grows more. A commit of a thousand such would fill the
 * memory of whoever reads whole commits.
 */
const MAX_GROWTH = 32;

/** The last time that can be written as a date. */
const MAX_DATE_MS = 8.64e15;

export class ChangeLines {
  /** Every commit up to here has been written as far as it is wanted. */
  version: number;
  /** The present row, what is left of it, and the rows after it. */
  private row: LogRow | undefined;
  private reader = new ProtoReader(new Uint8Array(0));
  private later: LogRow[] = [];
  private committedAt = "";
  /** The commit whose entries are being read, and how many it had so far. */
  private present = 0;
  private count = 0;
  private stamp = { version: -1, order: 0, text: "" };
  /** The newest line of the present commit, which may be its last one. */
  private pending: { line: string; versionstamp: string } | undefined;

  /**
   * @param afterVersion commits up to here are passed over
   * @param prefixes encoded keys; a key that begins with none is passed over.
   *   None at all: every key is wanted.
   */
  constructor(
    private readonly format: ChangeFormat,
    private readonly prefixes: readonly Bytes[],
    afterVersion: number,
  ) {
    this.version = afterVersion;
  }

  /** Whether all rows are written. */
  get isDone(): boolean {
    return this.row === undefined;
  }

  /** When all rows before them are written. */
  begin(rows: readonly LogRow[]): void {
    // The oldest one last, to be taken off the end.
    this.later = rows.toReversed();
    this.beginRow();
  }

  private beginRow(): void {
    const row = this.later.pop();
    this.row = row;
    if (row === undefined) return;
    this.reader = new ProtoReader(row.entries);
    this.committedAt = new Date(row.timeMs).toISOString();
  }

  /** The next slice of the rows' text; may be empty. */
  slice(): string {
    let out = "";
    for (let i = 0; i < SLICE_ENTRIES && out.length < SLICE_CHARS; i++) {
      const { reader, row } = this;
      if (row === undefined) return out;
      if (!reader.next()) {
        out += this.endCommit();
        // Commits at the row's end may have changed nothing.
        this.version = Math.max(this.version, row.version);
        this.beginRow();
        continue;
      }
      if (reader.field !== 1) {
        reader.skip();
        continue;
      }
      const entry = decodeLogEntry(reader.message());
      if (entry.version <= this.version) continue;
      if (entry.version !== this.present) {
        out += this.endCommit();
        this.present = entry.version;
      }
      // Messages of queues are no part of what clients store under keys.
      if (entry.key[0] === QUEUE_PREFIX) continue;
      const index = this.count++;
      if (!this.isWanted(entry.key)) continue;
      if (this.pending) out += this.written(false);
      const versionstamp = this.stampOf(entry);
      this.pending = {
        versionstamp,
        line: mutationLine(entry, versionstamp, index, this.committedAt),
      };
    }
    return out;
  }

  /** Says that all is well, and up to where everything has been written. */
  heartbeat(newestVersion: number, timeMs: number): string {
    const versionstamp = versionstampHex(this.version, 0);
    const json = JSON.stringify({
      type: "heartbeat",
      versionstamp,
      newest: versionstampHex(newestVersion, 0),
      at: new Date(timeMs).toISOString(),
    });
    return this.format === "lines"
      ? `${json}\n`
      : `event: heartbeat\nid: ${versionstamp}\ndata: ${json}\n\n`;
  }

  /** The last words of a feed that cannot go on. */
  end(status: number, message: string): string {
    const json = JSON.stringify({ type: "end", status, message });
    return this.format === "lines"
      ? `${json}\n`
      : `event: end\ndata: ${json}\n\n`;
  }

  /** Most entries have that of the one before. */
  private stampOf({ version, order }: LogEntry): string {
    const { stamp } = this;
    if (stamp.version === version && stamp.order === order) return stamp.text;
    const text = versionstampHex(version, order);
    this.stamp = { version, order, text };
    return text;
  }

  private endCommit(): string {
    const out = this.pending ? this.written(true) : "";
    this.pending = undefined;
    this.version = Math.max(this.version, this.present);
    this.count = 0;
    return out;
  }

  private written(isLast: boolean): string {
    const { line, versionstamp } = this.pending!;
    const json = isLast ? `${line},"last":true}` : `${line}}`;
    if (this.format === "lines") return `${json}\n`;
    // An id that a browser remembers is where it resumes.
    return isLast
      ? `id: ${versionstamp}\ndata: ${json}\n\n`
      : `data: ${json}\n\n`;
  }

  private isWanted(key: Bytes): boolean {
    const { prefixes } = this;
    return prefixes.length === 0 ||
      prefixes.some((prefix) => beginsWith(key, prefix));
  }
}

function beginsWith(key: Bytes, prefix: Bytes): boolean {
  if (key.length < prefix.length) return false;
  for (let i = prefix.length - 1; i >= 0; i--) {
    if (key[i] !== prefix[i]) return false;
  }
  // A zero byte within a part is written 00 FF: the part goes on.
  return key[prefix.length] !== 0xff;
}

/** All of a mutation's line but its end. */
function mutationLine(
  entry: LogEntry,
  versionstamp: string,
  index: number,
  committedAt: string,
): string {
  const isDelete = entry.kind === LogKind.CLEAR;
  let line = `{"type":"${
    isDelete ? "delete" : "set"
  }","versionstamp":"${versionstamp}","index":${index},"key":`;
  const key = keyJson(entry.key);
  line += key ?? `null,"rawKey":"${entry.key.toBase64()}"`;
  if (!isDelete) {
    line += valueFields(entry);
    if (entry.expireAtMs !== NEVER_MS) {
      line += `,"expireAt":"${dateOf(entry.expireAtMs)}"`;
    }
  }
  return line + `,"committedAt":"${committedAt}"`;
}

function valueFields(entry: LogEntry): string {
  const { value, encoding } = entry;
  // The short ways for what is stored as bytes and for counters.
  if (encoding === Encoding.BYTES) return bytesFields(value);
  if (encoding === Encoding.LE64 && value.length === 8) {
    const count = new DataView(value.buffer, value.byteOffset, 8)
      .getBigUint64(0, true);
    return `,"value":{"$kvu64":"${count}"},"encoding":"typed-json"`;
  }
  try {
    if (encoding === Encoding.V8) {
      const decoded = decodeV8(value);
      if (decoded.isPlain) {
        return `,"value":${JSON.stringify(decoded.value)},"encoding":"json"`;
      }
      if (decoded.value?.constructor === Uint8Array) {
        return bytesFields(decoded.value as Bytes);
      }
      const { body, isTyped } = toJson(decoded, value.length * MAX_GROWTH);
      const name = isTyped ? "typed-json" : "json";
      return `,"value":${fromUtf8(body)},"encoding":"${name}"`;
    }
  } catch (error) {
    if (!(error instanceof UnreadableValueError)) throw error;
  }
  const name = ENCODING_NAMES[encoding] ?? String(encoding);
  return `,"value":"${value.toBase64()}","encoding":"${name}"`;
}

function bytesFields(bytes: Bytes): string {
  return `,"value":{"$uint8array":"${bytes.toBase64()}"},"encoding":"typed-json"`;
}

/** Of what cannot be decoded: how its bytes, as base64, are to be read. */
const ENCODING_NAMES: Readonly<Record<number, string>> = {
  [Encoding.V8]: "v8",
  [Encoding.LE64]: "le64",
};

function dateOf(timeMs: number): string {
  return new Date(Math.min(timeMs, MAX_DATE_MS)).toISOString();
}
