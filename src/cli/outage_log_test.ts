import assert from "node:assert/strict";
import { ManualClock } from "../common/manual_clock.ts";
import type { Silence } from "../object_store/counted.ts";
import {
  OutageLog,
  RUNNING_EVERY_MS,
  STARTING_EVERY_MS,
} from "./outage_log.ts";

Deno.test("while the object store is silent the log says so at intervals, and not when it answers", () => {
  const clock = new ManualClock(0);
  let silence: Silence | undefined;
  const told: unknown[] = [];
  const log = new OutageLog({
    store: { url: "s3://bucket/app", silence: () => silence },
    endpoint: "http://localhost:9000",
    clock,
    logger: { warn: (_message, fields) => told.push(fields) },
  });
  clock.advance(STARTING_EVERY_MS);
  assert.deepEqual(told, []);
  const waitingFor = "reading manifest.json";
  silence = { waitingFor, forMs: 100, lastError: undefined };
  clock.advance(STARTING_EVERY_MS);
  assert.deepEqual(told, []);
  silence = { waitingFor, forMs: 7000.4, lastError: "no such host" };
  clock.advance(STARTING_EVERY_MS);
  assert.deepEqual(told, [{
    waitingFor,
    store: "s3://bucket/app",
    endpoint: "http://localhost:9000",
    forMs: 7000,
    lastError: "no such host",
  }]);
  clock.advance(STARTING_EVERY_MS);
  assert.equal(told.length, 2);
  log.started();
  clock.advance(RUNNING_EVERY_MS - 1);
  assert.equal(told.length, 2);
  clock.advance(1);
  assert.equal(told.length, 3);
  log.stop();
  clock.advance(RUNNING_EVERY_MS);
  assert.equal(told.length, 3);
  assert.equal(clock.timers, 0);
});
