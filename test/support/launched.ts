/**
 * `denokv` under the permissions that the launcher computes, with the
 * runtime's own record of every permission that was asked for.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { type Launch, launchOf } from "../../src/cli/launcher.ts";

const ROOT = new URL("../../", import.meta.url);
const MAIN = fileURLToPath(new URL("main.ts", ROOT));
const LAUNCHER = fileURLToPath(new URL("denokv.ts", ROOT));

/** As README, Dockerfile and deno.json start it. */
export const LAUNCHER_FLAGS = [
  "--quiet",
  "--no-prompt",
  "--cached-only",
  "--allow-env",
  "--allow-read",
  "--allow-ffi",
  "--allow-run",
];

export type Variables = Record<string, string>;

/** The runtime's cache, and where it finds programs; nothing else of ours. */
export function ownVariables(): Variables {
  const env: Variables = { NO_COLOR: "1" };
  for (const name of ["PATH", "HOME", "DENO_DIR"]) {
    const value = Deno.env.get(name);
    if (value !== undefined) env[name] = value;
  }
  return env;
}

/** The command of the launcher itself, to be spawned. */
export function launcherCommand(
  args: string[],
  env: Variables,
  cwd?: string,
): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", ...LAUNCHER_FLAGS, LAUNCHER, ...args],
    clearEnv: true,
    env: { ...ownVariables(), ...env },
    cwd,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

export function computed(args: string[], env: Variables): Launch {
  return launchOf(args, {
    env: (name) => env[name],
    readText(path) {
      try {
        return Deno.readTextFileSync(path);
      } catch {
        return undefined;
      }
    },
    realPath(path) {
      try {
        return Deno.realPathSync(path);
      } catch {
        return path;
      }
    },
  }, MAIN);
}

/** What it was asked for, by kind. */
export type Asked = Map<string, Set<string>>;

export interface Ran {
  code: number;
  out: string;
  err: string;
}

/**
 * Runs under exactly the computed permissions what the launcher would run.
 * @throws AssertionError where something was asked for that they do not allow,
 *   or they allow what was not asked for
 */
export async function runAudited(
  args: string[],
  env: Variables,
  folder: string,
): Promise<Ran> {
  const child = await spawnAudited(args, env, folder);
  const { code, stdout, stderr } = await child.process.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  const ran = { code, out: text(stdout), err: text(stderr) };
  assert.doesNotMatch(
    `${ran.out}${ran.err}`,
    /Requires|permission|Unexpected/i,
    args.join(" "),
  );
  await child.check();
  return ran;
}

export async function spawnAudited(
  args: string[],
  env: Variables,
  folder: string,
) {
  const all = { ...ownVariables(), ...env };
  const launch = computed(args, all);
  const record = await Deno.makeTempFile({ dir: folder, suffix: ".jsonl" });
  const process = new Deno.Command(Deno.execPath(), {
    args: launch.args,
    clearEnv: true,
    env: { ...all, DENO_AUDIT_PERMISSIONS: record },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  return {
    process,
    /** When it has ended. */
    async check(): Promise<void> {
      const asked = askedFor(await Deno.readTextFile(record));
      const refused = [...asked].flatMap(([kind, values]) =>
        [...values].filter((value) => !allows(launch.args, kind, value, all))
          .map((value) => `${kind} ${value}`)
      );
      assert.deepEqual(refused, [], `not allowed, of: ${args.join(" ")}`);
      assert.deepEqual(
        unused(launch.args, asked, all),
        [],
        `allowed and not asked for, of: ${args.join(" ")}`,
      );
    },
  };
}

function askedFor(record: string): Asked {
  const asked: Asked = new Map();
  for (const line of record.split("\n")) {
    if (line === "") continue;
    const { permission, value } = JSON.parse(line);
    if (!asked.has(permission)) asked.set(permission, new Set());
    asked.get(permission)!.add(String(value));
  }
  return asked;
}

/** Hosts, files and facts that were granted to nobody. */
function unused(
  flags: readonly string[],
  asked: Asked,
  env: Variables,
): string[] {
  return flags.flatMap((flag) => {
    const [, kind, list] = /^--allow-(net|read|write|sys)=(.*)$/.exec(flag) ??
      [];
    return (list?.split(",") ?? []).filter((one) =>
      ![...asked.get(kind) ?? []].some((value) =>
        allows([`--allow-${kind}=${one}`], kind, value, { ...env, HOME: "" })
      )
    ).map((one) => `${kind} ${one}`);
  });
}

/** What a library tries, and does without. */
function isOptional(kind: string, value: string, env: Variables): boolean {
  // Of the SDK, which has its keys by variables and its region by the endpoint.
  // Without a variable the system says where the home is.
  const isInHome = env.HOME
    ? value.startsWith(`${env.HOME}/.aws/`)
    : /\/\.aws\/\w+$/.test(value);
  const isOfAws = isInHome && env.AWS_ACCESS_KEY_ID !== undefined;
  return (kind === "read" || kind === "write") && isOfAws;
}

function allows(
  flags: readonly string[],
  kind: string,
  value: string,
  env: Variables,
): boolean {
  if (isOptional(kind, value, env)) return true;
  // As the runtime names the folder for temporary files.
  if (value === "<TMP>") value = env.TMPDIR ?? "/tmp";
  const start = `--allow-${kind}=`;
  const list = flags.find((flag) => flag.startsWith(start))
    ?.slice(start.length).split(",") ?? [];
  return list.some((one) => {
    switch (kind) {
      case "env":
        return one.endsWith("*")
          ? value.startsWith(one.slice(0, -1))
          : value === one;
      case "net": {
        const host = URL.canParse(value) && value.includes("//")
          ? new URL(value).host
          : value;
        return host === one || host.startsWith(`${one}:`);
      }
      case "read":
      case "write":
        return value === one || value.startsWith(`${one}/`);
      default:
        return value === one;
    }
  });
}
