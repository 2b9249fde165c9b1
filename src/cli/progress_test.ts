import assert from "node:assert/strict";
import { ManualClock } from "../common/manual_clock.ts";
import { formatBytes, Progress } from "./progress.ts";

function shown(isTerminal: boolean) {
  const texts: string[] = [];
  const clock = new ManualClock(0);
  const out = { isTerminal, write: (text: string) => void texts.push(text) };
  return { texts, clock, progress: new Progress("Restoring", out, clock) };
}

Deno.test("a bar on a terminal, and a free line when it ends", () => {
  const { texts, clock, progress } = shown(true);
  progress.update(1, 100);
  assert.deepEqual(texts, []);
  clock.advance(1000);
  progress.update(50, 100);
  progress.end();
  assert.match(
    texts[0],
    /^\r.*Restoring \[#{15}-{15}\] +50 %, 50 B of 100 B, 50 B\/s$/,
  );
  assert.match(texts[1], /^\r/);
});

Deno.test("plain lines in a log, every few seconds", () => {
  const { texts, clock, progress } = shown(false);
  for (let i = 0; i < 10; i++) {
    clock.advance(1000);
    progress.update(i * 1024 * 1024, 10 * 1024 * 1024);
  }
  progress.end();
  assert.equal(texts.length, 2);
  assert.match(texts[0], /^Restoring: +40 %, 4\.0 MiB of 10\.0 MiB, .*\/s\n$/);
});

Deno.test("sizes in the unit that people read", () => {
  assert.equal(formatBytes(0), "0 B");
  assert.equal(formatBytes(1536), "1.5 KiB");
  assert.equal(formatBytes(300 * 1024 ** 3), "300 GiB");
});
