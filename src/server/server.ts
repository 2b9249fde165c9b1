/** The HTTP server and its end: requests in flight are answered first. */
import type { Clock } from "../common/clock.ts";
import { messageOf } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { Store } from "../store/store.ts";
import { createAccess } from "./access.ts";
import { type BackupControl, createDoor } from "./http.ts";
import { listenError } from "./listen_error.ts";
import { KvConnect } from "./kv_connect.ts";
import { createRest } from "./rest.ts";
import { text } from "./responses.ts";
import { WatchStreams } from "./watch_stream.ts";

export interface ServerOptions {
  store: Store;
  clock: Clock;
  logger: Logger;
  hostname: string;
  /** 0: any free one. */
  port: number;
  /** Of this program, for people. */
  version: string;
  accessToken?: string;
  restSecret?: string;
  publicReads: boolean;
  /** Absent where the database has no backup. */
  backup?: BackupControl;
}

export interface RunningServer {
  readonly hostname: string;
  readonly port: number;
  /** From now on `/-/ready` says why the server is not ready. */
  announceStop(): void;
  /**
   * Takes no new connections, ends watches, and resolves when every request
   * in flight is answered, or after `timeoutMs`.
   */
  drain(timeoutMs: number): Promise<{ isComplete: boolean }>;
}

/** @throws StartupError where the address cannot be listened on */
export async function startServer(
  options: ServerOptions,
): Promise<RunningServer> {
  const { store, clock, logger, accessToken, restSecret } = options;
  const watches = new WatchStreams(clock);
  let stopping: string | undefined;
  const access = createAccess({
    accessToken,
    restSecret,
    publicReads: options.publicReads,
  });
  const handler = createDoor({
    store,
    clock,
    logger,
    version: options.version,
    rest: createRest({
      store,
      access,
    }),
    access,
    backup: options.backup,
    kvConnect: accessToken === undefined
      ? undefined
      : await KvConnect.create({ store, accessToken, clock, watches }),
    stopping: () => stopping,
  });
  const server = listen(options, handler, logger);
  return {
    hostname: server.addr.hostname,
    port: server.addr.port,
    announceStop() {
      stopping = "The server is stopping.";
    },
    async drain(timeoutMs) {
      stopping ??= "The server is stopping.";
      // Streams that never end would hold the server open for ever.
      watches.endAll();
      let isComplete = false;
      const timedOut = Promise.withResolvers<void>();
      const timer = clock.after(timeoutMs, timedOut.resolve);
      const finished = server.shutdown().then(() => {
        isComplete = true;
      });
      await Promise.race([finished, timedOut.promise]);
      timer.stop();
      return { isComplete };
    },
  };
}

function listen(
  options: ServerOptions,
  handler: ReturnType<typeof createDoor>,
  logger: Logger,
): Deno.HttpServer<Deno.NetAddr> {
  const { hostname, port } = options;
  try {
    return Deno.serve({
      hostname,
      port,
      // The caller says where it listens, in its own words.
      onListen() {},
      onError(error) {
        logger.error("An answer could not be sent.", {
          reason: messageOf(error),
        });
        return text(500, "The server failed in an unforeseen way.");
      },
    }, handler);
  } catch (error) {
    throw listenError(error, { hostname, port });
  }
}
