/**
 * The backup: what it costs writes, what `--durability s3` reaches on a local
 * MinIO, how far it lags under load, and how long a restore takes beside
 * Litestream's. Nothing is bound to a core: MinIO needs one, too.
 */
import { DatabaseSync } from "node:sqlite";
import { startHttpProxy } from "../../test/support/http_proxy.ts";
import { type Litestream, litestream } from "../../test/support/litestream.ts";
import type { Minio } from "../../test/support/minio.ts";
import { program } from "../../test/support/programs.ts";
import { backupPermissions } from "../../test/support/server.ts";
import { backedUp, BUCKET, placeOf, withMinio } from "../backed_up.ts";
import { numberedKey, VALUE } from "../kv_client.ts";
import { wrk } from "../load.ts";
import { inTurn, type Plan, type Row } from "../row.ts";
import { ACCESS_TOKEN, ours, Skipped, start } from "../servers.ts";
import { metric, SegmentCost } from "../segment_cost.ts";
import { openSide, type Side } from "../side.ts";
import { durableWrite } from "../work.ts";

const CONNECTIONS = 64;
const SAMPLE_MS = 20;
/** An idle server's lease is over by then. */
const SETTLE_SECONDS = 15;
const IDLE_SECONDS = 60;

export const backupRows: Row[] = [
  {
    id: "backup-on",
    title: "durable write with backup against without, all cores",
    unit: "/s",
    judged: "ratio",
    atLeast: 0.85,
    aim: 0.95,
    needs: ["wrk"],
    measure: (plan) =>
      withMinio(async (minio) => {
        const backup = placeOf(minio, "on");
        let lag = 0;
        await using on = await openSide(
          backedUp(backup, []),
          { folder: `${plan.folder}/on` },
        );
        await using off = await openSide(ours, {
          folder: `${plan.folder}/off`,
        });
        const sides = await inTurn(plan, {
          ours: async (seconds) => {
            const perSecond = await writes(on, seconds, plan);
            lag = Math.max(lag, await maxLagSeconds(on));
            return perSecond;
          },
          peer: (seconds) => writes(off, seconds, plan),
        });
        return { ...sides, note: `largest lag ${lag.toFixed(2)} s` };
      }),
  },
  {
    id: "write-s3",
    title: "write in the bucket before its answer, 64 connections, all cores",
    unit: "/s",
    judged: "oursAtLeast",
    atLeast: 5000,
    aim: 8000,
    needs: ["wrk"],
    measure: (plan) =>
      withMinio(async (minio) => {
        const folder = plan.folder;
        await using s3 = await openSide(
          backedUp(placeOf(minio, "s3"), ["--durability", "s3"]),
          { folder: `${folder}/s3` },
        );
        await using local = await openSide(ours, { folder: `${folder}/local` });
        const cost = new SegmentCost(minio, s3, CONNECTIONS);
        const sides = await inTurn(plan, {
          ours: (seconds) => cost.of(() => writes(s3, seconds, plan), seconds),
          peer: (seconds) => writes(local, seconds, plan),
        });
        return { ...sides, note: await cost.note(plan.seconds) };
      }),
  },
  {
    id: "idle",
    title: "requests to the bucket while idle, against Litestream",
    unit: "/h",
    judged: "ours",
    atLeast: 0,
    aim: 0,
    needs: ["wrk"],
    measure: (plan) => withMinio((minio) => idleRequests(minio, plan)),
  },
  {
    id: "restore",
    title: "restore of 10^6 keys against `litestream restore`",
    unit: "ms",
    judged: "ratioAtMost",
    atLeast: 2,
    aim: 1,
    needs: [],
    measure: (plan) => withMinio((minio) => restores(minio, plan)),
  },
];

async function writes(
  side: Side,
  seconds: number,
  { folder }: Pick<Plan, "folder">,
): Promise<number> {
  const url = side.client.url;
  const { perSecond } = await side.honest(
    durableWrite,
    (requests) =>
      wrk({ url, seconds, connections: CONNECTIONS, folder }, requests),
  );
  return perSecond;
}

function maxLagSeconds(side: Side): Promise<number> {
  return metric(side, "denokv_backup_max_lag_seconds");
}

/** One after the other, through a proxy that counts, after some writes. */
async function idleRequests(minio: Minio, plan: Plan) {
  const peer = await program("litestream");
  if ("skipped" in peer) throw new Skipped(peer.skipped);
  const proxy = await startHttpProxy(minio.endpoint);
  let requests = 0;
  proxy.rule = () => {
    requests++;
    return undefined;
  };
  const perHour = async () => {
    await pause(SETTLE_SECONDS);
    requests = 0;
    await pause(IDLE_SECONDS);
    return requests * (3600 / IDLE_SECONDS);
  };
  try {
    const backup = { ...placeOf(minio, "idle"), endpoint: proxy.endpoint };
    const oursFolder = `${plan.folder}/ours`;
    let ourRequests: number;
    {
      await using server = await openSide(backedUp(backup, []), {
        folder: oursFolder,
      });
      await writes(server, plan.warmUpSeconds, plan);
      ourRequests = await perHour();
    }
    const replica = await litestream({
      path: peer.path,
      database: `${oursFolder}/denokv.sqlite`,
      minio: { ...minio, endpoint: proxy.endpoint },
      bucket: BUCKET,
      folder: plan.folder,
    });
    await using _replicating = replica.replicate();
    return { ours: [ourRequests], peer: [await perHour()] };
  } finally {
    await proxy.stop();
  }
}

