/** The launcher as a process: the real environment, files and exit. */
import { fileURLToPath } from "node:url";
import { messageOf } from "../common/errors.ts";
import { missingPermission } from "../common/permissions.ts";
import type { Surroundings } from "../common/permission_list.ts";
import { type CliIo, say, wantedLogFormat } from "./io.ts";
import { launchOf, printedLine } from "./launcher.ts";
import {
  canReplaceProcess,
  replaceProcess,
  runAsChild,
} from "./replace_process.ts";

/** @param main the URL of the program */
export async function launch(main: string): Promise<never> {
  try {
    const path = main.startsWith("file:") ? fileURLToPath(main) : main;
    const launch = launchOf(Deno.args, surroundings, path);
    const program = Deno.execPath();
    if (launch.isPrinted) {
      console.log(printedLine(program, launch));
      Deno.exit(0);
    }
    for (const [name, value] of Object.entries(launch.env)) {
      if (value === undefined) Deno.env.delete(name);
      else Deno.env.set(name, value);
    }
    if (canReplaceProcess()) replaceProcess(program, launch.args);
    Deno.exit(await runAsChild(program, launch.args));
  } catch (error) {
    const io: CliIo = {
      out: (line) => console.log(line),
      err: (line) => console.error(line),
      logFormat: mayReadVariables()
        ? wantedLogFormat(Deno.args, surroundings.env)
        : "text",
    };
    say(io, "error", missingPermission(error) ?? messageOf(error));
    Deno.exit(1);
  }
}

function mayReadVariables(): boolean {
  return Deno.permissions.querySync({ name: "env" }).state === "granted";
}

const surroundings: Surroundings = {
  env: (name) => Deno.env.get(name),
  readText(path) {
    try {
      return Deno.readTextFileSync(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotCapable) throw error;
      return undefined;
    }
  },
  realPath(path) {
    try {
      return Deno.realPathSync(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotCapable) throw error;
      return path;
    }
  },
};
