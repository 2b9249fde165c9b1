import assert from "node:assert/strict";
import { targetOf } from "./target.ts";

Deno.test("path and query come as they were sent", () => {
  const cases: [string, string | null, string, string][] = [
    ["http://localhost:4512/a", "localhost:4512", "/a", ""],
    ["http://localhost/a/../b//?x=1?y", "localhost", "/a/../b//", "x=1?y"],
    ["https://[::1]:8000/", "[::1]:8000", "/", ""],
    ["http://a.example/k", null, "/k", ""],
    ["http://a.example", null, "/", ""],
    ["http://a.example/k", "other.example", "/k", ""],
    ["http://a.example/*", "a.example", "/*", ""],
    ["http://localhost:4512/k", "", "/k", ""],
    ["http://x_y.internal/k", "x_y.internal", "/k", ""],
  ];
  for (const [url, host, path, query] of cases) {
    assert.deepEqual(targetOf(url, host), { path, query }, url);
  }
});

Deno.test("a Host that is none is refused, wherever it would lead", () => {
  const hosts = [
    "a/b",
    "a/-/metrics?",
    "a?b",
    "a#b",
    "a b",
    "a\\b",
    "user@a",
    "[::1",
    "[::1]x",
    "a:b",
    "a:123456",
    "é",
    "a".repeat(300),
  ];
  for (const host of hosts) {
    assert.equal(targetOf(`http://${host}/k1`, host), undefined, host);
  }
  // Also right after a good one, which is remembered.
  assert.ok(targetOf("http://a/k1", "a"));
  assert.equal(targetOf("http://a/b/k1", "a/b"), undefined);
});

Deno.test("so is an authority that is none, another scheme, and a query without a path", () => {
  const urls = [
    "http://user@a/k1",
    "http://a b/k1",
    "http://a.example?q=/a",
    "ftp://x/k",
    "abcdefgh://x/k",
    "x",
    "https:/x/k",
  ];
  for (const url of urls) {
    assert.equal(targetOf(url, "x"), undefined, url);
  }
});
