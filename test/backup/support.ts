/** A real MinIO with a bucket, and what a server needs to back up to it. */
import { type Minio, startMinio } from "../support/minio.ts";
import type { BackedUpTo } from "../support/server.ts";

export interface Bucket extends AsyncDisposable {
  minio: Minio;
  name: string;
  /** A backup below a prefix; through a proxy where an endpoint is given. */
  at(prefix: string, endpoint?: string): BackedUpTo;
}

/** Undefined, after saying SKIPPED, where MinIO cannot be had. */
export async function startBucket(): Promise<Bucket | undefined> {
  const minio = await startMinio();
  if (minio === undefined) return undefined;
  const name = "denokv-test";
  await minio.createBucket(name);
  return {
    minio,
    name,
    at: (prefix, endpoint = minio.endpoint) => ({
      url: `s3://${name}/${prefix}`,
      endpoint,
      env: { ...minio.env(), AWS_EC2_METADATA_DISABLED: "true" },
    }),
    [Symbol.asyncDispose]: () => minio.stop(),
  };
}

/** A backup in a folder, which has to be there. */
export function folderBackup(folder: string): BackedUpTo {
  return { url: `file://${folder}`, folder };
}

/** Short, so that a test need not wait for what is gone. */
export const SHORT_LEASE = ["--backup-lease", "1s"];
