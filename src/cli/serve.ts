/**
 * `serve`: builds the whole, runs it until a signal, and takes it down in
 * order: no new requests, answers in flight, the write-ahead log copied back.
 */
import { onTimerFailure, systemClock } from "../common/clock.ts";
import { messageOf, StartupError } from "../common/errors.ts";
import { createLogger, type Logger } from "../common/log.ts";
import { systemRandom } from "../common/random.ts";
import { type RunningServer, startServer } from "../server/server.ts";
import type { BackupControl, ReplicaControl } from "../server/service.ts";
import { asideFiles, removeOldAside } from "../store/sqlite/aside.ts";
import { databaseFile } from "../store/sqlite/database_file.ts";
import { lockFile } from "../store/sqlite/instance_lock.ts";
import type { PastLog } from "../store/log_source.ts";
import type { BackupRequests, Store } from "../store/store.ts";
import { openSqliteStore } from "../store/sqlite/store.ts";
import { formatAddress, loopbackOf } from "./address.ts";
import type { BackupEnd } from "../backup/backup_service.ts";
import type {
  ServeBackupConfig,
  ServeConfig,
  ServeReplicaConfig,
} from "./config.ts";
import { type CliIo, say } from "./io.ts";
import type { Progress } from "./progress.ts";
import { startingFields } from "./starting.ts";

/**
 * Closing the store syncs and copies a bounded log; a dying disk may hang. It
 * also has what draining has left of its time. With the default drain time the
 * whole stop stays below the 10 s after which container engines kill.
 */
const CLOSE_TIMEOUT_MS = 3000;
/** Of these, for closing the file after the object store was waited for. */
const CLOSE_FILE_MS = 1000;
/**
 * Answers of an instance that has lost the database come at once, but it may
 * take a client a moment to read them.
 */
const LOST_DRAIN_TIMEOUT_MS = 2000;
const HANDED_OVER_EXIT_CODE = 3;
const FENCED_EXIT_CODE = 4;

/**
 * @returns the exit code: 0 after a signal, 3 where another instance asked for
 *   the database and has it, 4 where one has taken it
 * @throws StartupError where the database or the address cannot be had
 */
