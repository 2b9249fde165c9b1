/**
 * Makes this process another program, as a shell's `exec` does: the process
 * id, its streams and its parent stay. So signals reach the program itself, its exit
 * code is the process's, killing it leaves no orphan, and nothing of the old
 * program costs memory.
 */
import { StartupError } from "../common/errors.ts";

/** Deno itself is built against these, so that they are there where it runs. */
const C_LIBRARIES: Partial<Record<typeof Deno.build.os, string>> = {
  linux: "libc.so.6",
  darwin: "/usr/lib/libSystem.B.dylib",
};

const EXECV = {
  execv: { parameters: ["buffer", "buffer"], result: "i32" },
} as const;

/** Whether this system can; elsewhere see {@linkcode runAsChild}. */
export function canReplaceProcess(): boolean {
  return C_LIBRARIES[Deno.build.os] !== undefined;
}

/**
 * Never returns: the program is this process now, with its environment.
 * @throws StartupError where the program cannot be run
 */
export function replaceProcess(program: string, args: string[]): never {
  const library = Deno.dlopen(C_LIBRARIES[Deno.build.os]!, EXECV);
  const texts = [program, ...args].map((text) =>
    new TextEncoder().encode(`${text}\0`)
  );
  // The addresses of the texts, and a null after the last one.
  const addresses = new BigUint64Array(texts.length + 1);
  texts.forEach((text, at) => {
    addresses[at] = BigInt(
      Deno.UnsafePointer.value(Deno.UnsafePointer.of(text)),
    );
  });
  library.symbols.execv(texts[0], addresses);
  // It came back: nothing was replaced.
  library.close();
  throw new StartupError(
    `${program} could not be run in place of the launcher. Nothing was opened; the command line may be too long for this system.`,
  );
}

/**
 * For a system that cannot replace a process: the program as a child, which
 * gets the signals and gives its exit code.
 */
export async function runAsChild(
  program: string,
  args: string[],
): Promise<number> {
  const child = new Deno.Command(program, { args }).spawn();
  const signals: Deno.Signal[] = Deno.build.os === "windows"
    ? ["SIGINT", "SIGBREAK"]
    : ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const name of signals) {
    Deno.addSignalListener(name, () => {
      try {
        child.kill(name);
      } catch {
        // It has ended, and its status comes.
      }
    });
  }
  return (await child.status).code;
}
