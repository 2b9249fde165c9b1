/** What `serve` serves, whatever stands behind it. */
import { systemClock } from "../common/clock.ts";
import type { Logger } from "../common/log.ts";
import type { BackupEnd } from "../backup/backup_service.ts";
import type {
  BackupControl,
  PromotionControl,
  ReplicaControl,
} from "../server/service.ts";
import type { PastLog } from "../store/log_source.ts";
import type { Store } from "../store/store.ts";
import type { ServeConfig } from "./config.ts";
import type { Progress } from "./progress.ts";

export interface OpenDatabase {
  store: Store;
  /**
   * Absent where it serves from the start. Resolves when it has lost the
   * database for good.
   * @param onServing called each time requests are served from then on
   */
  start?(onServing: () => void): Promise<BackupEnd>;
  /** Undefined while there is none. */
  backup?(): BackupControl | undefined;
  /** Undefined where it is no replica, or none any more. */
  replica?(): ReplicaControl | undefined;
  promotion?: PromotionControl;
  /** What the log no longer has; absent where there is no backup. */
  pastLog?: PastLog;
  /** Requests that wait for what a stop ends are answered. */
  announceStop?(): void;
  close(withinMs: number): Promise<void>;
}

export function storeOptions(config: ServeConfig) {
  return {
    path: config.sqlitePath,
    batchTimeoutMs: config.atomicWriteBatchTimeoutMs,
    maxWatches: config.maxWatches,
    maxWaitingBytes: config.maxWaitingBytes,
    reserveBytes: config.reserveBytes,
  };
}

/** How a restore before the first request goes on. */
export async function startProgress(
  { logFormat }: ServeConfig,
  logger: Logger,
): Promise<Progress> {
  const { Progress, standardError } = await import("./progress.ts");
  return new Progress(
    "Restoring",
    logFormat === "text" && Deno.stderr.isTerminal()
      ? standardError()
      : { isTerminal: false, write: (line) => logger.info(line.trimEnd()) },
    systemClock,
  );
}
