/** The real Litestream, set up as docs/litestream.md has it. */
import type { Minio } from "./minio.ts";

export interface LitestreamSettings {
  /** The program. */
  path: string;
  /** The SQLite file that it replicates. */
  database: string;
  minio: Pick<Minio, "endpoint" | "env">;
  bucket: string;
  /** For its configuration, and as its home. */
  folder: string;
}

export interface Litestream {
  /** Arguments and environment of a `restore` to this file. */
  restore(output: string): Pick<Deno.CommandOptions, "args" | "env">;
  /** Replicates until it is disposed of. */
  replicate(): AsyncDisposable;
}

export async function litestream(
  { path, database, minio, bucket, folder }: LitestreamSettings,
): Promise<Litestream> {
  const config = `${folder}/litestream.yml`;
  await Deno.writeTextFile(
    config,
    `dbs:
  - path: ${database}
    replica:
      type: s3
      bucket: ${bucket}
      path: litestream
      endpoint: ${minio.endpoint}
      region: us-east-1
      force-path-style: true
`,
  );
  const env = {
    PATH: Deno.env.get("PATH")!,
    HOME: folder,
    AWS_EC2_METADATA_DISABLED: "true",
    ...minio.env(),
  };
  return {
    restore: (output) => ({
      args: ["restore", "-config", config, "-o", output, database],
      env,
    }),
    replicate() {
      const child = new Deno.Command(path, {
        args: ["replicate", "-config", config],
        clearEnv: true,
        env,
        stdout: "null",
        stderr: "null",
      }).spawn();
      return {
        async [Symbol.asyncDispose]() {
          child.kill("SIGTERM");
          await child.status;
        },
      };
    },
  };
}
