/**
 * From the start of the process to its first answer, on a database that is
 * there already, with everything in the caches of disk and runtime.
 */
import { exchange } from "../http1.ts";
import { exchangeRequest } from "../kv_client.ts";
import type { Row } from "../row.ts";
import { answers, ours, rust, spawn, type Starter } from "../servers.ts";
import { openSide } from "../side.ts";

const TIME_LIMIT_MS = 10_000;

export const launchRow: Row = {
  id: "launch",
  title: "launch to first answer",
  unit: "ms",
  judged: "ours",
  atLeast: 300,
  aim: 200,
  needs: [],
  async measure({ folder, launches }) {
    const sides = { ours: [] as number[], peer: [] as number[] };
    const places = [
      { side: sides.ours, starter: ours, folder: `${folder}/a` },
      { side: sides.peer, starter: rust, folder: `${folder}/b` },
    ];
    for (const { starter, folder } of places) {
      // Filled and stopped again: the caches are warm now.
      await using _side = await openSide(starter, { folder });
    }
    for (let i = 0; i < launches; i++) {
      for (const { side, starter, folder } of places) {
        side.push(await launchMs(starter, folder));
      }
    }
    return sides;
  },
};

async function launchMs(starter: Starter, folder: string): Promise<number> {
  const launch = await starter({ folder });
  const startMs = performance.now();
  const child = spawn(launch);
  const errors = new Response(child.stderr).text();
  try {
    await answers(launch.url, AbortSignal.timeout(TIME_LIMIT_MS));
    const answer = await exchange(launch.url, exchangeRequest());
    const tookMs = performance.now() - startMs;
    if (answer.status !== 200) throw new Error(`answered ${answer.status}`);
    return tookMs;
  } finally {
    child.kill("SIGTERM");
    await child.status;
    await errors;
  }
}
