/**
 * A request over one or the other HTTP version: 1.1 with connections kept
 * alive, as npm `@deno/kv` speaks, and 2 with prior knowledge, as Deno does.
 */
import http from "node:http";
import http2 from "node:http2";

export type Bytes = Uint8Array<ArrayBuffer>;

export interface Answer {
  status: number;
  /** Names in lowercase. */
  headers: Record<string, string>;
  body: Bytes;
}

export interface Stream {
  status: number;
  headers: Record<string, string>;
  /** What has arrived, as it arrives. */
  chunks: AsyncIterable<Uint8Array>;
  /** Leaves it: RST_STREAM, or the end of the connection. */
  cancel(): void;
}

export interface Transport {
  readonly name: "HTTP/1.1" | "HTTP/2";
  open(
    method: string,
    path: string,
    headers?: Record<string, string>,
    body?: Uint8Array,
  ): Promise<Stream>;
  close(): void;
}

/** The whole answer to a request. */
export async function request(
  transport: Transport,
  method: string,
  path: string,
  headers: Record<string, string> = {},
  body?: Uint8Array,
): Promise<Answer> {
  const stream = await transport.open(method, path, headers, body);
  const parts: Uint8Array[] = [];
  for await (const chunk of stream.chunks) parts.push(chunk);
  return {
    status: stream.status,
    headers: stream.headers,
    body: await new Blob(parts as Bytes[]).bytes() as Bytes,
  };
}

export function http1(origin: string): Transport {
  const agent = new http.Agent({ keepAlive: true });
  return {
    name: "HTTP/1.1",
    open(method, path, headers = {}, body) {
      return new Promise((resolve, reject) => {
        const sent = http.request(origin, {
          // Not normalised, as `fetch` would do.
          path,
          method,
          agent,
          headers: {
            ...headers,
            ...(body ? { "content-length": String(body.length) } : {}),
          },
        }, (answer) => {
          resolve({
            status: answer.statusCode!,
            headers: answer.headers as Record<string, string>,
            chunks: answer as AsyncIterable<Uint8Array>,
            cancel: () => sent.destroy(),
          });
        });
        sent.on("error", reject);
        sent.end(body);
      });
    },
    close: () => agent.destroy(),
  };
}

/** All requests on one connection. */
export function http2Connection(origin: string): Transport {
  const session = http2.connect(origin);
  let failure: Error | undefined;
  // Each request that is under way fails for itself.
  session.on("error", (error) => failure = error as Error);
  return {
    name: "HTTP/2",
    open(method, path, headers = {}, body) {
      return new Promise((resolve, reject) => {
        if (failure || session.closed || session.destroyed) {
          return reject(failure ?? new Error("the connection is closed"));
        }
        const stream = session.request({
          ":method": method,
          ":path": path,
          ...headers,
          ...(body ? { "content-length": String(body.length) } : {}),
        }, { endStream: body === undefined });
        stream.on("error", reject);
        stream.on("close", () => reject(new Error("the stream was closed")));
        stream.on("response", (received) => {
          const named: Record<string, string> = {};
          for (const [name, value] of Object.entries(received)) {
            if (!name.startsWith(":")) named[name] = String(value);
          }
          resolve({
            status: Number(received[":status"]),
            headers: named,
            chunks: stream as AsyncIterable<Uint8Array>,
            cancel: () => stream.close(http2.constants.NGHTTP2_CANCEL),
          });
        });
        if (body) stream.end(body);
      });
    },
    close: () => session.destroy(),
  };
}
