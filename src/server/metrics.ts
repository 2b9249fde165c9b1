/**
 * `/-/metrics` in the Prometheus text format, version 0.0.4
 * (prometheus.io/docs/instrumenting/exposition_formats).
 *
 * Counting is plain numbers in the hot path; the text is made when asked for.
 */
import { Histogram } from "../common/histogram.ts";
import { messageOf } from "../common/errors.ts";
import type { Answers } from "./answers.ts";
import type { Bodies } from "./body.ts";
import type { ChangeStreams } from "./change_streams.ts";
import type { Denials } from "./denials.ts";
import type { Listener } from "./listener.ts";
import type { LogStreams } from "./log_streams.ts";
import type { LogReaderReport } from "../store/log_source.ts";
import {
  BACKUP_ERROR_KINDS,
  type BackupReport,
  type BackupRequests,
  type HistogramSnapshot,
  type ReplicaReport,
  type Store,
  type StoreStats,
} from "../store/store.ts";

/** Kinds of request that are counted apart. */
export const ENDPOINTS = [
  "exchange",
  "snapshot_read",
  "atomic_write",
  "watch",
  "rest",
  "changes",
  "replica",
  "service",
] as const;
export type Endpoint = (typeof ENDPOINTS)[number];

const LATENCY_BOUNDS_SECONDS = [
  0.0001,
  0.00025,
  0.0005,
  0.001,
  0.0025,
  0.005,
  0.01,
  0.025,
  0.05,
  0.1,
  0.25,
  0.5,
  1,
  2.5,
];

/** What the parts of the server count, each for itself. */
export interface ServerCounts {
  answers: Pick<Answers, "budget" | "largeReads" | "frames" | "cut">;
  bodies: Pick<Bodies, "count" | "heldBytes" | "shed">;
  changes: Pick<ChangeStreams, "count" | "budget" | "sentBytes">;
  denials: Pick<Denials, "missing" | "wrong">;
  listener: Pick<Listener, "acceptFailures" | "isAccepting">;
  logs: Pick<LogStreams, "count" | "sentBytes">;
}

class EndpointCounts {
  /** By hundreds: 1xx to 5xx. */
  readonly statuses = [0, 0, 0, 0, 0];
  /** To the answer; for a watch, to its beginning. */
  readonly seconds = new Histogram(LATENCY_BOUNDS_SECONDS);
}

export class RequestMetrics {
  private readonly counts = new Map(
    ENDPOINTS.map((endpoint) => [endpoint, new EndpointCounts()]),
  );

  observe(endpoint: Endpoint, status: number, seconds: number): void {
    const counts = this.counts.get(endpoint)!;
    counts.statuses[Math.floor(status / 100) - 1]++;
    counts.seconds.observe(seconds);
  }

  /** The whole page. */
  render(
    store: Store,
    version: string,
    isReady: boolean,
    server: ServerCounts,
    backup?: { report(): BackupReport },
    replica?: { report(): ReplicaReport },
  ): string {
    const out = new Exposition();
    out.family("denokv_info", "gauge", "The version of this server.");
    out.sample("denokv_info", { version }, 1);
    out.family("denokv_ready", "gauge", "1 while the server is ready.");
    out.sample("denokv_ready", {}, isReady ? 1 : 0);
    out.family("denokv_requests_total", "counter", "Requests answered.");
    for (const [endpoint, { statuses }] of this.counts) {
      statuses.forEach((count, i) => {
        if (count === 0) return;
        out.sample("denokv_requests_total", {
          endpoint,
          status: `${i + 1}xx`,
        }, count);
      });
    }
    const name = "denokv_request_seconds";
    out.family(name, "histogram", "Time from a request to its answer.");
    for (const [endpoint, { seconds }] of this.counts) {
      out.histogram(name, { endpoint }, seconds);
    }
    out.family(
      "process_resident_memory_bytes",
      "gauge",
      "Resident memory of the process.",
    );
    out.sample("process_resident_memory_bytes", {}, Deno.memoryUsage().rss);
    renderServer(out, server);
    // While no file is open its numbers are missing, not the page.
    const orComment = (what: string, part: () => void) => {
      try {
        part();
      } catch (error) {
        out.comment(`The ${what}'s numbers are missing: ${messageOf(error)}`);
      }
    };
    orComment("store", () => renderStore(out, store.stats()));
    orComment(
      "log",
      () => renderLogReaders(out, store.log?.logReaders() ?? []),
    );
    if (backup) orComment("backup", () => renderBackup(out, backup.report()));
    if (replica) renderReplica(out, replica.report());
    return out.text;
  }
}

