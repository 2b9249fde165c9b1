import assert from "node:assert/strict";
import { durationMs, formatDuration } from "./duration.ts";

Deno.test("times are read and written in the units that people use", () => {
  const pairs = [["500ms", 500], ["10s", 10_000], ["5m", 300_000], [
    "12h",
    43_200_000,
  ], ["7d", 604_800_000]] as const;
  for (const [text, valueMs] of pairs) {
    assert.equal(durationMs(text), valueMs);
    assert.equal(formatDuration(valueMs), text);
  }
  assert.equal(formatDuration(1500), "1500ms");
  for (const text of ["", "5", "1.5s", "-1s", "1 s", "1w", "1e3s"]) {
    assert.equal(durationMs(text), undefined, text);
  }
});
