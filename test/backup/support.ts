/** A real MinIO with a bucket, and what a server needs to back up to it. */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { systemClock } from "../../src/common/clock.ts";
import { systemRandom } from "../../src/common/random.ts";
import type { ObjectStore } from "../../src/object_store/object_store.ts";
import { openObjectStore } from "../../src/object_store/open.ts";
import { type Minio, startMinio } from "../support/minio.ts";
import { type HttpProxy, startHttpProxy } from "../support/http_proxy.ts";
import {
  type BackedUpTo,
  REST_SECRET,
  runCommand,
  ServerProcess,
  TestFolder,
} from "../support/server.ts";

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

/** What most tests of a backup need: it, the way to it, disks and commands. */
export class World implements AsyncDisposable {
  private constructor(
    readonly bucket: Bucket,
    readonly folder: TestFolder,
    /** Before the bucket, for those who are to meet odd answers. */
    readonly proxy: HttpProxy,
    readonly backup: BackedUpTo,
    /** The same backup, by way of the proxy. */
    readonly proxied: BackedUpTo,
    readonly objects: ObjectStore,
  ) {}

  /** Undefined, after saying SKIPPED, where MinIO cannot be had. */
  static async begin(prefix: string): Promise<World | undefined> {
    const bucket = await startBucket();
    if (bucket === undefined) return undefined;
    const proxy = await startHttpProxy(bucket.minio.endpoint);
    const backup = bucket.at(prefix);
    return new World(
      bucket,
      await TestFolder.make(),
      proxy,
      backup,
      bucket.at(prefix, proxy.endpoint),
      await objectsOf(bucket, backup),
    );
  }

  /** The database file of another machine, which is not there yet. */
  disk(name: string): string {
    return `${this.folder.path}/${name}.sqlite`;
  }

  /** A command that may use this backup. */
  run = (args: string[], more: { killedBy?: AbortSignal } = {}) =>
    runCommand([...args, "--s3-endpoint", this.backup.endpoint!], {
      backup: this.backup,
      folder: this.folder.path,
      ...more,
    });

  async [Symbol.asyncDispose](): Promise<void> {
    await this.objects.close();
    await this.folder[Symbol.asyncDispose]();
    await this.proxy.stop();
    await this.bucket[Symbol.asyncDispose]();
  }
}

/** A backup in a folder, which has to be there. */
export function folderBackup(folder: string): BackedUpTo {
  return { url: `file://${folder}`, folder };
}

/** Short, so that a test need not wait for what is gone. */
export const SHORT_LEASE = ["--backup-lease", "1s"];

/** As every test of lost objects serves. */
export const ARGS = ["--durability", "s3", ...SHORT_LEASE];
const headers = { authorization: "denorocks" };

export function objectsOf(
  bucket: Bucket,
  { url }: BackedUpTo,
): Promise<ObjectStore> {
  return openObjectStore(url, {
    clock: systemClock,
    random: systemRandom,
    s3Endpoint: bucket.minio.endpoint,
    s3Credentials: bucket.minio,
  });
}

export async function keysOf(
  objects: ObjectStore,
  prefix = "",
): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of objects.list(prefix)) keys.push(key);
  return keys;
}

export async function put(server: ServerProcess, key: string): Promise<string> {
  const answer = await fetch(`${server.url}/${key}`, {
    method: "POST",
    body: "value",
    headers,
  });
  assert.equal(answer.status, 200);
  return (await answer.json()).versionstamp;
}

export async function isThere(
  server: ServerProcess,
  key: string,
): Promise<boolean> {
  const answer = await fetch(`${server.url}/${key}`, { headers });
  await answer.body?.cancel();
  return answer.status === 200;
}

/** A server that was killed after its writes, each with a segment of its own. */
export async function killedAfter(
  writes: number,
  path: string,
  backup: BackedUpTo,
): Promise<string[]> {
  const stamps: string[] = [];
  await using server = await ServerProcess.start({ path, backup, args: ARGS });
  for (let i = 0; i < writes; i++) stamps.push(await put(server, `${i}`));
  await server.kill();
  return stamps;
}

export async function refusalOf(
  path: string,
  backup: BackedUpTo,
): Promise<string> {
  await using server = ServerProcess.starting({ path, backup, args: ARGS });
  // Whether it serves or ends is known as soon as it does either.
  await server.logged(/Listening/).catch(() => {});
  assert.ok(!/Listening/.test(server.lastWords), "it serves");
  assert.equal(await server.exitCode, 1);
  return server.lastWords;
}

/** Of a versionstamp, as people and answers have it. */
export function versionOf(stamp: string): number {
  return Number(BigInt(`0x${stamp.slice(0, 16)}`));
}

/** Asks a server for a new generation. */
export async function snapshot(
  server: ServerProcess,
  folder: TestFolder,
): Promise<void> {
  const host = new URL(server.url).host;
  const made = await runCommand(["backup", "snapshot", "--addr", host], {
    net: [host],
    folder: folder.path,
    env: { KVSTORE_SECRET: REST_SECRET },
  });
  assert.equal(made.code, 0, made.err);
}

export async function readiness(server: ServerProcess) {
  const answer = await fetch(`${server.url}/-/ready`);
  return { ...await answer.json(), status: answer.status };
}

/** Within a bound that no busy machine needs. */
export async function until(
  holds: () => Promise<boolean> | boolean,
): Promise<void> {
  const endMs = performance.now() + 60_000;
  while (!await holds()) {
    assert.ok(performance.now() < endMs, `waited in vain: ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export function rowsOf(path: string): number {
  const db = new DatabaseSync(path, { readOnly: true });
  const { count } = db.prepare("select count(*) as count from kv").get()!;
  db.close();
  return Number(count);
}
