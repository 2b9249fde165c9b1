/**
 * Where the AWS SDK will look for credentials, by its standard chain: the
 * environment, the shared profile, web identity (EKS), the container (ECS),
 * the instance (EC2). Single sign-on and `credential_process` are not
 * followed: they start programs and write files of their own.
 */
import {
  atHome,
  hostOf,
  type Permissions,
  permissions,
  type Surroundings,
  together,
} from "../common/permission_list.ts";

const INSTANCE_HOST = "169.254.169.254:80";
const CONTAINER_HOST = "169.254.170.2:80";

/** A profile may name another one as its source. */
const MAX_SOURCES = 10;

type Profile = Record<string, string>;

/** @param isRegionKnown by other means than the profile */
export function awsCredentials(
  around: Surroundings,
  isRegionKnown: boolean,
): Permissions {
  const isSet = (name: string) => Boolean(around.env(name));
  const files = permissions({ read: configFiles(around) });
  const hasKeys = isSet("AWS_ACCESS_KEY_ID") &&
    isSet("AWS_SECRET_ACCESS_KEY") && !isSet("AWS_PROFILE");
  if (hasKeys) {
    return isRegionKnown || isSet("AWS_REGION") ? permissions({}) : files;
  }
  return together([files, byProfile(around, profileName(around))]);
}

/** From the environment or the profile, as the SDK does. */
export function awsRegion(around: Surroundings): string | undefined {
  return around.env("AWS_REGION") ||
    profileOf(around, profileName(around)).region;
}

function byProfile(around: Surroundings, first: string): Permissions {
  const needs: Permissions[] = [];
  let name = first;
  for (let sources = 0; sources < MAX_SOURCES; sources++) {
    const profile = profileOf(around, name);
    if (profile.role_arn !== undefined) {
      needs.push(permissions({ net: stsHosts(around) }));
      if (profile.web_identity_token_file !== undefined) {
        needs.push(permissions({ read: [profile.web_identity_token_file] }));
        return together(needs);
      }
      if (
        profile.source_profile !== undefined && profile.source_profile !== name
      ) {
        name = profile.source_profile;
        continue;
      }
    }
    if (profile.aws_access_key_id !== undefined) return together(needs);
    break;
  }
  return together([...needs, byMachine(around)]);
}

function byMachine(around: Surroundings): Permissions {
  const tokenFile = around.env("AWS_WEB_IDENTITY_TOKEN_FILE");
  if (tokenFile && around.env("AWS_ROLE_ARN")) {
    return permissions({ net: stsHosts(around), read: [tokenFile] });
  }
  const uri = around.env("AWS_CONTAINER_CREDENTIALS_FULL_URI");
  if (uri || around.env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")) {
    const secret = around.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    return permissions({
      net: around.env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        ? [CONTAINER_HOST]
        : hostOf(uri),
      read: secret ? [secret] : [],
    });
  }
  if (around.env("AWS_EC2_METADATA_DISABLED")?.toLowerCase() === "true") {
    return permissions({});
  }
  const endpoint = around.env("AWS_EC2_METADATA_SERVICE_ENDPOINT");
  return permissions({ net: endpoint ? hostOf(endpoint) : [INSTANCE_HOST] });
}

function stsHosts(around: Surroundings): string[] {
  const endpoint = around.env("AWS_ENDPOINT_URL_STS") ||
    around.env("AWS_ENDPOINT_URL");
  if (endpoint) return hostOf(endpoint);
  const region = awsRegion(around) ?? "us-east-1";
  return [`sts.${region}.${domainOf(region)}:443`];
}

export function domainOf(region: string): string {
  return region.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
}

function profileName(around: Surroundings): string {
  return around.env("AWS_PROFILE") || "default";
}

function configFiles(around: Surroundings): string[] {
  const file = (variable: string, name: string) => {
    const named = around.env(variable);
    return named ? [named] : atHome(around, ".aws", name);
  };
  return [
    ...file("AWS_CONFIG_FILE", "config"),
    ...file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
  ];
}

/** Of both files, in which a profile's section has two forms of name. */
function profileOf(around: Surroundings, name: string): Profile {
  const profile: Profile = {};
  for (const file of configFiles(around)) {
    let isMeant = false;
    for (const line of (around.readText(file) ?? "").split(/\r?\n/)) {
      const section = /^\s*\[\s*(?:profile\s+)?["']?([^\]"']+?)["']?\s*\]/
        .exec(line)?.[1];
      if (section !== undefined) isMeant = section === name;
      const setting = /^(\w+)\s*=\s*(.*?)\s*$/.exec(line);
      if (isMeant && setting !== null) profile[setting[1]] = setting[2];
    }
  }
  return profile;
}
