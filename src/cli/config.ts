/**
 * Typed and checked settings: what the commands work with, so that nothing
 * behind them reads a flag or the environment.
 */
import { UsageError } from "../common/errors.ts";
import type { LogFormat, LogLevel } from "../common/log.ts";
import { readAccessTokenFile } from "./access_token.ts";
import {
  type Address,
  formatAddress,
  loopbackOf,
  parseAddress,
} from "./address.ts";
import { readAddressFile } from "./address_file.ts";
import type { OptionName, OptionValues } from "./options.ts";
import type { Invocation, Source } from "./parse.ts";
import { isBranchName } from "../backup/branches.ts";
import type { RestorePoint } from "../backup/history.ts";
import { type BackupPlace, backupPlaceOf } from "./backup_place.ts";
import { VERSION } from "./version.ts";

export interface ServeConfig {
  /** As the person wrote it: absolute or relative to the working folder. */
  sqlitePath: string;
  /** Opens KV Connect, and REST as a Bearer token. Absent: KV Connect is off. */
  accessToken?: string;
  /** `KVSTORE_SECRET`: opens REST alone, bare or as a Bearer token. */
  restSecret?: string;
  /** Whether single keys are readable over REST without a secret. */
  publicReads: boolean;
  address: Address;
  readOnly: boolean;
  /** At least 1; checked, and without effect so far. */
  numWorkers: number;
  /** Absent: a commit waits for nobody. */
  atomicWriteBatchTimeoutMs?: number;
  maxWatches: number;
  /** Large answers and frames that clients have not taken, in all. */
  maxInFlightBytes: number;
  /** Of the log, for change feeds that are behind. */
  changesRetainedBytes: number;
  /** As browsers send them; `*` for any. */
  corsOrigins: string[];
  /** One line of the log for each request. */
  logsAccess: boolean;
  maxWaitingBytes: number;
  /** Of the disk, for deletions when it is full. */
  reserveBytes: number;
  /** How long a stopping server waits for requests in flight. */
  drainTimeoutMs: number;
  logFormat: LogFormat;
  logLevel: LogLevel;
  /** Of this server, such as "0.1.0". */
  version: string;
  /**
   * Absent: the database is in its file alone. Of a replica: that of the
   * primary, which it may become the owner of.
   */
  backup?: ServeBackupConfig;
  /** Where clients may read with eventual consistency. */
  advertisedReplicas?: string[];
  /** A replica names itself alone, for every read. */
  isNamedStrong?: boolean;
  /** The file follows what another server writes, and takes no writes. */
  replica?: ServeReplicaConfig;
  /** Names that the runtime hides from it, in few words. Absent: none. */
  hiddenVariables?: string;
  /** `--dev`: the settings are known to everyone. */
  isDevelopment?: boolean;
}

export interface ServeBackupConfig {
  place: BackupPlace;
  durability: "local" | "s3";
  intervalMs: number;
  retentionMs: number;
  maxLogBytes: number;
  leaseMs: number;
  /** For files that were set aside and hold nothing of their own. */
  keepAsideMs: number;
  /** 0: never. */
  verifyEveryMs: number;
  allowUnfenced: boolean;
  /** Never asks the instance that serves for the database. */
  isStandby: boolean;
  /** Exits when another instance has taken the database. */
  endsWhenReplaced: boolean;
  /** Serves the local file alone while the object store does not answer. */
  startsInOutage: boolean;
  /** Where clients reach this instance, for other instances to tell. */
  advertisedUrl?: string;
}

export interface ServeReplicaConfig {
  /** A primary that offers its log. Absent: the place alone. */
  primary?: { url: string; accessToken: string };
  /** Absent: the primary alone. */
  place?: BackupPlace;
  intervalMs: number;
  /** Absent: it asks its bucket whether anybody reads or not. */
  idlePauseMs?: number;
}

export interface PitrSyncConfig {
  place: BackupPlace;
  sqlitePath: string;
  json: boolean;
}

export interface BackupConfig {
  place: BackupPlace;
  /** Where a server may answer; never a wildcard. */
  address: Address;
  sqlitePath?: string;
  /** Of that server; without one it tells less. */
  secret?: string;
  json: boolean;
  /** As the server has it; for `backup status` alone. */
  retentionMs?: number;
}

