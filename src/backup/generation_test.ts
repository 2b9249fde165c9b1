import assert from "node:assert/strict";
import { goneOver, isOutgrown } from "./generation.ts";
import type { Generation, Manifest } from "./manifest.ts";

const MIB = 1024 * 1024;

Deno.test("a log has outgrown its snapshot in bytes, from some size on", () => {
  const log = (sizeBytes: number) => ({ sizeBytes, segments: 1 });
  assert.equal(isOutgrown(log(64 * MIB), 0), false);
  assert.equal(isOutgrown(log(64 * MIB + 1), 0), true);
  assert.equal(isOutgrown(log(500 * MIB), 500 * MIB), false);
  assert.equal(isOutgrown(log(500 * MIB + 1), 500 * MIB), true);
});

Deno.test("a log of many small segments is outgrown by their number", () => {
  const log = (segments: number) => ({ sizeBytes: 300 * segments, segments });
  assert.equal(isOutgrown(log(4096), 0), false);
  assert.equal(isOutgrown(log(4097), 0), true);
  // A restore of 1 GiB takes long anyway.
  assert.equal(isOutgrown(log(65_536), 1024 * MIB), false);
  assert.equal(isOutgrown(log(65_537), 1024 * MIB), true);
});

Deno.test("of two snapshots of one version, the second has the time of the first", () => {
  const at = (
    name: string,
    snapshotVersion: number,
    snapshotTimeMs: number,
  ) => ({
    name,
    startedMs: snapshotTimeMs,
    endedMs: null,
    snapshotVersion,
    snapshotTimeMs,
  });
  const before = {
    generation: "a",
    generations: [at("a", 0, 100)],
    making: ["b"],
    seals: [],
  } as unknown as Manifest;
  const timeOf = (next: Generation) =>
    goneOver(before, next, undefined, 300).generations.at(-1)!.snapshotTimeMs;
  assert.equal(timeOf(at("b", 0, 200)), 100);
  assert.equal(timeOf(at("b", 1, 200)), 200);
});
