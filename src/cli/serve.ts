/**
 * `serve`: builds the whole, runs it until a signal, and takes it down in
 * order: no new requests, answers in flight, the write-ahead log copied back.
 */
import { onTimerFailure, systemClock } from "../common/clock.ts";
import { messageOf, StartupError } from "../common/errors.ts";
import { createLogger, type Logger } from "../common/log.ts";
import { systemRandom } from "../common/random.ts";
import { type RunningServer, startServer } from "../server/server.ts";
import { asideFiles, removeOldAside } from "../store/sqlite/aside.ts";
import { databaseFile } from "../store/sqlite/database_file.ts";
import { lockFile } from "../store/sqlite/instance_lock.ts";
import type { BackupRequests } from "../store/store.ts";
import { openSqliteStore } from "../store/sqlite/store.ts";
import { formatAddress, loopbackOf } from "./address.ts";
import type { BackupService } from "../backup/backup_service.ts";
import type { ServeBackupConfig, ServeConfig } from "./config.ts";
import { type CliIo, say } from "./io.ts";
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
  const opened = config.backup === undefined
    ? undefined
    : await openBackup(config, config.backup, logger, signal, io);
  if (typeof opened === "number") return opened;
  const backup = opened?.service;
  if (config.backup && backup) {
    const file = databaseFile(config.sqlitePath);
    tidyAside(file, backup.store.databaseId, config.backup, logger);
  }
  const store = backup?.store ?? await openSqliteStore({
    path: config.sqlitePath,
    readOnly: config.readOnly,
    batchTimeoutMs: config.atomicWriteBatchTimeoutMs,
    maxWatches: config.maxWatches,
    maxWaitingBytes: config.maxWaitingBytes,
    reserveBytes: config.reserveBytes,
    logger,
  });
  const closing: Closing = {
    close: (withinMs) =>
      backup?.close(withinMs - CLOSE_FILE_MS) ?? store.close(),
  };
  announce(`Opened database at ${config.sqlitePath}`);
  let server: RunningServer;
  try {
    server = await startServer({
      store,
      clock: systemClock,
      logger,
      hostname: config.address.hostname,
      port: config.address.port,
      version: config.version,
      accessToken: config.accessToken,
      restSecret: config.restSecret,
      publicReads: config.publicReads,
      maxInFlightBytes: config.maxInFlightBytes,
      corsOrigins: config.corsOrigins,
      logsAccess: config.logsAccess,
      // Opening and closing it touches no lock of SQLite.
      spareFile: config.readOnly
        ? undefined
        : lockFile(databaseFile(config.sqlitePath)),
      backup: backup && {
        report: () => ({ ...backup.report(), requests: opened?.requests() }),
        durableVersions: () => backup.durableVersions(),
        snapshot: () => backup.snapshot(),
      },
    });
  } catch (error) {
    await closing.close(CLOSE_TIMEOUT_MS);
    throw error;
  }
  // The address as it was asked for, with the port that was really taken.
  const address = { hostname: config.address.hostname, port: server.port };
  announce(`Listening on http://${formatAddress(address)}`);
  io.onListening?.(`http://${formatAddress(loopbackOf(address))}`);
  const first = await Promise.race([
    signal,
    ...(backup ? [backup.ended] : []),
  ]);
  if (typeof first === "string") {
    logger.info("Stopping.", { signal: first });
    await stop(server, closing, config.drainTimeoutMs, logger);
    return 0;
  }
  // Requests in flight are answered with 503; nobody has to wait long.
  await stop(
    server,
    closing,
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

interface OpenedBackup {
  service: BackupService;
  requests(): BackupRequests;
}

/**
 * The database with its backup; loaded only where there is one. A signal ends
 * the waiting for another instance, and a restore.
 * @returns an exit code where there is nothing to serve
 */
async function openBackup(
  config: ServeConfig,
  backup: ServeBackupConfig,
  logger: Logger,
  stopSignal: Promise<string>,
  io: CliIo,
): Promise<OpenedBackup | number> {
  const { asStartupError, openBackupPlace } = await import("./backup_place.ts");
  const { BackupService } = await import("../backup/backup_service.ts");
  const { FencedError } = await import("../backup/ownership.ts");
  const { SqliteLocalEngine } = await import("../store/sqlite/local_engine.ts");
  const { Progress, standardError } = await import("./progress.ts");
  const progress = new Progress(
    "Restoring",
    config.logFormat === "text" && Deno.stderr.isTerminal()
      ? standardError()
      : { isTerminal: false, write: (line) => logger.info(line.trimEnd()) },
    systemClock,
  );
  const { CountedObjectStore } = await import("../object_store/counted.ts");
  const { OutageLog } = await import("./outage_log.ts");
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
  const stopping = new AbortController();
  let isOpen = false;
  void stopSignal.then((name) => {
    if (isOpen) return;
    logger.info("Stopping before it has started.", { signal: name });
    stopping.abort(
      new StartupError("The server was asked to stop before it had started."),
    );
  });
  try {
    const service = await BackupService.open({
      signal: stopping.signal,
      objects,
      engine: new SqliteLocalEngine({
        path: config.sqlitePath,
        clock: systemClock,
        random: systemRandom,
        logger,
        batchTimeoutMs: config.atomicWriteBatchTimeoutMs,
        maxWatches: config.maxWatches,
        maxWaitingBytes: config.maxWaitingBytes,
        reserveBytes: config.reserveBytes,
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
      progress: (_what, done, total) => progress.update(done, total),
    });
    isOpen = true;
    progress.end();
    outages.started();
    void service.ended.then(() => outages.stop());
    return {
      service,
      requests: () => ({
        ...objects.counts,
        forMs: Math.round(systemClock.monotonicMs() - openedMs),
      }),
    };
  } catch (error) {
    progress.end();
    outages.stop();
    await objects.close();
    if (stopping.signal.aborted) return 0;
    if (error instanceof FencedError) {
      say(io, "denokv", error.message);
      return FENCED_EXIT_CODE;
    }
    throw asStartupError(error);
  }
}

/** Files of former launches; nothing of them is needed to serve. */
function tidyAside(
  file: string,
  databaseId: string,
  { keepAsideMs }: ServeBackupConfig,
  logger: Logger,
): void {
  try {
    const beforeMs = systemClock.nowMs() - keepAsideMs;
    for (const aside of removeOldAside(file, databaseId, beforeMs)) {
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

interface Closing {
  close(withinMs: number): Promise<void>;
}

async function stop(
  server: RunningServer,
  store: Closing,
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
  const closed = await Promise.race([store.close(withinMs), timedOut.promise]);
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
