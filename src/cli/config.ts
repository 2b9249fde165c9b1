/**
 * Typed and checked settings: what the commands work with, so that nothing
 * behind them reads a flag or the environment.
 */
import { UsageError } from "../common/errors.ts";
import type { LogFormat, LogLevel } from "../common/log.ts";
import { readAccessTokenFile } from "./access_token.ts";
import { type Address, loopbackOf, parseAddress } from "./address.ts";
import type { OptionName, OptionValues } from "./options.ts";
import type { Source } from "./parse.ts";
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
  /** How long a stopping server waits for requests in flight. */
  drainTimeoutMs: number;
  logFormat: LogFormat;
  logLevel: LogLevel;
  /** Of this server, such as "0.1.0". */
  version: string;
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

/** @throws UsageError */
export function serveConfig(settings: Settings): ServeConfig {
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
        "for KV Connect and REST, or KVSTORE_SECRET for REST alone.",
    );
  }
  return { ...commonConfig(settings), accessToken, restSecret };
}

/** @throws UsageError */
export function startConfig(settings: Settings): StartConfig {
  return { serve: commonConfig(settings) };
}

/** @throws UsageError */
export function healthConfig(settings: Settings): HealthConfig {
  return { address: loopbackOf(addressOf(settings)) };
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
        "`denokv start` serves ./data/denokv.sqlite.",
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

function addressOf({ values, sources }: Settings): Address {
  if (sources.addr === "default" && values.port !== undefined) {
    return { hostname: "0.0.0.0", port: values.port };
  }
  return parseAddress(values.addr!);
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
