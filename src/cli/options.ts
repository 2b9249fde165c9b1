/**
 * The one table of commands and options. Flags, environment variables,
 * `--help`, docs/options.md and the permissions that the documented commands
 * grant all come from it, so none of them can say something else.
 */

export const COMMANDS = {
  start: {
    help: "Serve ./data/denokv.sqlite on localhost:4512",
    about: [
      "The embedded default: creates the data folder, the database and an",
      "access token beside it where they are missing, and prints lines that",
      "are ready to paste for Deno.openKv and curl.",
    ],
  },
  serve: {
    help: "Serve a database over KV Connect and REST",
    about: [
      "Needs --sqlite-path, and at least one of an access token (KV Connect",
      "and REST) and KVSTORE_SECRET (REST only).",
    ],
  },
  "backup status": {
    help: "Tell how the backup stands, and what it can restore",
    about: [
      "Looks into the bucket, and asks the server at --addr where one answers:",
      "`Active` is a backup that has everything, or is within its interval.",
      "To the holder of its access token or KVSTORE_SECRET the server tells",
      "which backup it serves, and how far behind that is.",
      "Exit codes: 0 `Active`; 1 `Behind`, `Empty`, or objects that are not",
      "history, or the command failed; 5 `Stopped`; 6 `Unreachable`: the",
      "object store does not answer; 7 `Unknown`: the lease has run out and no",
      "server was found that is well.",
    ],
  },
  "backup list": {
    help: "List the points that a backup can be restored to",
    about: [
      "Each generation with its time and versionstamp, and the newest point,",
      "out of the manifest alone. All between them can be restored as well.",
    ],
  },
  "backup verify": {
    help: "Restore the backup into a scratch file and compare it",
    about: [
      "Every object is checked on the way. With --sqlite-path, what comes out",
      "is compared with that database, which may be served meanwhile. Exit code",
      "1 where they differ.",
    ],
  },
  "backup repair": {
    help: "Mend a backup whose manifest, snapshot or a segment is lost",
    about: [
      "Where manifest.json is missing, cannot be read, or is an old one, it is",
      "made anew from the copy that the last owner left. Where a segment is",
      "missing, the history ends before it from then on. Where the present",
      "snapshot is not whole (it is read for that), the backup goes on from the",
      "newest generation before it that is. Shows what it found and what is",
      "left out or given up, and asks before it writes; nothing is deleted.",
      "Stop every server on the backup first.",
    ],
  },
  "backup rewind": {
    help: "Go back to an earlier point, on the same backup",
    about: [
      "For a bad deploy: the database goes on from the point that --to names,",
      "under the same id, with versionstamps above all that were issued. What",
      "it is now is kept as a branch, whatever the retention, until `backup",
      "branches --remove`. A server that runs hands the database over, and its",
      "file is set aside at the next start. Asks before it begins; killed at any",
      "moment it leaves the old state or the new one. Restores into a scratch",
      "file: --scratch-folder needs room for the database.",
    ],
  },
  "backup branches": {
    help: "List what rewinds have left, or give it up (--remove)",
    about: [
      "Each branch with its name and its newest versionstamp. What only a",
      "removed one held is deleted as whatever is older than the retention.",
    ],
  },
  "backup snapshot": {
    help: "Begin a new generation of the backup: a whole snapshot, now",
    about: [
      "Asks the server at --addr, with its access token or KVSTORE_SECRET.",
    ],
  },
  "pitr sync": {
    help: "Bring a replica's file to the end of the history in a bucket",
    about: [
      "Begins with a snapshot where --sqlite-path is not there yet, and goes on",
      "where it was otherwise; ends when it has all that is there. Takes a",
      "generation's folder, also one that Deno Deploy wrote, or the place of a",
      "backup. For a file that `serve --sync-from-s3` serves afterwards, or that",
      "`restore` would make anew each time. No server may have the file open.",
    ],
  },
  "pitr list": {
    help: "List the points in time that a replica's file can go to",
    about: [
      "A line for each commit, newest first: its versionstamp, a tab, and when",
      "it was made. With --json each line is an object. A server may have the",
      "file open.",
    ],
  },
  "pitr info": {
    help: "Tell which point in time a replica's file shows",
    about: [
      "With --json also the newest and the earliest one that it has.",
    ],
  },
  "pitr checkout": {
    help: "Take a replica's file to another point in time",
    about: [
      "Back or forth, as `pitr list` shows the points; all other data stay in",
      "the file, and the way back too. Between two commits it is the one before.",
      "Killed at any moment it leaves the state before or the new one. No server",
      "may have the file open; `serve --read-only` shows the state afterwards,",
      "while `serve --sync-from-s3` goes forward to the newest one again.",
    ],
  },
  restore: {
    help: "Write a database file out of a backup",
    about: [
      "The file must not be there yet; it appears under its name when it is",
      "whole and verified. Without --at, everything the backup holds. It is a",
      "database of its own, with a new id, unless --same-database is given.",
    ],
  },
  promote: {
    help: "Make a replica the owner of its database",
    about: [
      "Asks the replica at --addr or --url, with its access token or",
      "KVSTORE_SECRET; it was started with --backup beside --replica-of or",
      "--replica-from. It asks an owner that is alive for the database, or waits",
      "until the lease of a dead one is over, and is read meanwhile. Ends when it",
      "takes writes. Exit codes: 0 it is the owner; 1 it could not be asked, or",
      "refused, or did not get the database, and goes on as a replica.",
    ],
  },
  changes: {
    help: "Print what is committed, every mutation as a line of JSON",
    about: [
      "The change feed of the server at --addr or --url: whole commits, in their",
      "order. Ends with the newest one unless --follow is given; then it goes on,",
      "and where the server or the network goes away it goes on where it was.",
      "Needs the server's access token or KVSTORE_SECRET. Exit codes: 0 done, or",
      "ended by a signal, or by whoever reads its output; 1 the server cannot be",
      "asked, or refuses; 8 nothing reaches back so far. The lines are",
      "described in docs/changes.md.",
    ],
  },
  health: {
    help: "Ask the server on this machine whether it is ready",
    about: [
      "Asks /-/ready at the address that `serve` would use with the same",
      "options; for container health checks. Exit code 0 where it is ready or",
      "stands by for another instance, 1 otherwise.",
    ],
  },
} as const;

