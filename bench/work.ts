/** The kinds of work over KV Connect that the rows measure. */
import { numberedKey, VALUE } from "./kv_client.ts";
import { atomicWrite, pointOf, snapshotRead, stringKey } from "./wire.ts";

/** Keys that writes go to, in turn; none of those that are read or checked. */
const WRITTEN_KEYS = 1000;

export interface Work {
  /**
   * The bodies of the requests, all answered in the same size.
   * @param existing the versionstamp of the first thousand numbered keys
   */
  bodies(existing: Uint8Array): Uint8Array[];
  /** Values in the answer of a read; not given: it is a write. */
  values?: number;
}

export const pointRead: Work = {
  bodies: () => [snapshotRead([pointOf(numberedKey(500))])],
  values: 1,
};

export const durableWrite: Work = {
  bodies: () =>
    Array.from(
      { length: WRITTEN_KEYS },
      (_, i) => atomicWrite([], [writtenKey(i)], VALUE),
    ),
};

export const listOf100: Work = {
  bodies: () => [snapshotRead([
    { start: numberedKey(2000), end: numberedKey(9000), limit: 100 },
  ])],
  values: 100,
};

/** As many checks as the Rust server allows; they all hold. */
export const checksAndSets: Work = {
  bodies: (versionstamp) =>
    Array.from({ length: WRITTEN_KEYS }, (_, i) =>
      atomicWrite(
        Array.from(
          { length: 10 },
          (_, c) => ({ key: numberedKey((i + c * 97) % 1000), versionstamp }),
        ),
        Array.from({ length: 10 }, (_, s) => writtenKey((i * 10 + s) % 1000)),
        VALUE,
      )),
};

/** What a client's `getMany` of 10 keys sends. */
export const tenPoints: Work = {
  bodies: () => [snapshotRead(
    Array.from({ length: 10 }, (_, i) => pointOf(numberedKey(i * 997))),
  )],
  values: 10,
};

export const tenRanges: Work = {
  bodies: () => [snapshotRead(
    Array.from({ length: 10 }, (_, i) => ({
      start: numberedKey(i * 900),
      end: numberedKey(i * 900 + 500),
      limit: 10,
    })),
  )],
  values: 100,
};

/** Reads of single keys, drawn at random below `keys`. */
export function randomPoints(keys: number, draws: number): Work {
  return {
    bodies: () =>
      Array.from({ length: draws }, () =>
        snapshotRead([
          pointOf(numberedKey(Math.floor(Math.random() * keys))),
        ])),
    values: 1,
  };
}

function writtenKey(index: number): Uint8Array {
  return stringKey(`w${String(index).padStart(9, "0")}`);
}
