/**
 * What the runtime has to allow for a place where objects are kept: the hosts,
 * the variables and the files that its library asks for, and no others. Which
 * credentials are used decides about half of them, so the library's own chain
 * is followed here, as far as the environment and the profile tell it.
 */
import {
  hostOf,
  type Permissions,
  permissions,
  type Surroundings,
  together,
} from "../common/permission_list.ts";
import { awsCredentials, awsRegion, domainOf } from "./aws_credentials.ts";
import { gcsCredentials } from "./gcs_credentials.ts";
import { folderOf } from "./open.ts";

export interface Place {
  url: string;
  s3Endpoint?: string;
  gcsEndpoint?: string;
  /** Of development: the chain of credentials is not asked. */
  s3Credentials?: unknown;
}

/** The AWS SDK asks for them one by one, whether they are set or not. */
const AWS_VARIABLES = [
  "AWS_*",
  "HOME",
  "USERPROFILE",
  "HOMEPATH",
  "HOMEDRIVE",
  "_X_AMZN_TRACE_ID",
];

/** @throws UsageError where the URL names no folder */
export function placePermissions(
  place: Place,
  access: "read" | "write",
  around: Surroundings,
): Permissions {
  const { url, s3Endpoint, gcsEndpoint } = place;
  if (url.startsWith("file:")) {
    const folder = folderOf(url);
    return permissions({
      // Its lock is opened by its real name.
      read: [...new Set([folder, around.realPath(folder)])],
      write: access === "write" ? [folder] : [],
    });
  }
  if (url.startsWith("s3:")) {
    return together([
      permissions({
        net: s3Hosts(bucketOf(url), s3Endpoint, around),
        env: AWS_VARIABLES,
        sys: ["osRelease", ...homeFacts(around)],
      }),
      place.s3Credentials === undefined
        ? awsCredentials(around, s3Endpoint !== undefined)
        : permissions({}),
    ]);
  }
  if (url.startsWith("gs:")) {
    const endpoint = gcsEndpoint ?? "https://storage.googleapis.com";
    return together([
      permissions({ net: hostOf(endpoint), env: ["GOOGLE_SDK_NODE_LOGGING"] }),
      // In the clear none are sent.
      endpoint.startsWith("http:") ? permissions({}) : gcsCredentials(around),
    ]);
  }
  return permissions({});
}

/** The SDK looks below the home folder: the system tells it, if nobody else. */
function homeFacts({ env }: Surroundings): string[] {
  return env("HOME") || env("USERPROFILE") || env("HOMEPATH")
    ? []
    : ["uid", "homedir"];
}

function bucketOf(url: string): string {
  return /^\w+:\/\/([^/]*)/.exec(url)?.[1] ?? "";
}

function s3Hosts(
  bucket: string,
  given: string | undefined,
  around: Surroundings,
): string[] {
  if (given !== undefined) return hostOf(given);
  const endpoint = around.env("AWS_ENDPOINT_URL_S3") ||
    around.env("AWS_ENDPOINT_URL");
  if (endpoint) {
    return hostOf(endpoint).flatMap((host) => [host, `${bucket}.${host}`]);
  }
  const region = awsRegion(around);
  // The SDK says it before it asks the network.
  if (region === undefined) return [];
  const isOn = (name: string) => around.env(name)?.toLowerCase() === "true";
  const service = [
    isOn("AWS_USE_FIPS_ENDPOINT") ? "s3-fips" : "s3",
    ...(isOn("AWS_USE_DUALSTACK_ENDPOINT") ? ["dualstack"] : []),
    region,
    domainOf(region),
  ].join(".");
  // A dot would be a level more than the certificate has: such a bucket is
  // named in the path.
  return [`${bucket.includes(".") ? "" : `${bucket}.`}${service}:443`];
}
