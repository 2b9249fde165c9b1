/**
 * What every ObjectStore has to do, as steps of a test. Each implementation's
 * test runs them over a real store of its kind.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { type Bytes, fromUtf8, utf8 } from "../common/bytes.ts";
import { systemClock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import { seededRandom } from "../common/random.ts";
import { compareKeys } from "./keys.ts";
import {
  type ListOptions,
  type ObjectStore,
  STORE_CLOCK_STEP_MS,
} from "./object_store.ts";
import { probe } from "./probe.ts";

export interface ContractSubject {
  /**
   * Opens the same place once more; the place is empty at first, and `folder`
   * is a part of it of its own.
   */
  open(folder: string): Promise<ObjectStore>;
  /** A size that the implementation does not send as one piece, if any. */
  largeSizeBytes: number;
}

interface Place {
  store: ObjectStore;
  /** A second opening of the same place, as another instance has it. */
  other: ObjectStore;
}

type Case = (place: Place, subject: ContractSubject) => Promise<void>;

export async function runContract(
  t: Deno.TestContext,
  subject: ContractSubject,
): Promise<void> {
  let count = 0;
  for (const [name, test] of Object.entries(CASES)) {
    const folder = `case-${++count}`;
    await t.step(name, async () => {
      const store = await subject.open(folder);
      const other = await subject.open(folder);
      try {
        await test({ store, other }, subject);
      } finally {
        await store.close();
        await other.close();
      }
    });
  }
}