export async function serve(config: ServeConfig, io: CliIo): Promise<number> {
  const logger = createLogger({
    format: config.logFormat,
    level: config.logLevel,
    clock: systemClock,
  });
  onTimerFailure((error) => {
    logger.error(
      "Something that is done from time to time failed, and is tried again at its next time; the server goes on. Please report it.",
      { reason: messageOf(error), at: placeOf(error) },
    );
  });
  const signal = firstSignal(logger);
  const announce = announcer(config);
  announce("Starting.", startingFields(config));
  if (config.isDevelopment) {
    logger.warn(
      "Development settings: every secret of this server is known to everyone, and anyone may read. Never use --dev where others can reach it.",
    );
  }
  const database = config.replica !== undefined
    ? await openAsReplica(config, config.replica, logger)
    : config.backup === undefined
    ? await openPlain(config, logger)
    : await openWithBackup(config, config.backup, logger);
  const { instance, replica } = database;
  let server: RunningServer;
  try {
    server = startServer({
      store: database.store,
      clock: systemClock,
      logger,
      hostname: config.address.hostname,
      port: config.address.port,
      version: config.version,
      accessToken: config.accessToken,
      restSecret: config.restSecret,
      publicReads: config.publicReads,
      maxInFlightBytes: config.maxInFlightBytes,
      isNamedStrong: config.isNamedStrong,
      changesRetainedBytes: config.changesRetainedBytes,
      pastLog: database.pastLog,
      advertisedReplicas: config.advertisedReplicas,
      corsOrigins: config.corsOrigins,
      logsAccess: config.logsAccess,
      // Opening and closing it touches no lock of SQLite.
      spareFile: config.readOnly
        ? undefined
        : lockFile(databaseFile(config.sqlitePath)),
      replica: replica && {
        report: () => ({ ...replica.report(), requests: database.requests() }),
      },
      backup: instance && {
        report: () => ({ ...instance.report(), requests: database.requests() }),
        durableVersions: () => instance.durableVersions(),
        snapshot: () => instance.snapshot(),
      },
    });
  } catch (error) {
    await database.close(CLOSE_TIMEOUT_MS);
    throw error;
  }
  // The address as it was asked for, with the port that was really taken.
  const address = { hostname: config.address.hostname, port: server.port };
  const url = `http://${formatAddress(address)}`;
  const ownUrl = `http://${formatAddress(loopbackOf(address))}`;
  io.onBound?.(ownUrl);
  let isListening = false;
  const onServing = () => {
    announce(`Opened database at ${config.sqlitePath}`);
    if (config.backup) {
      const file = databaseFile(config.sqlitePath);
      void tidyAside(file, database.store.databaseId, config.backup, logger);
    }
    if (isListening) return;
    isListening = true;
    // Programs wait for this line: from now on requests are served.
    announce(`Listening on ${url}`);
    io.onListening?.(ownUrl);
  };
  const life = instance?.start(onServing) ?? replica?.start(() => {
    announce("Initial snapshot is complete, starting sync.");
    onServing();
  });
  if (life === undefined) onServing();
  else {
    logger.info("Requests are answered with 503 until the database is open.", {
      address: url,
    });
  }
  let first: string | BackupEnd;
  try {
    first = await Promise.race([
      signal,
      ...(life ? [life] : []),
    ]);
  } catch (error) {
    // What stopped it is what is told, and nobody has to wait for it.
    await stop(server, database, LOST_DRAIN_TIMEOUT_MS, logger).catch(() => {});
    throw error;
  }
  if (typeof first === "string") {
    logger.info(isListening ? "Stopping." : "Stopping before it has started.", {
      signal: first,
    });
    await stop(server, database, config.drainTimeoutMs, logger);
    return 0;
  }
  // Requests in flight are answered with 503; nobody has to wait long.
  await stop(
    server,
    database,
    Math.min(config.drainTimeoutMs, LOST_DRAIN_TIMEOUT_MS),
    logger,
  );
  say(io, "denokv", first.sentence);
  return first.kind === "handedOver" ? HANDED_OVER_EXIT_CODE : FENCED_EXIT_CODE;
}

/**
 * Says what it starts with, and what programs around the server wait for on
 * standard error, as the Rust server's do: as events of the log, with the
 * address at the end of its line, and whatever `--log-level` says.
 */
function announcer(config: ServeConfig): Logger["info"] {
  const { logFormat: format } = config;
  return createLogger({ format, level: "info", clock: systemClock }).info;
}

interface OpenDatabase {
  store: Store;
  close(withinMs: number): Promise<void>;
  /** Absent where there is no backup. */
  instance?:
    & { start(onServing: () => void): Promise<BackupEnd> }
    & BackupControl;
  /** What the log no longer has; absent where there is no backup. */
  pastLog?: PastLog;
  /** Absent where it is no replica. */
  replica?: { start(onServing: () => void): Promise<never> } & ReplicaControl;
  /** To the object store, so far. */
  requests(): BackupRequests | undefined;
}

async function openPlain(
  config: ServeConfig,
  logger: Logger,
): Promise<OpenDatabase> {
  const store = await openSqliteStore({
    ...storeOptions(config),
    readOnly: config.readOnly,
    logger,
  });
  return { store, close: () => store.close(), requests: () => undefined };
}

function storeOptions(config: ServeConfig) {
  return {
    path: config.sqlitePath,
    batchTimeoutMs: config.atomicWriteBatchTimeoutMs,
    maxWatches: config.maxWatches,
    maxWaitingBytes: config.maxWaitingBytes,
    reserveBytes: config.reserveBytes,
  };
}

