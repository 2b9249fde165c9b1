import assert from "node:assert/strict";
import { unknownOutcome, withCause } from "./fetch_error.ts";

Deno.test("where nothing listens, that is said, and where", async () => {
  const closed = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = closed.addr as Deno.NetAddr;
  closed.close();
  const error = await fetch(`http://127.0.0.1:${port}/bucket/key?x=y`).then(
    () => undefined,
    (error) => error,
  );
  assert.equal(withCause(error), `nothing listens at http://127.0.0.1:${port}`);
  assert.equal(
    withCause(new TypeError("failed", { cause: new Error("why") })),
    "failed: why",
  );
  assert.equal(withCause("odd"), "odd");
});

Deno.test("only of what changes something it is said that it may have been done", () => {
  for (const what of ["Reading x", "Listing x", "Looking at x"]) {
    assert.equal(unknownOutcome(what), ". It can be tried again.");
  }
  for (const what of ["Writing x", "Deleting x", "Beginning to write x"]) {
    assert.match(unknownOutcome(what), /may have carried it out, or may still/);
  }
});
