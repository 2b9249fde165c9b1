import assert from "node:assert/strict";
import { closest, editDistance } from "./suggest.ts";

Deno.test("edit distance counts letters added, dropped and replaced", () => {
  assert.equal(editDistance("", "abc"), 3);
  assert.equal(editDistance("abc", "abc"), 0);
  assert.equal(editDistance("serve", "srve"), 1);
  assert.equal(editDistance("kitten", "sitting"), 3);
});

Deno.test("the closest word is suggested, and none where none is close", () => {
  const words = ["serve", "start", "health"];
  assert.equal(closest("sevre", words), undefined);
  assert.equal(closest("serv", words), "serve");
  assert.equal(closest("servee", words), "serve");
  assert.equal(closest("hea", words), "health");
  assert.equal(closest("stop", words), undefined);
  assert.equal(closest("", words), undefined);
});
