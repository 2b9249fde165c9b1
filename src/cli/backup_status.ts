/**
 * `backup status`: what the bucket tells, what the server says, and one word
 * and exit code for a monitor out of both.
 */
import { systemClock } from "../common/clock.ts";
import { messageOf, StartupError, UnavailableError } from "../common/errors.ts";
import { systemRandom } from "../common/random.ts";
import { type BucketStatus, bucketStatus } from "../backup/status.ts";
import { type AsideFile, asideFiles } from "../store/sqlite/aside.ts";
import { databaseFile } from "../store/sqlite/database_file.ts";
import { withBackupPlace } from "./backup_place.ts";
import type { BackupConfig } from "./config.ts";
import type { CliIo } from "./io.ts";
import { formatBytes } from "./progress.ts";
import { requestRate, requestText } from "./request_cost.ts";
import { type Asked, askServer, type ServerBackup } from "./server_backup.ts";

/**
 * `Unknown`: the lease has run out, and no server said that it is well. An
 * owner with nothing to ship lets it run out, and so does a dead one.
 */
const EXIT_CODES: Readonly<Record<string, number>> = {
  Active: 0,
  Damaged: 1,
  Behind: 1,
  Empty: 1,
  // 2 to 4 belong to the other commands.
  Stopped: 5,
  Unreachable: 6,
  Unknown: 7,
};

/** @returns the exit code: 0 where the backup is well */
export async function backupStatus(
  config: BackupConfig,
  io: CliIo,
): Promise<number> {
  const found = await lookInto(config);
  const asked = await askServer(config);
  if (found.kind === "unreachable") {
    return tellUnreachable(config, found.reason, asked, io);
  }
  const { bucket, url } = found;
  if (bucket === undefined) {
    if (config.json) io.out(JSON.stringify({ state: "Empty" }));
    else io.out(`Empty: ${url} holds no whole backup yet.`);
    return EXIT_CODES.Empty;
  }
  const said = asked.kind === "backup" ? asked.backup : undefined;
  // Another database's server may be the one that answers there. One that
  // was not shown its secret does not tell; a false alarm is better then
  // than none.
  const isOther = said?.more !== undefined &&
    (said.more.epoch !== bucket.epoch ||
      said.more.generation !== bucket.generation.name);
  // One that waits does not know how the owner is.
  const waits = said?.state === "Standby" || said?.state === "Starting";
  const server = isOther || waits ? undefined : said;
  const notAsked = asked.kind === "none"
    ? asked.why
    : waits
    ? "the one at --addr stands by, and does not serve at present"
    : "the one at --addr does not serve this backup";
  const aside = config.sqlitePath === undefined
    ? undefined
    : asideOf(config.sqlitePath);
  const state = stateOf(bucket, server);
  const code = state === "Active" && bucket.strays.length > 0
    ? 1
    : EXIT_CODES[state] ?? 1;
  if (config.json) {
    io.out(JSON.stringify({
      state,
      url,
      ...bucket,
      server: flat(server),
      notAsked: server ? undefined : notAsked,
      aside,
    }));
    return code;
  }
  const lines = [
    `${state}: ${url}`,
    ...bucketLines(bucket),
    line(
      "server",
      server
        ? serverText(server)
        : `${notAsked}; the bucket alone was looked at`,
    ),
    ...(server?.more?.requests
      ? [line("requests", requestText(server.more.requests, url))]
      : []),
    ...(bucket.damage ? [line("damage", bucket.damage)] : []),
    ...(aside ?? []).map(({ path, sizeBytes, isInHistory }) =>
      line(
        "set aside",
        `${path}, ${formatBytes(sizeBytes)}: ${
          isInHistory
            ? "all of it is in the backup"
            : "it holds what the backup may not have"
        }`,
      )
    ),
    ...bucket.making.map((name) => line("not complete", name)),
    ...expiringLines(bucket, config),
    ...bucket.deleting.map((name) => line("being deleted", name)),
    ...bucket.strays.map((key) => line("not history", key)),
  ];
  if (state === "Unknown") {
    lines.push(line(
      "unknown",
      "the lease has run out: the owner has nothing to ship, or is gone. Name the --addr of its server, and allow to ask it",
    ));
  }
  for (const text of lines) io.out(text);
  return code;
}

