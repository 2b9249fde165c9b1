/** The command line as a process: the real streams, environment and exit. */
import { type CliIo, say } from "./io.ts";
import { type Commands, runCli, sentence } from "./main_command.ts";

/** Runs the command line of this process and ends it with the exit code. */
export async function runProcess(commands: Commands): Promise<never> {
  const io = processIo();
  const failed = (event: Event, reason: unknown) => {
    event.preventDefault();
    say(io, "error", sentence(reason));
    Deno.exit(1);
  };
  globalThis.addEventListener(
    "unhandledrejection",
    (event) => failed(event, event.reason),
  );
  globalThis.addEventListener("error", (event) => failed(event, event.error));
  Deno.exit(await runCli(Deno.args, permittedEnv, io, commands));
}

function processIo(): CliIo {
  return {
    out: (line) => writeLine(Deno.stdout, line),
    err: (line) => writeLine(Deno.stderr, line),
    isHidden: (name) => !isGranted(name),
    ...(Deno.stdin.isTerminal() &&
      { confirm: (question: string) => confirm(question) }),
  };
}

/** Undefined too where the variable may not be read: no prompt, no crash. */
function permittedEnv(name: string): string | undefined {
  return isGranted(name) ? Deno.env.get(name) : undefined;
}

function isGranted(variable: string): boolean {
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  return state === "granted";
}

function writeLine(
  stream: { writeSync(bytes: Uint8Array): number },
  line: string,
): void {
  const bytes = new TextEncoder().encode(`${line}\n`);
  try {
    for (let at = 0; at < bytes.length;) {
      at += stream.writeSync(bytes.subarray(at));
    }
  } catch {
    // Nobody reads it any more; the work goes on and the exit code tells.
  }
}
