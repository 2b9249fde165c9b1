/** `backup verify`, `backup snapshot`. */
import { systemClock } from "../common/clock.ts";
import { messageOf, StartupError } from "../common/errors.ts";
import { exists } from "../common/files.ts";
import { systemRandom } from "../common/random.ts";
import { hexVersion } from "../backup/manifest.ts";
import { ManifestStore } from "../backup/manifest_store.ts";
import { readNewestManifest } from "../backup/copies.ts";
import { listSegments } from "../backup/history.ts";
import { versionOf } from "../backup/names.ts";
import { contentWithoutManifest } from "../backup/unclaimed.ts";
import { noteVerified, verifyBackup } from "../backup/verify.ts";
import { sqliteScratch } from "../store/sqlite/local_engine.ts";
import { digestFile } from "../store/sqlite/snapshot.ts";
import type { DatabaseDigest } from "../store/backup_source.ts";
import { sleep } from "../common/clock.ts";
import { formatAddress } from "./address.ts";
import { ask, member } from "./ask.ts";
import { withBackupPlace } from "./backup_place.ts";
import type { BackupConfig, SnapshotConfig } from "./config.ts";
import { formatDuration } from "./duration.ts";
import type { CliIo } from "./io.ts";
import { formatBytes, Progress, standardError } from "./progress.ts";
import { scratchFolder } from "./scratch_folder.ts";
import { askServer } from "./server_backup.ts";

/** How long a verification waits for the backup to reach the database. */
const REACH_TIMEOUT_MS = 60_000;
const REACH_POLL_MS = 500;

/** @returns the exit code: 0 where the backup restores to what it should */
export function backupVerify(config: BackupConfig, io: CliIo): Promise<number> {
  return withBackupPlace(config.place, async (objects) => {
    const manifests = new ManifestStore(objects, systemClock, systemRandom);
    const read = async () => {
      const found = await readNewestManifest(objects, manifests);
      if (found) return found.manifest;
      throw await contentWithoutManifest(objects) ?? new StartupError(
        `There is no backup in ${objects.url}: its manifest is not there. Nothing was verified; check the URL.`,
      );
    };
    let manifest = await read();
    let primary: DatabaseDigest | undefined;
    if (config.sqlitePath !== undefined) {
      if (!exists(config.sqlitePath)) {
        throw new StartupError(
          `There is no database ${config.sqlitePath}. Nothing was verified; correct --sqlite-path.`,
        );
      }
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
        const asked = await askServer(config);
        if (asked.kind === "none" || asked.backup.lagMs === 0) break;
        const reported = asked.backup.more?.bucketVersion;
        if (reported && versionOf(reported) >= primary.version) break;
        await sleep(systemClock, REACH_POLL_MS);
      }
    }
    const progress = new Progress("Verifying", standardError(), systemClock);
    const folder = await scratchFolder("A verification", "verified");
    try {
      const verification = await verifyBackup({
        objects,
        manifest,
        primary,
        scratch: sqliteScratch(`${folder}/scratch`, systemClock),
        clock: systemClock,
        progress: (done, total) => progress.update(done, total),
      });
      progress.end();
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
      // It may not be writable, and what was found out is told already.
      await noteVerified(objects, verification).catch((error) =>
        io.err(
          `warning: it could not be noted in the backup that it was verified: ${
            messageOf(error)
          }`,
        )
      );
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
  // Without a time limit: a snapshot of a large database takes its time.
  const reply = await ask(url, {
    method: "POST",
    headers: { authorization: `Bearer ${config.secret}` },
  });
  if (reply.kind === "notAllowed") {
    throw new StartupError(`${reply.why} Nothing was changed.`);
  }
  if (reply.kind === "silent") {
    throw new StartupError(
      `${url} could not be asked. ${reply.why} Nothing was changed; start the server, or name its --addr.`,
    );
  }
  const { status, text, json } = reply;
  if (status === 401) {
    throw new StartupError(
      "The server does not know this secret: it is neither its access token nor its KVSTORE_SECRET. Nothing was changed; set it as it is set for the server, and check --addr.",
    );
  }
  const generation = member(json, "generation");
  if (status !== 200 || typeof generation !== "string") {
    throw new StartupError(
      /^[^<{]{1,500}$/.test(text)
        ? `The server refused (${status}): ${text}`
        : `What answers at ${url} (status ${status}) is no denokv server, or one of another version. No new generation was made by this; check --addr.`,
    );
  }
  const tookMs = Math.round(systemClock.monotonicMs() - startedMs);
  io.out(
    config.json
      ? text
      : `New generation ${generation}, complete in ${formatDuration(tookMs)}.`,
  );
  return 0;
}
