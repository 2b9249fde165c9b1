/** The database with its backup; loaded only where there is one. */
import { systemClock } from "../common/clock.ts";
import type { Logger } from "../common/log.ts";
import { systemRandom } from "../common/random.ts";
import type { BackupEnd } from "../backup/backup_service.ts";
import { Instance, type InstanceOptions } from "../database/instance.ts";
import { CountedObjectStore } from "../object_store/counted.ts";
import type { BackupControl } from "../server/service.ts";
import type { PastLog } from "../store/log_source.ts";
import type { LentLock } from "../store/sqlite/instance_lock.ts";
import { SqliteLocalEngine } from "../store/sqlite/local_engine.ts";
import { asStartupError, openBackupPlace } from "./backup_place.ts";
import type { ServeBackupConfig, ServeConfig } from "./config.ts";
import {
  type OpenDatabase,
  startProgress,
  storeOptions,
} from "./open_database.ts";
import { OutageLog } from "./outage_log.ts";
import { openPastLog } from "./past_log.ts";

/** Of a stop's time, for closing the file after the object store. */
const CLOSE_FILE_MS = 1000;

export interface OpenInstance {
  instance: Instance;
  objects: CountedObjectStore;
  start(onServing: () => void): Promise<BackupEnd>;
  control: BackupControl;
  pastLog: PastLog;
  close(withinMs: number): Promise<void>;
}

/** Of a replica that is to become the owner. */
export interface After {
  lentLock: LentLock;
  predecessor: NonNullable<InstanceOptions["predecessor"]>;
}

export async function openInstance(
  config: ServeConfig,
  backup: ServeBackupConfig,
  logger: Logger,
  after?: After,
): Promise<OpenInstance> {
  const progress = await startProgress(config, logger);
  const objects = new CountedObjectStore(
    await openBackupPlace(backup.place),
    systemClock,
  );
  const openedMs = systemClock.monotonicMs();
  const outages = new OutageLog({
    store: objects,
    endpoint: backup.place.s3Endpoint ?? backup.place.gcsEndpoint,
    clock: systemClock,
    logger,
  });
  const instance = new Instance({
    objects,
    engine: new SqliteLocalEngine({
      ...storeOptions(config),
      clock: systemClock,
      random: systemRandom,
      logger,
      lentLock: after?.lentLock,
    }),
    clock: systemClock,
    random: systemRandom,
    logger,
    durability: backup.durability,
    intervalMs: backup.intervalMs,
    retentionMs: backup.retentionMs,
    maxRetainedBytes: backup.maxLogBytes,
    leaseMs: backup.leaseMs,
    verifyEveryMs: backup.verifyEveryMs,
    allowUnfenced: backup.allowUnfenced,
    ownerUrl: backup.advertisedUrl,
    isStandby: backup.isStandby,
    endsWhenReplaced: backup.endsWhenReplaced,
    startsInOutage: backup.startsInOutage,
    predecessor: after?.predecessor,
    progress: (_what, done, total) => progress.update(done, total),
  });
  const requests = () => ({
    ...objects.counts,
    forMs: Math.round(systemClock.monotonicMs() - openedMs),
  });
  return {
    instance,
    objects,
    async start(onServing) {
      try {
        return await instance.start(() => {
          progress.end();
          outages.started();
          onServing();
        });
      } catch (error) {
        throw asStartupError(error);
      } finally {
        progress.end();
        outages.stop();
      }
    },
    pastLog: openPastLog(objects),
    control: {
      report: () => ({ ...instance.report(), requests: requests() }),
      durableVersions: () => instance.durableVersions(),
      snapshot: () => instance.snapshot(),
    },
    close: (withinMs) => instance.close(withinMs - CLOSE_FILE_MS),
  };
}

export async function openWithBackup(
  config: ServeConfig,
  backup: ServeBackupConfig,
  logger: Logger,
): Promise<OpenDatabase> {
  const { instance, start, control, pastLog, close } = await openInstance(
    config,
    backup,
    logger,
  );
  return {
    store: instance.store,
    start,
    backup: () => control,
    pastLog,
    close,
  };
}