export type CommandName = keyof typeof COMMANDS;

/** What an option's text may be, and what it becomes. */
export type OptionType =
  | { kind: "string" }
  /** Decimal digits; both bounds inclusive. */
  | { kind: "integer"; min: number; max: number }
  /** As a flag alone true; `=true` and `=false` are taken too. */
  | { kind: "boolean" }
  /** As 500ms, 10s, 5m, 12h or 7d; its value is in milliseconds. */
  | { kind: "duration"; minMs: number; maxMs: number }
  | { kind: "choice"; choices: readonly string[] };

export interface OptionSpec {
  /** Without its dashes. Absent: only the environment sets it. */
  flag?: string;
  /** A word behind the command, not a flag. */
  isArgument?: true;
  /** One letter, without its dash. */
  short?: string;
  env?: string;
  type: OptionType;
  /** What stands for the value in the help text. */
  placeholder?: string;
  default?: string | number | boolean;
  /** Commands whose default differs. */
  defaultFor?: Partial<Record<CommandName, string | number | boolean>>;
  /** Sentences for people, the first one short. */
  help: string;
  commands: readonly CommandName[];
  /** The value is never printed. */
  isSecret?: boolean;
}

const BACKUP_COMMANDS = [
  "backup status",
  "backup verify",
  "backup snapshot",
] as const;

/** Those that work on a place; not all of them ask a server. */
const PLACE_COMMANDS = [
  ...BACKUP_COMMANDS,
  "backup list",
  "backup repair",
  "backup rewind",
  "backup branches",
] as const;

const PITR_COMMANDS = [
  "pitr sync",
  "pitr list",
  "pitr info",
  "pitr checkout",
] as const;

