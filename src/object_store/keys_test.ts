import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { compareBytes, utf8 } from "../common/bytes.ts";
import { seededRandom } from "../common/random.ts";
import { checkKey, compareKeys } from "./keys.ts";
import { pathOfKey, segmentOfName } from "./local_paths.ts";

Deno.test("keys are ordered as their UTF-8 bytes are", () => {
  const random = seededRandom(1);
  const alphabet = [
    "a",
    "b",
    "/",
    "-",
    "é",
    "\ud7ff",
    "\ue000",
    "\uffee",
    "🦕",
  ];
  const key = () =>
    Array.from({ length: random.below(5) }, () => alphabet[random.below(9)])
      .join("");
  for (let i = 0; i < 5000; i++) {
    const [a, b] = [key(), key()];
    assert.equal(
      Math.sign(compareKeys(a, b)),
      Math.sign(compareBytes(utf8(a), utf8(b))),
      JSON.stringify([a, b]),
    );
  }
});

Deno.test("a refused key is told with its reason, and cut short", () => {
  assert.throws(() => checkKey("a//b"), /"a\/\/b": it has an empty part/);
  assert.throws(() => checkKey("a/.."), /a part "\.\."/);
  assert.throws(() => checkKey("a\u0007"), /control characters/);
  assert.throws(() => checkKey("x".repeat(9000)), (error) => {
    assert.ok(error instanceof RangeError);
    assert.ok(error.message.length < 400);
    return true;
  });
  checkKey("x".repeat(512));
  checkKey("gen-1/logs/0001_000000000000000a.bin");
});

Deno.test("every key has a path of its own, which any file system takes", () => {
  const random = seededRandom(2);
  const alphabet = [".", "%", "2", "E", "a", "A", " ", "\\", ":", "é", "🦕"];
  const seen = new Map<string, string>();
  for (let i = 0; i < 5000; i++) {
    const key = Array.from(
      { length: 1 + random.below(4) },
      () => alphabet[random.below(alphabet.length)],
    ).join("");
    if (key === "." || key === "..") continue;
    const path = pathOfKey(key)!;
    assert.match(path, /^[^.\\:\x80-\uffff ][^\\:\x80-\uffff ]*$/);
    assert.ok(!path.endsWith("."));
    assert.equal(seen.get(path) ?? key, key);
    seen.set(path, key);
    assert.equal(segmentOfName(path), key);
  }
  assert.equal(pathOfKey("gen-1/logs/0001_0a.bin"), "gen-1/logs/0001_0a.bin");
  assert.equal(pathOfKey("é".repeat(43)), undefined);
  assert.equal(Buffer.byteLength(pathOfKey("é".repeat(42))!), 252);
  assert.equal(segmentOfName("a b"), undefined);
  assert.equal(segmentOfName("a%2eb"), undefined);
  assert.equal(segmentOfName("%ff"), undefined);
});
