import assert from "node:assert/strict";
import { serialize } from "node:v8";
import { type Bytes, concatBytes, utf8 } from "../common/bytes.ts";
import { LAST_INDEX, LogEncoder } from "../log/entry.ts";
import { queueLogKey } from "../log/queue_message.ts";
import { encodeKey, type KeyPart } from "../protocol/key.ts";
import { Encoding, NEVER_MS } from "../protocol/messages.ts";
import type { LogRow } from "../store/backup_source.ts";
import { type ChangeFormat, ChangeLines } from "./change_lines.ts";

const TIME_MS = Date.UTC(2026, 0, 31, 12);

interface Mutation {
  key: KeyPart[] | Bytes;
  /** Absent: a deletion. */
  value?: Uint8Array;
  encoding?: Encoding;
  expireAtMs?: number;
  order?: number;
}

const v8 = (value: unknown) => new Uint8Array(serialize(value));

/** A row with these commits, by their versions. */
function rowOf(commits: Record<number, Mutation[]>): LogRow {
  const encoder = new LogEncoder();
  const versions = Object.keys(commits).map(Number);
  for (const version of versions) {
    const mutations = commits[version];
    mutations.forEach((mutation, i) => {
      const { key, value, encoding = Encoding.V8 } = mutation;
      encoder.append(
        version,
        mutation.order ?? 0,
        i === mutations.length - 1 ? LAST_INDEX : i,
        key instanceof Uint8Array ? key : encodeKey(key),
        value ?? null,
        encoding,
        mutation.expireAtMs ?? NEVER_MS,
      );
    });
  }
  return {
    firstVersion: versions[0],
    version: versions.at(-1)!,
    timeMs: TIME_MS,
    entries: encoder.bytes.slice(),
  };
}

function textOf(
  rows: LogRow[],
  options: { format?: ChangeFormat; prefixes?: Bytes[]; after?: number } = {},
) {
  const { format = "lines", prefixes = [], after = 0 } = options;
  const lines = new ChangeLines(format, prefixes, after);
  const slices: string[] = [];
  lines.begin(rows);
  while (!lines.isDone) slices.push(lines.slice());
  return { text: slices.join(""), slices, version: lines.version };
}

// deno-lint-ignore no-explicit-any
const parsed = (text: string): any[] =>
  text.trim().split("\n").filter(Boolean).map((line) => JSON.parse(line));

Deno.test("a line for every mutation, the last of a commit marked", () => {
  const { text, version } = textOf([rowOf({
    5: [
      { key: ["a", 1], value: v8({ n: [1, null] }) },
      { key: ["b"], value: v8("x"), expireAtMs: TIME_MS + 1 },
      { key: ["c"] },
    ],
    7: [{ key: ["d"], value: v8(-1.5) }],
  })]);
  assert.equal(version, 7);
  assert.equal(
    text,
    [
      '{"type":"set","versionstamp":"00000000000000050000","index":0,"key":["a",1],"value":{"n":[1,null]},"encoding":"json","committedAt":"2026-01-31T12:00:00.000Z"}',
      '{"type":"set","versionstamp":"00000000000000050000","index":1,"key":["b"],"value":"x","encoding":"json","expireAt":"2026-01-31T12:00:00.001Z","committedAt":"2026-01-31T12:00:00.000Z"}',
      '{"type":"delete","versionstamp":"00000000000000050000","index":2,"key":["c"],"committedAt":"2026-01-31T12:00:00.000Z","last":true}',
      '{"type":"set","versionstamp":"00000000000000070000","index":0,"key":["d"],"value":-1.5,"encoding":"json","committedAt":"2026-01-31T12:00:00.000Z","last":true}',
      "",
    ].join("\n"),
  );
});

Deno.test("values that JSON lacks come as typed JSON, what cannot be read as base64", () => {
  const u64 = new Uint8Array([7, 0, 0, 0, 0, 0, 0, 0]);
  const { text } = textOf([rowOf({
    1: [
      { key: ["map"], value: v8(new Map([["a", 1n]])) },
      { key: ["u64"], value: u64, encoding: Encoding.LE64 },
      { key: ["bytes"], value: utf8("hi"), encoding: Encoding.BYTES },
      { key: ["undefined"], value: v8(undefined) },
      { key: ["cut"], value: v8({ a: 1 }).slice(0, 4) },
      { key: ["short"], value: u64.slice(1), encoding: Encoding.LE64 },
      { key: ["new"], value: utf8("?"), encoding: 9 as Encoding },
      { key: new Uint8Array([0x02, 0x61]), value: v8(1) },
    ],
  })]);
  const shown = parsed(text).map(({ key, rawKey, value, encoding }) => [
    key?.[0] ?? rawKey,
    value,
    encoding,
  ]);
  assert.deepEqual(shown, [
    ["map", { $map: [["a", { $bigint: "1" }]] }, "typed-json"],
    ["u64", { $kvu64: "7" }, "typed-json"],
    ["bytes", { $uint8array: "aGk=" }, "typed-json"],
    ["undefined", { $undefined: null }, "typed-json"],
    ["cut", v8({ a: 1 }).slice(0, 4).toBase64(), "v8"],
    ["short", "AAAAAAAAAA==", "le64"],
    ["new", "Pw==", "9"],
    ["AmE=", 1, "json"],
  ]);
});

