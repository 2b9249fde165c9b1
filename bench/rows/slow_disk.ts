/**
 * Ours against the Rust server on a disk whose fsync takes 2 ms more, as is
 * usual in a cloud: what writes get, and what readers get while others write.
 */
import { faultShim } from "../../test/support/shim.ts";
import { type Load, type LoadOptions, wrk } from "../load.ts";
import { inTurn, LOAD_CPU, median, type Row, SERVER_CPU } from "../row.ts";
import { ours, rust, Skipped } from "../servers.ts";
import { openSide, type Side } from "../side.ts";
import { durableWrite, pointRead } from "../work.ts";

const FSYNC_DELAY_US = 2000;

/**
 * As many readers as writers. The Rust server answers a read when the writes
 * before it are done, so its rate is this number over the time that 8 writes
 * take; more readers would raise it, but not how long each of them waits.
 */
const READERS = 8;
const WRITERS = 8;

/** How much longer the writers run than the readers beside them. */
const MARGIN_SECONDS = 1;

type Options = Omit<LoadOptions, "connections">;

export const slowDiskRows: Row[] = [
  row("write-slow", "durable write, fsync + 2 ms", 10, 15, writes),
  row(
    "read-slow",
    "point read, 8 beside 8 writers, fsync + 2 ms",
    50,
    80,
    reads,
  ),
];

function writes(side: Side, options: Options): Promise<Load> {
  return side.honest(
    durableWrite,
    (requests) => wrk({ ...options, connections: 32 }, requests),
  );
}

async function reads(side: Side, options: Options): Promise<Load> {
  const seconds = options.seconds + MARGIN_SECONDS;
  const writers = side.honest(
    durableWrite,
    (requests) => wrk({ ...options, seconds, connections: WRITERS }, requests),
  );
  const [load] = await Promise.all([
    side.honest(
      pointRead,
      (requests) => wrk({ ...options, connections: READERS }, requests),
    ),
    writers,
  ]);
  return load;
}

function row(
  id: string,
  title: string,
  atLeast: number,
  aim: number,
  run: (side: Side, options: Options) => Promise<Load>,
): Row {
  return {
    id,
    title,
    unit: "/s",
    judged: "ratio",
    atLeast,
    aim,
    needs: ["wrk", "taskset", "gcc"],
    async measure({ folder, ...plan }) {
      await using shim = await faultShim(folder);
      if (!shim) throw new Skipped("the fault shim cannot be built here");
      const open = { cpu: SERVER_CPU, env: shim.env };
      await using a = await openSide(ours, { folder: `${folder}/a`, ...open });
      await using b = await openSide(rust, { folder: `${folder}/b`, ...open });
      shim.set({ fsyncDelayUs: FSYNC_DELAY_US });
      const p99Us: Record<string, number[]> = { ours: [], peer: [] };
      const rate = (name: string, side: Side) => async (seconds: number) => {
        const url = side.client.url;
        const load = await run(side, { url, seconds, cpu: LOAD_CPU, folder });
        p99Us[name].push(load.p99Us ?? NaN);
        return load.perSecond;
      };
      const sides = await inTurn(plan, {
        ours: rate("ours", a),
        peer: rate("peer", b),
      });
      const p99Ms = (name: string) => (median(p99Us[name]) / 1000).toFixed(1);
      return { ...sides, note: `p99 ${p99Ms("ours")} / ${p99Ms("peer")} ms` };
    },
  };
}