export interface ListConfig {
  place: BackupPlace;
  json: boolean;
}

export interface RepairConfig {
  place: BackupPlace;
  /** Does not ask. */
  isAgreed: boolean;
  json: boolean;
}

export interface RewindConfig extends RepairConfig {
  point: RestorePoint;
  /** As the person wrote it. */
  pointText: string;
  /** Of the branch that keeps the present state. Absent: one with the time. */
  branchName?: string;
  /** For the scratch file. */
  folder?: string;
  leaseMs: number;
}

export interface BranchesConfig extends ListConfig {
  /** The branch to give up. Absent: they are listed. */
  remove?: string;
}

export interface PitrConfig {
  sqlitePath: string;
  json: boolean;
}

export interface PitrListConfig extends PitrConfig {
  startMs?: number;
  /** Those made then are left out. */
  endMs?: number;
}

export interface PitrCheckoutConfig extends PitrConfig {
  point:
    | { kind: "version"; version: number; order: number }
    | { kind: "time"; timeMs: number };
}

export interface SnapshotConfig {
  address: Address;
  secret: string;
  json: boolean;
}

export interface PromoteConfig {
  /** Of the server, without a slash at its end. */
  url: string;
  secret: string;
  json: boolean;
}

export interface RestoreConfig {
  place: BackupPlace;
  output: string;
  point: RestorePoint;
  /** Instead of a point: the newest one of this branch. */
  branchName?: string;
  /** The file keeps the database's id, and its versions leap. */
  isSameDatabase: boolean;
  json: boolean;
}

export interface ChangesConfig {
  /** Of the server, without a slash at its end. */
  url: string;
  secret?: string;
  /** A versionstamp, `oldest` or `now`. Absent: from now. */
  from?: string;
  /** As paths of REST. */
  prefixes: string[];
  follows: boolean;
  format: "json" | "text";
  /** Whether heartbeats are printed too. */
  heartbeats: boolean;
  resumeFile?: string;
}

export interface StartConfig {
  /** All but the access token, which `start` keeps beside the database. */
  serve: Omit<ServeConfig, "accessToken">;
}

export interface HealthConfig {
  /** Where to ask; never a wildcard. */
  address: Address;
}

export type Settings = {
  values: OptionValues;
  sources: Partial<Record<OptionName, Source>>;
};

/** The Rust server demands as many. */
const MIN_ACCESS_TOKEN_CHARACTERS = 12;

/** One that is not granted looks like one that is not set. */
const ENVIRONMENT_HINT =
  "(A variable counts only where --allow-env grants it.)";

/** A lease is renewed in its last third, and a renewal may have to wait. */
const MIN_GCS_LEASE_MS = 5000;

/** What `--dev` sets where nothing else does; everyone knows it. */
const DEVELOPMENT = {
  sqlitePath: "/tmp/denokv.sqlite",
  // Whoever is on the network knows the secrets too.
  host: "localhost",
  port: 8000,
  restSecret: "denorocks",
  backup: "s3://denokv/app",
  s3Endpoint: "http://localhost:9000",
} as const;
const DEVELOPMENT_CREDENTIALS = {
  accessKeyId: "minioadmin",
  secretAccessKey: "minioadmin",
};

/** The settings of a command line, with what `--dev` sets beside them. */
export function settingsOf(
  { command, values, sources }: Extract<Invocation, { kind: "run" }>,
): Settings {
  return command === "serve" && values.dev
    ? forDevelopment({ values, sources })
    : { values, sources };
}

function forDevelopment({ values, sources }: Settings): Settings {
  const isPlaceNamed = values.backup !== undefined ||
    values.s3Bucket !== undefined;
  return {
    sources,
    values: {
      ...DEVELOPMENT,
      ...(isPlaceNamed && { backup: undefined }),
      ...values,
      publicReads: sources.publicReads === "default" || values.publicReads,
    },
  };
}