function renderServer(
  out: Exposition,
  { answers, bodies, changes, denials, listener, logs }: ServerCounts,
): void {
  out.gauge(
    "denokv_accepting",
    "1 while new connections are accepted.",
    listener.isAccepting ? 1 : 0,
  );
  out.counter(
    "denokv_accept_failures_total",
    "How often the system refused to accept a connection.",
    listener.acceptFailures,
  );
  out.family(
    "denokv_unauthorized_total",
    "counter",
    "Requests refused for their secret.",
  );
  for (const kind of ["missing", "wrong"] as const) {
    out.sample("denokv_unauthorized_total", { secret: kind }, denials[kind]);
  }
  out.gauge("denokv_change_feeds", "Change feeds open.", changes.count);
  out.counter(
    "denokv_change_feed_bytes_total",
    "What change feeds have handed out.",
    changes.sentBytes,
  );
  out.gauge("denokv_live_replicas", "Live replicas connected.", logs.count);
  out.counter(
    "denokv_live_replica_bytes_total",
    "What live replicas were sent of the log.",
    logs.sentBytes,
  );
  out.gauge("denokv_bodies", "Request bodies on their way.", bodies.count);
  out.gauge(
    "denokv_body_bytes",
    "Memory held for bodies on their way, those above 4 KiB.",
    bodies.heldBytes,
  );
  out.counter(
    "denokv_bodies_shed_total",
    "Bodies given up because all of them took too much memory.",
    bodies.shed,
  );
  const kinds = {
    answers: answers.budget,
    large_reads: answers.largeReads,
    frames: answers.frames,
    changes: changes.budget,
  };
  const bytes = "denokv_in_flight_bytes";
  out.family(
    bytes,
    "gauge",
    "Large answers, watch frames and changes not yet taken.",
  );
  for (const [kind, { usedBytes }] of Object.entries(kinds)) {
    out.sample(bytes, { kind }, usedBytes);
  }
  const limit = "denokv_in_flight_limit_bytes";
  out.family(limit, "gauge", "Their limits; what is above waits its turn.");
  for (const [kind, { limitBytes }] of Object.entries(kinds)) {
    out.sample(limit, { kind }, limitBytes);
  }
  const waiting = "denokv_in_flight_waiting";
  out.family(
    waiting,
    "gauge",
    "Answers, watches and change feeds that wait their turn.",
  );
  for (const [kind, budget] of Object.entries(kinds)) {
    out.sample(waiting, { kind }, budget.waiting);
  }
  out.counter(
    "denokv_answers_refused_total",
    "Answers whose turn did not come in time.",
    answers.budget.refusals + answers.largeReads.refusals,
  );
  out.counter(
    "denokv_answers_cut_total",
    "Clients cut off because they did not take their answer.",
    answers.cut,
  );
}

