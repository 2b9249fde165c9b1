/** The HTTP server and its end: requests in flight are answered first. */
import type { Clock } from "../common/clock.ts";
import type { Logger } from "../common/log.ts";
import type { PastLog } from "../store/log_source.ts";
import type { Store } from "../store/store.ts";
import { createAccess } from "./access.ts";
import { Answers } from "./answers.ts";
import { Bodies } from "./body.ts";
import { Cors } from "./cors.ts";
import { Denials } from "./denials.ts";
import { Changes } from "./changes.ts";
import { ChangeStreams } from "./change_streams.ts";
import { createDoor } from "./http.ts";
import { KvConnect } from "./kv_connect.ts";
import { Listener } from "./listener.ts";
import { LogStreams } from "./log_streams.ts";
import { MinVersions } from "./min_version.ts";
import { RequestMetrics } from "./metrics.ts";
import { ReplicaFeed } from "./replica_feed.ts";
import { createRest } from "./rest.ts";
import {
  type BackupControl,
  type PromotionControl,
  type ReplicaControl,
  Service,
} from "./service.ts";
import { SnapshotStreams } from "./snapshot_streams.ts";
import { Turns } from "./turns.ts";
import { WatchStreams } from "./watch_stream.ts";

/** What one kind of the log's readers may hold back of it. */
const LOG_RETAINED_BYTES = 256 * 1024 * 1024;

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
  /** Absent where the database has no backup; asked for each time. */
  readonly backup?: BackupControl;
  /** Absent where the store is no replica; asked for each time. */
  readonly replica?: ReplicaControl;
  /** Absent where it can become the owner of nothing. */
  promotion?: PromotionControl;
  /** Large answers and frames that clients have not taken, in all. */
  maxInFlightBytes: number;
  /** What the log keeps for change feeds that are behind. Default 256 MiB. */
  changesRetainedBytes?: number;
  /** For feeds that begin before the log does; absent without a backup. */
  pastLog?: PastLog | undefined;
  /** Where clients may read with eventual consistency. */
  advertisedReplicas?: readonly string[];
  /** A replica names itself alone, for every read. */
  isNamedStrong?: boolean;
  /** What the log keeps for live replicas that are behind. Default 256 MiB. */
  replicaRetainedBytes?: number;
  /** Pages of these origins may use REST from a browser. */
  corsOrigins: readonly string[];
  /** One line of the log for each request. */
  logsAccess: boolean;
  /** See `ListenerOptions`. */
  spareFile?: string;
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
export function startServer(options: ServerOptions): RunningServer {
  const { store, clock, logger, accessToken, restSecret } = options;
  const backup = () => options.backup;
  const answers = new Answers({ clock, maxBytes: options.maxInFlightBytes });
  const bodies = new Bodies(clock);
  const watches = new WatchStreams(clock, answers);
  const changes = new ChangeStreams({
    clock,
    logger,
    answers,
    maxRetainedBytes: options.changesRetainedBytes ?? LOG_RETAINED_BYTES,
    past: options.pastLog,
  });
  const maxRetainedBytes = options.replicaRetainedBytes ??
    LOG_RETAINED_BYTES;
  const logs = new LogStreams({ clock, maxRetainedBytes });
  const snapshots = new SnapshotStreams({ clock, store, maxRetainedBytes });
  const denials = new Denials(clock, logger);
  const metrics = new RequestMetrics();
  let stopping: string | undefined;
  const access = createAccess({
    accessToken,
    restSecret,
    publicReads: options.publicReads,
  });
  const service = new Service({
    store,
    version: options.version,
    access,
    metrics,
    counts: () => ({ answers, bodies, changes, denials, listener, logs }),
    backup,
    replica: () => options.replica,
    promotion: options.promotion,
    stopping: () => stopping,
  });
  const handler = createDoor({
    clock,
    logger,
    metrics,
    denials,
    cors: options.corsOrigins.length > 0
      ? new Cors(options.corsOrigins)
      : undefined,
    rest: createRest({
      store,
      access,
      bodies,
      answers,
      minVersions: new MinVersions(store, clock),
    }),
    service,
    changes: new Changes({ store, access, streams: changes }),
    replicaFeed: new ReplicaFeed({
      store,
      access,
      logs,
      snapshots,
      epoch: () => backup()?.report().epoch ?? 0,
    }),
    kvConnect: accessToken === undefined ? undefined : new KvConnect({
      store,
      accessToken,
      clock,
      watches,
      bodies,
      answers,
      advertisedReplicas: options.advertisedReplicas ?? [],
      isNamedStrong: options.isNamedStrong ?? false,
    }),
    backup,
    turns: new Turns(clock),
    logsAccess: options.logsAccess,
  });
  const listener: Listener = new Listener(options, handler);
  return {
    hostname: listener.hostname,
    port: listener.port,
    announceStop() {
      stopping = "The server is stopping.";
    },
    async drain(timeoutMs) {
      stopping ??= "The server is stopping.";
      // Streams that never end would hold the server open for ever.
      watches.endAll();
      changes.endAll(stopping);
      logs.endAll(stopping);
      snapshots.endAll(stopping);
      let isComplete = false;
      const timedOut = Promise.withResolvers<void>();
      const timer = clock.after(timeoutMs, timedOut.resolve);
      const finished = listener.shutdown().then(() => {
        isComplete = true;
      });
      await Promise.race([finished, timedOut.promise]);
      timer.stop();
      return { isComplete };
    },
  };
}