/** @throws UsageError */
export function serveConfig(given: Settings): ServeConfig {
  const isDevelopment = given.values.dev === true;
  const settings = isDevelopment ? forDevelopment(given) : given;
  const { values } = settings;
  const accessToken = accessTokenOf(settings);
  const { restSecret } = values;
  if (restSecret !== undefined) {
    checkHeaderText(restSecret, "KVSTORE_SECRET");
  }
  if (accessToken === undefined && restSecret === undefined) {
    throw new UsageError(
      "Nobody could get in: set an access token of at least " +
        `${MIN_ACCESS_TOKEN_CHARACTERS} characters (DENO_KV_ACCESS_TOKEN, --access-token-file or --access-token) ` +
        `for KV Connect and REST, or KVSTORE_SECRET for REST alone. ${ENVIRONMENT_HINT}`,
    );
  }
  const replica = serveReplicaOf(settings, accessToken);
  return {
    ...commonConfig(settings),
    accessToken,
    restSecret,
    advertisedReplicas: advertisedReplicasOf(settings.values),
    isNamedStrong: settings.values.replicaEndpoint === "strong",
    ...(replica === undefined
      ? { backup: serveBackupOf(settings, isDevelopment) }
      : {
        replica,
        readOnly: true,
        backup: values.backup === undefined
          ? undefined
          : promotedBackupOf(settings, isDevelopment),
      }),
    isDevelopment,
  };
}

function serveReplicaOf(
  { values }: Settings,
  accessToken: string | undefined,
): ServeReplicaConfig | undefined {
  const { syncFromS3, replicaFrom, replicaOf, replicaIdlePauseMs } = values;
  if (!syncFromS3 && (replicaFrom ?? replicaOf) === undefined) return undefined;
  if (
    values.backup !== undefined && replicaFrom !== undefined &&
    trimmed(values.backup) !== trimmed(replicaFrom)
  ) {
    throw new UsageError(
      "--replica-from and --backup name two places: a replica that may become the owner follows the backup that it is to own. Nothing was opened or changed; name the primary's backup with both, or leave --backup out.",
    );
  }
  const place = placeOf(values);
  const isPlaceMissing = place === undefined && replicaOf === undefined;
  if (isPlaceMissing || syncFromS3 && values.s3Bucket === undefined) {
    throw new UsageError(
      `--sync-from-s3 needs --s3-bucket (or DENO_KV_S3_BUCKET): where to read from. ${ENVIRONMENT_HINT}`,
    );
  }
  return {
    primary: replicaOf === undefined
      ? undefined
      : primaryOf(replicaOf, accessToken),
    place,
    intervalMs: values.replicaIntervalMs!,
    idlePauseMs: replicaIdlePauseMs,
  };
}

/** What a replica backs up to when it has become the owner. */
function promotedBackupOf(
  settings: Settings,
  isDevelopment: boolean,
): ServeBackupConfig | undefined {
  const { standby, startInOutage } = settings.values;
  if (standby || startInOutage) {
    throw new UsageError(
      `${
        standby ? "--standby" : "--start-in-outage"
      } is not for a replica: it becomes the owner by \`denokv promote\` alone. Leave it out, or leave the replica's options out.`,
    );
  }
  return serveBackupOf(settings, isDevelopment);
}

function trimmed(url: string): string {
  return url.replace(/\/+$/, "");
}

function primaryOf(
  replicaOf: string,
  accessToken: string | undefined,
): ServeReplicaConfig["primary"] {
  if (accessToken === undefined) {
    throw new UsageError(
      `--replica-of needs the access token of the server that it follows (DENO_KV_ACCESS_TOKEN, --access-token-file or --access-token); clients of this one use the same. ${ENVIRONMENT_HINT}`,
    );
  }
  return { url: plainUrl(replicaOf, "--replica-of"), accessToken };
}

/** @throws UsageError */
export function pitrConfig({ values }: Settings): PitrConfig {
  return { sqlitePath: sqlitePathOf(values), json: values.json! };
}

/** @throws UsageError */
export function pitrListConfig(settings: Settings): PitrListConfig {
  const { listStart, listEnd } = settings.values;
  const given = (text: string | undefined, flag: string) => {
    const timeMs = text === undefined ? undefined : timeOf(text);
    if (text === undefined || timeMs !== undefined) return timeMs;
    throw new UsageError(
      `${flag} needs a time such as 2026-01-31T12:00:00Z, or a day such as 2026-01-31 (its midnight, in UTC), but got '${text}'.`,
    );
  };
  return {
    ...pitrConfig(settings),
    startMs: given(listStart, "--start"),
    endMs: given(listEnd, "--end"),
  };
}

