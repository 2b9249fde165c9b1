/** Just as much of a KV Connect client as the benchmark needs. */
import { exchange, type Request } from "./http1.ts";
import { ACCESS_TOKEN } from "./servers.ts";
import { atomicWrite, committedVersionstamp, stringKey } from "./wire.ts";

export interface KvClient {
  url: URL;
  /** The request for one call of the data path. */
  request(call: "snapshot_read" | "atomic_write", body: Uint8Array): Request;
  /** The body of the answer; throws unless the status is 200. */
  send(request: Request): Promise<Uint8Array>;
}

/** Exchanges metadata with the server. */
export async function connect(url: URL): Promise<KvClient> {
  const answer = await exchange(url, exchangeRequest());
  if (answer.status !== 200) {
    throw new Error(`The metadata exchange answers ${answer.status}.`);
  }
  const metadata = JSON.parse(new TextDecoder().decode(answer.body));
  const base = new URL(metadata.endpoints[0].url, url).pathname;
  const headers = {
    "authorization": `Bearer ${metadata.token}`,
    "content-type": "application/x-protobuf",
    "x-denokv-version": `${metadata.version}`,
    "x-denokv-database-id": metadata.databaseId,
  };
  return {
    url,
    request: (call, body) => ({
      method: "POST",
      path: `${base.replace(/\/$/, "")}/${call}`,
      headers,
      body,
    }),
    async send(request) {
      const answer = await exchange(url, request);
      if (answer.status === 200) return answer.body;
      throw new Error(
        `${request.path} answers ${answer.status}: ${
          new TextDecoder().decode(answer.body)
        }`,
      );
    },
  };
}

export function exchangeRequest(): Request {
  return {
    method: "POST",
    path: "/",
    headers: {
      "authorization": `Bearer ${ACCESS_TOKEN}`,
      "content-type": "application/json",
    },
    body: new TextEncoder().encode('{"supportedVersions":[2,3]}'),
  };
}

/** The key numbered so, in the order of the numbers. */
export function numberedKey(index: number): Uint8Array {
  return stringKey(`k${String(index).padStart(9, "0")}`);
}

export const VALUE = new Uint8Array(100).fill(97);

const KEYS_PER_WRITE = 1000;
const WRITES_AT_ONCE = 4;

/**
 * Writes the keys from 0 to `count - 1`, each a value of 100 bytes.
 * @returns the versionstamp of the first thousand
 */
export async function fill(
  client: KvClient,
  count: number,
): Promise<Uint8Array> {
  const write = async (from: number) => {
    const keys = Array.from(
      { length: Math.min(KEYS_PER_WRITE, count - from) },
      (_, i) => numberedKey(from + i),
    );
    const body = atomicWrite([], keys, VALUE);
    return committedVersionstamp(
      await client.send(client.request("atomic_write", body)),
    );
  };
  const first = await write(0);
  let next = KEYS_PER_WRITE;
  await Promise.all(Array.from({ length: WRITES_AT_ONCE }, async () => {
    while (next < count) {
      const from = next;
      next += KEYS_PER_WRITE;
      await write(from);
    }
  }));
  return first;
}
