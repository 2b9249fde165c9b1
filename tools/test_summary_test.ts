import assert from "node:assert/strict";
import { formatTestCounts, readTestCounts } from "./test_summary.ts";

Deno.test("counts are read from the summary line, colours or not", () => {
  assert.deepEqual(
    readTestCounts("a ... ok\n\nok | 12 passed | 0 failed (2s)\n"),
    {
      passed: 12,
      failed: 0,
      skipped: 0,
    },
  );
  assert.deepEqual(
    readTestCounts(
      "\x1b[0m\x1b[31mFAILED\x1b[0m | 9 passed (3 steps) | 2 failed (1 step) | 1 ignored | 4 filtered out \x1b[0m\x1b[38;5;245m(2m3s)\x1b[0m\nerror: Test failed\n",
    ),
    { passed: 9, failed: 2, skipped: 1 },
  );
});

Deno.test("a test that could not run counts as skipped, not as passed", () => {
  assert.deepEqual(
    readTestCounts(
      "b ...\n------- output -------\nSKIPPED: there is no C compiler\n----- output end -----\nb ... ok\n\nok | 3 passed | 0 failed (1s)\n",
    ),
    { passed: 2, failed: 0, skipped: 1 },
  );
});

Deno.test("a run that broke off has no counts", () => {
  assert.equal(readTestCounts("error: Type checking failed.\n"), undefined);
  assert.equal(readTestCounts(""), undefined);
});

Deno.test("the line that the gate ends with", () => {
  assert.equal(
    formatTestCounts({ passed: 12, failed: 0, skipped: 0 }),
    "12 passed, 0 failed",
  );
  assert.equal(
    formatTestCounts({ passed: 12, failed: 1, skipped: 2 }),
    "12 passed, 1 failed, 2 skipped",
  );
});
