/** Ours against the Rust server over KV Connect, on the disk as it is. */
import type { Request } from "../http1.ts";
import { h2load, type Load, type LoadOptions, wrk } from "../load.ts";
import { inTurn, LOAD_CPU, type Row, SERVER_CPU } from "../row.ts";
import { ours, rust } from "../servers.ts";
import { openSide, type Side } from "../side.ts";
import {
  checksAndSets,
  durableWrite,
  listOf100,
  pointRead,
  tenPoints,
  tenRanges,
  type Work,
} from "../work.ts";

/** How a row is loaded; the server has a core to itself unless `isFree`. */
interface Way {
  label: string;
  isFree?: boolean;
  tool: "wrk" | "h2load";
  run(
    options: Omit<LoadOptions, "connections">,
    requests: readonly Request[],
  ): Promise<Load>;
}

/** 32 connections over HTTP/1.1. */
const http1: Way = {
  label: "one core",
  tool: "wrk",
  run: (options, requests) => wrk({ ...options, connections: 32 }, requests),
};

const http1AllCores: Way = { ...http1, label: "all cores", isFree: true };

/** 4 connections of 16 streams each over HTTP/2 in clear. */
const http2: Way = {
  label: "one core, h2c",
  tool: "h2load",
  run: (options, requests) =>
    h2load({ ...options, connections: 4, streams: 16 }, requests[0]),
};

export const kvConnectRows: Row[] = [
  row("read", "point read", pointRead, http1, 1.7, 2.5),
  row("write", "durable write", durableWrite, http1, 2.8, 4),
  row("read-h2", "point read", pointRead, http2, 1, 1.5),
  row("write-h2", "durable write", durableWrite, http2, 2.5, 3.5),
  row("read-all", "point read", pointRead, http1AllCores, 1.2, 2),
  row("write-all", "durable write", durableWrite, http1AllCores, 2.3, 3.5),
  row("list", "list of 100 entries", listOf100, http1, 1.3, 2),
  row("checks", "10 checks + 10 sets", checksAndSets, http1, 1.3, 2),
  row("points", "10 keys in one read", tenPoints, http1, 1.3, 2),
  row("ranges", "10 ranges of 10 in one read", tenRanges, http1, 1.3, 2),
];

function row(
  id: string,
  what: string,
  work: Work,
  way: Way,
  atLeast: number,
  aim: number,
): Row {
  const serverCpu = way.isFree ? undefined : SERVER_CPU;
  const loadCpu = way.isFree ? undefined : LOAD_CPU;
  return {
    id,
    title: `${what}, ${way.label}`,
    unit: "/s",
    judged: "ratio",
    atLeast,
    aim,
    needs: way.isFree ? [way.tool] : ["taskset", way.tool],
    async measure({ folder, ...plan }) {
      const open = { cpu: serverCpu };
      await using a = await openSide(ours, { folder: `${folder}/a`, ...open });
      await using b = await openSide(rust, { folder: `${folder}/b`, ...open });
      const rate = (side: Side) => async (seconds: number) => {
        const options = { url: side.client.url, seconds, cpu: loadCpu, folder };
        const load = await side.honest(
          work,
          (requests) => way.run(options, requests),
        );
        return load.perSecond;
      };
      return await inTurn(plan, { ours: rate(a), peer: rate(b) });
    },
  };
}
