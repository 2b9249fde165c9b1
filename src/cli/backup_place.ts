/** Opens the place that the options name, for commands that work on a backup. */
import { systemClock } from "../common/clock.ts";
import { StartupError, UsageError } from "../common/errors.ts";
import { systemRandom } from "../common/random.ts";
import {
  type ObjectStore,
  ObjectStoreRefusedError,
} from "../object_store/object_store.ts";
import type { OptionValues } from "./options.ts";

export interface BackupPlace {
  url: string;
  s3Endpoint?: string;
  gcsEndpoint?: string;
  /** The well-known ones of a MinIO in development. */
  s3Credentials?: { accessKeyId: string; secretAccessKey: string };
  /** Makes the bucket where it is missing. */
  createsBucket?: boolean;
}

/**
 * @param url as --backup or --from names it
 * @throws UsageError where it is named twice
 */
export function backupPlaceOf(
  url: string | undefined,
  { s3Bucket, s3Prefix, s3Endpoint, gcsEndpoint }: OptionValues,
): BackupPlace | undefined {
  if (s3Bucket === undefined) {
    if (s3Prefix !== undefined) {
      throw new UsageError("--s3-prefix needs --s3-bucket beside it.");
    }
    return url === undefined ? undefined : { url, s3Endpoint, gcsEndpoint };
  }
  const prefix = (s3Prefix ?? "").replace(/^\/+|\/+$/g, "");
  const other = `s3://${s3Bucket}${prefix === "" ? "" : `/${prefix}`}`;
  if (url !== undefined && url.replace(/\/+$/, "") !== other) {
    throw new UsageError(
      `The backup is named twice, as ${url} and as ${other}: keep one.`,
    );
  }
  return { url: other, s3Endpoint };
}

/** @throws UsageError, StartupError */
export async function openBackupPlace(
  place: BackupPlace,
): Promise<ObjectStore> {
  const { url, s3Endpoint, gcsEndpoint, s3Credentials } = place;
  try {
    // Loaded when it is used: a server without a backup starts without it.
    const { openObjectStore } = await import("../object_store/open.ts");
    const objects = await openObjectStore(url, {
      clock: systemClock,
      random: systemRandom,
      s3Endpoint,
      gcsEndpoint,
      s3Credentials,
    });
    if (place.createsBucket && "createBucket" in objects) {
      await (objects as { createBucket(): Promise<void> }).createBucket();
    }
    return objects;
  } catch (error) {
    throw asStartupError(error);
  }
}

/** For a command that needs it once. */
export async function withBackupPlace<T>(
  place: BackupPlace,
  work: (objects: ObjectStore) => Promise<T>,
): Promise<T> {
  const objects = await openBackupPlace(place);
  try {
    return await work(objects);
  } catch (error) {
    throw asStartupError(error);
  } finally {
    await objects.close();
  }
}

/** What a person has to change is no riddle with a stack. */
export function asStartupError(error: unknown): unknown {
  return error instanceof ObjectStoreRefusedError
    ? new StartupError(error.message)
    : error;
}
