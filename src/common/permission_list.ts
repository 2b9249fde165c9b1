/**
 * Permissions of the runtime as a list that can be put together and written as
 * flags: what a program will need, before it is started.
 */
import { join } from "node:path";

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

export function permissionFlags(list: Permissions): string[] {
  return KINDS.flatMap((kind) => {
    // A comma would begin the next one of the list.
    const values = list[kind].map((value) => value.replaceAll(",", ",,"));
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
