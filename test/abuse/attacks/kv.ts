/** Attacks with whole, valid requests, by one that has a secret or not. */
import { encodeKey } from "../../../src/protocol/key.ts";
import { KvClient, type RawWatch } from "../../support/kv_client.ts";
import {
  http1,
  http2Connection,
  request,
  type Stream,
  type Transport,
} from "../../support/transport.ts";
import type { AttackContext, Seen } from "../attacker.ts";
import {
  CANCEL,
  END_HEADERS,
  END_STREAM,
  Frame,
  frame,
  RawHttp2,
  requestBlock,
  uint32,
} from "../raw_http2.ts";

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const times = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, index) => make(index));

const url = (port: number) => `http://127.0.0.1:${port}`;

const count = (seen: Seen, what: string | number) => {
  seen[what] = (seen[what] ?? 0) + 1;
};

/** Bodies travel as base64: the settings are JSON. */
const bytesOf = (base64: string) =>
  Uint8Array.fromBase64(base64) as Uint8Array<ArrayBuffer>;

/** The same call of the data path on many connections, its answers not read. */
export async function unreadAnswers(
  { port, settings, underWay, told }: AttackContext<{
    connections: number;
    requestsEach: number;
    call: string;
    body: string;
  }>,
): Promise<Seen> {
  const { connections, requestsEach, call, body } = settings;
  const seen: Seen = {};
  const streams: Stream[] = [];
  const openers = times(connections, async (index) => {
    const connect = index % 2 === 0 ? http1 : http2Connection;
    const client = await KvClient.open(connect(url(port)));
    await Promise.all(times(requestsEach, async () => {
      try {
        const stream = await client.transport.open(
          "POST",
          `${client.path}/${call}`,
          client.headers,
          bytesOf(body),
        );
        count(seen, stream.status);
        streams.push(stream);
      } catch {
        count(seen, "failed");
      }
    }));
  });
  void Promise.allSettled(openers);
  await pause(1000);
  underWay();
  await told;
  return seen;
}

/** So many calls of the data path, as fast as they are answered. */
export async function calls(
  { port, settings, underWay, told }: AttackContext<{
    connections: number;
    atOnce: number;
    call: string;
    body: string;
    requests: number;
  }>,
): Promise<Seen> {
  const { connections, atOnce, call, body, requests } = settings;
  const seen: Seen = {};
  const bytes = bytesOf(body);
  let left = requests;
  const clients = await Promise.all(
    times(connections, () => KvClient.open(http2Connection(url(port)))),
  );
  underWay();
  await Promise.all(clients.flatMap((client) =>
    times(atOnce, async () => {
      while (left-- > 0) {
        try {
          count(seen, (await client.post(call, bytes)).status);
        } catch {
          count(seen, "failed");
        }
      }
    })
  ));
  await told;
  return seen;
}

/** Calls of the data path that are given up as soon as they are sent. */
export async function cancelledCalls(
  { port, settings, underWay, told }: AttackContext<{
    connections: number;
    requestsEach: number;
    call: string;
    body: string;
  }>,
): Promise<Seen> {
  const { connections, requestsEach, call, body } = settings;
  const seen: Seen = {};
  const bytes = bytesOf(body);
  underWay();
  await Promise.all(times(connections, async () => {
    const { exchanged, path, headers } = await KvClient.open(
      http1(url(port)),
    );
    const block = requestBlock("POST", `${path}/${call}`, {
      ...headers,
      authorization: `Bearer ${exchanged.token}`,
    });
    const raw = await RawHttp2.connect(port);
    for (let i = 0; i < requestsEach && raw.isOpen; i++) {
      const stream = raw.stream();
      await raw.send(
        frame(Frame.HEADERS, END_HEADERS, stream, block),
        frame(Frame.DATA, END_STREAM, stream, bytes),
      );
      // Long enough for the server to have begun.
      await pause(20);
      await raw.send(frame(Frame.RST_STREAM, 0, stream, uint32(CANCEL)));
      count(seen, "cancelled");
    }
  }));
  await told;
  return seen;
}