const CASES: Record<string, Case> = {
  async "a missing object is no error"({ store }) {
    assert.equal(await store.get("a/missing"), undefined);
    assert.equal(await store.getRange("a/missing", 0, 10), undefined);
    assert.equal(await store.head("a/missing"), undefined);
    await store.delete(["a/missing"]);
    assert.deepEqual(await keys(store, ""), []);
    await store.put("x", utf8("x"));
    const { tag } = (await store.get("x"))!;
    const result = await store.replace("a/missing", utf8("y"), tag);
    assert.equal(result.written, false);
    assert.equal(await store.get("a/missing"), undefined);
  },

  async "what is put is there, whole, for everyone"({ store, other }) {
    const data = noise(1, 100_000);
    const tag = await store.put("logs/1.bin", data);
    const found = await other.get("logs/1.bin");
    assert.deepEqual(found, { data, tag });
    const head = (await other.head("logs/1.bin"))!;
    assert.equal(head.key, "logs/1.bin");
    assert.equal(head.sizeBytes, 100_000);
    assert.equal(head.tag, tag);
    assert.ok(isNow(head.modifiedMs));

    const next = await store.put("logs/1.bin", utf8("shorter"));
    assert.notEqual(next, tag);
    assert.equal(text((await other.get("logs/1.bin"))!.data), "shorter");
  },

  async "the store's own time stands beside that of the object"(
    { store, other },
  ) {
    await store.put("clock", utf8("1"));
    const head = (await other.head("clock", { now: true }))!;
    assert.ok(isNow(head.nowMs!));
    const ageMs = head.nowMs! - head.modifiedMs;
    // Each of the two may be cut to its second.
    assert.ok(ageMs > -STORE_CLOCK_STEP_MS && ageMs < 60_000, `${ageMs} ms`);
    assert.equal(head.tag, (await store.get("clock"))!.tag);
    assert.deepEqual(await keys(store, ""), ["clock"]);
  },

  async "an empty object is an object"({ store, other }) {
    await store.put("empty", new Uint8Array(0));
    const found = (await other.get("empty"))!;
    assert.equal(found.data.length, 0);
    assert.equal((await other.getRange("empty", 0, 10))!.length, 0);
    assert.equal((await other.head("empty"))!.sizeBytes, 0);
    const created = await store.create("empty-2", new Uint8Array(0));
    assert.equal(created.written, true);
    const again = await other.create("empty-2", new Uint8Array(0));
    assert.equal(again.written, false);
    assert.deepEqual(await keys(other, ""), ["empty", "empty-2"]);
  },

  async "ranges end where the object ends"({ store }) {
    const data = noise(2, 1000);
    await store.put("object", data);
    const range = (at: number, size: number) =>
      store.getRange("object", at, size);
    assert.deepEqual(await range(0, 1), data.subarray(0, 1));
    assert.deepEqual(await range(0, 1000), data);
    assert.deepEqual(await range(100, 250), data.subarray(100, 350));
    assert.deepEqual(await range(999, 1), data.subarray(999));
    assert.deepEqual(await range(900, 5000), data.subarray(900));
    assert.equal((await range(1000, 1))!.length, 0);
    assert.equal((await range(5000, 10))!.length, 0);
    await assert.rejects(range(0, 0), RangeError);
    await assert.rejects(range(-1, 5), RangeError);
  },

  async "create writes only where nothing is"({ store, other }) {
    const first = await store.create("manifest", utf8("first"));
    assert.ok(first.written);
    assert.deepEqual(await other.create("manifest", utf8("second")), {
      written: false,
    });
    const found = (await other.get("manifest"))!;
    assert.equal(text(found.data), "first");
    assert.equal(found.tag, first.tag);

    await other.delete(["manifest"]);
    assert.ok((await store.create("manifest", utf8("third"))).written);
    assert.equal(text((await other.get("manifest"))!.data), "third");
  },

  async "replace writes only over the version it names"({ store, other }) {
    const tag = await store.put("manifest", utf8("1"));
    const second = await other.replace("manifest", utf8("2"), tag);
    assert.ok(second.written);
    assert.deepEqual(await store.replace("manifest", utf8("lost"), tag), {
      written: false,
    });
    const found = (await store.get("manifest"))!;
    assert.equal(text(found.data), "2");
    assert.equal(found.tag, second.tag);
    const third = await store.replace("manifest", utf8("3"), found.tag);
    assert.ok(third.written);

    await store.delete(["manifest"]);
    assert.deepEqual(
      await other.replace("manifest", utf8("lost"), third.tag),
      { written: false },
    );
    assert.equal(await store.get("manifest"), undefined);
  },

  async "of 20 creates at once exactly one wins"({ store, other }) {
    for (let round = 0; round < 3; round++) {
      const key = `race/${round}`;
      const results = await Promise.all(
        Array.from({ length: 20 }, async (_, i) => ({
          i,
          result: await (i % 2 ? store : other).create(key, utf8(`${i}`)),
        })),
      );
      const winners = results.filter(({ result }) => result.written);
      assert.equal(winners.length, 1);
      const found = (await store.get(key))!;
      assert.equal(text(found.data), `${winners[0].i}`);
    }
  },

  async "of 20 replaces at once exactly one wins"({ store, other }) {
    let tag = await store.put("race", utf8("start"));
    for (let round = 0; round < 3; round++) {
      const results = await Promise.all(
        Array.from({ length: 20 }, async (_, i) => {
          const data = utf8(`${round}/${i}`);
          const from = i % 2 ? store : other;
          return { data, result: await from.replace("race", data, tag) };
        }),
      );
      const winners = results.filter(({ result }) => result.written);
      assert.equal(winners.length, 1);
      const found = (await other.get("race"))!;
      assert.deepEqual(found.data, winners[0].data);
      tag = found.tag;
    }
  },

  async "counting by compare-and-swap loses nothing"({ store, other }) {
    await store.put("counter", utf8("0"));
    await Promise.all([store, other, store, other].map(async (from) => {
      for (let done = 0; done < 5;) {
        const { data, tag } = (await from.get("counter"))!;
        const next = utf8(`${Number(text(data)) + 1}`);
        if ((await from.replace("counter", next, tag)).written) done++;
      }
    }));
    assert.equal(text((await store.get("counter"))!.data), "20");
  },

  async "a reader never sees a part of a version"({ store, other }) {
    const versions = Array.from({ length: 8 }, (_, i) => noise(i, 200_000 + i));
    await store.put("object", versions[0]);
    let isWriting = true;
    const writing = (async () => {
      for (const version of versions) await store.put("object", version);
      isWriting = false;
    })();
    while (isWriting) {
      const { data } = (await other.get("object"))!;
      const version = versions.find(({ length }) => length === data.length);
      assert.deepEqual(data, version);
    }
    await writing;
  },

  async "a list shows what is there, in order"({ store, other }) {
    const names = [
      "logs/a/1.bin",
      "logs/a/2.bin",
      "logs/a-b/1.bin",
      "logs/a.b/1.bin",
      "logs/a0/1.bin",
      "logs/B/1.bin",
      "snapshots/1.bin",
      "zz",
    ].sort(compareKeys);
    for (const name of [...names].reverse()) await store.put(name, utf8(name));
    assert.deepEqual(await keys(other, ""), names);
    const inLogs = names.filter((name) => name.startsWith("logs/"));
    assert.deepEqual(await keys(other, "logs/"), inLogs);
    assert.deepEqual(await keys(other, "logs/a/"), inLogs.slice(-3, -1));
    assert.deepEqual(
      await keys(other, "logs/a"),
      inLogs.filter((name) => name.startsWith("logs/a")),
    );
    assert.deepEqual(await keys(other, "none/"), []);
    assert.deepEqual(await keys(other, "logs/a/1.bin/"), []);
    for (const [i, name] of names.entries()) {
      const after = { startAfter: name };
      assert.deepEqual(await keys(other, "", after), names.slice(i + 1));
      // What is between two names need not be there itself.
      const between = { startAfter: `${name}!` };
      assert.deepEqual(await keys(other, "", between), names.slice(i + 1));
    }
    const pages = { pageSize: 2 };
    assert.deepEqual(await keys(other, "", pages), names);
    assert.deepEqual(
      await keys(other, "logs/", { ...pages, startAfter: "logs/a-b/1.bin" }),
      inLogs.filter((name) => compareKeys(name, "logs/a-b/1.bin") > 0),
    );
    for await (const info of other.list("")) {
      assert.equal(info.sizeBytes, info.key.length);
      assert.ok(isNow(info.modifiedMs));
    }
  },

  async "a list of more than 1000 objects is complete"({ store, other }) {
    const names = Array.from(
      { length: 1103 },
      (_, i) => `logs/${String(i).padStart(6, "0")}.bin`,
    );
    for (let i = 0; i < names.length; i += 64) {
      await Promise.all(
        names.slice(i, i + 64).map((name) => store.put(name, utf8("x"))),
      );
    }
    assert.deepEqual(await keys(other, "logs/"), names);
    assert.deepEqual(
      await keys(other, "", { startAfter: names[50] }),
      names.slice(51),
    );
    // Leaving a list half-way is allowed.
    for await (const info of other.list("logs/")) {
      assert.equal(info.key, names[0]);
      break;
    }
    await other.delete(names);
    assert.deepEqual(await keys(store, ""), []);
  },

  async "keys with odd characters are themselves"({ store, other }) {
    const names = [
      "a b/c+d",
      "a%20b",
      "100%",
      "q?x=1&y=2#z",
      "<tag>&amp;\"'`",
      "back\\slash:colon|pipe*star",
      ".dot/..dots/...",
      "-dash/~tilde/$/!/(x)/[y]/{z}/^",
      " leading and trailing ",
      "ünïcode/日本語/🦕",
      "e\u0301 is not é",
      "\u{ffee}\u{10000}",
      "CON/aux.txt/nul",
      "x".repeat(120),
    ].sort(compareKeys);
    await Promise.all(names.map((name) => store.put(name, utf8(name))));
    assert.deepEqual(await keys(other, ""), names);
    for (const name of names) {
      assert.equal(text((await other.get(name))!.data), name);
      assert.equal((await other.head(name))!.key, name);
      assert.equal((await store.create(name, utf8("no"))).written, false);
      assert.deepEqual(await keys(other, name), [name]);
    }
    await other.delete(names);
    assert.deepEqual(await keys(store, ""), []);
  },

  async "a key that no store could hold is refused at once"({ store }) {
    for (
      const key of [
        "",
        "/a",
        "a/",
        "a//b",
        "a/../b",
        "./a",
        "a\0b",
        "a\nb",
        "\ud800",
        "x".repeat(513),
      ]
    ) {
      await assert.rejects(store.get(key), RangeError);
      await assert.rejects(store.put(key, utf8("x")), RangeError);
      await assert.rejects(store.delete([key]), RangeError);
    }
  },

  async "a large object is put whole and read in parts"(
    { store, other },
    { largeSizeBytes },
  ) {
    const data = noise(3, largeSizeBytes);
    const tag = await store.put("large", data);
    const sizeBytes = 1024 * 1024;
    const parts = await Promise.all(
      Array.from(
        { length: Math.ceil(largeSizeBytes / sizeBytes) },
        (_, i) => other.getRange("large", i * sizeBytes, sizeBytes),
      ),
    );
    assert.ok(equal(Buffer.concat(parts.map((part) => part!)), data));
    const whole = (await other.get("large"))!;
    assert.ok(equal(whole.data, data));
    assert.equal(whole.tag, tag);
    const head = (await other.head("large"))!;
    assert.equal(head.sizeBytes, largeSizeBytes);
    assert.ok((await other.replace("large", utf8("small"), tag)).written);
    assert.equal(text((await store.get("large"))!.data), "small");
  },

  async "deleting twice is deleting once"({ store, other }) {
    for (const key of ["a/1", "a/2", "b/1"]) await store.put(key, utf8(key));
    await other.delete(["a/1", "a/2", "a/3"]);
    assert.deepEqual(await keys(store, ""), ["b/1"]);
    await other.delete(["a/1", "a/2", "a/3"]);
    await other.delete([]);
    assert.equal(await store.get("a/1"), undefined);
    await store.put("a/1", utf8("again"));
    assert.deepEqual(await keys(other, "a/"), ["a/1"]);
  },

  async "a caller that gives up gets its own reason"({ store }) {
    const reason = new Error("enough");
    const signal = AbortSignal.abort(reason);
    const gaveUp = (error: unknown) => error === reason;
    const data = utf8("x");
    await assert.rejects(store.get("a", { signal }), gaveUp);
    await assert.rejects(store.getRange("a", 0, 1, { signal }), gaveUp);
    await assert.rejects(store.head("a", { signal }), gaveUp);
    await assert.rejects(store.put("a", data, { signal }), gaveUp);
    await assert.rejects(store.create("a", data, { signal }), gaveUp);
    await assert.rejects(store.replace("a", data, "t", { signal }), gaveUp);
    await assert.rejects(store.delete(["a"], { signal }), gaveUp);
    await assert.rejects(keys(store, "", { signal }), gaveUp);
    assert.equal(await store.get("a"), undefined);

    // Given up under way: by its reason, or it was quicker.
    const later = new AbortController();
    const puts = Array.from(
      { length: 10 },
      (_, i) => store.put(`b/${i}`, data, { signal: later.signal }),
    );
    later.abort(reason);
    for (const result of await Promise.allSettled(puts)) {
      if (result.status === "rejected") assert.equal(result.reason, reason);
    }
    await store.put("b/0", utf8("usable after it"));
    assert.equal(text((await store.get("b/0"))!.data), "usable after it");
  },

  async "a closed store says so"({ store }) {
    await store.put("a", utf8("x"));
    await store.close();
    await store.close();
    await assert.rejects(store.get("a"), UnavailableError);
    await assert.rejects(store.put("a", utf8("y")), UnavailableError);
    await assert.rejects(keys(store, ""), UnavailableError);
  },

  async "the probe finds no fault and leaves nothing"({ store }) {
    assert.deepEqual(await probe(store, seededRandom(1)), { ok: true });
    assert.deepEqual(await keys(store, ""), []);
  },
};

async function keys(
  store: ObjectStore,
  prefix: string,
  options?: ListOptions,
): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of store.list(prefix, options)) found.push(key);
  return found;
}

/** Bytes that look random and are the same for the same seed and size. */
function noise(seed: number, sizeBytes: number): Bytes {
  const block = seededRandom(seed + 1).bytes(Math.min(sizeBytes, 65_521));
  const data = new Uint8Array(sizeBytes);
  for (let at = 0; at < sizeBytes; at += block.length) {
    data.set(block.subarray(0, sizeBytes - at), at);
  }
  return data;
}

/** By the store's clock, which is this machine's or close to it. */
function isNow(timeMs: number): boolean {
  return Math.abs(timeMs - systemClock.nowMs()) < 60_000;
}

function text(data: Uint8Array): string {
  return fromUtf8(data) ?? "(no text)";
}

/** Quicker than deepEqual on megabytes. */
function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
