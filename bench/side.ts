/** One of the two servers that a row compares, running and filled. */
import type { Request } from "./http1.ts";
import { connect, fill, type KvClient } from "./kv_client.ts";
import { VALUE } from "./kv_client.ts";
import type { Load } from "./load.ts";
import { start, type Starter } from "./servers.ts";
import { committedVersionstamp, valueSizes, versionOf } from "./wire.ts";
import type { Work } from "./work.ts";

/** Keys that are in the database before anything is measured. */
export const KEYS = 10_000;

export interface Side extends AsyncDisposable {
  client: KvClient;
  /** The requests of a kind of work, for the load generator. */
  requests(work: Work): Request[];
  /**
   * Runs a load of this work and makes sure that it did what it says: the
   * answer before it holds the right values, and writes moved the database.
   */
  honest(
    work: Work,
    load: (requests: Request[]) => Promise<Load>,
  ): Promise<Load>;
  residentBytes(): Promise<number>;
  /** Processor time that its server has taken. */
  processorMs(): Promise<number>;
}

export async function openSide(
  starter: Starter,
  options: { folder: string; cpu?: number; env?: Record<string, string> },
  keys = KEYS,
): Promise<Side> {
  const server = await start(await starter(options));
  try {
    const client = await connect(server.url);
    const existing = await fill(client, keys);
    const made = new Map<Work, Request[]>();
    const side: Side = {
      client,
      requests(work) {
        let requests = made.get(work);
        if (!requests) {
          const call = isRead(work) ? "snapshot_read" : "atomic_write";
          requests = work.bodies(existing).map((body) =>
            client.request(call, body)
          );
          made.set(work, requests);
        }
        return requests;
      },
      async honest(work, load) {
        const requests = side.requests(work);
        const before = await client.send(requests[0]);
        if (isRead(work)) {
          expectValues(before, work.values);
          return await load(requests);
        }
        const done = await load(requests);
        const after = await client.send(requests[0]);
        expectVersions(before, after, done.requests);
        return done;
      },
      residentBytes: () => server.residentBytes(),
      processorMs: () => server.processorMs(),
      [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
    };
    return side;
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  }
}

function isRead(work: Work): work is Work & { values: number } {
  return work.values !== undefined;
}

function expectValues(output: Uint8Array, count: number): void {
  const sizes = valueSizes(output);
  if (sizes.length !== count || sizes.some((size) => size !== VALUE.length)) {
    throw new Error(
      `The answer holds ${sizes.length} values instead of ${count} of ${VALUE.length} bytes.`,
    );
  }
}

/** Every write has a version of its own. */
function expectVersions(
  before: Uint8Array,
  after: Uint8Array,
  writes: number,
): void {
  const moved = versionOf(committedVersionstamp(after)) -
    versionOf(committedVersionstamp(before));
  if (moved < writes) {
    throw new Error(
      `${writes} writes were answered, but the version moved by ${moved} only.`,
    );
  }
}
