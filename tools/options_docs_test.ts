import assert from "node:assert/strict";
import { OPTIONS_PAGE, optionsPage } from "./options_docs.ts";

Deno.test("docs/options.md says what the option table says", async () => {
  assert.equal(
    await Deno.readTextFile(OPTIONS_PAGE),
    optionsPage(),
    "out of date: run `deno task docs`",
  );
});
