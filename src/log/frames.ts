/**
 * The frames of a live replica's streams, `/-/log` and `/-/snapshot`: the only
 * code that writes or reads those bytes (docs/formats/replica-stream.md).
 *
 * A frame is the length of what follows (4 bytes), its kind (1), the payload,
 * and the first 8 bytes of the SHA-256 of all that. Numbers are big-endian.
 */
import { createHash } from "node:crypto";
import { deflateRawSync, inflateRawSync } from "node:zlib";
import {
  type Bytes,
  concatBytes,
  equalBytes,
  fromUtf8,
  utf8,
} from "../common/bytes.ts";
import { UnavailableError } from "../common/errors.ts";
import {
  type CommitTime,
  commitTimesOf,
  decodeCommitTimes,
  encodeCommitTimes,
} from "./commit_times.ts";
import type { SegmentRow } from "./segment.ts";

const FrameKind = {
  COMMITS: 1,
  BEAT: 2,
  END: 3,
  SNAPSHOT: 4,
  PART: 5,
  SNAPSHOT_END: 6,
} as const;
/** Added to a kind whose payload is compressed: deflate without a header. */
const IS_DEFLATED = 0x80;

const HEAD_BYTES = 5;
const SUM_BYTES = 8;
/**
 * A commit and what shares its row. One commit produces 64 MiB at the most,
 * of which its sums are the largest part.
 */
const MAX_FRAME_BYTES = 128 * 1024 * 1024;
/** Smaller payloads are not worth it, and wait for nothing. */
const MIN_DEFLATED_BYTES = 16 * 1024;
/** It has to save at least so much of a payload. */
const MIN_SAVED = 0.1;

export type Frame =
  /** Whole commits; `previousVersion` is what the stream had before them. */
  | {
    kind: "commits";
    previousVersion: number;
    version: number;
    /** The newest acknowledged version, when they were sent. */
    durableVersion: number;
    times: CommitTime[];
    /** The only view of its buffer that goes on. */
    entries: Bytes;
  }
  /** The stream has everything up to `version`, of what is acknowledged. */
  | { kind: "beat"; version: number; durableVersion: number; nowMs: number }
  /** The stream ends here; `status` as an answer to a request would have it. */
  | { kind: "end"; status: number; sentence: string }
  | { kind: "snapshot"; version: number; sizeBytes: number }
  | { kind: "part"; number: number; bytes: Bytes }
  | {
    kind: "snapshotEnd";
    version: number;
    timeMs: number;
    parts: number;
  };

/** @param deflates whether the other side takes compressed payloads */
export function encodeCommits(
  previousVersion: number,
  rows: readonly SegmentRow[],
  durableVersion: number,
  deflates: boolean,
): Bytes {
  const times = encodeCommitTimes(commitTimesOf(rows), previousVersion);
  const { version } = rows[rows.length - 1];
  const head = numbers(previousVersion, version, durableVersion);
  const payload = concatBytes([
    head,
    u32(times.length),
    times,
    ...rows.map(({ entries }) => entries),
  ]);
  return frame(FrameKind.COMMITS, payload, deflates);
}

export function encodeFrame(
  made: Exclude<Frame, { kind: "commits" }>,
  deflates = false,
): Bytes {
  switch (made.kind) {
    case "beat":
      return frame(
        FrameKind.BEAT,
        numbers(made.version, made.durableVersion, made.nowMs),
      );
    case "end":
      return frame(
        FrameKind.END,
        concatBytes([u32(made.status), utf8(made.sentence)]),
      );
    case "snapshot":
      return frame(FrameKind.SNAPSHOT, numbers(made.version, made.sizeBytes));
    case "part":
      return frame(
        FrameKind.PART,
        concatBytes([u32(made.number), made.bytes]),
        deflates,
      );
    case "snapshotEnd":
      return frame(
        FrameKind.SNAPSHOT_END,
        numbers(made.version, made.timeMs, made.parts),
      );
  }
}

function frame(kind: number, payload: Bytes, deflates = false): Bytes {
  if (deflates && payload.length >= MIN_DEFLATED_BYTES) {
    const smaller = deflateRawSync(payload, { level: 1 });
    if (smaller.length <= payload.length * (1 - MIN_SAVED)) {
      return framed(kind | IS_DEFLATED, smaller);
    }
  }
  return framed(kind, payload);
}

function framed(kind: number, payload: Uint8Array): Bytes {
  const out = new Uint8Array(HEAD_BYTES + payload.length + SUM_BYTES);
  const view = new DataView(out.buffer);
  view.setUint32(0, 1 + payload.length + SUM_BYTES);
  out[4] = kind;
  out.set(payload, HEAD_BYTES);
  const end = HEAD_BYTES + payload.length;
  out.set(sumOf(out.subarray(0, end)), end);
  return out;
}

