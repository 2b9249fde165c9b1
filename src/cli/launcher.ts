/**
 * The launcher: from a command line of `denokv` to the one of the runtime that
 * runs it with exactly the permissions that it needs. It opens nothing itself
 * and is gone when the command runs (docs/decisions/launcher.md).
 */
import { UsageError } from "../common/errors.ts";
import {
  permissionFlags,
  type Permissions,
  permissions,
  type Surroundings,
} from "../common/permission_list.ts";
import {
  commandPermissions,
  permissionsToTellMistakes,
} from "./command_permissions.ts";
import { settingsOf } from "./config.ts";
import { type CommandName, OPTIONS } from "./options.ts";
import { type Invocation, parseCommandLine } from "./parse.ts";
import { shellQuote } from "./start.ts";

export interface Launch {
  /** Of the runtime, after its own name. */
  args: string[];
  /** To set for it; undefined takes one away. */
  env: Record<string, string | undefined>;
  /** It is to be printed, and not run. */
  isPrinted: boolean;
}

/**
 * Keeps the memory of a server near 100 MB under load, and that of a restore of
 * 600 MB at 135, at the same speed.
 */
const SMALL_MEMORY = ["--v8-flags=--max-semi-space-size=4"];
const SMALL_COMMANDS: readonly CommandName[] = [
  "serve",
  "start",
  "restore",
  "backup verify",
];

/**
 * A mistake in the command line is no fault here: the command itself tells it.
 * @param main the file of the program that is launched
 */
export function launchOf(
  args: readonly string[],
  around: Surroundings,
  main: string,
): Launch {
  // A server that starts asks nobody whether there is a newer runtime.
  const env: Launch["env"] = { DENO_NO_UPDATE_CHECK: "1" };
  const launch = (
    allowed: Permissions,
    flags: string[],
    rest: readonly string[],
    isPrinted = false,
  ): Launch => ({
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--cached-only",
      ...flags,
      ...permissionFlags(allowed),
      main,
      ...rest,
    ],
    env,
    isPrinted,
  });
  try {
    const invocation = parseCommandLine(args, around.env);
    if (invocation.kind !== "run") return launch(permissions({}), [], args);
    const { command, values } = invocation;
    const allowed = commandPermissions(
      command,
      settingsOf(invocation),
      around,
    );
    return launch(
      allowed,
      SMALL_COMMANDS.includes(command) ? SMALL_MEMORY : [],
      hideToken(invocation, without(args, "printPermissions"), env),
      values.printPermissions,
    );
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    const { flag } = OPTIONS.printPermissions;
    const rest = args.filter((arg) => arg !== `--${flag}`);
    return launch(permissionsToTellMistakes(), [], rest);
  }
}

/** For a unit file or a shell; no secret stands in it. */
export function printedLine(program: string, { args }: Launch): string {
  return [program, ...args].map(shellQuote).join(" ");
}

/**
 * Every user of a machine can read the command lines of its processes, and
 * nobody else their environment. The token goes there; what it overrules in
 * the environment goes away.
 */
function hideToken(
  { sources }: Extract<Invocation, { kind: "run" }>,
  args: readonly string[],
  env: Launch["env"],
): readonly string[] {
  if (sources.accessToken !== "flag") return args;
  // Both at once is a mistake, which the command tells.
  if (sources.accessTokenFile === "flag") return args;
  const { flag, env: variable } = OPTIONS.accessToken;
  const at = args.findIndex((arg) => arg === `--${flag}`);
  const inline = args.find((arg) => arg.startsWith(`--${flag}=`));
  env[variable] = inline?.slice(flag.length + 3) ?? args[at + 1];
  env[OPTIONS.accessTokenFile.env] = undefined;
  return without(args, "accessToken");
}

/** The arguments without an option, however often it is given. */
function without(
  args: readonly string[],
  name: "accessToken" | "printPermissions",
): string[] {
  const { flag, type } = OPTIONS[name];
  const rest: string[] = [];
  for (let at = 0; at < args.length; at++) {
    if (args[at].startsWith(`--${flag}=`)) continue;
    if (args[at] !== `--${flag}`) rest.push(args[at]);
    else if (type.kind === "string") at++;
  }
  return rest;
}
