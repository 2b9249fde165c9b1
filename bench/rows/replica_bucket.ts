/**
 * A replica that follows a bucket: how long after it was acknowledged a write
 * is read there, with the default intervals of primary and replica. The Rust
 * server's replicas look every 10 to 15 s.
 */
import { type Measured, median, type Plan, type Row } from "../row.ts";
import { ACCESS_TOKEN, start } from "../servers.ts";
import { backedUp, placeOf, reaching, withMinio } from "../backed_up.ts";

const PROBES = 15;
/** Writes fall anywhere between two looks. */
const SPREAD_MS = 1500;
const LOOK_MS = 10;
const LIMIT_MS = 60_000;

export const bucketReplicaRows: Row[] = [
  {
    id: "replica-bucket-lag",
    title: "bucket replica's lag at the default intervals, the longest of 15",
    unit: "ms",
    judged: "ours",
    atLeast: 2500,
    aim: 2000,
    needs: [],
    measure: (plan) =>
      withMinio((minio) => lag(placeOf(minio, "replica"), plan)),
  },
];

async function lag(
  place: ReturnType<typeof placeOf>,
  { folder }: Plan,
): Promise<Measured> {
  await using primary = await start(
    await backedUp(place, [])({ folder: `${folder}/primary` }),
  );
  await put(primary.url, "first");
  const args = ["--replica-from", place.url, "--s3-endpoint", place.endpoint!];
  await using replica = await start(
    await reaching(place, args)({ folder: `${folder}/replica` }),
  );
  const lags: number[] = [];
  const writeMs: number[] = [];
  for (let i = 0; i <= PROBES; i++) {
    await pause(Math.random() * SPREAD_MS);
    const sentMs = performance.now();
    await put(primary.url, `probe ${i}`);
    const ackedMs = performance.now();
    writeMs.push(ackedMs - sentMs);
    await isThere(replica.url, `probe ${i}`);
    // The first one waits for the first snapshot, too.
    if (i > 0) lags.push(performance.now() - ackedMs);
  }
  lags.sort((a, b) => a - b);
  const longest = lags.at(-1)!;
  return {
    ours: [longest],
    // What the same writes took at the primary.
    peer: [median(writeMs)],
    note: `p50 ${Math.round(lags[Math.floor(PROBES / 2)])} ms`,
  };
}

async function put(url: URL, key: string): Promise<void> {
  const answer = await fetch(new URL(`/${encodeURIComponent(key)}`, url), {
    method: "PUT",
    headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
    body: "x",
  });
  await answer.body?.cancel();
  if (answer.status !== 200) throw new Error(`answered ${answer.status}`);
}

async function isThere(url: URL, key: string): Promise<void> {
  const untilMs = performance.now() + LIMIT_MS;
  while (performance.now() < untilMs) {
    const answer = await fetch(new URL(`/${encodeURIComponent(key)}`, url), {
      headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
    });
    await answer.body?.cancel();
    if (answer.status === 200) return;
    await pause(LOOK_MS);
  }
  throw new Error(`${key} did not come within ${LIMIT_MS / 1000} s`);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