function sumOf(bytes: Bytes): Uint8Array {
  return createHash("sha256").update(bytes).digest().subarray(0, SUM_BYTES);
}

function numbers(...values: number[]): Bytes {
  const out = new Uint8Array(8 * values.length);
  const view = new DataView(out.buffer);
  values.forEach((value, i) => {
    view.setUint32(8 * i, Math.floor(value / 2 ** 32));
    view.setUint32(8 * i + 4, value % 2 ** 32);
  });
  return out;
}

function u32(value: number): Bytes {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, value);
  return out;
}

/** Takes frames off a stream of bytes. */
export class FrameReader {
  private readonly source: ReadableStreamDefaultReader<Uint8Array>;
  private chunk: Uint8Array = new Uint8Array(0);

  constructor(
    body: ReadableStream<Uint8Array>,
    /** Names the other side in errors. */
    private readonly from: string,
  ) {
    this.source = body.getReader();
  }

  /**
   * The next whole frame; null where the stream ends between two of them.
   * @throws UnavailableError where it is cut or damaged, or the connection is
   */
  async next(): Promise<Frame | null> {
    const head = await this.take(HEAD_BYTES, true);
    if (head === null) return null;
    const length = new DataView(head.buffer).getUint32(0) - 1;
    if (length < SUM_BYTES || length > MAX_FRAME_BYTES) throw this.damaged();
    const rest = (await this.take(length, false))!;
    const payload = rest.subarray(0, length - SUM_BYTES);
    const sum = createHash("sha256").update(head).update(payload).digest();
    if (!equalBytes(sum.subarray(0, SUM_BYTES), rest.subarray(-SUM_BYTES))) {
      throw this.damaged();
    }
    try {
      return decode(head[4], payload);
    } catch {
      throw this.damaged();
    }
  }

  private async take(length: number, mayEnd: boolean): Promise<Bytes | null> {
    const out = new Uint8Array(length);
    let at = 0;
    while (at < length) {
      if (this.chunk.length === 0) {
        const { value, done } = await this.read();
        if (done) {
          if (mayEnd && at === 0) return null;
          throw new UnavailableError(
            `The stream of ${this.from} was cut in the middle of a frame. Nothing of that frame was applied.`,
          );
        }
        this.chunk = value;
        continue;
      }
      const part = this.chunk.subarray(0, length - at);
      out.set(part, at);
      at += part.length;
      this.chunk = this.chunk.subarray(part.length);
    }
    return out;
  }

  private async read() {
    try {
      return await this.source.read();
    } catch (error) {
      throw new UnavailableError(
        `The connection to ${this.from} broke: ${
          error instanceof Error ? error.message : String(error)
        }.`,
      );
    }
  }

  private damaged(): UnavailableError {
    return new UnavailableError(
      `The stream of ${this.from} was changed on its way: a frame does not fit its checksum, or is none. Nothing of that frame was applied.`,
    );
  }

  /** The other side may stop. */
  async cancel(): Promise<void> {
    await this.source.cancel().catch(() => {});
  }
}

function decode(kind: number, sent: Bytes): Frame {
  const payload = kind & IS_DEFLATED
    ? new Uint8Array(
      inflateRawSync(sent, { maxOutputLength: MAX_FRAME_BYTES }),
    )
    : sent;
  const view = new DataView(
    payload.buffer,
    payload.byteOffset,
    payload.length,
  );
  const number = (at: number) =>
    view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
  switch (kind & ~IS_DEFLATED) {
    case FrameKind.COMMITS: {
      const timesAt = 28;
      const entriesAt = timesAt + view.getUint32(24);
      const previousVersion = number(0);
      return {
        kind: "commits",
        previousVersion,
        version: number(8),
        durableVersion: number(16),
        times: decodeCommitTimes(
          payload.subarray(timesAt, entriesAt),
          previousVersion,
        ),
        entries: payload.subarray(entriesAt),
      };
    }
    case FrameKind.BEAT:
      return {
        kind: "beat",
        version: number(0),
        durableVersion: number(8),
        nowMs: number(16),
      };
    case FrameKind.END: {
      const sentence = fromUtf8(payload.subarray(4)) ?? "";
      return { kind: "end", status: view.getUint32(0), sentence };
    }
    case FrameKind.SNAPSHOT:
      return { kind: "snapshot", version: number(0), sizeBytes: number(8) };
    case FrameKind.PART:
      return {
        kind: "part",
        number: view.getUint32(0),
        bytes: payload.subarray(4),
      };
    case FrameKind.SNAPSHOT_END:
      return {
        kind: "snapshotEnd",
        version: number(0),
        timeMs: number(8),
        parts: number(16),
      };
  }
  throw new Error("a kind of frame that is not known");
}
