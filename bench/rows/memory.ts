/** Resident memory while the server answers the load of the first rows. */
import { wrk } from "../load.ts";
import { inTurn, LOAD_CPU, type Row, SERVER_CPU } from "../row.ts";
import { ours, rust } from "../servers.ts";
import { openSide, type Side } from "../side.ts";
import { durableWrite, pointRead } from "../work.ts";

const SAMPLE_MS = 100;

export const memoryRow: Row = {
  id: "memory",
  title: "resident memory under reads, then writes",
  unit: "MB",
  judged: "ours",
  atLeast: 110,
  aim: 80,
  needs: ["wrk", "taskset"],
  async measure({ folder, ...plan }) {
    const cpu = SERVER_CPU;
    await using a = await openSide(ours, { folder: `${folder}/a`, cpu });
    await using b = await openSide(rust, { folder: `${folder}/b`, cpu });
    const peak = (side: Side) => (seconds: number) =>
      peakMegabytes(side, async () => {
        for (const work of [pointRead, durableWrite]) {
          await side.honest(work, (requests) =>
            wrk({
              url: side.client.url,
              seconds,
              connections: 32,
              cpu: LOAD_CPU,
              folder,
            }, requests));
        }
      });
    return await inTurn(plan, { ours: peak(a), peer: peak(b) });
  },
};

/** The most that was resident in any sample, in units of 10^6 bytes. */
async function peakMegabytes(
  side: Side,
  load: () => Promise<void>,
): Promise<number> {
  let isRunning = true;
  const running = load().finally(() => isRunning = false);
  let peakBytes = 0;
  while (isRunning) {
    peakBytes = Math.max(peakBytes, await side.residentBytes());
    await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
  }
  await running;
  return peakBytes / 1e6;
}
