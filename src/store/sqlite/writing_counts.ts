/** What is counted of one opening of the file, and of all since the start. */
import type { StoreStats } from "../store.ts";
import type { DurableHorizon } from "./durable_horizon.ts";
import type { GroupCommit } from "./group_commit.ts";
import type { WriteSession } from "./session.ts";

export type Counts = Pick<
  StoreStats,
  | "commits"
  | "atomicWrites"
  | "groupSizes"
  | "syncSeconds"
  | "syncFailures"
  | "expiredDeleted"
  | "unreadableRows"
>;

/** @param earlier of the openings before this one */
export function countsOf(
  { session, writer, horizon }: {
    session: WriteSession;
    writer: GroupCommit;
    horizon: DurableHorizon;
  },
  earlier: Counts | undefined,
): Counts {
  const present: Counts = {
    commits: writer.commits,
    atomicWrites: { ...writer.outcomes },
    groupSizes: writer.groupSizes.snapshot(),
    syncSeconds: horizon.syncSeconds.snapshot(),
    syncFailures: horizon.syncFailures,
    expiredDeleted: writer.expiredDeleted,
    unreadableRows: session.reader.unreadableRows,
  };
  return earlier ? addCounts(earlier, present) : present;
}

function addCounts(a: Counts, b: Counts): Counts {
  const histogram = (x: Counts["groupSizes"], y: Counts["groupSizes"]) => ({
    bounds: y.bounds,
    counts: y.counts.map((count, i) => count + x.counts[i]),
    sum: x.sum + y.sum,
  });
  return {
    commits: a.commits + b.commits,
    atomicWrites: {
      committed: a.atomicWrites.committed + b.atomicWrites.committed,
      checkFailed: a.atomicWrites.checkFailed + b.atomicWrites.checkFailed,
      refused: a.atomicWrites.refused + b.atomicWrites.refused,
    },
    groupSizes: histogram(a.groupSizes, b.groupSizes),
    syncSeconds: histogram(a.syncSeconds, b.syncSeconds),
    syncFailures: a.syncFailures + b.syncFailures,
    expiredDeleted: a.expiredDeleted + b.expiredDeleted,
    unreadableRows: a.unreadableRows + b.unreadableRows,
  };
}
