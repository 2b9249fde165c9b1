/**
 * Where Google's library will look for credentials, by its standard chain: a
 * key file that the environment names, what `gcloud` left, the machine's own
 * account.
 */
import { join } from "node:path";
import {
  atHome,
  hostOf,
  type Permissions,
  permissions,
  type Surroundings,
  together,
} from "../common/permission_list.ts";

const TOKEN_HOST = "oauth2.googleapis.com:443";
const FILE_NAME = "application_default_credentials.json";

const PROXY_VARIABLES = [
  "HTTPS_PROXY",
  "https_proxy",
  "HTTP_PROXY",
  "http_proxy",
];

export function gcsCredentials(around: Surroundings): Permissions {
  const proxies = PROXY_VARIABLES.flatMap((name) => around.env(name) || []);
  const common = permissions({
    net: proxies.flatMap(hostOf),
    env: [
      "GOOGLE_*",
      ...PROXY_VARIABLES,
      ...(proxies.length > 0 ? ["NO_PROXY", "no_proxy"] : []),
    ],
  });
  const named = around.env("GOOGLE_APPLICATION_CREDENTIALS");
  if (named) return together([common, byFile(named, around)]);
  const config = around.env("CLOUDSDK_CONFIG");
  const files = config
    ? [join(config, FILE_NAME)]
    : atHome(around, ".config", "gcloud", FILE_NAME);
  const file = files.find((path) => around.readText(path) !== undefined);
  const looked = permissions({
    env: ["google_application_credentials", "CLOUDSDK_CONFIG", "HOME"],
    read: files,
  });
  return together([
    common,
    looked,
    file === undefined ? byMachine(around) : byFile(file, around),
  ]);
}

/** A file of another provider's credentials says where they are exchanged. */
function byFile(path: string, around: Surroundings): Permissions {
  const credentials = jsonOf(around.readText(path));
  const source = credentials.credential_source;
  const { url, file } =
    (typeof source === "object" && source !== null ? source : {}) as Record<
      string,
      unknown
    >;
  const urls = [
    credentials.token_url,
    credentials.token_info_url,
    credentials.service_account_impersonation_url,
    url,
  ];
  return permissions({
    net: [
      TOKEN_HOST,
      ...urls.flatMap((one) => typeof one === "string" ? hostOf(one) : []),
    ],
    read: [path, ...(typeof file === "string" ? [file] : [])],
  });
}

function byMachine(around: Surroundings): Permissions {
  const own = around.env("GCE_METADATA_IP") || around.env("GCE_METADATA_HOST");
  return permissions({
    net: own
      ? hostOf(`http://${own.replace(/^https?:\/\//, "")}`)
      : ["169.254.169.254:80", "metadata.google.internal.:80"],
    env: [
      "GCE_METADATA_*",
      "METADATA_SERVER_DETECTION",
      "K_SERVICE",
      "FUNCTION_NAME",
      "CLOUD_RUN_*",
      "DETECT_GCP_RETRIES",
    ],
    sys: ["networkInterfaces"],
  });
}

function jsonOf(text: string | undefined): Record<string, unknown> {
  try {
    const value = JSON.parse(text ?? "");
    return typeof value === "object" && value !== null ? value : {};
  } catch {
    // The library says what is wrong with it.
    return {};
  }
}