/** How a restore before the first request goes on. */
async function startProgress(
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

/** A file that follows a bucket; loaded only where it does. */
async function openAsReplica(
  config: ServeConfig,
  { primary, place, intervalMs, idlePauseMs }: ServeReplicaConfig,
  logger: Logger,
): Promise<OpenDatabase> {
  const { asStartupError } = await import("./backup_place.ts");
  const { openReplica } = await import("./replica.ts");
  const progress = await startProgress(config, logger);
  const { replica, requests } = await openReplica({
    primary,
    place,
    intervalMs,
    idlePauseMs,
    sqlitePath: config.sqlitePath,
    maxWatches: config.maxWatches,
    logger,
    progress: (done, total) => progress.update(done, total),
  });
  return {
    store: replica.store,
    replica: {
      async start(onServing) {
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
      report: () => replica.report(),
    },
    close: () => replica.close(),
    requests,
  };
}

/** The database with its backup; loaded only where there is one. */
async function openWithBackup(
  config: ServeConfig,
  backup: ServeBackupConfig,
  logger: Logger,
): Promise<OpenDatabase> {
  const { asStartupError, openBackupPlace } = await import("./backup_place.ts");
  const { Instance } = await import("../database/instance.ts");
  const { SqliteLocalEngine } = await import("../store/sqlite/local_engine.ts");
  const progress = await startProgress(config, logger);
  const { CountedObjectStore } = await import("../object_store/counted.ts");
  const { OutageLog } = await import("./outage_log.ts");
  const { openPastLog } = await import("./past_log.ts");
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
    progress: (_what, done, total) => progress.update(done, total),
  });
  return {
    store: instance.store,
    pastLog: openPastLog(objects),
    instance: {
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
      report: () => instance.report(),
      durableVersions: () => instance.durableVersions(),
      snapshot: () => instance.snapshot(),
    },
    close: (withinMs) => instance.close(withinMs - CLOSE_FILE_MS),
    requests: () => ({
      ...objects.counts,
      forMs: Math.round(systemClock.monotonicMs() - openedMs),
    }),
  };
}

/** Files of former launches; nothing of them is needed to serve. */
async function tidyAside(
  file: string,
  databaseId: string,
  { keepAsideMs }: ServeBackupConfig,
  logger: Logger,
): Promise<void> {
  try {
    const beforeMs = systemClock.nowMs() - keepAsideMs;
    for (const aside of await removeOldAside(file, databaseId, beforeMs)) {
      const { path, sizeBytes } = aside;
      logger.info(
        "A database file that was set aside was removed: all that it held is in the backup's history.",
        { path, sizeBytes },
      );
    }
    for (const { path, sizeBytes, isInHistory } of asideFiles(file)) {
      if (isInHistory) continue;
      logger.warn(
        "A database file that was set aside holds what the backup may not have. It is kept until a person removes it.",
        { path, sizeBytes },
      );
    }
  } catch (error) {
    const reason = messageOf(error);
    logger.warn("Files that were set aside were not looked at.", { reason });
  }
}

/** Resolves with the first signal's name; a second one ends at once. */
function firstSignal(logger: Logger): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let isStopping = false;
  for (const name of ["SIGTERM", "SIGINT"] as const) {
    Deno.addSignalListener(name, () => {
      if (isStopping) {
        logger.warn(
          "Stopped by a second signal; everything acknowledged is kept.",
        );
        Deno.exit(1);
      }
      isStopping = true;
      resolve(name);
    });
  }
  return promise;
}

async function stop(
  server: RunningServer,
  database: Pick<OpenDatabase, "close">,
  drainTimeoutMs: number,
  logger: Logger,
): Promise<void> {
  const startedMs = systemClock.monotonicMs();
  server.announceStop();
  const { isComplete } = await server.drain(drainTimeoutMs);
  if (!isComplete) {
    logger.warn("Some connections were still busy and were cut.", {
      drainTimeoutMs,
    });
  }
  const drainedMs = systemClock.monotonicMs() - startedMs;
  const withinMs = CLOSE_TIMEOUT_MS + Math.max(0, drainTimeoutMs - drainedMs);
  const timedOut = Promise.withResolvers<"late">();
  const timer = systemClock.after(withinMs, () => timedOut.resolve("late"));
  const closed = await Promise.race([
    database.close(withinMs),
    timedOut.promise,
  ]);
  timer.stop();
  if (closed === "late") {
    throw new StartupError(
      "The database could not be closed in time: the disk does not answer. Everything acknowledged is kept; the next start recovers it.",
    );
  }
  logger.info("Stopped; the write-ahead log is in the database.");
}

/** The line of the program, for a report; no stack. */
function placeOf(error: unknown): string | undefined {
  return error instanceof Error
    ? error.stack?.split("\n").find((line) => /^\s+at /.test(line))?.trim()
    : undefined;
}
