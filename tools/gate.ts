/**
 * The one gate, `deno task ok`: format, lint (with the laws of the house),
 * types, import cycles, tests (with the generated docs). Runs every step also
 * where an earlier one failed, so that one run tells everything, and ends with
 * one line: `N passed, N failed`. A step that fails counts as one failure.
 */
import {
  formatTestCounts,
  readTestCounts,
  type TestCounts,
} from "./test_summary.ts";

interface StepResult {
  success: boolean;
  /** The tool itself crashed, and said nothing about the project. */
  hasCrashed: boolean;
  /** Both streams, as they came. */
  output: string;
}

const STEPS: readonly { name: string; args: readonly string[] }[] = [
  { name: "format", args: ["fmt", "--check"] },
  { name: "lint", args: ["lint"] },
  { name: "types", args: ["check"] },
  { name: "cycles", args: ["task", "--quiet", "cycles"] },
];
const TESTS = { name: "tests", args: ["task", "--quiet", "test"] };

/** Runs this very Deno, shows what it prints and keeps it. */
async function runDeno(args: readonly string[]): Promise<StepResult> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: new URL("../", import.meta.url),
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const [stdout, stderr, { success, signal }] = await Promise.all([
    show(child.stdout, Deno.stdout),
    show(child.stderr, Deno.stderr),
    child.status,
  ]);
  return {
    success,
    hasCrashed: signal === "SIGSEGV",
    output: stdout + stderr,
  };
}

async function show(
  from: ReadableStream<Uint8Array>,
  to: { writeSync(bytes: Uint8Array): number },
): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of from) {
    for (let at = 0; at < chunk.length;) {
      at += to.writeSync(chunk.subarray(at));
    }
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

async function timed(step: { name: string; args: readonly string[] }) {
  console.log(`\n== ${step.name}: deno ${step.args.join(" ")}`);
  const startedMs = performance.now();
  let result = await runDeno(step.args);
  // Seen once in some hundred runs of `deno lint` with a plugin, at its end.
  if (result.hasCrashed && step.name !== TESTS.name) {
    console.log("The tool crashed; it is run once more.");
    result = await runDeno(step.args);
  }
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  const verdict = result.success ? "ok" : "FAILED";
  return { ...result, line: `${step.name.padEnd(8)}${verdict} (${seconds} s)` };
}

const lines: string[] = [];
let failedSteps = 0;
for (const step of STEPS) {
  const { success, line } = await timed(step);
  lines.push(line);
  if (!success) failedSteps++;
}
const tests = await timed(TESTS);
lines.push(tests.line);
const counts: TestCounts = readTestCounts(tests.output) ??
  { passed: 0, failed: 0, skipped: 0 };
// A run that broke off, or found nothing to run, is a failure of its own.
if (counts.failed === 0 && (!tests.success || counts.passed === 0)) {
  counts.failed = 1;
}
counts.failed += failedSteps;
console.log(`\n${lines.join("\n")}\n\n${formatTestCounts(counts)}`);
Deno.exit(counts.failed === 0 ? 0 : 1);
