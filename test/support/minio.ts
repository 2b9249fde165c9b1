/** A real MinIO for a test: its own process, port and folder. */
import { onFreePort, startChildServer } from "./child_server.ts";
import { programOrSkip } from "./programs.ts";

export interface Minio {
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly region: string;
  readonly pid: number;
  /** What a program needs in its environment to be let in. */
  env(): Record<string, string>;
  /** `open` to everyone: also requests that carry no signature. */
  createBucket(name: string, options?: { open?: boolean }): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Starts MinIO on 127.0.0.1, on a port of its own unless one is given.
 * Undefined, after printing SKIPPED, where it cannot be had. Stop it.
 *
 * @param options.folder keep the data here instead of in a temporary folder,
 *   so that another MinIO can be started on it
 */
export async function startMinio(
  options: { port?: number; folder?: string } = {},
): Promise<Minio | undefined> {
  const path = await programOrSkip("minio");
  if (path === undefined) return undefined;
  const start = (port: number) => startOn(port, path, options.folder);
  return await (options.port === undefined
    ? onFreePort(start)
    : start(options.port));
}

async function startOn(
  port: number,
  path: string,
  ownFolder: string | undefined,
): Promise<Minio> {
  const temporaryFolder = ownFolder === undefined
    ? await Deno.makeTempDir({ prefix: "minio-" })
    : undefined;
  const folder = ownFolder ?? temporaryFolder!;
  const endpoint = `http://127.0.0.1:${port}`;
  const credentials = {
    accessKeyId: "minioadmin",
    secretAccessKey: "minioadmin",
  };
  const region = "us-east-1";
  const server = await startChildServer({
    name: "MinIO",
    path,
    args: ["server", "--quiet", "--address", `127.0.0.1:${port}`, folder],
    env: {
      MINIO_ROOT_USER: credentials.accessKeyId,
      MINIO_ROOT_PASSWORD: credentials.secretAccessKey,
      // No console, and no look at the network for updates.
      MINIO_BROWSER: "off",
      MINIO_UPDATE: "off",
    },
    readyUrl: `${endpoint}/minio/health/ready`,
    temporaryFolder,
  });

  return {
    endpoint,
    ...credentials,
    region,
    pid: server.pid,
    env: () => ({
      AWS_ACCESS_KEY_ID: credentials.accessKeyId,
      AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
      AWS_REGION: region,
      AWS_EC2_METADATA_DISABLED: "true",
    }),
    async createBucket(name, { open = false } = {}) {
      const aws = await import("@aws-sdk/client-s3");
      const client = new aws.S3Client({
        endpoint,
        region,
        credentials,
        forcePathStyle: true,
      });
      try {
        await client.send(new aws.CreateBucketCommand({ Bucket: name }));
        if (!open) return;
        await client.send(
          new aws.PutBucketPolicyCommand({
            Bucket: name,
            Policy: JSON.stringify({
              Version: "2012-10-17",
              Statement: [{
                Effect: "Allow",
                Principal: { AWS: ["*"] },
                Action: ["s3:*"],
                Resource: [`arn:aws:s3:::${name}`, `arn:aws:s3:::${name}/*`],
              }],
            }),
          }),
        );
      } finally {
        client.destroy();
      }
    },
    stop: () => server.stop(),
  };
}