/** @throws UsageError */
export function pitrCheckoutConfig(settings: Settings): PitrCheckoutConfig {
  const { checkoutPoint } = settings.values;
  if (checkoutPoint === undefined) {
    throw new UsageError(
      "The point is missing: which versionstamp or time to go to. `pitr list` shows those that there are.",
    );
  }
  const point = restorePointOf(checkoutPoint, "`pitr checkout`");
  return {
    ...pitrConfig(settings),
    point: point.kind === "version"
      ? { ...point, order: parseInt(checkoutPoint.slice(16), 16) }
      : point as { kind: "time"; timeMs: number },
  };
}

/** @throws UsageError */
export function pitrSyncConfig({ values }: Settings): PitrSyncConfig {
  const place = placeOf(values);
  if (place === undefined) {
    throw new UsageError(
      `--s3-bucket (or DENO_KV_S3_BUCKET) or --replica-from is missing: where to read from. ${ENVIRONMENT_HINT}`,
    );
  }
  return { place, sqlitePath: sqlitePathOf(values), json: values.json! };
}

function serveBackupOf(
  { values }: Settings,
  isDevelopment: boolean,
): ServeBackupConfig | undefined {
  refuseSourceAlone(values);
  const place = placeOf(values);
  if (place === undefined) {
    const needy = values.durability === "s3"
      ? "--durability s3"
      : values.standby
      ? "--standby"
      : values.startInOutage
      ? "--start-in-outage"
      : undefined;
    if (needy !== undefined) {
      throw new UsageError(
        `${needy} needs a backup: name its place with --backup.`,
      );
    }
    return undefined;
  }
  if (values.readOnly) {
    throw new UsageError(
      "--read-only and --backup do not go together: a server that takes no writes has nothing to back up.",
    );
  }
  if (values.startInOutage && values.durability === "s3") {
    throw new UsageError(
      "--start-in-outage and --durability s3 do not go together: s3 acknowledges nothing that is not in the bucket.",
    );
  }
  if (
    place.url.startsWith("gs://") && values.backupLeaseMs! < MIN_GCS_LEASE_MS
  ) {
    throw new UsageError(
      `--backup-lease is too short for gs://: Google takes one write a second to an object, and the lease is renewed by one. Make it ${
        MIN_GCS_LEASE_MS / 1000
      }s or more.`,
    );
  }
  return {
    place: { ...place, createsBucket: isDevelopment },
    durability: values.durability as "local" | "s3",
    intervalMs: values.backupIntervalMs!,
    retentionMs: values.backupRetentionMs!,
    maxLogBytes: values.backupMaxLogMib! * 1024 * 1024,
    leaseMs: values.backupLeaseMs!,
    keepAsideMs: values.keepAsideMs!,
    verifyEveryMs: values.verifyEveryMs ?? 0,
    allowUnfenced: values.allowUnfencedBackup!,
    isStandby: values.standby!,
    endsWhenReplaced: values.exitWhenReplaced!,
    startsInOutage: values.startInOutage!,
    advertisedUrl: advertisedUrlOf(values),
  };
}

/**
 * The backup that a command is about.
 * @throws UsageError where it is named twice
 */
export function placeOf(values: OptionValues): BackupPlace | undefined {
  const { backup, from, replicaFrom, dev } = values;
  const place = backupPlaceOf(backup ?? from ?? replicaFrom, values);
  return place && {
    ...place,
    // Elsewhere the environment has them.
    ...(dev && place.s3Endpoint === DEVELOPMENT.s3Endpoint &&
      { s3Credentials: DEVELOPMENT_CREDENTIALS }),
  };
}

/**
 * With the Rust server these name a place to read from; a backup is written
 * to. What stands there must not get a second history because of a flag that
 * was left out.
 */
