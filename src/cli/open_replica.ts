/** A file that follows another server; loaded only where it does. */
import { systemClock } from "../common/clock.ts";
import { exists } from "../common/files.ts";
import type { Logger } from "../common/log.ts";
import { systemRandom } from "../common/random.ts";
import { STATE } from "../backup/launch.ts";
import { ManifestStore } from "../backup/manifest_store.ts";
import { Promotion } from "../database/promotion.ts";
import { REPLICA_STATE } from "../replica/position_state.ts";
import type { ReplicaControl } from "../server/service.ts";
import { databaseFile } from "../store/sqlite/database_file.ts";
import { lockInstance } from "../store/sqlite/instance_lock.ts";
import { inspectFile } from "../store/sqlite/unserved_file.ts";
import { asStartupError } from "./backup_place.ts";
import type {
  ServeBackupConfig,
  ServeConfig,
  ServeReplicaConfig,
} from "./config.ts";
import { type OpenDatabase, startProgress } from "./open_database.ts";
import {
  type OpenInstance,
  openInstance,
  openWithBackup,
} from "./open_instance.ts";
import { openReplica, type ReplicaParts } from "./replica.ts";

export async function openAsReplica(
  config: ServeConfig,
  { primary, place, intervalMs, idlePauseMs }: ServeReplicaConfig,
  logger: Logger,
): Promise<OpenDatabase> {
  const { backup } = config;
  if (backup !== undefined && wasPromoted(config.sqlitePath, backup)) {
    logger.info(
      "This replica was promoted before: its file is served with the backup, and stands by where another instance serves the database.",
    );
    // Its command line is that of a replica: it takes from nobody what is served.
    const standby = { ...backup, isStandby: true };
    return await openWithBackup(config, standby, logger);
  }
  const progress = await startProgress(config, logger);
  const parts = await openReplica({
    primary,
    place,
    intervalMs,
    idlePauseMs,
    sqlitePath: config.sqlitePath,
    maxWatches: config.maxWatches,
    logger,
    progress: (done, total) => progress.update(done, total),
  });
  const { replica, requests } = parts;
  const control: ReplicaControl = {
    report: () => ({ ...replica.report(), requests: requests() }),
  };
  const plain = {
    store: replica.store,
    async start(onServing: () => void): Promise<never> {
      try {
        return await replica.start(() => {
          progress.end();
          onServing();
        });
      } catch (error) {
        throw asStartupError(error);
      } finally {
        progress.end();
      }
    },
    replica: () => control,
    close: () => replica.close(),
  };
  return backup === undefined
    ? plain
    : promotable(plain, parts, config, backup, logger);
}

/** Whether the file is one that this backup's instances leave. */
function wasPromoted(sqlitePath: string, { place }: ServeBackupConfig) {
  const path = databaseFile(sqlitePath);
  if (!exists(path)) return false;
  const lock = lockInstance(path);
  try {
    const local = inspectFile(path);
    const url = local?.state(STATE.url);
    return !local?.state(REPLICA_STATE.source) && url !== undefined &&
      withoutSlash(url) === withoutSlash(place.url);
  } finally {
    lock.release();
  }
}

function withoutSlash(url: string): string {
  return url.replace(/\/+$/, "");
}

/** The same, until it is promoted. */
function promotable(
  plain: Required<Pick<OpenDatabase, "start" | "replica" | "close">>,
  { replica, engine }: ReplicaParts,
  config: ServeConfig,
  backup: ServeBackupConfig,
  logger: Logger,
): OpenDatabase {
  let opened: OpenInstance | undefined;
  const promotion = new Promotion({
    replica,
    url: backup.place.url,
    clock: systemClock,
    logger,
    async open(predecessor) {
      const lentLock = engine.lendLock();
      opened = await openInstance(config, backup, logger, {
        lentLock,
        predecessor,
      });
      const { instance, objects, start } = opened;
      const manifests = new ManifestStore(objects, systemClock, systemRandom);
      return {
        instance,
        start,
        readManifest: async () => (await manifests.read())?.manifest,
        passLockOn: () => lentLock.passOn(),
      };
    },
  });
  return {
    store: promotion.store,
    async start(onServing) {
      promotion.onServing = onServing;
      try {
        return await plain.start(onServing);
      } catch (error) {
        if (!promotion.isHandedOver) throw error;
        return await promotion.life;
      }
    },
    backup: () => promotion.isHandedOver ? opened?.control : undefined,
    replica: () => promotion.isHandedOver ? undefined : plain.replica(),
    promotion,
    pastLog: {
      // A replica has no log, so nobody asks before it is the owner.
      openLogReader: (log, options) =>
        opened!.pastLog.openLogReader(log, options),
    },
    announceStop: () => promotion.stop(),
    async close(withinMs) {
      promotion.stop();
      await opened?.close(withinMs);
      await promotion.ended();
      await plain.close(withinMs);
    },
  };
}