function renderStore(out: Exposition, stats: StoreStats): void {
  out.family(
    "denokv_atomic_writes_total",
    "counter",
    "Atomic writes by what became of them.",
  );
  const { committed, checkFailed, refused } = stats.atomicWrites;
  const outcomes = { committed, check_failed: checkFailed, refused };
  for (const [outcome, count] of Object.entries(outcomes)) {
    out.sample("denokv_atomic_writes_total", { outcome }, count);
  }
  out.counter("denokv_commits_total", "Group commits.", stats.commits);
  out.family(
    "denokv_commit_group_size",
    "histogram",
    "Atomic writes that shared a commit.",
  );
  out.histogram("denokv_commit_group_size", {}, stats.groupSizes);
  out.family(
    "denokv_sync_seconds",
    "histogram",
    "Time that fsync of the write-ahead log took.",
  );
  out.histogram("denokv_sync_seconds", {}, stats.syncSeconds);
  out.gauge(
    "denokv_sync_pending_seconds",
    "How long the oldest fsync that runs has been running.",
    stats.syncPendingSeconds,
  );
  out.counter(
    "denokv_sync_failures_total",
    "Failed fsyncs.",
    stats.syncFailures,
  );
  out.counter(
    "denokv_commit_failures_total",
    "Commits that the disk refused.",
    stats.commitFailures,
  );
  out.counter("denokv_checkpoints_total", "Checkpoints.", stats.checkpoints);
  out.gauge(
    "denokv_waiting_writes",
    "Writes that wait for their answer.",
    stats.waitingWrites,
  );
  out.gauge(
    "denokv_waiting_write_bytes",
    "What writes hold in memory until they are answered.",
    stats.waitingBytes,
  );
  out.counter(
    "denokv_refused_writes_total",
    "Writes refused because too many were waiting.",
    stats.refusedWrites,
  );
  out.gauge("denokv_wal_bytes", "Write-ahead log in use.", stats.walBytes);
  out.gauge(
    "denokv_database_bytes",
    "Database, without pages that wait for reuse.",
    stats.databaseBytes,
  );
  out.gauge(
    "denokv_disk_reserve_bytes",
    "Room kept on the disk for deletions; 0 while it is given up.",
    stats.reserveBytes,
  );
  out.gauge("denokv_watches", "Watches open.", stats.watches);
  out.gauge(
    "denokv_expiry_backlog",
    "Expired entries not yet deleted, counted up to 10000.",
    stats.expiryBacklog,
  );
  out.counter(
    "denokv_expired_deleted_total",
    "Expired entries deleted.",
    stats.expiredDeleted,
  );
  out.counter(
    "denokv_unreadable_rows_total",
    "Rows met that another program wrote and that cannot be read.",
    stats.unreadableRows,
  );
  out.gauge("denokv_log_bytes", "Mutation log.", stats.log.sizeBytes);
  out.gauge(
    "denokv_log_floor_version",
    "Every commit after this version is in the mutation log.",
    stats.log.floorVersion,
  );
  out.gauge(
    "denokv_log_head_version",
    "The newest commit in the mutation log.",
    stats.log.headVersion,
  );
  out.gauge(
    "denokv_durable_version",
    "The newest durable commit: its versionstamp's first 8 bytes as a number.",
    stats.durableVersion,
  );
}

function renderLogReaders(
  out: Exposition,
  readers: readonly LogReaderReport[],
): void {
  if (readers.length === 0) return;
  const bytes = "denokv_log_reader_lag_bytes";
  out.family(bytes, "gauge", "Acknowledged log that this reader has not got.");
  for (const { name, lagBytes } of readers) {
    out.sample(bytes, { reader: name }, lagBytes);
  }
  const seconds = "denokv_log_reader_lag_seconds";
  out.family(seconds, "gauge", "Age of the oldest commit that it has not got.");
  for (const { name, lagMs } of readers) {
    out.sample(seconds, { reader: name }, lagMs / 1000);
  }
}

function renderBackup(out: Exposition, report: BackupReport): void {
  const { state, durability } = report;
  const name = "denokv_backup_active";
  out.family(name, "gauge", "1 while the backup is up to date.");
  out.sample(name, { state, durability }, state === "Active" ? 1 : 0);
  out.gauge("denokv_backup_epoch", "The fencing epoch.", report.epoch);
  out.gauge(
    "denokv_backup_local_version",
    "The newest commit that is durable on this machine's disk.",
    report.localVersion,
  );
  out.gauge(
    "denokv_backup_version",
    "The newest commit that is durable in the backup.",
    report.bucketVersion,
  );
  out.gauge(
    "denokv_backup_lag_seconds",
    "Age of the oldest commit that is not in the backup.",
    report.lagMs / 1000,
  );
  out.gauge(
    "denokv_backup_max_lag_seconds",
    "The largest lag since the start.",
    report.maxLagMs / 1000,
  );
  out.gauge(
    "denokv_backup_lag_bytes",
    "Log that is not in the backup.",
    report.lagBytes,
  );
  out.counter(
    "denokv_backup_segments_total",
    "Log segments shipped.",
    report.segments,
  );
  out.counter(
    "denokv_backup_shipped_bytes_total",
    "Bytes of log segments shipped.",
    report.shippedBytes,
  );
  out.counter(
    "denokv_backup_failures_total",
    "Tries to ship that failed.",
    report.failures,
  );
  {
    const name = "denokv_backup_error";
    out.family(name, "gauge", "1 for the kind of error that there is now.");
    for (const kind of BACKUP_ERROR_KINDS) {
      out.sample(name, { kind }, kind === report.lastErrorKind ? 1 : 0);
    }
  }
  if (report.clockSkewMs !== undefined) {
    out.gauge(
      "denokv_backup_clock_skew_seconds",
      "This machine's clock less the object store's, at least.",
      report.clockSkewMs / 1000,
    );
  }
  renderRequests(out, report.requests);
  if (report.followedAgeMs !== undefined) {
    out.gauge(
      "denokv_standby_followed_age_seconds",
      "Since this standby last had everything that the bucket showed.",
      report.followedAgeMs / 1000,
    );
  }
  if (report.verifiedAgeMs !== undefined) {
    out.gauge(
      "denokv_backup_verified_age_seconds",
      "Since the backup was last restored and compared.",
      report.verifiedAgeMs / 1000,
    );
  }
  out.gauge(
    "denokv_backup_verify_failed",
    "1 where the last verification failed.",
    report.verifyFailure === undefined ? 0 : 1,
  );
}

