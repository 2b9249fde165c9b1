/**
 * What a start says of itself in one line: a setting that was not seen, or one
 * that was not meant, shows there and nowhere else.
 */
import type { LogFields } from "../common/log.ts";
import type { ServeConfig } from "./config.ts";
import { environmentOf } from "./options.ts";
import type { Invocation } from "./parse.ts";

const PREFIX = "DENO_KV_";

/** Never a secret's value. */
export function startingFields(config: ServeConfig): LogFields {
  const { backup, replica, accessToken, restSecret } = config;
  const set = (secret?: string) => secret === undefined ? "not set" : "set";
  return {
    version: config.version,
    database: config.sqlitePath,
    readOnly: config.readOnly ? "yes" : undefined,
    replicaOf: replica?.primary?.url,
    replicaFrom: replica?.place && withoutUser(replica.place.url),
    durability: backup?.durability ?? "local",
    backup: backup === undefined ? "no backup" : withoutUser(backup.place.url),
    accessToken: set(accessToken),
    restSecret: set(restSecret),
    publicReads: config.publicReads ? "yes" : "no",
    mayNotSee: config.hiddenVariables,
  };
}

/**
 * The variables of a command that the runtime does not let it see, in few
 * words: Deno does not tell whether such a one is set. One whose flag is given
 * would count for nothing. Undefined where there is none.
 */
export function hiddenVariables(
  { command, sources }: Extract<Invocation, { kind: "run" }>,
  isHidden: (name: string) => boolean,
): string | undefined {
  const overruled = new Set(environmentOf(
    command,
    (name) =>
      sources[name] === "flag" || name === "port" && sources.addr === "flag",
  ));
  const asked = environmentOf(command).filter((name) => !overruled.has(name));
  const hidden = asked.filter(isHidden);
  return hidden.length === 0 ? undefined : inFewWords(hidden, asked);
}

/** `KVSTORE_SECRET DENO_KV_{BACKUP,DEV}`; `DENO_KV_*` where it is all. */
function inFewWords(
  names: readonly string[],
  of: readonly string[],
): string {
  const isOurs = (name: string) => name.startsWith(PREFIX);
  const ours = names.filter(isOurs);
  const words = names.filter((name) => !isOurs(name));
  if (ours.length === 1) words.push(ours[0]);
  else if (ours.length === of.filter(isOurs).length) words.push(`${PREFIX}*`);
  else if (ours.length > 1) {
    const ends = ours.map((name) => name.slice(PREFIX.length));
    words.push(`${PREFIX}{${ends.join(",")}}`);
  }
  return words.join(" ");
}

/** What stands before an "@" may be a secret. */
function withoutUser(url: string): string {
  return url.replace(/\/\/[^/]*@/, "//…@");
}
