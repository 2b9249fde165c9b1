/** What a row of the benchmark's table is, and how two servers are compared. */

/** How a row is run, the same for all. */
export interface Plan {
  /** A folder of the row's own, on the disk that is measured. */
  folder: string;
  rounds: number;
  /** The length of one round, and of the run that warms a server up. */
  seconds: number;
  warmUpSeconds: number;
  /** Launches of each server where launching is measured. */
  launches: number;
  /** Keys in the larger of the two databases that are compared. */
  manyKeys: number;
}

/** A side's value in each round, as the unit of the row has it. */
export interface Sides {
  ours: number[];
  peer: number[];
}

export interface Measured extends Sides {
  /** Anything worth knowing beside the two numbers. */
  note?: string;
}

export interface Row {
  id: string;
  title: string;
  unit: "/s" | "/h" | "MB" | "ms" | "×";
  /**
   * `ratio`: ours divided by the peer's has to reach the goals; `ratioAtMost`:
   * it may be at most the goals. `ours`: our own number may be at most the
   * goals; `oursAtLeast`: it has to reach them.
   */
  judged: "ratio" | "ratioAtMost" | "ours" | "oursAtLeast";
  atLeast: number;
  aim: number;
  /** Programs it needs besides Deno. */
  needs: readonly Tool[];
  measure(plan: Plan): Promise<Measured>;
}

export type Tool = "wrk" | "h2load" | "taskset" | "gcc";

/** The Debian package that brings each tool. */
export const PACKAGES: Record<Tool, string> = {
  wrk: "wrk",
  h2load: "nghttp2-client",
  taskset: "util-linux",
  gcc: "gcc",
};

/** Where one side has a core to itself and the load the other. */
export const SERVER_CPU = 0;
export const LOAD_CPU = 1;

/**
 * Short rounds in turn, so that whatever else the machine does meets both
 * sides alike; who goes first alternates.
 */
export async function inTurn(
  plan: Pick<Plan, "rounds" | "seconds" | "warmUpSeconds">,
  measure: Record<keyof Sides, (seconds: number) => Promise<number>>,
): Promise<Sides> {
  const sides: Sides = { ours: [], peer: [] };
  await measure.ours(plan.warmUpSeconds);
  await measure.peer(plan.warmUpSeconds);
  for (let round = 0; round < plan.rounds; round++) {
    const order = round % 2 === 0
      ? ["ours", "peer"] as const
      : ["peer", "ours"] as const;
    for (const side of order) {
      sides[side].push(await measure[side](plan.seconds));
    }
  }
  return sides;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? sorted[middle]
    : (sorted[middle - 1] + sorted[middle]) / 2;
}