function refuseSourceAlone(values: OptionValues): void {
  if (values.backup !== undefined) return;
  const { s3Bucket, s3Prefix, s3Endpoint, gcsEndpoint } = values;
  if (gcsEndpoint !== undefined) {
    throw new UsageError(
      `--gcs-endpoint (or DENO_KV_GCS_ENDPOINT) is given without --backup: nothing would be backed up. Nothing was opened or changed; name the place, as --backup gs://bucket/prefix, or leave it out. ${ENVIRONMENT_HINT}`,
    );
  }
  if ((s3Bucket ?? s3Prefix ?? s3Endpoint) === undefined) return;
  throw new UsageError(
    "--s3-bucket, --s3-prefix and --s3-endpoint (or their DENO_KV_S3_… variables) are given without --backup. " +
      "For the Rust server they name a place to read from, so this one does not take them as a place to write to. " +
      "Nothing was opened or changed. To serve what is there, read-only, as the Rust server does: --sync-from-s3. To get a database out of that place: denokv restore --from s3://bucket/prefix -o FILE. " +
      `To back this one up: --backup s3://bucket/another-prefix, a place of its own. ${ENVIRONMENT_HINT}`,
  );
}

/** @throws UsageError */
export function listConfig({ values }: Settings): ListConfig {
  const place = placeOf(values);
  if (place === undefined) {
    throw new UsageError(
      `--backup (or DENO_KV_BACKUP) is missing: which backup to look at. ${ENVIRONMENT_HINT}`,
    );
  }
  return { place, json: values.json! };
}

/** @throws UsageError */
export function repairConfig(settings: Settings): RepairConfig {
  return { ...listConfig(settings), isAgreed: settings.values.yes! };
}

/** @throws UsageError */
export function rewindConfig(settings: Settings): RewindConfig {
  const { rewindTo, branch, scratchFolder, backupLeaseMs } = settings.values;
  if (rewindTo === undefined) {
    throw new UsageError(
      "--to is missing: the versionstamp or time to go back to. `backup list` shows the points that there are.",
    );
  }
  if (branch !== undefined && !isBranchName(branch)) {
    throw new UsageError(
      `--branch needs letters, digits, dots, dashes and underscores, at most 64, but got '${branch}'.`,
    );
  }
  return {
    ...repairConfig(settings),
    point: restorePointOf(rewindTo, "--to"),
    pointText: rewindTo,
    branchName: branch,
    folder: scratchFolder,
    leaseMs: backupLeaseMs!,
  };
}

/** @throws UsageError */
export function branchesConfig(settings: Settings): BranchesConfig {
  return { ...listConfig(settings), remove: settings.values.removeBranch };
}

/** @throws UsageError */
export function backupConfig(settings: Settings): BackupConfig {
  const { values } = settings;
  return {
    ...listConfig(settings),
    address: askedAddress(settings),
    sqlitePath: values.sqlitePath,
    secret: accessTokenOf(settings) ?? values.restSecret,
    retentionMs: values.backupRetentionMs,
  };
}

/** @throws UsageError */
export function snapshotConfig(settings: Settings): SnapshotConfig {
  return {
    address: askedAddress(settings),
    secret: askedSecret(settings),
    json: settings.values.json!,
  };
}

/** @throws UsageError */
export function promoteConfig(settings: Settings): PromoteConfig {
  return {
    url: askedUrl(settings),
    secret: askedSecret(settings),
    json: settings.values.json!,
  };
}

function askedSecret(settings: Settings): string {
  const secret = accessTokenOf(settings) ?? settings.values.restSecret;
  if (secret !== undefined) return secret;
  throw new UsageError(
    `The server's access token or KVSTORE_SECRET is missing: set it as it is set for the server. ${ENVIRONMENT_HINT}`,
  );
}

function askedUrl(settings: Settings): string {
  const { url } = settings.values;
  return url === undefined
    ? `http://${formatAddress(askedAddress(settings))}`
    : serverUrl(url);
}

/** @throws UsageError */
export function changesConfig(settings: Settings): ChangesConfig {
  const { values } = settings;
  const { from, prefix } = values;
  if (from !== undefined && !/^(0|oldest|now|[0-9a-f]{20})$/.test(from)) {
    throw new UsageError(
      `--from needs a versionstamp of 20 hexadecimal digits, oldest or now, but got '${from}'.`,
    );
  }
  return {
    url: askedUrl(settings),
    secret: accessTokenOf(settings) ?? values.restSecret,
    from,
    prefixes: prefix === undefined ? [] : [prefix],
    follows: values.follow!,
    format: values.format!,
    heartbeats: values.heartbeats!,
    resumeFile: values.resumeFile,
  };
}

function serverUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (
    url === undefined || !/^https?:$/.test(url.protocol) ||
    url.pathname !== "/" || url.search !== "" || url.hash !== "" ||
    url.username !== "" || url.password !== ""
  ) {
    throw new UsageError(
      "--url needs the address of a server and no more, as http://127.0.0.1:4512 or https://kv.example; the access token goes into DENO_KV_ACCESS_TOKEN.",
    );
  }
  return url.origin;
}

/** @throws UsageError */
export function restoreConfig({ values }: Settings): RestoreConfig {
  const place = placeOf(values);
  if (place === undefined) {
    throw new UsageError("--from is missing: which backup to restore.");
  }
  if (values.output === undefined) {
    throw new UsageError("--output (-o) is missing: which file to write.");
  }
  const { restoreAt, branch } = values;
  if (restoreAt !== undefined && branch !== undefined) {
    throw new UsageError(
      "--at and --branch are both given: a branch's versionstamps are restored with --at alone, and --branch is its newest one.",
    );
  }
  return {
    place,
    output: values.output,
    point: restorePointOf(restoreAt, "--at"),
    branchName: branch,
    isSameDatabase: values.sameDatabase!,
    json: values.json!,
  };
}

function restorePointOf(
  text: string | undefined,
  flag: string,
): RestorePoint {
  if (text === undefined) return { kind: "latest" };
  if (/^[0-9a-fA-F]{20}$/.test(text)) {
    const version = Number(BigInt(`0x${text.slice(0, 16)}`));
    return { kind: "version", version };
  }
  const timeMs = timeOf(text);
  if (timeMs === undefined) {
    throw new UsageError(
      `${flag} needs a versionstamp of 20 hexadecimal digits, a time such as 2026-01-31T12:00:00Z, or a day such as 2026-01-31 (its midnight, in UTC), but got '${text}'.`,
    );
  }
  return { kind: "time", timeMs };
}

/** Without a zone it is UTC, as all times that this program prints. */
function timeOf(text: string): number | undefined {
  const match =
    /^(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(Z|[+-]\d\d:\d\d)?)?$/
      .exec(text);
  if (match === null) return undefined;
  const [, day, time = "00:00", zone = "Z"] = match;
  const dayMs = Date.parse(`${day}T00:00Z`);
  // The 30th of February is none in March.
  if (
    Number.isNaN(dayMs) || !new Date(dayMs).toISOString().startsWith(day)
  ) return undefined;
  const timeMs = Date.parse(`${day}T${time}${zone}`);
  return Number.isNaN(timeMs) ? undefined : timeMs;
}

/** @throws UsageError */
export function startConfig(settings: Settings): StartConfig {
  return { serve: commonConfig(settings) };
}

/** @throws UsageError */
export function healthConfig(settings: Settings): HealthConfig {
  return { address: askedAddress(settings) };
}

function commonConfig(settings: Settings): Omit<ServeConfig, "accessToken"> {
  const { values } = settings;
  return {
    sqlitePath: sqlitePathOf(values),
    publicReads: values.publicReads!,
    address: addressOf(settings),
    readOnly: values.readOnly!,
    numWorkers: values.numWorkers!,
    atomicWriteBatchTimeoutMs: values.atomicWriteBatchTimeoutMs,
    maxWatches: values.maxWatches!,
    maxInFlightBytes: values.maxInFlightMib! * 1024 * 1024,
    changesRetainedBytes: values.changesRetainMib! * 1024 * 1024,
    corsOrigins: corsOriginsOf(values),
    logsAccess: values.accessLog!,
    reserveBytes: values.diskReserveMib! * 1024 * 1024,
    maxWaitingBytes: values.maxWaitingMib! * 1024 * 1024,
    drainTimeoutMs: values.drainTimeoutMs!,
    logFormat: values.logFormat!,
    logLevel: values.logLevel!,
    version: VERSION,
  };
}

function sqlitePathOf({ sqlitePath }: OptionValues): string {
  if (sqlitePath === undefined) {
    throw new UsageError(
      "--sqlite-path (or DENO_KV_SQLITE_PATH) is missing: which database file to serve. " +
        "`denokv start` serves ./data/denokv.sqlite. " + ENVIRONMENT_HINT,
    );
  }
  if (sqlitePath === ":memory:" || sqlitePath.startsWith("file:")) {
    throw new UsageError(
      `--sqlite-path needs the path of a file, but got '${sqlitePath}': what is acknowledged has to survive a power cut.`,
    );
  }
  if (sqlitePath.includes("\0")) {
    throw new UsageError("--sqlite-path must not contain a zero byte.");
  }
  return sqlitePath;
}

