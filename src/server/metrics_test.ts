import { systemClock } from "../common/clock.ts";
import { Budget } from "../common/budget.ts";
import assert from "node:assert/strict";
import type { BackupReport, Store, StoreStats } from "../store/store.ts";
import { RequestMetrics, type ServerCounts } from "./metrics.ts";

const HISTOGRAM = { bounds: [1, 2], counts: [0, 0, 0], sum: 0 };

function stats(version: number): StoreStats {
  return {
    durableVersion: version,
    commits: version,
    atomicWrites: { committed: version, checkFailed: 0, refused: 0 },
    groupSizes: HISTOGRAM,
    syncSeconds: HISTOGRAM,
    syncFailures: 0,
    commitFailures: 0,
    syncPendingSeconds: 0,
    waitingWrites: 0,
    waitingBytes: 0,
    refusedWrites: 0,
    unreadableRows: 0,
    reserveBytes: 0,
    checkpoints: 0,
    watches: 0,
    databaseBytes: 4096,
    walBytes: 0,
    expiryBacklog: 0,
    expiredDeleted: 0,
    log: { floorVersion: 0, headVersion: version, sizeBytes: 0 },
  };
}

function report(version: number): BackupReport {
  return {
    durability: "local",
    state: "Active",
    epoch: version,
    generation: `generation-${version}`,
    localVersion: version,
    bucketVersion: version,
    lagMs: 0,
    maxLagMs: 0,
    lagBytes: 0,
    segments: version,
    shippedBytes: version,
    clockSkewMs: -1500,
    failures: 0,
    lastError: `failed at ${version}`,
    lastErrorKind: "other",
    verifiedAgeMs: version,
    verifyFailure: `differs at ${version}`,
    verifyFailureKind: "damaged",
  };
}

/** A server at which nothing is under way. */
function counts(): ServerCounts {
  const budget = new Budget({ clock: systemClock, limitBytes: 1 });
  return {
    answers: { budget, largeReads: budget, frames: budget, cut: 0 },
    bodies: { count: 0, heldBytes: 0, shed: 0 },
    changes: { count: 0, budget, sentBytes: 0 },
    denials: { missing: 0, wrong: 0 },
    listener: { acceptFailures: 0, isAccepting: true },
    logs: { count: 0, sentBytes: 0 },
  };
}

/** Names with their labels: each is a time series in whatever scrapes it. */
function seriesAt(metrics: RequestMetrics, version: number): string[] {
  const store = { stats: () => stats(version) } as Store;
  return metrics.render(store, "1.2.3", true, counts(), {
    report: () => report(version),
  })
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => line.slice(0, line.lastIndexOf(" ")));
}

Deno.test("no label holds what changes with every write: the series stay the same", () => {
  const metrics = new RequestMetrics();
  metrics.observe("rest", 200, 0.001);
  const before = seriesAt(metrics, 7);
  assert.ok(before.includes("denokv_durable_version"), before.join("\n"));
  metrics.observe("rest", 201, 0.002);
  assert.deepEqual(seriesAt(metrics, 123_456_789), before);
});