Deno.test("a value that holds one object so often that a commit of them would fill the memory comes as base64", () => {
  let value: unknown = { text: "x".repeat(40) };
  for (let i = 0; i < 4; i++) value = new Array(8).fill(value);
  const stored = v8(value);
  const { text } = textOf([rowOf({ 1: [{ key: ["a"], value: stored }] })]);
  const [line] = parsed(text);
  assert.deepEqual([line.encoding, line.value], ["v8", stored.toBase64()]);
  // What is there twice is written twice.
  const user = { name: "alice" };
  const twice = v8({ from: user, to: user });
  const [shown] = parsed(
    textOf([rowOf({ 1: [{ key: ["a"], value: twice }] })]).text,
  );
  assert.deepEqual(shown.value, { from: user, to: user });
});

Deno.test("a prefix is whole parts; what is left out leaves no gap in the marks", () => {
  const row = rowOf({
    1: [
      { key: ["a"], value: v8(1) },
      { key: ["a", "x"], value: v8(2) },
      { key: ["ab"], value: v8(3) },
      { key: ["a\0b"], value: v8(4) },
      { key: ["b"], value: v8(5) },
    ],
    2: [{ key: ["b"], value: v8(6) }],
    3: [{ key: ["a", "y"] }, { key: ["c"] }],
  });
  const { text, version } = textOf([row], { prefixes: [encodeKey(["a"])] });
  assert.deepEqual(
    parsed(text).map(({ key, index, last }) => [key, index, last]),
    [[["a"], 0, undefined], [["a", "x"], 1, true], [["a", "y"], 0, true]],
  );
  assert.equal(version, 3);
  const two = [encodeKey(["ab"]), encodeKey(["c"])];
  assert.deepEqual(
    parsed(textOf([row], { prefixes: two }).text).map(({ key }) => key),
    [["ab"], ["c"]],
  );
});

Deno.test("messages of queues are left out, and a commit of nothing else", () => {
  const { text, version } = textOf([rowOf({
    1: [
      { key: queueLogKey("ready", 1, "id"), value: utf8("m") },
      { key: ["a"], value: v8(1) },
      { key: queueLogKey("ready", 2, "id"), value: utf8("m") },
    ],
    2: [{ key: queueLogKey("ready", 1, "id") }],
  })]);
  assert.deepEqual(
    parsed(text).map(({ key, index, last }) => [key, index, last]),
    [[["a"], 0, true]],
  );
  assert.equal(version, 2);
});

Deno.test("commits that the consumer has are passed over, also within a row", () => {
  const row = rowOf({
    1: [{ key: ["a"] }],
    2: [{ key: ["b"] }, { key: ["c"] }],
    4: [{ key: ["d"] }],
  });
  const keys = (after: number) =>
    parsed(textOf([row], { after }).text).map(({ key }) => key[0]);
  assert.deepEqual(keys(0), ["a", "b", "c", "d"]);
  assert.deepEqual(keys(1), ["b", "c", "d"]);
  assert.deepEqual(keys(2), ["d"]);
  assert.deepEqual(keys(3), ["d"]);
  assert.deepEqual(keys(4), []);
});

Deno.test("writes of one version are one commit: a version is what is resumed from", () => {
  const { text } = textOf([rowOf({
    1: [
      { key: ["a"], order: 0 },
      { key: ["b"], order: 1 },
      { key: ["c"], order: 1 },
    ],
  })]);
  assert.deepEqual(
    parsed(text).map(({ versionstamp, last }) => [versionstamp, last]),
    [
      ["00000000000000010000", undefined],
      ["00000000000000010001", undefined],
      ["00000000000000010001", true],
    ],
  );
});

Deno.test("a row that changed nothing moves the position on, as a leap does", () => {
  const empty = {
    firstVersion: 900,
    version: 900,
    timeMs: TIME_MS,
    entries: concatBytes([]),
  };
  const { text, version } = textOf([rowOf({ 1: [{ key: ["a"] }] }), empty]);
  assert.equal(parsed(text).length, 1);
  assert.equal(version, 900);
});

Deno.test("events have an id only where a commit ends", () => {
  const { text } = textOf(
    [rowOf({ 5: [{ key: ["a"] }, { key: ["b"], value: v8("x\ny") }] })],
    { format: "events" },
  );
  assert.equal(
    text,
    'data: {"type":"delete","versionstamp":"00000000000000050000","index":0,"key":["a"],"committedAt":"2026-01-31T12:00:00.000Z"}\n\n' +
      'id: 00000000000000050000\ndata: {"type":"set","versionstamp":"00000000000000050000","index":1,"key":["b"],"value":"x\\ny","encoding":"json","committedAt":"2026-01-31T12:00:00.000Z","last":true}\n\n',
  );
});

Deno.test("a large commit comes in slices, filtered or not", () => {
  const row = rowOf({
    1: Array.from({ length: 5000 }, (_, i) => ({
      key: ["a", i],
      value: v8("some text of a usual length"),
    })),
  });
  const { text, slices } = textOf([row]);
  assert.equal(parsed(text).length, 5000);
  assert.ok(slices.length >= 10, `${slices.length} slices`);
  for (const slice of slices) assert.ok(slice.length < 64 * 1024);
  const filtered = textOf([row], { prefixes: [encodeKey(["b"])] });
  assert.equal(filtered.text, "");
  assert.ok(filtered.slices.length >= 10);
  assert.equal(filtered.version, 1);
});
