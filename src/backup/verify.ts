/**
 * Proves a backup: it is restored into a scratch file, with everything that a
 * restore checks, and what comes out is compared with the primary.
 */
import { fromUtf8, utf8 } from "../common/bytes.ts";
import type { Clock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import type { DatabaseDigest } from "../store/backup_source.ts";
import type { ScratchDatabase } from "../store/local_engine.ts";
import { planRestore } from "./history.ts";
import { hexVersion, type Manifest } from "./manifest.ts";
import { VERIFIED_KEY } from "./names.ts";
import { restore } from "./restore.ts";

export interface Verification {
  /** The version that was restored. */
  version: number;
  atMs: number;
  entries: number;
  queueMessages: number;
  sizeBytes: number;
  generation: string;
  /** False where there was no primary to compare with. */
  isCompared: boolean;
}

export interface VerifyOptions {
  objects: ObjectStore;
  manifest: Manifest;
  /** The primary at a version that is in the bucket; undefined: none at hand. */
  primary: DatabaseDigest | undefined;
  /** Removed again. */
  scratch: ScratchDatabase;
  clock: Clock;
  progress?(doneBytes: number, totalBytes: number): void;
  signal?: AbortSignal;
}

/** @throws StartupError that says what is wrong; nothing was changed */
export async function verifyBackup(
  options: VerifyOptions,
): Promise<Verification> {
  const { objects, manifest, primary, scratch, clock, signal } = options;
  const plan = await planRestore(
    objects,
    manifest,
    primary
      ? { kind: "version", version: primary.version }
      : { kind: "latest" },
  );
  if (plan.damage) throw plan.damage;
  const target = await scratch.create(signal);
  let isFinished = false;
  try {
    const { version, sizeBytes } = await restore({
      objects,
      plan,
      target,
      clock,
      progress: options.progress,
      signal,
    });
    await target.finish({
      databaseId: manifest.databaseId,
      version,
      leapToVersion: version,
      state: {},
    });
    isFinished = true;
    const digest = await scratch.digest(signal);
    if (primary && digest.sha256 !== primary.sha256) {
      throw new StartupError(
        `The backup differs from the database at ${
          hexVersion(primary.version)
        }: it restores to ${digest.entries} entries and ${digest.queueMessages} queue messages, the database has ${primary.entries} and ${primary.queueMessages}. Neither was changed; make a new generation with \`backup snapshot\` and keep this one for whoever looks into it.`,
      );
    }
    return {
      version: primary?.version ?? version,
      atMs: clock.nowMs(),
      entries: digest.entries,
      queueMessages: digest.queueMessages,
      sizeBytes,
      generation: plan.generation,
      isCompared: primary !== undefined,
    };
  } finally {
    if (isFinished) await scratch.remove();
    else await target.discard();
  }
}

/** Leaves word of it beside the backup, for `backup status`. */
export async function noteVerified(
  objects: ObjectStore,
  verification: Verification,
): Promise<void> {
  const { version, ...rest } = verification;
  const object = { format: 1, version: hexVersion(version), ...rest };
  await objects.put(VERIFIED_KEY, utf8(JSON.stringify(object, null, 1) + "\n"));
}

/** When the backup was last verified, and at which versionstamp. */
export async function lastVerified(
  objects: ObjectStore,
): Promise<{ atMs: number; version: string } | undefined> {
  const object = await objects.get(VERIFIED_KEY);
  if (object === undefined) return undefined;
  try {
    const { atMs, version } = JSON.parse(fromUtf8(object.data) ?? "");
    return { atMs: Number(atMs), version: String(version) };
  } catch {
    return undefined;
  }
}
