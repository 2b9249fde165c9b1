/**
 * Live replicas: how far behind their primary they are, what they cost its
 * writes, and how fast one that was away comes back.
 */
import { fill } from "../kv_client.ts";
import { wrk } from "../load.ts";
import {
  inTurn,
  LOAD_CPU,
  type Measured,
  median,
  type Plan,
  type Row,
  SERVER_CPU,
} from "../row.ts";
import {
  ACCESS_TOKEN,
  type Launch,
  ours,
  type Server,
  start,
  type Starter,
} from "../servers.ts";
import { openSide, type Side } from "../side.ts";
import { durableWrite } from "../work.ts";

const CONNECTIONS = 64;
/** Writers that share the rate of the lag's row. */
const WRITERS = 32;
const WRITES_PER_SECOND = 5000;
/** Between two writes that are looked for on the replica. */
const PROBE_MS = 20;
const PROBES = 400;
/** Written while a replica is away: less than the log keeps by itself. */
const AWAY_KEYS = 300_000;

export const replicaRows: Row[] = [
  {
    id: "replica-lag",
    title: "live replica's lag at 5,000 writes/s, p50 (note: p99)",
    unit: "ms",
    judged: "ours",
    atLeast: 10,
    aim: 5,
    needs: [],
    measure: lag,
  },
  ...[1, 3].map((count): Row => ({
    id: `replica-writes-${count}`,
    title: `durable write with ${count} live ${
      count === 1 ? "replica" : "replicas"
    } against none, one core`,
    unit: "/s",
    judged: "ratio",
    atLeast: count === 1 ? 0.9 : 0.85,
    aim: 0.95,
    needs: ["wrk", "taskset"],
    measure: (plan) => writes(plan, count),
  })),
  {
    id: "replica-catch-up",
    title: "mutations that a replica applies when it was away",
    unit: "/s",
    judged: "oursAtLeast",
    atLeast: 50_000,
    aim: 100_000,
    needs: [],
    measure: catchUp,
  },
];

function replicaOf(primary: URL): Starter {
  return async (options) => {
    const launch: Launch = await ours(options);
    const command = launch.command.map((word) =>
      word.startsWith("--allow-net=") ? `${word},${primary.host}` : word
    );
    return { ...launch, command: [...command, "--replica-of", primary.origin] };
  };
}

async function startReplica(
  primary: URL,
  folder: string,
  cpu?: number,
): Promise<Server> {
  const launch = await replicaOf(primary)({ folder, cpu });
  const command = cpu === undefined
    ? launch.command
    : ["nice", "-n", "19", ...launch.command];
  const server = await start({ ...launch, command });
  await hasVersion(server.url, await write(primary, "begin"));
  return server;
}

async function write(url: URL, key: string): Promise<string> {
  const answer = await fetch(new URL(`/${key}`, url), {
    method: "PUT",
    headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
    body: "x".repeat(100),
  });
  if (answer.status !== 200) throw new Error(`answered ${answer.status}`);
  return (await answer.json()).versionstamp;
}

/** Resolves when a read there shows the version. */
async function hasVersion(url: URL, versionstamp: string): Promise<void> {
  for (;;) {
    const answer = await fetch(new URL("/begin", url), {
      headers: { "x-denokv-min-versionstamp": versionstamp },
    });
    await answer.body?.cancel();
    if (answer.status !== 503) return;
  }
}

