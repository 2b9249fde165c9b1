/** Our server with a backup in a MinIO of its own. */
import { type Minio, startMinio } from "../test/support/minio.ts";
import {
  type BackedUpTo,
  backupArgs,
  backupPermissions,
} from "../test/support/server.ts";
import { type Launch, ours, Skipped, type Starter } from "./servers.ts";

export const BUCKET = "bench";

export async function withMinio<T>(
  work: (minio: Minio) => Promise<T>,
): Promise<T> {
  const minio = await startMinio();
  if (minio === undefined) throw new Skipped("needs MinIO");
  try {
    await minio.createBucket(BUCKET);
    return await work(minio);
  } finally {
    await minio.stop();
  }
}

export function placeOf(minio: Minio, prefix: string): BackedUpTo {
  return {
    url: `s3://${BUCKET}/${prefix}`,
    endpoint: minio.endpoint,
    env: { ...minio.env(), AWS_EC2_METADATA_DISABLED: "true" },
  };
}

/** Our server with a backup: what it is allowed, and its options. */
export function backedUp(backup: BackedUpTo, args: string[]): Starter {
  return reaching(backup, [...backupArgs(backup), ...args]);
}

/** Our server with these options, and what it takes to reach the place. */
export function reaching(backup: BackedUpTo, args: string[]): Starter {
  return async (options) => {
    const launch: Launch = await ours(options);
    const allowed = backupPermissions(backup);
    const command = launch.command.map((word) =>
      word.startsWith("--allow-net=")
        ? `${word},${allowed.net.join(",")}`
        : word.startsWith("--allow-env=")
        ? `${word},${allowed.env.join(",")}`
        : word
    );
    const main = command.findIndex((word) => word.endsWith("main.ts"));
    command.splice(main, 0, ...allowed.other);
    return {
      ...launch,
      command: [...command, ...args],
      env: { ...launch.env, ...backup.env },
    };
  };
}
