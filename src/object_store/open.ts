/**
 * From the URL that a person gives to a store. Each implementation, and the
 * library behind it, is loaded only when its kind of URL is opened.
 */
import { fileURLToPath } from "node:url";
import type { Clock } from "../common/clock.ts";
import { messageOf, UsageError } from "../common/errors.ts";
import type { Random } from "../common/random.ts";
import { missingPermission } from "../common/permissions.ts";
import { ALL_PERMISSIONS } from "./fetch_error.ts";
import { keyProblem } from "./keys.ts";
import { type ObjectStore, ObjectStoreRefusedError } from "./object_store.ts";

/** What the runtime says under `--cached-only`. */
const NOT_CACHED = /--cached-only/;

export interface OpenOptions {
  clock: Clock;
  random: Random;
  /** As `http://localhost:9000`; default: Amazon's. */
  s3Endpoint?: string;
  /** Default: AWS_REGION, the AWS profile; with an endpoint, us-east-1. */
  s3Region?: string;
  /** The bucket in the path, not the host name; default: with an endpoint. */
  s3PathStyle?: boolean;
  /** Default: AWS's standard chain of credentials. */
  s3Credentials?: { accessKeyId: string; secretAccessKey: string };
  /** Google's by default; an `http:` one is used without credentials. */
  gcsEndpoint?: string;
  /** The time limit of one request, in ms; default 30000. */
  timeoutMs?: number;
}

/**
 * Opens `s3://bucket/prefix`, `gs://bucket/prefix`, `file:///folder`, or, for
 * tests, `memory://name` (the same name gives the same objects within one
 * process). Whether a bucket is there shows with the first request.
 *
 * @throws UsageError where the URL is none of these
 * @throws ObjectStoreRefusedError where the folder cannot be used, or Deno
 *   was not given a permission
 */
export async function openObjectStore(
  url: string,
  options: OpenOptions,
): Promise<ObjectStore> {
  const { clock, random } = options;
  const timeoutMs = options.timeoutMs === undefined
    ? {}
    : { timeoutMs: options.timeoutMs };
  const scheme = /^([a-z0-9]+):\/\//.exec(url)?.[1];
  switch (scheme) {
    case "s3": {
      const place = bucketOf(url);
      const { S3ObjectStore } = await loaded(
        import("./s3.ts"),
        import.meta.resolve("./s3.ts"),
      );
      return new S3ObjectStore({
        ...place,
        ...timeoutMs,
        clock,
        endpoint: endpointOf(options.s3Endpoint, "--s3-endpoint"),
        region: options.s3Region,
        usePathStyle: options.s3PathStyle,
        credentials: options.s3Credentials,
      });
    }
    case "gs": {
      const place = bucketOf(url);
      const { GcsObjectStore } = await loaded(
        import("./gcs.ts"),
        import.meta.resolve("./gcs.ts"),
      );
      return new GcsObjectStore({
        ...place,
        ...timeoutMs,
        clock,
        endpoint: endpointOf(options.gcsEndpoint, "--gcs-endpoint"),
      });
    }
    case "file": {
      const folder = folderOf(url);
      const { LocalFolderStore } = await import("./local_folder.ts");
      return await LocalFolderStore.open({
        folder,
        clock,
        random,
        ...timeoutMs,
      });
    }
    case "memory": {
      const { namedMemoryStore } = await import("./memory.ts");
      return namedMemoryStore(url, clock);
    }
    default:
      throw new UsageError(
        `${shown(url)} is no place for objects. Use s3://bucket/prefix, ` +
          "gs://bucket/prefix or file:///folder.",
      );
  }
}

/**
 * A module whose library comes from a registry, and asks for permissions as
 * soon as it is loaded.
 */
async function loaded<T>(module: Promise<T>, url: string): Promise<T> {
  try {
    return await module;
  } catch (error) {
    const missing = missingPermission(error);
    if (missing !== undefined) {
      throw new ObjectStoreRefusedError(`${missing} ${ALL_PERMISSIONS}`);
    }
    if (!NOT_CACHED.test(messageOf(error))) throw error;
    const name = url.startsWith("file:") ? fileURLToPath(url) : url;
    throw new ObjectStoreRefusedError(
      `The packages that this kind of place needs are not in Deno's cache, and a start asks no registry for them. Nothing was opened; run \`deno cache ${name}\` once, as the same user.`,
    );
  }
}

/** The bucket and the prefix, without slashes at the prefix's ends. */
function bucketOf(url: string): { bucket: string; prefix: string } {
  const [, scheme, bucket, path] = /^([a-z0-9]+):\/\/([^/]*)(.*)$/s.exec(url)!;
  const prefix = path.replace(/^\/+|\/+$/g, "");
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{1,221}$/.test(bucket)) {
    throw new UsageError(
      `${
        shown(url)
      } names no bucket that can be. Write it as ${scheme}://bucket/prefix; ` +
        "credentials and ports have their own settings.",
    );
  }
  const problem = prefix === "" ? undefined : keyProblem(prefix);
  if (problem !== undefined) {
    throw new UsageError(`The prefix in ${shown(url)} is no use: ${problem}.`);
  }
  return { bucket, prefix };
}

/** @throws UsageError where a `file:` URL names no folder */
export function folderOf(url: string): string {
  try {
    // Both are ordinary in a folder's name, and nothing else is meant by them.
    const path = url.replaceAll("#", "%23").replaceAll("?", "%3F");
    return fileURLToPath(path).replace(/(?<=.)\/+$/, "");
  } catch {
    throw new UsageError(
      `${shown(url)} names no folder. Write three slashes before an absolute ` +
        "path: file:///var/backups/app.",
    );
  }
}

function endpointOf(
  endpoint: string | undefined,
  flag: string,
): string | undefined {
  if (endpoint === undefined) return undefined;
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  if (
    url === undefined || !/^https?:$/.test(url.protocol) ||
    url.username !== "" || url.password !== ""
  ) {
    throw new UsageError(
      `The endpoint of the object store (${flag}) is no URL like ` +
        "http://localhost:9000 (credentials have their own settings).",
    );
  }
  return endpoint.replace(/\/+$/, "");
}

/** A URL for a message: what stands before an "@" may be a secret. */
function shown(url: string): string {
  return JSON.stringify(url.replace(/\/\/[^/]*@/, "//…@"));
}