async function lag(plan: Plan): Promise<Measured> {
  await using primary = await start(
    await ours({ folder: `${plan.folder}/primary` }),
  );
  await using replica = await startReplica(
    primary.url,
    `${plan.folder}/replica`,
  );
  let isRunning = true;
  let written = 0;
  const startedMs = performance.now();
  const writers = Array.from({ length: WRITERS }, async (_, i) => {
    while (isRunning) {
      // Each keeps to its share of the rate, whatever the one before took.
      const dueMs = startedMs +
        (written / WRITES_PER_SECOND) * 1000 - performance.now();
      written++;
      if (dueMs > 1) await pause(dueMs);
      await write(primary.url, `k${i}`);
    }
  });
  await pause(plan.warmUpSeconds * 1000);
  const lags: number[] = [];
  const writeMs: number[] = [];
  for (let i = 0; i < PROBES; i++) {
    await pause(PROBE_MS);
    const sentMs = performance.now();
    const versionstamp = await write(primary.url, "begin");
    const ackedMs = performance.now();
    writeMs.push(ackedMs - sentMs);
    await hasVersion(replica.url, versionstamp);
    lags.push(performance.now() - ackedMs);
  }
  const perSecond = written / ((performance.now() - startedMs) / 1000);
  isRunning = false;
  await Promise.all(writers);
  lags.sort((a, b) => a - b);
  const at = (part: number) => lags[Math.floor(lags.length * part)];
  return {
    ours: [at(0.5)],
    // What the same writes took at the primary.
    peer: [median(writeMs)],
    note: `p99 ${at(0.99).toFixed(1)} ms, the read of it included; ${
      Math.round(perSecond)
    } writes/s`,
  };
}

async function writes(plan: Plan, count: number): Promise<Measured> {
  const cpu = SERVER_CPU;
  await using followed = await openSide(ours, {
    folder: `${plan.folder}/followed`,
    cpu,
  });
  await using alone = await openSide(ours, {
    folder: `${plan.folder}/alone`,
    cpu,
  });
  await using replicas = new AsyncDisposableStack();
  const urls: URL[] = [];
  for (let i = 0; i < count; i++) {
    // On the load's core, and behind it: they are elsewhere in life.
    const replica = await startReplica(
      followed.client.url,
      await elsewhere(replicas, `${plan.folder}/replica${i}`),
      LOAD_CPU,
    );
    replicas.use(replica);
    urls.push(replica.url);
  }
  const rate = (side: Side) => async (seconds: number) => {
    const { perSecond } = await side.honest(
      durableWrite,
      (requests) =>
        wrk({
          url: side.client.url,
          seconds,
          connections: CONNECTIONS,
          folder: plan.folder,
          cpu: LOAD_CPU,
        }, requests),
    );
    // The other side's turn is not the replicas' as well.
    const last = await write(followed.client.url, "begin");
    for (const url of urls) await hasVersion(url, last);
    return perSecond;
  };
  return await inTurn(plan, { ours: rate(followed), peer: rate(alone) });
}

/**
 * A replica is on another machine in life: its writes do not wait for the disk
 * that its primary syncs. Here they are in memory, where there is such a folder.
 */
async function elsewhere(
  stack: AsyncDisposableStack,
  otherwise: string,
): Promise<string> {
  let folder: string;
  try {
    folder = await Deno.makeTempDir({ dir: "/dev/shm", prefix: "denokv-" });
  } catch {
    return otherwise;
  }
  stack.defer(() => Deno.remove(folder, { recursive: true }));
  return folder;
}

async function catchUp(plan: Plan): Promise<Measured> {
  await using primary = await openSide(ours, {
    folder: `${plan.folder}/primary`,
  });
  const { url } = primary.client;
  const folder = `${plan.folder}/replica`;
  const rates: number[] = [];
  const written: number[] = [];
  for (let round = 0; round < plan.rounds; round++) {
    {
      await using _there = await startReplica(url, folder);
    }
    const writtenMs = performance.now();
    await fill(primary.client, AWAY_KEYS);
    const perMs = AWAY_KEYS / (performance.now() - writtenMs);
    // What they were written at.
    written.push(perMs * 1000);
    const last = await write(url, "begin");
    const launch = await replicaOf(url)({ folder });
    // With the launch of the process: it follows before it can be asked.
    const startedMs = performance.now();
    await using replica = await start(launch);
    await hasVersion(replica.url, last);
    rates.push(AWAY_KEYS / ((performance.now() - startedMs) / 1000));
  }
  return { ours: rates, peer: written };
}

function pause(delayMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delayMs));
}
