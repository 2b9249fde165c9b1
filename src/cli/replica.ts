/** Builds a replica out of the options: for `serve` and for `pitr sync`. */
import { ManifestStore } from "../backup/manifest_store.ts";
import { systemClock } from "../common/clock.ts";
import type { Logger } from "../common/log.ts";
import { systemRandom } from "../common/random.ts";
import { CountedObjectStore } from "../object_store/counted.ts";
import { DATA_PATIENCE, Patience } from "../object_store/patience.ts";
import { BucketSource } from "../replica/bucket_source.ts";
import { LiveSource } from "../replica/live_source.ts";
import { Replica } from "../replica/replica.ts";
import { StreamSource } from "../replica/stream_source.ts";
import { SqliteReplicaEngine } from "../store/sqlite/replica_engine.ts";
import type { BackupRequests } from "../store/store.ts";
import { type BackupPlace, openBackupPlace } from "./backup_place.ts";

const NO_REQUESTS = { put: 0, list: 0, get: 0, head: 0, delete: 0 };

export interface ReplicaParts {
  replica: Replica;
  engine: SqliteReplicaEngine;
  /** To the object store, so far. */
  requests(): BackupRequests;
}

export async function openReplica(options: {
  /** At least one of both. */
  primary?: { url: string; accessToken: string };
  place?: BackupPlace;
  sqlitePath: string;
  intervalMs: number;
  idlePauseMs?: number;
  maxWatches: number;
  logger: Logger;
  progress?(doneBytes: number, totalBytes: number): void;
}): Promise<ReplicaParts> {
  const { primary, place, idlePauseMs, logger } = options;
  const shared = { clock: systemClock, random: systemRandom, logger };
  const engine = new SqliteReplicaEngine({
    ...shared,
    path: options.sqlitePath,
    maxWatches: options.maxWatches,
    // As the Rust server's sync: `pitr` goes back in it afterwards. What a
    // live replica would keep is nearly a second log, and grows for ever.
    keepsHistory: primary === undefined,
  });
  const openedMs = systemClock.monotonicMs();
  const objects = place && new CountedObjectStore(
    await openBackupPlace(place),
    systemClock,
  );
  try {
    const bucket = objects && new BucketSource({
      objects,
      manifests: new ManifestStore(objects, systemClock, systemRandom),
      clock: systemClock,
      patience: new Patience({ clock: systemClock, ...DATA_PATIENCE }),
      intervalMs: options.intervalMs,
      ...(idlePauseMs !== undefined && {
        whileUnread: (signal: AbortSignal) =>
          replica.store.whileUnread(idlePauseMs, signal),
      }),
    });
    const source = primary === undefined ? bucket! : new LiveSource({
      stream: new StreamSource({
        ...primary,
        clock: systemClock,
        databaseId: () => replica.databaseId,
      }),
      bucket,
      clock: systemClock,
      logger,
    });
    const replica: Replica = new Replica({
      ...shared,
      engine,
      source,
      progress: options.progress,
    });
    return {
      replica,
      engine,
      requests: () => ({
        ...objects?.counts ?? NO_REQUESTS,
        forMs: Math.round(systemClock.monotonicMs() - openedMs),
      }),
    };
  } catch (error) {
    await objects?.close();
    throw error;
  }
}
