import assert from "node:assert/strict";
import { createLogger, type LogFormat } from "./log.ts";
import { ManualClock } from "./manual_clock.ts";

function logged(format: LogFormat) {
  const lines: string[] = [];
  const logger = createLogger({
    format,
    level: "info",
    clock: new ManualClock(0),
    write: (line) => lines.push(line),
  });
  return { logger, lines };
}

/** An escape sequence of one character, line ends, a direction, a tag. */
const HOSTILE = '/a\u009b31m\u001b[2J\u0085\u2028\n\u202e\u{e0041}"b';

Deno.test("what is logged stays one line, and moves no terminal", () => {
  for (const format of ["text", "json"] as const) {
    const { logger, lines } = logged(format);
    logger.info(`met ${HOSTILE}`, { path: HOSTILE });
    assert.equal(lines.length, 1);
    assert.doesNotMatch(lines[0], /[\p{Cc}\p{Cf}\u2028\u2029]/u, format);
  }
});

Deno.test("JSON says what was logged, whatever it was", () => {
  const { logger, lines } = logged("json");
  logger.warn(HOSTILE, { path: HOSTILE, status: 401, isLate: true });
  assert.deepEqual(JSON.parse(lines[0]), {
    time: "1970-01-01T00:00:00.000Z",
    level: "warn",
    message: HOSTILE,
    path: HOSTILE,
    status: 401,
    isLate: true,
  });
});

Deno.test("text says plain values as they are, others in quotes", () => {
  const { logger, lines } = logged("text");
  logger.info("A key.", { path: "/a/b", name: "a b", absent: undefined });
  assert.deepEqual(lines, [
    '1970-01-01T00:00:00.000Z INFO  A key. path=/a/b name="a b"',
  ]);
});