export const OPTIONS = {
  sqlitePath: {
    flag: "sqlite-path",
    env: "DENO_KV_SQLITE_PATH",
    type: { kind: "string" },
    placeholder: "PATH",
    defaultFor: { start: "./data/denokv.sqlite" },
    help:
      "The SQLite database file. It is created when it is missing; its folder has to be there.",
    commands: [
      "start",
      "serve",
      "backup status",
      "backup verify",
      ...PITR_COMMANDS,
    ],
  },
  accessToken: {
    flag: "access-token",
    env: "DENO_KV_ACCESS_TOKEN",
    type: { kind: "string" },
    placeholder: "TOKEN",
    help:
      "The access token that opens KV Connect, and REST as a Bearer token; at least 12 characters. Without one, KV Connect is off. Prefer the environment or --access-token-file: other users of the machine can read a command line.",
    commands: ["serve", ...BACKUP_COMMANDS, "promote", "changes"],
    isSecret: true,
  },
  accessTokenFile: {
    flag: "access-token-file",
    env: "DENO_KV_ACCESS_TOKEN_FILE",
    type: { kind: "string" },
    placeholder: "PATH",
    help:
      "A file that holds the access token; white space around it is ignored.",
    commands: ["serve", ...BACKUP_COMMANDS, "promote", "changes"],
  },
  restSecret: {
    env: "KVSTORE_SECRET",
    type: { kind: "string" },
    help:
      "The secret that opens REST and nothing else. Only from the environment.",
    commands: ["serve", ...BACKUP_COMMANDS, "promote", "changes"],
    isSecret: true,
  },
  publicReads: {
    flag: "public-reads",
    env: "DENO_KV_PUBLIC_READS",
    type: { kind: "boolean" },
    default: false,
    help:
      "Let anyone read single keys over REST without a secret. Lists and writes stay closed.",
    commands: ["start", "serve"],
  },
  addr: {
    flag: "addr",
    type: { kind: "string" },
    placeholder: "HOST:PORT",
    default: "0.0.0.0:4512",
    defaultFor: { start: "localhost:4512" },
    help:
      "The address to listen on; an IPv6 address stands in brackets, port 0 takes any free port.",
    commands: [
      "start",
      "serve",
      ...BACKUP_COMMANDS,
      "promote",
      "changes",
      "health",
    ],
  },
  port: {
    env: "PORT",
    type: { kind: "integer", min: 0, max: 65535 },
    help:
      "Listen at this port where --addr is not given, on 0.0.0.0 if nothing else says where.",
    commands: ["serve", ...BACKUP_COMMANDS, "promote", "changes", "health"],
  },
  host: {
    env: "DENO_KV_HOST",
    type: { kind: "string" },
    help:
      "Listen at this host where --addr is not given; without it `serve` listens everywhere, with --dev on localhost alone.",
    commands: ["serve", ...BACKUP_COMMANDS, "promote", "changes", "health"],
  },
  addressFile: {
    flag: "address-file",
    env: "DENO_KV_ADDRESS_FILE",
    type: { kind: "string" },
    placeholder: "FILE",
    help:
      "A file for the address that the server listens on. It writes it there; the commands that ask a server read it, where no --addr is given.",
    commands: [
      "start",
      "serve",
      ...BACKUP_COMMANDS,
      "promote",
      "changes",
      "health",
    ],
  },
  readOnly: {
    flag: "read-only",
    type: { kind: "boolean" },
    default: false,
    help: "Open the database for reading; writes are refused.",
    commands: ["start", "serve"],
  },
  numWorkers: {
    flag: "num-workers",
    env: "DENO_KV_NUM_WORKERS",
    type: { kind: "integer", min: 1, max: 256 },
    placeholder: "COUNT",
    default: 1,
    help:
      "Taken so that the Rust server's command lines work unchanged, without effect so far: one thread answers requests, disk synchronisation and checkpoints run beside it.",
    commands: ["start", "serve"],
  },
  atomicWriteBatchTimeoutMs: {
    flag: "atomic-write-batch-timeout-ms",
    env: "DENO_KV_ATOMIC_WRITE_BATCH_TIMEOUT_MS",
    type: { kind: "integer", min: 0, max: 10_000 },
    placeholder: "MS",
    help:
      "Hold every commit back for this long to gather more writes. Rarely useful: without it, writes are gathered while the last commit is being made durable, and a lonely one waits for nobody.",
    commands: ["start", "serve"],
  },
  maxWatches: {
    flag: "max-watches",
    env: "DENO_KV_MAX_WATCHES",
    type: { kind: "integer", min: 0, max: 1_000_000 },
    placeholder: "COUNT",
    default: 10_000,
    help: "Watches open at one time; one more is refused with status 429.",
    commands: ["start", "serve"],
  },
  maxInFlightMib: {
    flag: "max-in-flight-mib",
    env: "DENO_KV_MAX_IN_FLIGHT_MIB",
    type: { kind: "integer", min: 16, max: 1_048_576 },
    placeholder: "MIB",
    default: 128,
    help:
      "Memory for large answers and frames of watches that clients have not yet taken, over all connections. Past it they wait their turn.",
    commands: ["start", "serve"],
  },
  changesRetainMib: {
    flag: "changes-retain-mib",
    env: "DENO_KV_CHANGES_RETAIN_MIB",
    type: { kind: "integer", min: 64, max: 1_048_576 },
    placeholder: "MIB",
    default: 256,
    help:
      "What the log may grow to on this machine's disk while the consumer of a change feed is connected and behind. Past it the log goes on without it. A consumer that is away holds nothing: it finds about the last 64 MiB of changes. With a backup it finds the rest there.",
    commands: ["start", "serve"],
  },
  corsOrigin: {
    flag: "cors-origin",
    env: "DENO_KV_CORS_ORIGIN",
    type: { kind: "string" },
    placeholder: "ORIGINS",
    help:
      "Origins whose pages may use REST and change feeds from a browser, as https://app.example, several with commas, or * for any. Without it, none may.",
    commands: ["start", "serve"],
  },
  accessLog: {
    flag: "access-log",
    env: "DENO_KV_ACCESS_LOG",
    type: { kind: "boolean" },
    default: false,
    help:
      "Log a line for each request: from where, method, path, status and time. The paths of REST are keys.",
    commands: ["start", "serve"],
  },
  maxWaitingMib: {
    flag: "max-waiting-mib",
    env: "DENO_KV_MAX_WAITING_MIB",
    type: { kind: "integer", min: 8, max: 65_536 },
    placeholder: "MIB",
    default: 64,
    help:
      "What writes that wait for the disk may hold in memory; one more is refused with status 503.",
    commands: ["start", "serve"],
  },
  diskReserveMib: {
    flag: "disk-reserve-mib",
    env: "DENO_KV_DISK_RESERVE_MIB",
    type: { kind: "integer", min: 0, max: 4096 },
    placeholder: "MIB",
    default: 32,
    help:
      "A file of this size beside the database, which is given up when the disk is full, so that deletions are still taken. 0: none.",
    commands: ["start", "serve"],
  },
  drainTimeoutMs: {
    flag: "drain-timeout-ms",
    env: "DENO_KV_DRAIN_TIMEOUT_MS",
    type: { kind: "integer", min: 0, max: 600_000 },
    placeholder: "MS",
    default: 5000,
    help:
      "After SIGTERM or SIGINT, how long requests in flight may take to finish before the server exits without them. Closing the database may take 3 s more: together less than the 10 s after which container engines kill.",
    commands: ["start", "serve"],
  },
  backup: {
    flag: "backup",
    env: "DENO_KV_BACKUP",
    type: { kind: "string" },
    placeholder: "URL",
    help:
      "Back the database up to this place, and come back from it: s3://bucket/prefix, gs://bucket/prefix or file:///folder. Beside --replica-of or --replica-from it is the backup of the primary: the replica follows that where it has to, and `promote` can make it the owner.",
    commands: ["serve", ...PLACE_COMMANDS],
  },
  from: {
    flag: "from",
    type: { kind: "string" },
    placeholder: "PLACE",
    help:
      "For `restore` the backup to restore from: as --backup, or the folder of one generation. For `changes` the versionstamp to begin after, oldest (as far back as the log goes) or now (the default).",
    commands: ["restore", "changes"],
  },
  restoreAt: {
    flag: "at",
    type: { kind: "string" },
    placeholder: "POINT",
    help:
      "Restore the state at a versionstamp (20 hexadecimal digits) or a time (as 2026-01-31T12:00:00Z; UTC where no zone is named). A day, as 2026-01-31, is its midnight in UTC.",
    commands: ["restore"],
  },
  rewindTo: {
    flag: "to",
    type: { kind: "string" },
    placeholder: "POINT",
    help:
      "Where to go back to: a versionstamp or a time, as `restore --at` takes them.",
    commands: ["backup rewind"],
  },
  branch: {
    flag: "branch",
    type: { kind: "string" },
    placeholder: "NAME",
    help:
      "A branch: for `restore` the one to restore, for `backup rewind` what the present state is kept as (default: before- and the time).",
    commands: ["restore", "backup rewind"],
  },
  removeBranch: {
    flag: "remove",
    type: { kind: "string" },
    placeholder: "NAME",
    help: "Give this branch up.",
    commands: ["backup branches"],
  },
  checkoutPoint: {
    isArgument: true,
    type: { kind: "string" },
    placeholder: "POINT",
    help:
      "A versionstamp (20 hexadecimal digits; ffffffffffffffffffff for the newest) or a time (as 2026-01-31T12:00:00Z; UTC where no zone is named): the last commit at or before it.",
    commands: ["pitr checkout"],
  },
  listStart: {
    flag: "start",
    type: { kind: "string" },
    placeholder: "TIME",
    help: "Only commits that were made at this time or later.",
    commands: ["pitr list"],
  },
  listEnd: {
    flag: "end",
    type: { kind: "string" },
    placeholder: "TIME",
    help: "Only commits that were made before this time.",
    commands: ["pitr list"],
  },
  scratchFolder: {
    flag: "scratch-folder",
    type: { kind: "string" },
    placeholder: "FOLDER",
    help:
      "Where the scratch file is written. Default: the folder for temporary files.",
    commands: ["backup rewind"],
  },
  output: {
    flag: "output",
    short: "o",
    type: { kind: "string" },
    placeholder: "FILE",
    help: "The database file to write.",
    commands: ["restore"],
  },
  sameDatabase: {
    flag: "same-database",
    type: { kind: "boolean" },
    default: false,
    help:
      "Keep the database's id, for a file that takes the database's place. Its versionstamps then go on above every one that was issued, which is noted in the backup: it has to be writable.",
    commands: ["restore"],
  },
  syncFromS3: {
    flag: "sync-from-s3",
    env: "DENO_KV_SYNC_FROM_S3",
    type: { kind: "boolean" },
    default: false,
    help:
      "Serve a read-only replica of the place that --s3-bucket and --s3-prefix name: a backup, or a folder of one, also one that Deno Deploy wrote. It follows what is written there.",
    commands: ["serve"],
  },
  replicaFrom: {
    flag: "replica-from",
    env: "DENO_KV_REPLICA_FROM",
    type: { kind: "string" },
    placeholder: "URL",
    help:
      "The same for a place of any kind, as --backup names it: s3://, gs:// or file://. Nothing is written there, so the right to read is enough.",
    commands: ["serve", "pitr sync"],
  },
  replicaOf: {
    flag: "replica-of",
    env: "DENO_KV_REPLICA_OF",
    type: { kind: "string" },
    placeholder: "URL",
    help:
      "Serve a live replica of the server at this address, such as https://kv-1.example:4512: its log as it is written, over HTTP, with the access token that both have. It begins with a whole copy. Together with --replica-from or --sync-from-s3 it follows that place while the server is away.",
    commands: ["serve"],
  },
  replicaEndpoint: {
    flag: "replica-endpoint",
    env: "DENO_KV_REPLICA_ENDPOINT",
    type: { kind: "choice", choices: ["eventual", "strong"] },
    placeholder: "CONSISTENCY",
    default: "eventual",
    help:
      "What a replica says of itself to clients that open the database at it. eventual: it is for reads of eventual consistency, and its primary for all else, where that is known. strong: it is for all reads, as the Rust server says; Deno's own client reads nowhere else, and its writes are refused then.",
    commands: ["serve"],
  },
  advertiseReplica: {
    flag: "advertise-replica",
    env: "DENO_KV_ADVERTISE_REPLICA",
    type: { kind: "string" },
    placeholder: "URL",
    help:
      "Replicas of this server, separated by commas: where clients may read with eventual consistency. Told to those who open the database here.",
    commands: ["serve"],
  },
  replicaIntervalMs: {
    flag: "replica-interval",
    env: "DENO_KV_REPLICA_INTERVAL",
    type: { kind: "duration", minMs: 100, maxMs: 3_600_000 },
    placeholder: "TIME",
    default: "1s",
    help:
      "How often a replica asks its bucket for more while something comes; less often while nothing does.",
    commands: ["serve"],
  },
  replicaIdlePauseMs: {
    flag: "replica-idle-pause",
    env: "DENO_KV_REPLICA_IDLE_PAUSE",
    type: { kind: "duration", minMs: 1000, maxMs: 365 * 86_400_000 },
    placeholder: "TIME",
    help:
      "A replica that nobody has read for so long, and nobody watches, asks its bucket nothing until the next read. That one is answered with the state that it has.",
    commands: ["serve"],
  },
  s3Bucket: {
    flag: "s3-bucket",
    env: "DENO_KV_S3_BUCKET",
    type: { kind: "string" },
    placeholder: "BUCKET",
    help:
      "With --s3-prefix another way to name the place s3://bucket/prefix, for commands that read it. `serve` takes it beside --backup, --sync-from-s3 and --replica-from only: for the Rust server it is a place to read from.",
    commands: ["serve", ...PLACE_COMMANDS, "pitr sync", "restore"],
  },
  s3Prefix: {
    flag: "s3-prefix",
    env: "DENO_KV_S3_PREFIX",
    type: { kind: "string" },
    placeholder: "PREFIX",
    help: "See --s3-bucket; a slash at its end makes no difference.",
    commands: ["serve", ...PLACE_COMMANDS, "pitr sync", "restore"],
  },
  s3Endpoint: {
    flag: "s3-endpoint",
    env: "DENO_KV_S3_ENDPOINT",
    type: { kind: "string" },
    placeholder: "URL",
    help:
      "Where an S3 that is not Amazon's answers, such as http://localhost:9000.",
    commands: ["serve", ...PLACE_COMMANDS, "pitr sync", "restore"],
  },
  gcsEndpoint: {
    flag: "gcs-endpoint",
    env: "DENO_KV_GCS_ENDPOINT",
    type: { kind: "string" },
    placeholder: "URL",
    help:
      "Where Google Cloud Storage answers, if not at its usual address; one that begins with http: is taken for an emulator and gets no credentials.",
    commands: ["serve", ...PLACE_COMMANDS, "pitr sync", "restore"],
  },
  durability: {
    flag: "durability",
    env: "DENO_KV_DURABILITY",
    type: { kind: "choice", choices: ["local", "s3"] },
    placeholder: "WHERE",
    default: "local",
    help:
      "When a write is acknowledged: synced on this machine's disk, or in the backup too, so that losing the machine loses nothing.",
    commands: ["serve"],
  },
  backupIntervalMs: {
    flag: "backup-interval",
    env: "DENO_KV_BACKUP_INTERVAL",
    type: { kind: "duration", minMs: 10, maxMs: 3_600_000 },
    placeholder: "TIME",
    default: "1s",
    help:
      "How far the backup may be behind with --durability local: what losing the machine with its disk can cost. While the object store does not answer it is more: all that waits, up to --backup-max-log-mib.",
    commands: ["serve"],
  },
  backupRetentionMs: {
    flag: "backup-retention",
    env: "DENO_KV_BACKUP_RETENTION",
    type: { kind: "duration", minMs: 60_000, maxMs: 36_500 * 86_400_000 },
    placeholder: "TIME",
    default: "7d",
    help:
      "How far back the backup can be restored, throughout. What is older is deleted when a new generation is complete. `backup status` tells with it what goes when.",
    commands: ["serve", "backup status"],
  },
  backupMaxLogMib: {
    flag: "backup-max-log-mib",
    env: "DENO_KV_BACKUP_MAX_LOG_MIB",
    type: { kind: "integer", min: 64, max: 1_048_576 },
    placeholder: "MIB",
    default: 1024,
    help:
      "What may wait on this machine's disk while the object store does not answer; losing the machine then costs all of it. Past it the backup begins anew with a whole snapshot when it does; at 80 % the log says so.",
    commands: ["serve"],
  },
  backupLeaseMs: {
    flag: "backup-lease",
    env: "DENO_KV_BACKUP_LEASE",
    type: { kind: "duration", minMs: 1000, maxMs: 300_000 },
    placeholder: "TIME",
    default: "10s",
    help:
      "How long an instance that is gone without a word keeps others from taking over. The same for all instances of a backup, and well above how far their clocks are apart.",
    commands: ["serve", "backup rewind"],
  },
  keepAsideMs: {
    flag: "keep-aside",
    env: "DENO_KV_KEEP_ASIDE",
    type: { kind: "duration", minMs: 0, maxMs: 36_500 * 86_400_000 },
    placeholder: "TIME",
    default: "30d",
    help:
      "How long a database file that was set aside stays when all that it holds is in the backup; a start removes it after that. One that holds anything else is never removed.",
    commands: ["serve"],
  },
  verifyEveryMs: {
    flag: "verify-every",
    env: "DENO_KV_VERIFY_EVERY",
    type: { kind: "duration", minMs: 1000, maxMs: 365 * 86_400_000 },
    placeholder: "TIME",
    help:
      "Restore the backup into a scratch file beside the database this often, and compare the two. It takes that much disk for the while.",
    commands: ["serve"],
  },
  allowUnfencedBackup: {
    flag: "allow-unfenced-backup",
    env: "DENO_KV_ALLOW_UNFENCED_BACKUP",
    type: { kind: "boolean" },
    default: false,
    help:
      "Use an object store that ignores conditions on writes. Two instances that run at once can then overwrite each other's history.",
    commands: ["serve"],
  },
  standby: {
    flag: "standby",
    env: "DENO_KV_STANDBY",
    type: { kind: "boolean" },
    default: false,
    help:
      "Never ask the instance that serves the database for it: follow its backup, and take over when it stops or crashes. For two instances that are both restarted for ever.",
    commands: ["serve"],
  },
  exitWhenReplaced: {
    flag: "exit-when-replaced",
    env: "DENO_KV_EXIT_WHEN_REPLACED",
    type: { kind: "boolean" },
    default: false,
    help:
      "Exit when another instance has the database now: with code 3 where it was handed over, 4 where it was taken. Without it, this one follows the other one's backup and takes over when that one is gone.",
    commands: ["serve"],
  },
  startInOutage: {
    flag: "start-in-outage",
    env: "DENO_KV_START_IN_OUTAGE",
    type: { kind: "boolean" },
    default: false,
    help:
      "Where the object store does not answer at the start, serve the local file alone until it does, if this machine served it last. What is written meanwhile is on this disk alone, and is set aside where another instance took over before.",
    commands: ["serve"],
  },
  advertiseUrl: {
    flag: "advertise-url",
    env: "DENO_KV_ADVERTISE_URL",
    type: { kind: "string" },
    placeholder: "URL",
    help:
      "Where clients reach this instance. Another instance of the same database names it to those who ask there.",
    commands: ["serve"],
  },
  dev: {
    flag: "dev",
    env: "DENO_KV_DEV",
    type: { kind: "boolean" },
    default: false,
    help:
      "For development only, with secrets that everyone knows: the database in /tmp/denokv.sqlite, backed up to s3://denokv/app on a MinIO at localhost:9000 (minioadmin), localhost:8000, KVSTORE_SECRET denorocks, public reads. Other options still count.",
    commands: ["serve"],
  },
  url: {
    flag: "url",
    env: "DENO_KV_URL",
    type: { kind: "string" },
    placeholder: "URL",
    help:
      "The server to ask, as https://kv.example. Without it the one on this machine, at --addr.",
    commands: ["promote", "changes"],
  },
  prefix: {
    flag: "prefix",
    type: { kind: "string" },
    placeholder: "PATH",
    help:
      "Only keys that begin with these parts, written as a path of REST: /users/alice.",
    commands: ["changes"],
  },
  follow: {
    flag: "follow",
    type: { kind: "boolean" },
    default: false,
    help:
      "Go on with what is committed from now on, and ask again where the server is away.",
    commands: ["changes"],
  },
  format: {
    flag: "format",
    type: { kind: "choice", choices: ["json", "text"] },
    placeholder: "FORMAT",
    default: "json",
    help: "The lines as the server sends them, or shorter ones for people.",
    commands: ["changes"],
  },
  heartbeats: {
    flag: "heartbeats",
    type: { kind: "boolean" },
    default: false,
    help:
      "Print heartbeats too: lines that say up to which versionstamp everything has been printed.",
    commands: ["changes"],
  },
  resumeFile: {
    flag: "resume-file",
    type: { kind: "string" },
    placeholder: "FILE",
    help:
      "A file for the versionstamp up to which everything has been printed; where it is there, the feed begins after that one and not at --from. It says what was handed over, and not what the reader of a pipe has made of it.",
    commands: ["changes"],
  },
  yes: {
    flag: "yes",
    short: "y",
    type: { kind: "boolean" },
    default: false,
    help:
      "Do it without asking. Where nobody can be asked, as in a script, the command does nothing without it.",
    commands: ["backup repair", "backup rewind"],
  },
  json: {
    flag: "json",
    type: { kind: "boolean" },
    default: false,
    help: "Print one JSON object instead of lines for people.",
    commands: [...PLACE_COMMANDS, ...PITR_COMMANDS, "restore", "promote"],
  },
  logFormat: {
    flag: "log-format",
    env: "DENO_KV_LOG_FORMAT",
    type: { kind: "choice", choices: ["text", "json"] },
    placeholder: "FORMAT",
    default: "text",
    help:
      "How a line on standard error looks: for people, or one JSON object a line, without exception.",
    commands: ["start", "serve"],
  },
  logLevel: {
    flag: "log-level",
    env: "DENO_KV_LOG_LEVEL",
    type: { kind: "choice", choices: ["debug", "info", "warn", "error"] },
    placeholder: "LEVEL",
    default: "info",
    help: "Events below this level are not logged.",
    commands: ["start", "serve"],
  },
  printPermissions: {
    flag: "print-permissions",
    type: { kind: "boolean" },
    default: false,
    help:
      "Run nothing; print the command line with the permissions that this one comes to, for a unit file. Secrets are left to the environment. An option of the launcher, denokv.ts.",
    commands: Object.keys(COMMANDS) as CommandName[],
  },
} as const satisfies Record<string, OptionSpec>;

