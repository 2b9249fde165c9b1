/**
 * Permissions of the runtime as a list that can be put together and written as
 * flags: what a program will need, before it is started.
 */
import { join } from "node:path";
import { StartupError } from "./errors.ts";

/** By the runtime's flags: `net` is `--allow-net`. Empty: nothing of it. */
export interface Permissions {
  net: string[];
  read: string[];
  write: string[];
  env: string[];
  sys: string[];
}

/** What is there around a program before it starts. */
export interface Surroundings {
  env(name: string): string | undefined;
  /** Undefined where the file cannot be read. */
  readText(path: string): string | undefined;
  /** Without links; the path itself where it leads nowhere. */
  realPath(path: string): string;
}

const KINDS = ["net", "read", "write", "env", "sys"] as const;

export function permissions(some: Partial<Permissions>): Permissions {
  return { net: [], read: [], write: [], env: [], sys: [], ...some };
}

/** Each once, in the order of their first naming. */
export function together(all: readonly Permissions[]): Permissions {
  const sum = permissions({});
  for (const kind of KINDS) {
    sum[kind] = [...new Set(all.flatMap((one) => one[kind]))];
  }
  return sum;
}

/** @throws StartupError where the runtime's flags have no form for a name */
export function permissionFlags(list: Permissions): string[] {
  return KINDS.flatMap((kind) => {
    const values = list[kind];
    const odd = values.find((value) => value.includes(","));
    if (odd !== undefined) {
      throw new StartupError(
        `The permissions of this command line cannot be given: "${odd}" has a comma in it, and the runtime takes it for two. Nothing was opened; use a path without a comma, a symbolic link for example.`,
      );
    }
    return values.length === 0 ? [] : [`--allow-${kind}=${values.join(",")}`];
  });
}

/** As `--allow-net` takes it; none for a text that is no URL. */
export function hostOf(url: string | undefined): string[] {
  if (url === undefined || !URL.canParse(url)) return [];
  const { hostname, port, protocol } = new URL(url);
  if (hostname === "") return [];
  return [`${hostname}:${port || (protocol === "http:" ? "80" : "443")}`];
}

/** Below the home folder, where there is one. */
export function atHome(around: Surroundings, ...parts: string[]): string[] {
  const home = around.env("HOME") || around.env("USERPROFILE");
  return home ? [join(home, ...parts)] : [];
}
