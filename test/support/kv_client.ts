/**
 * A KV Connect client without a library: every message goes over the wire as
 * the test wrote it, and every answer comes back as it was.
 */
import assert from "node:assert/strict";
import type {
  AtomicWrite,
  Check,
  Entry,
  Mutation,
  ReadRange,
} from "../../src/protocol/messages.ts";
import {
  type Bytes,
  decodeReadAnswer,
  decodeWatchFrame,
  decodeWriteAnswer,
  encodeRead,
  encodeWatch,
  encodeWrite,
  type WatchFrame,
  type WriteAnswer,
} from "./kv_messages.ts";
import { ACCESS_TOKEN } from "./server.ts";
import {
  type Answer,
  request,
  type Stream,
  type Transport,
} from "./transport.ts";

export interface Exchange {
  version: number;
  databaseId: string;
  endpoints: { url: string; consistency: string }[];
  token: string;
  expiresAt: string;
}

/** An answer that is no success. */
export class RefusedError extends Error {
  constructor(readonly status: number, readonly sentence: string) {
    super(`${status}: ${sentence}`);
  }
}

export interface RawWatch {
  frames: AsyncIterableIterator<WatchFrame>;
  cancel(): void;
}

export class KvClient {
  private constructor(
    readonly transport: Transport,
    readonly exchanged: Exchange,
    /** Of the data path, without an origin. */
    readonly path: string,
  ) {}

  /** Exchanges metadata; `supported` null sends no body (version 1). */
  static async open(
    transport: Transport,
    supported: number[] | null = [1, 2, 3],
    accessToken = ACCESS_TOKEN,
  ): Promise<KvClient> {
    const answer = await exchange(transport, supported, accessToken);
    if (answer.status !== 200) throw refused(answer);
    const exchanged = JSON.parse(
      new TextDecoder().decode(answer.body),
    ) as Exchange;
    const { url } = exchanged.endpoints[0];
    const path = new URL(url, "http://localhost/").pathname;
    return new KvClient(transport, exchanged, path);
  }

  get headers(): Record<string, string> {
    const { version, databaseId, token } = this.exchanged;
    return {
      authorization: `Bearer ${token}`,
      "content-type": "application/x-protobuf",
      ...(version === 1 ? { "x-transaction-domain-id": databaseId } : {
        "x-denokv-version": String(version),
        "x-denokv-database-id": databaseId,
      }),
    };
  }

  /** A call of the data path with a body as it is. */
  post(call: string, body: Uint8Array): Promise<Answer> {
    const path = `${this.path}/${call}`;
    return request(this.transport, "POST", path, this.headers, body);
  }

  private async call(call: string, body: Uint8Array): Promise<Bytes> {
    const answer = await this.post(call, body);
    if (answer.status !== 200) throw refused(answer);
    assert.equal(answer.headers["content-type"], "application/x-protobuf");
    return answer.body;
  }

  async read(...ranges: ReadRange[]): Promise<Entry[][]> {
    return decodeReadAnswer(
      await this.call("snapshot_read", encodeRead(ranges)),
    );
  }

  async write(write: AtomicWrite): Promise<WriteAnswer> {
    return decodeWriteAnswer(
      await this.call("atomic_write", encodeWrite(write)),
    );
  }

  /** Writes, and fails the test unless it was committed; its version. */
  async commit(mutations: Mutation[], checks: Check[] = []): Promise<number> {
    const answer = await this.write({ checks, mutations, enqueues: [] });
    assert.equal(answer.status, 1);
    return answer.version;
  }

  async watch(keys: readonly Uint8Array[]): Promise<RawWatch> {
    const stream = await this.transport.open(
      "POST",
      `${this.path}/watch`,
      this.headers,
      encodeWatch(keys),
    );
    if (stream.status !== 200) {
      throw new RefusedError(stream.status, await textOf(stream));
    }
    assert.equal(stream.headers["content-type"], "application/octet-stream");
    return { frames: framesOf(stream), cancel: () => stream.cancel() };
  }

  close(): void {
    this.transport.close();
  }
}

export function exchange(
  transport: Transport,
  supported: number[] | null,
  accessToken = ACCESS_TOKEN,
): Promise<Answer> {
  const body = supported === null ? undefined : new TextEncoder().encode(
    JSON.stringify({ supportedVersions: supported }),
  );
  return request(transport, "POST", "/", {
    authorization: `Bearer ${accessToken}`,
    ...(body ? { "content-type": "application/json" } : {}),
  }, body);
}

function refused(answer: Answer): RefusedError {
  const sentence = new TextDecoder().decode(answer.body).trim();
  return new RefusedError(answer.status, sentence);
}

async function textOf(stream: Stream): Promise<string> {
  let text = "";
  for await (const chunk of stream.chunks) {
    text += new TextDecoder().decode(chunk);
  }
  return text.trim();
}

/** Frames with a message; pings are passed over, but none may come first. */
async function* framesOf(stream: Stream): AsyncIterableIterator<WatchFrame> {
  let buffer = new Uint8Array(0);
  let hasFrame = false;
  for await (const chunk of stream.chunks) {
    const joined = new Uint8Array(buffer.length + chunk.length);
    joined.set(buffer);
    joined.set(chunk, buffer.length);
    buffer = joined;
    while (buffer.length >= 4) {
      const length = new DataView(buffer.buffer, buffer.byteOffset)
        .getUint32(0, true);
      if (buffer.length < 4 + length) break;
      const body = buffer.slice(4, 4 + length);
      buffer = buffer.slice(4 + length);
      if (length > 0) {
        hasFrame = true;
        yield decodeWatchFrame(body);
      } else assert.ok(hasFrame, "a ping came before the first frame");
    }
  }
}
