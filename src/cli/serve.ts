/**
 * `serve`: builds the whole, runs it until a signal, and takes it down in
 * order: no new requests, answers in flight, the write-ahead log copied back.
 */
import { onTimerFailure, systemClock } from "../common/clock.ts";
import { messageOf, StartupError } from "../common/errors.ts";
import { createLogger, type Logger } from "../common/log.ts";
import { type RunningServer, startServer } from "../server/server.ts";
import { databaseFile } from "../store/sqlite/database_file.ts";
import { lockFile } from "../store/sqlite/instance_lock.ts";
import { openSqliteStore } from "../store/sqlite/store.ts";
import { formatAddress, loopbackOf } from "./address.ts";
import type { BackupEnd } from "../backup/backup_service.ts";
import type { ServeConfig } from "./config.ts";
import { type CliIo, say } from "./io.ts";
import { type OpenDatabase, storeOptions } from "./open_database.ts";
import { startingFields } from "./starting.ts";
import { tidyAside } from "./tidy_aside.ts";

/**
 * Closing the store syncs and copies a bounded log; a dying disk may hang. It
 * also has what draining has left of its time. With the default drain time the
 * whole stop stays below the 10 s after which container engines kill.
 */
const CLOSE_TIMEOUT_MS = 3000;
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
  const database = await openDatabase(config, logger);
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
      spareFile: config.readOnly && config.backup === undefined
        ? undefined
        : lockFile(databaseFile(config.sqlitePath)),
      get replica() {
        return database.replica?.();
      },
      get backup() {
        return database.backup?.();
      },
      promotion: database.promotion,
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
    if (config.backup && !database.replica?.()) {
      const file = databaseFile(config.sqlitePath);
      void tidyAside(file, database.store.databaseId, config.backup, logger);
    }
    if (isListening) return;
    isListening = true;
    // Programs wait for this line: from now on requests are served.
    announce(`Listening on ${url}`);
    io.onListening?.(ownUrl);
  };
  const life = database.start?.(() => {
    if (database.replica?.()) {
      announce("Initial snapshot is complete, starting sync.");
    }
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

/** What is needed for a kind is loaded where it is that kind. */
async function openDatabase(
  config: ServeConfig,
  logger: Logger,
): Promise<OpenDatabase> {
  const { replica, backup } = config;
  if (replica !== undefined) {
    const { openAsReplica } = await import("./open_replica.ts");
    return await openAsReplica(config, replica, logger);
  }
  if (backup !== undefined) {
    const { openWithBackup } = await import("./open_instance.ts");
    return await openWithBackup(config, backup, logger);
  }
  return await openPlain(config, logger);
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
  return { store, close: () => store.close() };
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
  database: Pick<OpenDatabase, "announceStop" | "close">,
  drainTimeoutMs: number,
  logger: Logger,
): Promise<void> {
  const startedMs = systemClock.monotonicMs();
  server.announceStop();
  database.announceStop?.();
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
