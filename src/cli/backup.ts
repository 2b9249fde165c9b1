/** `backup status`, `backup verify`, `backup snapshot`. */
import { systemClock } from "../common/clock.ts";
import { messageOf, StartupError } from "../common/errors.ts";
import { systemRandom } from "../common/random.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { bucketStatus } from "../backup/status.ts";
import { hexVersion, ManifestStore } from "../backup/manifest.ts";
import { listSegments } from "../backup/history.ts";
import { versionOf } from "../backup/names.ts";
import { noteVerified, verifyBackup } from "../backup/verify.ts";
import { sqliteScratch } from "../store/sqlite/local_engine.ts";
import { digestFile } from "../store/sqlite/snapshot.ts";
import type { DatabaseDigest } from "../store/backup_source.ts";
import { sleep } from "../common/clock.ts";
import { formatAddress } from "./address.ts";
import { asStartupError, openBackupPlace } from "./backup_place.ts";
import type { BackupConfig, SnapshotConfig } from "./config.ts";
import { formatDuration } from "./duration.ts";
import type { CliIo } from "./io.ts";
import { formatBytes, Progress, standardError } from "./progress.ts";

const ASK_TIMEOUT_MS = 3000;
/** How long a verification waits for the backup to reach the database. */
const REACH_TIMEOUT_MS = 60_000;
const REACH_POLL_MS = 500;

async function withPlace<T>(
  config: BackupConfig,
  work: (objects: ObjectStore) => Promise<T>,
): Promise<T> {
  const objects = await openBackupPlace(config.place);
  try {
    return await work(objects);
  } catch (error) {
    throw asStartupError(error);
  } finally {
    await objects.close();
  }
}

/** @returns the exit code: 0 where the backup is well */
export function backupStatus(config: BackupConfig, io: CliIo): Promise<number> {
  return withPlace(config, async (objects) => {
    const bucket = await bucketStatus(objects, systemClock, systemRandom);
    const found = await askServer(config.address);
    // Another database's server may be the one that answers there.
    const server = found?.epoch === bucket?.epoch &&
        found?.generation === bucket?.generation.name
      ? found
      : undefined;
    if (bucket === undefined) {
      if (config.json) io.out(JSON.stringify({ state: "Empty" }));
      else io.out(`Empty: ${objects.url} holds no whole backup yet.`);
      return 1;
    }
    // Who ships nothing because there is nothing to ship is up to date.
    const state = server?.state ?? "Active";
    const isWell = state === "Active" && bucket.strays.length === 0;
    if (config.json) {
      io.out(JSON.stringify({ state, url: objects.url, ...bucket, server }));
      return isWell ? 0 : 1;
    }
    const { generation, lastVerified } = bucket;
    const time = (ms: number) => new Date(ms).toISOString();
    const lines = [
      `${state}: ${objects.url}`,
      `  database       ${bucket.databaseId}`,
      `  versionstamp   ${bucket.versionstamp}`,
      `  owner          epoch ${bucket.epoch}, ${bucket.ownership}`,
      `  generation     ${generation.name}: ${
        formatBytes(generation.snapshotBytes)
      } of snapshot, ${generation.segments} segments of ${
        formatBytes(generation.logBytes)
      }`,
      `  recoverable    since ${
        time(bucket.recoverableSinceMs)
      }, ${bucket.generations} generations`,
      `  last verified  ${
        lastVerified
          ? `${time(lastVerified.atMs)} at ${lastVerified.version}`
          : "never"
      }`,
    ];
    if (server) {
      lines.push(
        `  server         ${server.lagMs} ms and ${
          formatBytes(server.lagBytes)
        } behind`,
      );
    } else {
      const why = found === undefined
        ? "none with a backup answers at --addr"
        : "the one at --addr does not serve this backup";
      lines.push(`  server         ${why}; the bucket alone was looked at`);
    }
    for (const key of bucket.strays) lines.push(`  not history    ${key}`);
    for (const line of lines) io.out(line);
    return isWell ? 0 : 1;
  });
}

