import assert from "node:assert/strict";
import { encodeKey } from "../protocol/key.ts";
import { changeQuery } from "./change_query.ts";

const EVENTS = { accept: "text/event-stream" };

const query = (raw: string, headers: Record<string, string> = {}) =>
  changeQuery(raw, new Headers(headers));

Deno.test("what a feed is asked for, and what it is otherwise", () => {
  assert.deepEqual(query(""), {
    from: "now",
    follows: false,
    format: "lines",
    prefixes: [],
  });
  assert.deepEqual(query("", EVENTS), {
    from: "now",
    follows: true,
    format: "events",
    prefixes: [],
  });
  assert.equal(query("follow").follows, true);
  assert.equal(query("follow=false", EVENTS).follows, false);
  assert.equal(query("from=0").from, "oldest");
  assert.equal(query("from=oldest").from, "oldest");
  assert.equal(query("from=000000000000001f0000").from, 31);
});

Deno.test("a browser's last event is where it resumes, whatever its address says", () => {
  const last = { ...EVENTS, "last-event-id": "00000000000000ff0000" };
  assert.equal(query("from=oldest", last).from, 255);
  assert.equal(query("from=oldest", { "last-event-id": "" }).from, "oldest");
  assert.throws(
    () => query("", { "last-event-id": "x" }),
    /Last-Event-ID has to be a versionstamp/,
  );
});

Deno.test("prefixes are keys of REST, encoded as any parameter", () => {
  const asked = new URLSearchParams([
    ["prefix", "/users/alice"],
    ["prefix", "/a%2Fb/é c"],
  ]);
  assert.deepEqual(query(String(asked)).prefixes, [
    encodeKey(["users", "alice"]),
    encodeKey(["a/b", "é c"]),
  ]);
  assert.deepEqual(query("prefix=/users/alice").prefixes, [
    encodeKey(["users", "alice"]),
  ]);
});

Deno.test("a query that cannot be meant is refused with a sentence", () => {
  for (
    const [raw, message] of [
      ["from=12", /from has to be a versionstamp/],
      ["from=00000000000000000000&from=now", /given twice/],
      ["follow=perhaps", /follow has to be true or false/],
      ["prefix=users", /prefix=\/users\/alice/],
      ["prefix=/users/", /leave it out/],
      ["prefix=/%25FF", /what they say is UTF-8/],
      ["since=now", /takes the parameters from, prefix and follow/],
      ["prefix=/a&".repeat(11), /at most 10 prefixes/],
    ] as const
  ) assert.throws(() => query(raw), message, raw);
});