interface WatchersSettings {
  connections: number;
  watchesEach: number;
  keys: string[];
  /** Every so many of them read what they are sent; the others nothing. */
  readsEvery: number;
}

/** Many watches of the same keys. */
export async function watchers(
  { port, settings, underWay, told }: AttackContext<WatchersSettings>,
): Promise<Seen> {
  const { connections, watchesEach, keys, readsEvery } = settings;
  const seen: Seen = {};
  const watched = keys.map((name) => encodeKey([name]));
  const read = async (watch: RawWatch) => {
    try {
      for await (const _ of watch.frames) count(seen, "frames");
    } catch {
      count(seen, "cut");
    }
  };
  let index = 0;
  await Promise.all(times(connections, async () => {
    const client = await KvClient.open(http2Connection(url(port)));
    for (let i = 0; i < watchesEach; i++) {
      try {
        const watch = await client.watch(watched);
        count(seen, "watches");
        if (index++ % readsEvery === 0) void read(watch);
      } catch {
        count(seen, "refused");
      }
    }
  }));
  underWay();
  await told;
  return seen;
}

/** Watches that are opened and left at once. */
export async function watchChurn(
  { port, settings, underWay, told }: AttackContext<{
    connections: number;
    rounds: number;
    keys: string[];
  }>,
): Promise<Seen> {
  const { connections, rounds, keys } = settings;
  const seen: Seen = {};
  const watched = keys.map((name) => encodeKey([name]));
  const clients = await Promise.all(
    times(connections, () => KvClient.open(http2Connection(url(port)))),
  );
  underWay();
  await Promise.all(clients.map(async (client) => {
    for (let i = 0; i < rounds; i++) {
      try {
        (await client.watch(watched)).cancel();
        count(seen, "watches");
      } catch {
        count(seen, "failed");
      }
    }
  }));
  await told;
  return seen;
}

const lookalike = (index: number) =>
  `dkv1.zzzzzz.${`${index}`.padStart(43, "A")}`;

/** Requests with a wrong secret, to every entrance. */
export async function wrongSecrets(
  { port, settings, underWay, told }: AttackContext<{
    requests: number;
    atOnce: number;
  }>,
): Promise<Seen> {
  const entrances: [string, string][] = [
    ["POST", "/"],
    ["POST", "/v2/snapshot_read"],
    ["PUT", "/key"],
    ["GET", "/key"],
    ["POST", "/-/backup/snapshot"],
  ];
  const seen: Seen = {};
  let left = settings.requests;
  const work = async (transport: Transport) => {
    while (left-- > 0) {
      const [method, path] = entrances[left % entrances.length];
      // Every other one has the form of a data token, which costs a look.
      const wrong = left % 2 === 0 ? `wrong ${left}` : lookalike(left);
      const answer = await request(transport, method, path, {
        authorization: `Bearer ${wrong}`,
      }, method === "GET" ? undefined : new Uint8Array(10));
      count(seen, answer.status);
    }
  };
  underWay();
  await Promise.all(times(
    settings.atOnce,
    (index) => work((index % 2 ? http1 : http2Connection)(url(port))),
  ));
  await told;
  return seen;
}

/** REST requests, over and over, by one that may. */
export async function restCalls(
  { port, settings, underWay, told }: AttackContext<{
    requests: number;
    atOnce: number;
    method: string;
    path: string;
    headers: Record<string, string>;
    body?: string;
  }>,
): Promise<Seen> {
  const { requests, atOnce, method, path, headers, body } = settings;
  const seen: Seen = {};
  const transport = http1(url(port));
  let left = requests;
  underWay();
  await Promise.all(times(atOnce, async () => {
    while (left-- > 0) {
      const answer = await request(
        transport,
        method,
        path,
        headers,
        body === undefined ? undefined : bytesOf(body),
      );
      count(seen, answer.status);
    }
  }));
  await told;
  return seen;
}