function renderRequests(
  out: Exposition,
  requests: BackupRequests | undefined,
): void {
  if (requests === undefined) return;
  const name = "denokv_backup_requests_total";
  out.family(name, "counter", "Requests to the object store.");
  const { forMs: _forMs, ...counts } = requests;
  for (const [kind, count] of Object.entries(counts)) {
    out.sample(name, { kind }, count);
  }
}

function renderReplica(out: Exposition, report: ReplicaReport): void {
  const { state, via, lastErrorKind } = report;
  const name = "denokv_replica_following";
  out.family(name, "gauge", "1 while the replica follows its source.");
  const error = lastErrorKind ?? "none";
  out.sample(name, { state, via, error }, state === "Following" ? 1 : 0);
  out.gauge(
    "denokv_replica_version",
    "The history's version that is served.",
    report.version,
  );
  out.gauge(
    "denokv_replica_lag_seconds",
    "Since the replica last had everything that its source showed.",
    report.lagMs / 1000,
  );
  out.gauge(
    "denokv_replica_lag_versions",
    "How far it is behind the newest version that its source showed.",
    report.lagVersions,
  );
  out.counter(
    "denokv_replica_entries_total",
    "Entries of the log that were applied.",
    report.entries,
  );
  out.counter(
    "denokv_replica_failures_total",
    "Tries to follow that failed.",
    report.failures,
  );
  renderRequests(out, report.requests);
}

/** Writes the format; names and labels come from this file alone. */
class Exposition {
  text = "";

  family(name: string, type: string, help: string): void {
    this.text += `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
  }

  gauge(name: string, help: string, value: number): void {
    this.family(name, "gauge", help);
    this.sample(name, {}, value);
  }

  counter(name: string, help: string, value: number): void {
    this.family(name, "counter", help);
    this.sample(name, {}, value);
  }

  comment(sentence: string): void {
    this.text += `# ${sentence.replaceAll("\n", " ")}\n`;
  }

  sample(name: string, labels: Record<string, string>, value: number): void {
    const pairs = Object.entries(labels).map(([label, text]) =>
      `${label}="${
        text.replace(/[\\"\n]/g, (c) => c === "\n" ? "\\n" : "\\" + c)
      }"`
    );
    const set = pairs.length > 0 ? `{${pairs.join(",")}}` : "";
    this.text += `${name}${set} ${value}\n`;
  }

  histogram(
    name: string,
    labels: Record<string, string>,
    { bounds, counts, sum }: HistogramSnapshot,
  ): void {
    let cumulative = 0;
    bounds.forEach((bound, i) => {
      cumulative += counts[i];
      this.sample(
        `${name}_bucket`,
        { ...labels, le: String(bound) },
        cumulative,
      );
    });
    cumulative += counts[bounds.length];
    this.sample(`${name}_bucket`, { ...labels, le: "+Inf" }, cumulative);
    this.sample(`${name}_sum`, labels, sum);
    this.sample(`${name}_count`, labels, cumulative);
  }
}