function pause(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

/** Both restore the same rows from the same MinIO, in turn. */
async function restores(minio: Minio, plan: Plan) {
  const peer = await program("litestream");
  if ("skipped" in peer) throw new Skipped(peer.skipped);
  const { folder } = plan;
  const path = `${folder}/denokv.sqlite`;
  const backup = placeOf(minio, "restore");
  {
    // An empty file of the right schema, filled, and then backed up.
    await using _server = await start(await ours({ folder }));
  }
  fill(path, plan.manyKeys);
  {
    await using server = await start(
      await backedUp(backup, ["--backup-lease", "1s"])({ folder }),
    );
    for (;;) {
      // Which generation it has is told to the holder of its token alone.
      const answer = await fetch(new URL("/-/ready", server.url), {
        headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
      });
      const { generation } = (await answer.json()).backup;
      if (generation !== null) break;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  const output = `${folder}/restored.sqlite`;
  const replica = await litestream({
    path: peer.path,
    database: path,
    minio,
    bucket: BUCKET,
    folder,
  });
  const theirs = { program: peer.path, ...replica.restore(output) } as Run;
  await replicated(replica, theirs, output);

  const allowed = backupPermissions(backup);
  const root = `${import.meta.dirname}/../..`;
  const mine = {
    program: Deno.execPath(),
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--no-check",
      "--v8-flags=--max-semi-space-size=4",
      `--allow-net=${allowed.net.join(",")}`,
      `--allow-read=${folder}`,
      `--allow-write=${folder}`,
      `--allow-env=${allowed.env.join(",")}`,
      ...allowed.other,
      `${root}/main.ts`,
      "restore",
      "--from",
      backup.url,
      "--s3-endpoint",
      backup.endpoint!,
      "-o",
      output,
    ],
    env: { ...theirs.env, HOME: Deno.env.get("HOME")! },
  };
  const sides = { ours: [] as number[], peer: [] as number[] };
  const peak = { ours: 0, peer: 0 };
  for (let round = 0; round <= plan.rounds; round++) {
    for (const [side, run] of [["ours", mine], ["peer", theirs]] as const) {
      await Deno.remove(output).catch(() => {});
      const { tookMs, peakBytes } = await timed(run);
      if (countOf(output) !== plan.manyKeys) {
        throw new Error(`${side}: not whole`);
      }
      // The first one fills the caches.
      if (round > 0) sides[side].push(tookMs);
      peak[side] = Math.max(peak[side], peakBytes);
    }
  }
  const mb = (bytes: number) => Math.round(bytes / 1e6);
  return {
    ...sides,
    note: `at most ${mb(peak.ours)} / ${mb(peak.peer)} MB resident`,
  };
}

interface Run {
  program: string;
  args: string[];
  env: Record<string, string>;
}

async function timed(run: Run): Promise<{ tookMs: number; peakBytes: number }> {
  const startedMs = performance.now();
  const child = new Deno.Command(run.program, {
    args: run.args,
    clearEnv: true,
    env: run.env,
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const errors = new Response(child.stderr).text();
  let isRunning = true;
  let peakBytes = 0;
  const sampling = (async () => {
    while (isRunning) {
      const { stdout } = await new Deno.Command("cat", {
        args: [`/proc/${child.pid}/status`],
        stderr: "null",
      }).output();
      const peak = /VmHWM:\s*(\d+) kB/.exec(new TextDecoder().decode(stdout));
      if (peak) peakBytes = Math.max(peakBytes, Number(peak[1]) * 1024);
      await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
    }
  })();
  const { success } = await child.status;
  const tookMs = performance.now() - startedMs;
  isRunning = false;
  await sampling;
  if (!success) throw new Error(await errors);
  return { tookMs, peakBytes };
}

function fill(path: string, keys: number): void {
  const db = new DatabaseSync(path);
  const insert = db.prepare(
    "insert into kv (k, v, v_encoding, version, seq, expiration_ms) values (?, ?, 1, ?, 0, -1)",
  );
  db.exec("begin");
  for (let i = 0; i < keys; i++) {
    const value = crypto.getRandomValues(new Uint8Array(VALUE.length));
    insert.run(numberedKey(i), value, i + 10);
  }
  db.prepare("update data_version set version = ?").run(keys + 100);
  db.exec("commit; pragma wal_checkpoint(truncate)");
  db.close();
}

function countOf(path: string): number {
  const db = new DatabaseSync(path);
  const { n } = db.prepare("select count(*) as n from kv").get()!;
  db.close();
  return Number(n);
}

/** Runs Litestream until what it has restores. */
async function replicated(
  replica: Litestream,
  restore: Run,
  output: string,
): Promise<void> {
  await using _replicating = replica.replicate();
  for (let attempt = 0;; attempt++) {
    try {
      await timed(restore);
      return;
    } catch (error) {
      if (attempt === 60) throw error;
    } finally {
      await Deno.remove(output).catch(() => {});
    }
    await pause(1);
  }
}
