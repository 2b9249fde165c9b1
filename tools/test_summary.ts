/** Reads the counts out of what `deno test` prints. */

export interface TestCounts {
  passed: number;
  failed: number;
  skipped: number;
}

/**
 * The counts of the last summary line, such as
 * `ok | 12 passed (3 steps) | 0 failed | 1 ignored (2s)`; undefined where
 * there is none, because the run broke off.
 *
 * A test that lacks a real program passes and prints `SKIPPED: why`: it is
 * counted as skipped, not as passed.
 */
export function readTestCounts(output: string): TestCounts | undefined {
  // deno-lint-ignore no-control-regex -- terminals' colours are control characters
  const lines = output.replace(/\x1b\[[0-9;]*m/g, "").split(/\r?\n/);
  const skipped = lines.filter((line) => line.startsWith("SKIPPED:")).length;
  for (const line of lines.toReversed()) {
    const counts =
      /^(?:ok|FAILED) \| (\d+) passed(?: \([^)]*\))? \| (\d+) failed(?: \([^)]*\))?(.*)$/
        .exec(line);
    if (counts === null) continue;
    const ignored = /\| (\d+) ignored/.exec(counts[3]);
    return {
      passed: Math.max(0, Number(counts[1]) - skipped),
      failed: Number(counts[2]),
      skipped: skipped + Number(ignored?.[1] ?? 0),
    };
  }
  return undefined;
}

/** `N passed, N failed`, and what was skipped where something was. */
export function formatTestCounts(counts: TestCounts): string {
  const { passed, failed, skipped } = counts;
  return `${passed} passed, ${failed} failed` +
    (skipped === 0 ? "" : `, ${skipped} skipped`);
}
