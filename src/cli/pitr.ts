/** `pitr info` and `pitr checkout`: which state a replica's file shows. */
import { systemClock } from "../common/clock.ts";
import { InvalidRequestError, StartupError } from "../common/errors.ts";
import { systemRandom } from "../common/random.ts";
import { versionstampHex } from "../protocol/versionstamp.ts";
import type { CommitPoint } from "../store/replica_writer.ts";
import { databaseFile } from "../store/sqlite/database_file.ts";
import { ReplicaHistory } from "../store/sqlite/history.ts";
import { lockInstance } from "../store/sqlite/instance_lock.ts";
import { openReplicaWriter } from "../store/sqlite/replica_writer.ts";
import type { PitrCheckoutConfig, PitrConfig } from "./config.ts";
import type { CliIo } from "./io.ts";
import { Progress, standardError } from "./progress.ts";

/** @returns the exit code */
export function pitrInfo({ sqlitePath, json }: PitrConfig, io: CliIo): number {
  const history = new ReplicaHistory(sqlitePath);
  try {
    const { point, last, floor } = history.position;
    if (!json) {
      io.out(`Current versionstamp: ${text(point)}`);
      return 0;
    }
    const told = (each: CommitPoint | undefined) =>
      each === undefined ? null : {
        versionstamp: text(each),
        timeMs: history.timeOf(each) ?? null,
      };
    io.out(
      JSON.stringify({
        current: told(point),
        newest: told(last),
        earliest: told(floor),
      }),
    );
    return 0;
  } finally {
    history.close();
  }
}

/** @returns the exit code */
export async function pitrCheckout(
  { sqlitePath, point, json }: PitrCheckoutConfig,
  io: CliIo,
): Promise<number> {
  const path = databaseFile(sqlitePath);
  const target = targetOf(sqlitePath, point);
  const lock = lockInstance(path);
  const progress = new Progress(
    "Going there",
    standardError(),
    systemClock,
    (mutations) => `${Math.round(mutations)} mutations`,
  );
  const startedMs = systemClock.monotonicMs();
  try {
    const writer = openReplicaWriter({
      path,
      clock: systemClock,
      random: systemRandom,
      keepsHistory: true,
    });
    try {
      await writer.goTo(target, (done, total) => progress.update(done, total));
      const versionstamp = text(writer.point);
      const tookMs = Math.round(systemClock.monotonicMs() - startedMs);
      progress.end();
      io.out(
        json
          ? JSON.stringify({ versionstamp, tookMs })
          : `Snapshot is now at versionstamp ${versionstamp}`,
      );
    } finally {
      await writer.close();
    }
    return 0;
  } catch (error) {
    throw error instanceof InvalidRequestError
      ? new StartupError(error.message)
      : error;
  } finally {
    progress.end();
    lock.release();
  }
}

/** Undefined: the newest commit that the file has. */
function targetOf(
  sqlitePath: string,
  point: PitrCheckoutConfig["point"],
): CommitPoint | undefined {
  const history = new ReplicaHistory(sqlitePath);
  try {
    if (point.kind === "version") {
      const { version, order } = point;
      return version > history.position.newestVersion
        ? undefined
        : { version, order };
    }
    const time = new Date(point.timeMs).toISOString();
    if (point.timeMs > systemClock.nowMs()) {
      throw new StartupError(
        `${time} lies in the future, by the clock of this machine. Nothing was changed; name its zone where it is none of UTC.`,
      );
    }
    const found = history.at(point.timeMs);
    if (found !== undefined) return found;
    const { floor } = history.position;
    throw new StartupError(
      `The file has no commit that was made at ${time} or before: its history begins ${
        floor === undefined ? "later" : `at ${text(floor)}`
      }. Nothing was changed; \`pitr list\` shows the points that there are.`,
    );
  } finally {
    history.close();
  }
}

function text({ version, order }: CommitPoint): string {
  return versionstampHex(version, order);
}