interface ServerBackup {
  epoch: number;
  generation: string | null;
  /** A versionstamp: everything up to it is in the bucket. */
  bucketVersion: string;
  state: string;
  lagMs: number;
  lagBytes: number;
}

/** Undefined where no server with a backup answers. */
async function askServer(
  address: BackupConfig["address"],
): Promise<ServerBackup | undefined> {
  const late = new AbortController();
  const timer = systemClock.after(ASK_TIMEOUT_MS, () => late.abort());
  try {
    const answer = await fetch(`http://${formatAddress(address)}/-/ready`, {
      signal: late.signal,
    });
    return (await answer.json()).backup;
  } catch {
    return undefined;
  } finally {
    timer.stop();
  }
}

/** @returns the exit code: 0 where the backup restores to what it should */
export function backupVerify(config: BackupConfig, io: CliIo): Promise<number> {
  return withPlace(config, async (objects) => {
    const manifests = new ManifestStore(objects, systemClock, systemRandom);
    const read = async () => {
      const found = await manifests.read();
      if (found) return found.manifest;
      throw new StartupError(`${objects.url} holds no backup.`);
    };
    let manifest = await read();
    let primary: DatabaseDigest | undefined;
    if (config.sqlitePath !== undefined) {
      primary = await digestFile(config.sqlitePath);
      const deadlineMs = systemClock.monotonicMs() + REACH_TIMEOUT_MS;
      for (;;) {
        manifest = await read();
        const { history } = await listSegments(
          objects,
          manifest.generation ?? "",
          manifest,
        );
        const last = history.at(-1);
        const reached = last ? versionOf(last.last) : 0;
        if (reached >= primary.version) break;
        if (systemClock.monotonicMs() > deadlineMs) break;
        // The server knows: a commit that changed nothing is not shipped, nor
        // is the leap of versions after a restore.
        const server = await askServer(config.address);
        if (server === undefined) break;
        if (versionOf(server.bucketVersion) >= primary.version) break;
        await sleep(systemClock, REACH_POLL_MS);
      }
    }
    const progress = new Progress("Verifying", standardError(), systemClock);
    const folder = await Deno.makeTempDir({ prefix: "denokv-verify-" });
    try {
      const verification = await verifyBackup({
        objects,
        manifest,
        primary,
        scratch: sqliteScratch(`${folder}/scratch`),
        clock: systemClock,
        progress: (done, total) => progress.update(done, total),
      });
      progress.end();
      await noteVerified(objects, verification);
      const { version, ...rest } = verification;
      const versionstamp = hexVersion(version);
      if (config.json) {
        io.out(JSON.stringify({ ok: true, versionstamp, ...rest }));
      } else {
        io.out(
          `Verified: ${rest.entries} entries and ${rest.queueMessages} queue messages (${
            formatBytes(rest.sizeBytes)
          }) at ${versionstamp}${
            rest.isCompared ? ", equal to the database." : "."
          }`,
        );
      }
      return 0;
    } catch (error) {
      progress.end();
      if (!config.json || !(error instanceof StartupError)) throw error;
      io.out(JSON.stringify({ ok: false, reason: error.message }));
      return 1;
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}

/** @returns the exit code */
export async function backupSnapshot(
  config: SnapshotConfig,
  io: CliIo,
): Promise<number> {
  const url = `http://${formatAddress(config.address)}/-/backup/snapshot`;
  const startedMs = systemClock.monotonicMs();
  let answer: Response;
  try {
    // Without a time limit: a snapshot of a large database takes its time.
    answer = await fetch(url, {
      method: "POST",
      headers: { authorization: `Bearer ${config.secret}` },
    });
  } catch (error) {
    throw new StartupError(
      `${url} could not be asked: ${
        messageOf(error)
      }. Nothing was changed; start the server, or name its --addr.`,
    );
  }
  const text = (await answer.text()).trim();
  if (!answer.ok) throw new StartupError(`The server refused: ${text}`);
  const tookMs = Math.round(systemClock.monotonicMs() - startedMs);
  if (config.json) io.out(text);
  else {
    const { generation } = JSON.parse(text);
    io.out(
      `New generation ${generation}, complete in ${formatDuration(tookMs)}.`,
    );
  }
  return 0;
}
