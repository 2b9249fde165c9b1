/**
 * Writers that keep book: what was sent, what was acknowledged, and whether
 * the database agrees, however often the server went down in between.
 *
 * Each write of a writer carries the next number and puts it at three keys,
 * adds 1 to a counter, and leaves an entry under the number: if any of it is
 * there, all of it has to be.
 */
import assert from "node:assert/strict";
import { fromUtf8 } from "../../src/common/bytes.ts";
import { encodeKey } from "../../src/protocol/key.ts";
import { Encoding, MutationType } from "../../src/protocol/messages.ts";
import {
  atomic,
  le64,
  mutation,
  range,
  set,
} from "../../src/store/contract/support.ts";
import { type KvClient, RefusedError } from "./kv_client.ts";

const PLACES = ["a", "m", "z"];

interface Acknowledged {
  number: number;
  version: number;
}

export class Writer {
  /** The number of the last write that was sent. */
  sent = 0;
  readonly acknowledged: Acknowledged[] = [];
  /** Numbers up to here have been compared with the database. */
  private audited = 0;
  /** Entries that the audited part left there. */
  private auditedCount = 0;

  constructor(readonly name: string) {}

  private key(...parts: (string | number)[]) {
    return encodeKey([this.name, ...parts]);
  }

  /** One write; true if it was acknowledged, false if nobody knows. */
  async write(client: KvClient): Promise<boolean> {
    const number = ++this.sent;
    const text = `${number}`;
    const write = atomic([
      ...PLACES.map((place) => ({ ...set("", text), key: this.key(place) })),
      mutation(MutationType.SUM, "", {
        key: this.key("count"),
        value: le64(1n),
        encoding: Encoding.LE64,
      }),
      { ...set("", text), key: this.key("entry", number) },
    ]);
    try {
      const answer = await client.write(write);
      assert.equal(answer.status, 1);
      this.acknowledged.push({ number, version: answer.version });
      return true;
    } catch (error) {
      // A 4xx is final and would be a defect; anything else is a server that
      // went away.
      if (error instanceof RefusedError && error.status < 500) throw error;
      return false;
    }
  }

  /**
   * Compares the database with the book.
   * @returns the largest version seen
   */
  async audit(client: KvClient): Promise<number> {
    const bytes = (key: Uint8Array<ArrayBuffer>, end: number) =>
      new Uint8Array([...key, end]);
    const point = (key: Uint8Array<ArrayBuffer>) =>
      range(key, bytes(key, 0), { limit: 1 });
    const [a, m, z, count] = (await client.read(
      ...[...PLACES, "count"].map((place) => point(this.key(place))),
    )).map(([entry]) => entry);
    const entries = await this.entriesAfter(client, this.audited);
    const numbers = entries.map(({ number }) => number);
    const last = this.acknowledged.at(-1);
    if (a === undefined) {
      assert.equal(last, undefined, `${this.name}: all is gone`);
      assert.deepEqual([m, z, count, entries], [
        undefined,
        undefined,
        undefined,
        [],
      ]);
      return 0;
    }
    // Nothing in part: one write's number and versionstamp everywhere.
    const number = Number(fromUtf8(a.value));
    for (const other of [m, z]) {
      assert.equal(fromUtf8(other.value), `${number}`, `${this.name} in part`);
      assert.equal(other.version, a.version, `${this.name} in part`);
    }
    assert.equal(count.version, a.version);
    if (numbers.length > 0) {
      assert.equal(numbers.at(-1), number);
      assert.equal(entries.at(-1)!.version, a.version);
    }
    const total = new DataView(count.value.buffer).getBigUint64(0, true);
    assert.equal(Number(total), this.auditedCount + numbers.length);
    // Nothing lost: every acknowledged write is there, as it was answered.
    const versions = new Map(
      entries.map((entry) => [entry.number, entry.version]),
    );
    for (const each of this.acknowledged) {
      if (each.number <= this.audited) continue;
      assert.equal(
        versions.get(each.number),
        each.version,
        `${this.name}: the acknowledged write ${each.number} is lost`,
      );
    }
    assert.ok(number <= this.sent);
    for (let i = 1; i < entries.length; i++) {
      assert.ok(entries[i].version > entries[i - 1].version);
    }
    this.audited = this.sent;
    this.auditedCount = Number(total);
    return Math.max(a.version, last?.version ?? 0);
  }

  private async entriesAfter(
    client: KvClient,
    after: number,
  ): Promise<{ number: number; version: number }[]> {
    const found = [];
    let from = after + 1;
    while (true) {
      const [page] = await client.read(
        range(this.key("entry", from), this.key("entry", Infinity)),
      );
      for (const entry of page) {
        const number = Number(fromUtf8(entry.value));
        found.push({ number, version: entry.version });
      }
      if (page.length < 1000) return found;
      from = found.at(-1)!.number + 1;
    }
  }
}

/** Lets every writer write, one after the other's answer, until one fails. */
export async function writeUntilDown(
  writers: readonly Writer[],
  clients: readonly KvClient[],
): Promise<void> {
  await Promise.all(writers.map(async (writer, i) => {
    while (await writer.write(clients[i % clients.length]));
  }));
}

/** Audits all the writers; the largest version that anybody has seen. */
export async function auditAll(
  writers: readonly Writer[],
  client: KvClient,
): Promise<number> {
  let newest = 0;
  for (const writer of writers) {
    newest = Math.max(newest, await writer.audit(client));
  }
  return newest;
}
