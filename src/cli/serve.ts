/**
 * `serve`: builds the whole, runs it until a signal, and takes it down in
 * order: no new requests, answers in flight, the write-ahead log copied back.
 */
import { systemClock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import { createLogger, type Logger } from "../common/log.ts";
import { type RunningServer, startServer } from "../server/server.ts";
import { openSqliteStore } from "../store/sqlite/store.ts";
import type { Store } from "../store/store.ts";
import { formatAddress, loopbackOf } from "./address.ts";
import type { ServeConfig } from "./config.ts";
import type { CliIo } from "./io.ts";

/** Closing the store syncs and copies a bounded log; a dying disk may hang. */
const CLOSE_TIMEOUT_MS = 10_000;

/**
 * @returns the exit code: 0 after a signal
 * @throws StartupError where the database or the address cannot be had
 */
export async function serve(config: ServeConfig, io: CliIo): Promise<number> {
  const logger = createLogger({
    format: config.logFormat,
    level: config.logLevel,
    clock: systemClock,
  });
  const signal = firstSignal(logger);
  const store = await openSqliteStore({
    path: config.sqlitePath,
    readOnly: config.readOnly,
    batchTimeoutMs: config.atomicWriteBatchTimeoutMs,
    maxWatches: config.maxWatches,
    logger,
  });
  io.out(`Opened database at ${config.sqlitePath}`);
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
    });
  } catch (error) {
    await store.close();
    throw error;
  }
  // The address as it was asked for, with the port that was really taken.
  const address = { hostname: config.address.hostname, port: server.port };
  io.out(`Listening on http://${formatAddress(address)}`);
  io.onListening?.(`http://${formatAddress(loopbackOf(address))}`);
  const name = await signal;
  logger.info("Stopping.", { signal: name });
  await stop(server, store, config.drainTimeoutMs, logger);
  return 0;
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
  store: Store,
  drainTimeoutMs: number,
  logger: Logger,
): Promise<void> {
  server.announceStop();
  const { isComplete } = await server.drain(drainTimeoutMs);
  if (!isComplete) {
    logger.warn("Some connections were still busy and were cut.", {
      drainTimeoutMs,
    });
  }
  const timedOut = Promise.withResolvers<"late">();
  const timer = systemClock.after(
    CLOSE_TIMEOUT_MS,
    () => timedOut.resolve("late"),
  );
  const closed = await Promise.race([store.close(), timedOut.promise]);
  timer.stop();
  if (closed === "late") {
    throw new StartupError(
      "The database could not be closed in time: the disk does not answer. Everything acknowledged is kept; the next start recovers it.",
    );
  }
  logger.info("Stopped; the write-ahead log is in the database.");
}
