/**
 * A backup as Deno Deploy wrote it: names of version 0, commits that share a
 * version, a snapshot that is whole only with the log before it, no manifest,
 * no checksums. Written from the facts about the layout, not with this
 * program's own writers.
 */
import { encodeKey } from "../../src/protocol/key.ts";
import type { ObjectStore } from "../../src/object_store/object_store.ts";

type Bytes = Uint8Array<ArrayBuffer>;

export interface Mutation {
  key: string;
  /** Absent: the key is cleared. */
  value?: string;
  expireAtMs?: number;
}

export interface Commit {
  version: number;
  order: number;
  mutations: Mutation[];
}

/** Of the values here: bytes, as they are. */
const BYTES_ENCODING = 3;

function varint(value: number): number[] {
  const out: number[] = [];
  while (value >= 0x80) {
    out.push(value % 0x80 | 0x80);
    value = Math.floor(value / 0x80);
  }
  return [...out, value];
}

function number(field: number, value: number): number[] {
  return [field << 3, ...varint(value)];
}

function data(field: number, bytes: ArrayLike<number>): number[] {
  return [field << 3 | 2, ...varint(bytes.length), ...Array.from(bytes)];
}

function text(value: string): Bytes {
  return new TextEncoder().encode(value);
}

function stamp(version: number, order: number): Bytes {
  const bytes = new Uint8Array(10);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(version));
  view.setUint16(8, order);
  return bytes;
}

export function hexStamp(version: number, order: number): string {
  return stamp(version, order).toHex();
}

const digits16 = (value: number) => value.toString(16).padStart(16, "0");

/** A part of the snapshot; each entry as the commit left it. */
export function snapshotPart(commits: readonly Commit[]): Bytes {
  const datas: number[] = [];
  const metas: number[] = [];
  for (const { version, order, mutations } of commits) {
    for (const { key, value, expireAtMs } of mutations) {
      const name = encodeKey([key]);
      datas.push(...data(1, [
        ...data(1, [0x64, ...name]),
        ...data(2, text(value!)),
      ]));
      const metadata = [...stamp(version, order), BYTES_ENCODING];
      // The expiry may be missing where there is none.
      if (expireAtMs !== undefined) {
        const expiry = new Uint8Array(8);
        new DataView(expiry.buffer).setBigInt64(0, BigInt(expireAtMs), true);
        metadata.push(...expiry);
      }
      metas.push(...data(2, [
        ...data(1, [0x6d, ...name]),
        ...data(2, metadata),
      ]));
    }
  }
  return new Uint8Array([...datas, ...metas]);
}

export interface LogObject {
  key: string;
  bytes: Bytes;
}

export function logObject(
  epoch: number,
  tsn: number,
  commits: readonly Commit[],
  timeMs: number,
): LogObject {
  const stamps: string[] = [];
  const out: number[] = [];
  for (const { version, order, mutations } of commits) {
    mutations.forEach(({ key, value, expireAtMs = 0 }, i) => {
      const index = i === mutations.length - 1 ? 0xffff : i;
      const full = [...stamp(version, order), index >> 8, index & 0xff];
      stamps.push(new Uint8Array(full).toHex());
      out.push(...data(1, [
        ...data(1, full),
        ...number(2, value === undefined ? 2 : 1),
        ...data(3, encodeKey([key])),
        ...value === undefined ? [] : [
          ...data(4, text(value)),
          ...number(5, BYTES_ENCODING),
        ],
        ...expireAtMs > 0 ? number(6, expireAtMs) : [],
      ]));
    });
  }
  out.push(...number(2, timeMs));
  return {
    key: `logs/${digits16(epoch)}_${digits16(tsn)}_${stamps[0]}_${
      stamps.at(-1)
    }.bin`,
    bytes: new Uint8Array(out),
  };
}

/** The folder, but for `differential`, which says that it is whole. */
export async function writeDeployBackup(
  objects: ObjectStore,
  nowMs: number,
): Promise<{ finish(): Promise<void> }> {
  const far = nowMs + 86_400_000;
  // Read while writes went on: "b" is newer than what the snapshot has of "c".
  const parts = [
    [
      { version: 100, order: 0, mutations: [{ key: "a", value: "a at 100" }] },
      { version: 130, order: 2, mutations: [{ key: "b", value: "b at 130" }] },
    ],
    [
      { version: 90, order: 1, mutations: [{ key: "c", value: "c at 90" }] },
      {
        version: 91,
        order: 0,
        mutations: [{ key: "later", value: "expires", expireAtMs: far }],
      },
      {
        version: 92,
        order: 0,
        mutations: [{ key: "over", value: "is over", expireAtMs: 1000 }],
      },
      { version: 93, order: 0, mutations: [{ key: "d", value: "cleared" }] },
    ],
  ];
  for (const [i, commits] of parts.entries()) {
    const name = `${digits16(1)}_${digits16(2)}_${digits16(i + 1)}`;
    await objects.put(`snapshots/${name}.bin`, snapshotPart(commits));
  }
  const logs = [
    logObject(1, 3, [
      { version: 120, order: 0, mutations: [{ key: "d" }] },
      {
        version: 130,
        order: 1,
        mutations: [{ key: "c", value: "c at 130" }, {
          key: "e",
          value: "e at 130",
        }],
      },
    ], nowMs - 3000),
    // The same version, in the next object; and a number that is left out.
    logObject(1, 7, [
      { version: 130, order: 2, mutations: [{ key: "b", value: "b at 130" }] },
    ], nowMs - 2000),
    logObject(2, 1, [
      { version: 150, order: 0, mutations: [{ key: "f", value: "f at 150" }] },
    ], nowMs - 1000),
  ];
  for (const { key, bytes } of logs) await objects.put(key, bytes);
  return {
    async finish() {
      await objects.put("differential", text(hexStamp(130, 2)));
    },
  };
}
