/**
 * A proxy that stands between a client and a real HTTP server on 127.0.0.1
 * and does, request by request, what networks and servers do to each other.
 */
import { Buffer } from "node:buffer";
import {
  createServer,
  type IncomingMessage,
  request as forward,
  type ServerResponse,
} from "node:http";
import type { AddressInfo, Socket } from "node:net";

export interface ProxiedRequest {
  method: string;
  /** The path and the query, as they came. */
  path: string;
  /** Lowercase names. May be changed before the request goes on. */
  headers: Record<string, string | string[] | undefined>;
  /** Counts the requests, from 1. */
  number: number;
}

/** What happens to one request; undefined: it passes. */
export type Mishap =
  /** Waits, then passes. */
  | { kind: "delay"; delayMs: number }
  /** Answers without asking the server. */
  | {
    kind: "answer";
    status: number;
    body?: string;
    headers?: Record<string, string>;
  }
  /** The server gets other bytes, as many as were sent. */
  | { kind: "corrupt"; change: (body: Uint8Array) => void }
  /** The server acts, and the connection is cut instead of its answer. */
  | { kind: "loseAnswer" }
  /** The connection is cut before the server hears of the request. */
  | { kind: "cut" }
  /** The answer breaks off after so many bytes of its body. */
  | { kind: "truncate"; afterBytes: number }
  /** The server acts, and nothing is ever answered. */
  | { kind: "hang" };

export interface HttpProxy {
  readonly endpoint: string;
  /** Decides about every request; replace it at any time. */
  rule: (request: ProxiedRequest) => Mishap | undefined;
  stop(): Promise<void>;
}

export async function startHttpProxy(target: string): Promise<HttpProxy> {
  const { hostname, port } = new URL(target);
  const sockets = new Set<Socket>();
  let count = 0;

  async function handle(incoming: IncomingMessage, outgoing: ServerResponse) {
    const request: ProxiedRequest = {
      method: incoming.method ?? "GET",
      path: incoming.url ?? "/",
      headers: { ...incoming.headers },
      number: ++count,
    };
    const mishap = proxy.rule(request);
    if (mishap?.kind === "cut") {
      incoming.socket.destroy();
      return;
    }
    if (mishap?.kind === "delay") {
      await new Promise((resolve) => setTimeout(resolve, mishap.delayMs));
    }
    if (mishap?.kind === "answer") {
      incoming.resume();
      outgoing.writeHead(mishap.status, mishap.headers);
      outgoing.end(mishap.body ?? "");
      return;
    }
    const onward = forward({
      host: hostname,
      port,
      method: request.method,
      path: request.path,
      // The Host header stays the client's: its signature covers it.
      headers: request.headers,
      agent: false,
    }, (answer) => {
      if (mishap?.kind === "loseAnswer" || mishap?.kind === "hang") {
        answer.resume();
        answer.on("end", () => {
          if (mishap.kind === "loseAnswer") incoming.socket.destroy();
        });
        return;
      }
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      if (mishap?.kind !== "truncate") {
        answer.pipe(outgoing);
        return;
      }
      let leftBytes = mishap.afterBytes;
      let hasBody = false;
      // One without a body breaks off before its head has left.
      answer.on("end", () => hasBody || incoming.socket.destroy());
      answer.on("data", (chunk: Uint8Array) => {
        hasBody = true;
        outgoing.write(chunk.subarray(0, Math.max(0, leftBytes)), () => {
          if (leftBytes <= 0) incoming.socket.destroy();
        });
        leftBytes -= chunk.length;
      });
    });
    onward.on("error", () => incoming.socket.destroy());
    if (mishap?.kind !== "corrupt") {
      incoming.pipe(onward);
      return;
    }
    const body = Buffer.concat(await incoming.toArray());
    mishap.change(body);
    onward.end(body);
  }

  const server = createServer((incoming, outgoing) => {
    handle(incoming, outgoing);
  });
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address() as AddressInfo;
  const proxy: HttpProxy = {
    endpoint: `http://127.0.0.1:${address.port}`,
    rule: () => undefined,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
  return proxy;
}
