import assert from "node:assert/strict";
import { UsageError } from "../common/errors.ts";
import { formatAddress, loopbackOf, parseAddress } from "./address.ts";

Deno.test("an address is read and written back", () => {
  for (
    const [text, hostname, port] of [
      ["127.0.0.1:4512", "127.0.0.1", 4512],
      ["localhost:0", "localhost", 0],
      ["[::1]:65535", "::1", 65535],
      ["kv.example.com:80", "kv.example.com", 80],
    ] as const
  ) {
    assert.deepEqual(parseAddress(text), { hostname, port });
    assert.equal(formatAddress(parseAddress(text)), text);
  }
});

Deno.test("what is no address is refused with a sentence", () => {
  for (
    const text of [
      "",
      "4512",
      ":4512",
      "localhost",
      "localhost:",
      "localhost:65536",
      "localhost:x",
      "::1:4512",
      "http://localhost:4512",
      "a b:1",
      "[::1]",
    ]
  ) {
    assert.throws(() => parseAddress(text), (error: unknown) => {
      assert(error instanceof UsageError, text);
      assert.match(error.message, /such as 127\.0\.0\.1:4512/);
      return true;
    });
  }
});

Deno.test("a wildcard is reached over the loopback address", () => {
  const reached = (text: string) =>
    formatAddress(loopbackOf(parseAddress(text)));
  assert.equal(reached("0.0.0.0:1"), "127.0.0.1:1");
  assert.equal(reached("[::]:1"), "[::1]:1");
  assert.equal(reached("10.0.0.1:1"), "10.0.0.1:1");
});
