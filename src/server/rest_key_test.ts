import assert from "node:assert/strict";
import { InvalidRequestError, TooLargeError } from "../common/errors.ts";
import { decodeKey, encodeKey } from "../protocol/key.ts";
import { keyOfPath } from "./rest_key.ts";

Deno.test("each segment of a path is a string part", () => {
  const cases: [path: string, key: string[]][] = [
    ["/foo", ["foo"]],
    ["/users/alice", ["users", "alice"]],
    ["/a/", ["a", ""]],
    ["//", ["", ""]],
    ["//a", ["", "a"]],
    ["/a//b", ["a", "", "b"]],
    ["/.", ["."]],
    ["/a/../b/./c", ["a", "..", "b", ".", "c"]],
    ["/%2e%2E/x", ["..", "x"]],
    ["/%2D", ["-"]],
    ["/%2D/health", ["-", "health"]],
    ["/%762", ["v2"]],
    ["/a%2Fb", ["a/b"]],
    ["/a%3Fb", ["a?b"]],
    ["/a%25", ["a%"]],
    ["/a+b", ["a+b"]],
    ["/%00/%01", ["\0", "\x01"]],
    ["/%C3%BC", ["ü"]],
    ["/ü", ["ü"]],
    ["/%F0%9F%98%80", ["😀"]],
    ["/%EF%BB%BFa", ["\ufeffa"]],
    ["/a#b;c=d&e", ["a#b;c=d&e"]],
    ['/"<>\\^`{|}', ['"<>\\^`{|}']],
  ];
  for (const [path, key] of cases) {
    assert.deepEqual(keyOfPath(path), encodeKey(key), path);
    assert.deepEqual(decodeKey(keyOfPath(path)), key, path);
  }
});

Deno.test("a path that names no key is refused", () => {
  const paths = ["", "/", "foo", "*", "/%", "/%4", "/%zz", "/a%2", "/%FF"];
  paths.push("/%C3", "/%C3%28", "/%ED%A0%80", "/%C0%80", "/%F4%90%80%80");
  for (const path of paths) {
    assert.throws(() => keyOfPath(path), InvalidRequestError, path);
  }
});

Deno.test("a key is at most 2048 bytes long, counted as it is encoded", () => {
  assert.equal(keyOfPath("/" + "x".repeat(2046)).length, 2048);
  assert.throws(() => keyOfPath("/" + "x".repeat(2047)), TooLargeError);
  // A zero takes two bytes, an empty part two.
  assert.throws(() => keyOfPath("/" + "%00".repeat(1024)), TooLargeError);
  assert.throws(() => keyOfPath("/".repeat(1025)), TooLargeError);
  assert.equal(keyOfPath("/".repeat(1024)).length, 2048);
});