/** @throws StartupError where the folder cannot be looked at */
function asideOf(sqlitePath: string): AsideFile[] {
  try {
    return asideFiles(databaseFile(sqlitePath));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new StartupError(
      `The folder of ${sqlitePath} is not there; correct --sqlite-path.`,
    );
  }
}

type Found =
  /** `bucket` is absent where there is no whole backup. */
  | { kind: "found"; url: string; bucket: BucketStatus | undefined }
  | { kind: "unreachable"; reason: string };

/** An outage is an answer here, as any other. */
async function lookInto({ place }: BackupConfig): Promise<Found> {
  try {
    return await withBackupPlace(place, async (objects) => ({
      kind: "found",
      url: objects.url,
      bucket: await bucketStatus(objects, systemClock, systemRandom),
    }));
  } catch (error) {
    if (!(error instanceof UnavailableError)) throw error;
    return { kind: "unreachable", reason: messageOf(error) };
  }
}

/** The lease tells of a server that cannot be asked, and only while it runs. */
function stateOf(
  { ownership, damage }: BucketStatus,
  server: ServerBackup | undefined,
): string {
  // Whatever a server says: what is missing cannot be restored.
  if (damage !== undefined) return "Damaged";
  // Who gave it up does not serve; what answers, and did not say which backup
  // it has, is another one.
  if (ownership === "released") return "Stopped";
  if (server !== undefined) return server.state;
  return ownership === "owned" ? "Active" : "Unknown";
}

function tellUnreachable(
  { place, json }: BackupConfig,
  reason: string,
  asked: Asked,
  io: CliIo,
): number {
  const state = "Unreachable";
  const server = asked.kind === "backup" ? asked.backup : undefined;
  const notAsked = asked.kind === "none" ? asked.why : undefined;
  if (json) {
    const { url } = place;
    io.out(
      JSON.stringify({ state, url, reason, server: flat(server), notAsked }),
    );
  } else {
    io.out(`${state}: ${place.url}`);
    io.out(line("object store", reason));
    io.out(line(
      "server",
      server ? `${server.state}, ${serverText(server)}` : notAsked!,
    ));
  }
  return EXIT_CODES[state];
}

function bucketLines(bucket: BucketStatus): string[] {
  const { generation, lastVerified } = bucket;
  const time = (ms: number) => new Date(ms).toISOString();
  return [
    line("database", bucket.databaseId),
    line("versionstamp", bucket.versionstamp),
    line("owner", `epoch ${bucket.epoch}, ${bucket.ownership}`),
    line(
      "generation",
      `${generation.name}: ${
        formatBytes(generation.snapshotBytes)
      } of snapshot, ${generation.segments} segments of ${
        formatBytes(generation.logBytes)
      }`,
    ),
    line(
      "recoverable",
      `since ${
        time(bucket.recoverableSinceMs)
      }, ${bucket.generations} generations`,
    ),
    line(
      "last verified",
      lastVerified
        ? `${time(lastVerified.atMs)} at ${lastVerified.version}`
        : "never",
    ),
  ];
}

/** The next ones that go, and when they may. */
const MAX_EXPIRING = 3;

function expiringLines(
  { expiring }: BucketStatus,
  { retentionMs }: BackupConfig,
): string[] {
  if (retentionMs === undefined) return [];
  const lines = expiring.slice(0, MAX_EXPIRING).map(({ name, endedMs }) =>
    line(
      "will go",
      `${name}, with the first new generation after ${
        new Date(endedMs + retentionMs).toISOString()
      }`,
    )
  );
  const more = expiring.length - lines.length;
  return more > 0 ? [...lines, line("will go", `${more} more, later`)] : lines;
}

function serverText({ lagMs, more }: ServerBackup): string {
  return more === undefined
    ? `${lagMs} ms behind; whether it serves this backup it tells to the holder of its secret (DENO_KV_ACCESS_TOKEN or KVSTORE_SECRET)`
    : `${lagMs} ms and ${formatBytes(more.lagBytes)} behind`;
}

function flat(server: ServerBackup | undefined) {
  if (server === undefined) return undefined;
  const { more, ...rest } = server;
  const rate = more?.requests && requestRate(more.requests);
  return { ...rest, ...more, ...rate };
}

function line(name: string, text: string): string {
  return `  ${name.padEnd(14)} ${text}`;
}
