/**
 * What a snapshot costs the requests beside it: the p99 of writes and reads at
 * a fixed rate, in turn without one and during one, of the same server.
 */
import { backedUp, placeOf, withMinio } from "../backed_up.ts";
import { median, type Plan, type Row } from "../row.ts";
import { ACCESS_TOKEN, REST_SECRET, start } from "../servers.ts";

/** A write and a read are sent in each: 400 requests/s. */
const TICK_MS = 5;
/** Of the keys that are written and read beside the snapshot. */
const KEYS = 1000;
const VALUE_BYTES = 60_000;
/** A value of that size for so many of the plan's keys: 120 MB of a million. */
const KEYS_PER_VALUE = 500;
const FILLED_AT_ONCE = 16;
/** The first snapshot of the database, and what else a start brings. */
const SETTLE_MS = 4000;

export const snapshotRow: Row = {
  id: "snapshot-p99",
  title: "p99 of a write beside a snapshot against without, 400 requests/s",
  unit: "ms",
  judged: "ratioAtMost",
  atLeast: 3,
  aim: 2,
  needs: [],
  measure: (plan) =>
    withMinio(async (minio) => {
      const backup = placeOf(minio, "snapshot");
      const starter = backedUp(backup, ["--durability", "local"]);
      await using server = await start(await starter(plan));
      return await measure(server.url, plan);
    }),
};

interface Latencies {
  writesMs: number[];
  readsMs: number[];
}

async function measure(url: URL, plan: Plan) {
  await fill(url, plan.manyKeys / KEYS_PER_VALUE);
  await pause(SETTLE_MS);
  await load(url, pause(plan.warmUpSeconds * 1000));
  const during: Latencies[] = [];
  const quiet: Latencies[] = [];
  for (let round = 0; round < plan.rounds; round++) {
    quiet.push(await load(url, pause(2 * plan.seconds * 1000)));
    during.push(await load(url, snapshot(url)));
  }
  const of = (all: Latencies[], which: keyof Latencies) =>
    all.map((latencies) => p99(latencies[which]));
  const reads = [during, quiet].map((all) => median(of(all, "readsMs")));
  return {
    ours: of(during, "writesMs"),
    peer: of(quiet, "writesMs"),
    note: `reads ${reads.map((ms) => ms.toFixed(1)).join(" / ")} ms (${
      (reads[0] / reads[1]).toFixed(2)
    }×)`,
  };
}

/** Sends at its rate, however late answers are, until the work is done. */
async function load(url: URL, work: Promise<void>): Promise<Latencies> {
  const latencies: Latencies = { writesMs: [], readsMs: [] };
  let isDone = false;
  work.finally(() => isDone = true).catch(() => {});
  const sent: Promise<void>[] = [];
  const startedMs = performance.now();
  for (let tick = 0; !isDone; tick++) {
    const waitMs = startedMs + tick * TICK_MS - performance.now();
    if (waitMs > 0) await pause(waitMs);
    const path = `/k/${tick % KEYS}`;
    sent.push(timed(latencies.writesMs, url, path, "v"));
    sent.push(timed(latencies.readsMs, url, path));
  }
  await Promise.all([work, ...sent]);
  return latencies;
}

async function timed(
  tookMs: number[],
  url: URL,
  path: string,
  value?: string,
): Promise<void> {
  const startedMs = performance.now();
  await rest(url, path, value);
  tookMs.push(performance.now() - startedMs);
}

/** @param value what is written there; not given: it is read */
async function rest(
  url: URL,
  path: string,
  value?: string | Uint8Array<ArrayBuffer>,
): Promise<void> {
  const answer = await fetch(new URL(path, url), {
    method: value === undefined ? "GET" : "POST",
    headers: { authorization: REST_SECRET },
    body: value,
  });
  await answer.body?.cancel();
  // The first reads may come before the first writes.
  if (answer.ok || value === undefined && answer.status === 404) return;
  throw new Error(`${path}: ${answer.status}`);
}

async function fill(url: URL, values: number): Promise<void> {
  const value = new Uint8Array(VALUE_BYTES);
  for (let i = 0; i < values; i += FILLED_AT_ONCE) {
    await Promise.all(
      Array.from({ length: FILLED_AT_ONCE }, (_, j) => {
        crypto.getRandomValues(value);
        return rest(url, `/large/${i + j}`, value.slice());
      }),
    );
  }
}

async function snapshot(url: URL): Promise<void> {
  const answer = await fetch(new URL("/-/backup/snapshot", url), {
    method: "POST",
    headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`The snapshot failed: ${text}`);
}

function p99(tookMs: number[]): number {
  const sorted = tookMs.toSorted((a, b) => a - b);
  return sorted[Math.floor(0.99 * sorted.length)];
}

function pause(forMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, forMs));
}
