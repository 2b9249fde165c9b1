/** Attacks over HTTP/1.1: on connections, heads and bodies. */
import type { AttackContext, Seen } from "../attacker.ts";

const encoder = new TextEncoder();

interface Watched {
  connection: Deno.TcpConn;
  /** What has come so far, up to some length. */
  answer: string;
  isOpen: boolean;
}

const ANSWER_CHARS = 2000;

/** Undefined where the server takes no connection. */
async function connected(port: number): Promise<Watched | undefined> {
  let connection: Deno.TcpConn;
  try {
    connection = await Deno.connect({ hostname: "127.0.0.1", port });
  } catch {
    return undefined;
  }
  const watched = { connection, answer: "", isOpen: true };
  const read = async () => {
    const decoder = new TextDecoder("latin1");
    const part = new Uint8Array(16_384);
    try {
      for (let count; (count = await connection.read(part)) !== null;) {
        if (watched.answer.length < ANSWER_CHARS) {
          watched.answer += decoder.decode(part.subarray(0, count));
        }
      }
    } catch {
      // Reset, or closed below.
    }
    watched.isOpen = false;
  };
  void read();
  return watched;
}

async function write(watched: Watched, text: string): Promise<void> {
  try {
    const bytes = encoder.encode(text);
    for (let at = 0; at < bytes.length;) {
      at += await watched.connection.write(bytes.subarray(at));
    }
  } catch {
    watched.isOpen = false;
  }
}

function seenBy(opened: readonly (Watched | undefined)[]): Seen {
  const seen: Seen = { refused: 0, closed: 0, silent: 0 };
  for (const watched of opened) {
    if (watched === undefined) {
      seen.refused++;
      continue;
    }
    if (!watched.isOpen) seen.closed++;
    const status = /^HTTP\/1\.\d (\d+)/.exec(watched.answer)?.[1];
    if (status === undefined) seen.silent++;
    else seen[status] = (seen[status] ?? 0) + 1;
  }
  return seen;
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const times = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, index) => make(index));

/** Connections that say nothing. */
export async function idleConnections(
  { port, settings, underWay, told }: AttackContext<{ connections: number }>,
): Promise<Seen> {
  const opened: (Watched | undefined)[] = [];
  // One by one: a queue of the kernel that is full is another matter.
  for (let i = 0; i < settings.connections; i++) {
    opened.push(await connected(port));
  }
  underWay();
  await told;
  return seenBy(opened);
}

/** Heads that announce a body which does not come, or comes by the byte. */
export async function claimedBodies(
  { port, settings, underWay, told }: AttackContext<{
    connections: number;
    paths: string[];
    claimBytes: number;
    /** Of the body, at once. */
    sentBytes?: number;
    headers?: Record<string, string>;
    dripEveryMs?: number;
  }>,
): Promise<Seen> {
  const { connections, paths, claimBytes, sentBytes = 0, dripEveryMs } =
    settings;
  const headers = Object.entries(settings.headers ?? {})
    .map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const opened = await Promise.all(times(connections, async (index) => {
    const watched = await connected(port);
    if (watched) {
      await write(
        watched,
        `POST ${paths[index % paths.length]} HTTP/1.1\r\nhost: x\r\n` +
          `${headers}content-length: ${claimBytes}\r\n\r\n`,
      );
      // Not awaited: the server may leave it where it is.
      void write(watched, "x".repeat(sentBytes));
    }
    return watched;
  }));
  await pause(1000);
  underWay();
  let isTold = false;
  const ending = told.then(() => isTold = true);
  while (dripEveryMs !== undefined && !isTold) {
    await Promise.all(
      opened.map((watched) => watched?.isOpen && write(watched, "x")),
    );
    await pause(dripEveryMs);
  }
  await ending;
  return seenBy(opened);
}

/** Heads that come by the byte and never end. */
export async function slowHeads(
  { port, settings, underWay, told }: AttackContext<{ connections: number }>,
): Promise<Seen> {
  const opened = await Promise.all(
    times(settings.connections, () => connected(port)),
  );
  const head = "GET /-/health HTTP/1.1\r\nhost: x\r\nx-slow: ";
  let isTold = false;
  const ending = told.then(() => isTold = true);
  for (let at = 0; !isTold; at++) {
    if (at === 60) underWay();
    await Promise.all(
      opened.map((watched) =>
        watched?.isOpen && write(watched, head[at] ?? "x")
      ),
    );
    await pause(10);
  }
  await ending;
  return seenBy(opened);
}

/** Requests sent in one go, whose answers are read or left lying. */
export async function pipelinedRequests(
  { port, settings, underWay, told }: AttackContext<{
    connections: number;
    requests: number;
    head: string;
    reads: boolean;
  }>,
): Promise<Seen> {
  const { connections, requests, head, reads } = settings;
  const text = head.repeat(requests);
  const sent = times(connections, async () => {
    if (reads) {
      const watched = await connected(port);
      if (watched) await write(watched, text);
      return watched;
    }
    const connection = await Deno.connect({ hostname: "127.0.0.1", port });
    const watched = { connection, answer: "", isOpen: true };
    // Never resolves once both sides' buffers are full.
    void write(watched, text);
    return watched;
  });
  const opened = await Promise.all(sent);
  await pause(1000);
  underWay();
  await told;
  return seenBy(opened);
}