export type OptionName = keyof typeof OPTIONS;

type ValueOfType<T extends OptionType> = T extends
  { kind: "integer" } | { kind: "duration" } ? number
  : T extends { kind: "boolean" } ? boolean
  : T extends { kind: "choice"; choices: readonly (infer C)[] } ? C
  : string;

/** The checked value of every option; absent where nothing set it. */
export type OptionValues = {
  -readonly [N in OptionName]?: ValueOfType<(typeof OPTIONS)[N]["type"]>;
};

/** The table row by row, with its keys widened for code that walks it. */
export const OPTION_LIST: readonly (readonly [OptionName, OptionSpec])[] =
  Object.entries(OPTIONS) as [OptionName, OptionSpec][];

export function optionsOf(
  command: CommandName,
): readonly (readonly [OptionName, OptionSpec])[] {
  return OPTION_LIST.filter(([, spec]) => spec.commands.includes(command));
}

export function defaultOf(
  spec: OptionSpec,
  command: CommandName,
): string | number | boolean | undefined {
  return spec.defaultFor?.[command] ?? spec.default;
}

export function isCommand(word: string): word is CommandName {
  return Object.hasOwn(COMMANDS, word);
}

/** The environment variables that a command reads, in the table's order. */
export function environmentOf(
  command: CommandName,
  isMeant: (name: OptionName) => boolean = () => true,
): string[] {
  return optionsOf(command).flatMap(([name, spec]) =>
    isMeant(name) ? spec.env ?? [] : []
  );
}