function advertisedUrlOf({ advertiseUrl }: OptionValues): string | undefined {
  return advertiseUrl === undefined
    ? undefined
    : plainUrl(advertiseUrl, "--advertise-url");
}

function advertisedReplicasOf(
  { advertiseReplica }: OptionValues,
): string[] | undefined {
  return advertiseReplica?.split(",").map((text) =>
    plainUrl(text.trim(), "--advertise-replica")
  );
}

/** @throws UsageError where it is none, or holds a secret */
function plainUrl(text: string, flag: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isPlain = url !== undefined && /^https?:$/.test(url.protocol) &&
    url.username === "" && url.password === "";
  if (!isPlain) {
    throw new UsageError(
      `${flag} needs a URL such as https://kv-1.example:4512, without a user or a password.`,
    );
  }
  return text;
}

function corsOriginsOf({ corsOrigin }: OptionValues): string[] {
  if (corsOrigin === undefined) return [];
  return corsOrigin.split(",").map((text) => {
    const origin = text.trim();
    if (origin === "*") return origin;
    const url = URL.canParse(origin) ? new URL(origin) : undefined;
    if (url === undefined || url.origin !== origin) {
      throw new UsageError(
        `--cors-origin needs origins such as https://app.example or http://localhost:3000, without a path, but got '${origin}'.`,
      );
    }
    return origin;
  });
}

/**
 * Where to listen.
 * @throws UsageError
 */
export function addressOf({ values, sources }: Settings): Address {
  const address = parseAddress(values.addr!);
  if (sources.addr !== "default") return address;
  const { host, port } = values;
  if (host === undefined) return { ...address, port: port ?? address.port };
  if (/[\s/@]/.test(host)) {
    throw new UsageError(
      `The environment variable DENO_KV_HOST needs a host, such as localhost or 0.0.0.0, but got '${host}'.`,
    );
  }
  return {
    hostname: host.replace(/^\[(.*)\]$/, "$1"),
    port: port ?? address.port,
  };
}

/**
 * Where a server of this machine can be asked.
 * @throws UsageError
 */
export function askedAddress(settings: Settings): Address {
  const { values: { addressFile }, sources } = settings;
  const said = addressFile === undefined || sources.addr !== "default"
    ? undefined
    : readAddressFile(addressFile);
  return loopbackOf(said ?? addressOf(settings));
}

function accessTokenOf({ values, sources }: Settings): string | undefined {
  const { accessToken, accessTokenFile } = values;
  const isFileMeant = accessTokenFile !== undefined &&
    !(sources.accessToken === "flag" && sources.accessTokenFile !== "flag");
  const isTextMeant = accessToken !== undefined &&
    !(sources.accessTokenFile === "flag" && sources.accessToken !== "flag");
  if (isFileMeant && isTextMeant) {
    throw new UsageError(
      "An access token and a file for it are both given: keep one.",
    );
  }
  if (isFileMeant) {
    const token = readAccessTokenFile(accessTokenFile);
    checkAccessToken(token, `The access token in ${accessTokenFile}`);
    return token;
  }
  if (isTextMeant) checkAccessToken(accessToken, "The access token");
  return isTextMeant ? accessToken : undefined;
}

/** @throws UsageError */
export function checkAccessToken(token: string, what: string): void {
  if (token.length < MIN_ACCESS_TOKEN_CHARACTERS) {
    throw new UsageError(
      `${what} is too short: it needs at least ${MIN_ACCESS_TOKEN_CHARACTERS} characters.`,
    );
  }
  checkHeaderText(token, what);
}

/** A secret travels in an HTTP header: no client could send any other. */
function checkHeaderText(secret: string, what: string): void {
  if (!/^[!-~](?:[ -~]*[!-~])?$/.test(secret)) {
    throw new UsageError(
      `${what} has characters that no HTTP header can carry: use printable ASCII, without white space around it.`,
    );
  }
}
