/**
 * The servers that are compared, each as a process of its own on 127.0.0.1
 * with a database of its own.
 */
import { environmentOf } from "../src/cli/options.ts";
import { program } from "../test/support/programs.ts";

export const ACCESS_TOKEN = "benchmark-access-token";
export const REST_SECRET = "benchmark-rest-secret";

export interface ServerOptions {
  /** The folder of its database, made where it is missing. */
  folder: string;
  /** The core that the server is bound to; not given: any of them. */
  cpu?: number;
  /** Besides what the server needs anyway. */
  env?: Record<string, string>;
}

export interface Server extends AsyncDisposable {
  url: URL;
  /** Resident memory in bytes, as the kernel counts it now (VmRSS). */
  residentBytes(): Promise<number>;
  /** Processor time that it has taken, on all cores. */
  processorMs(): Promise<number>;
}

/** What to run; a server is started from it, perhaps many times. */
export interface Launch {
  url: URL;
  command: string[];
  env: Record<string, string>;
}

export type Starter = (options: ServerOptions) => Promise<Launch>;

/** A reason why a row cannot be measured here; not a failure. */
export class Skipped extends Error {
  override name = "Skipped";
}

const REPOSITORY = `${import.meta.dirname}/..`;

/** This project's server, with the permissions that its README names. */
export const ours: Starter = async ({ folder, cpu, env }) => {
  const url = freeUrl();
  const path = await inFolder(folder, "denokv.sqlite");
  return {
    url,
    command: bound(cpu, [
      Deno.execPath(),
      "run",
      "--v8-flags=--max-semi-space-size=4",
      `--allow-net=${url.host}`,
      `--allow-read=${folder}`,
      `--allow-write=${folder}`,
      `--allow-env=${environmentOf("serve").join(",")}`,
      `${REPOSITORY}/main.ts`,
      "--sqlite-path",
      path,
      "serve",
      "--public-reads",
      "--addr",
      url.host,
    ]),
    env: {
      DENO_KV_ACCESS_TOKEN: ACCESS_TOKEN,
      KVSTORE_SECRET: REST_SECRET,
      ...env,
    },
  };
};

/** The Rust `denokv`, with its defaults. */
export const rust: Starter = async ({ folder, cpu, env }) => {
  const found = await program("denokv");
  if ("skipped" in found) throw new Skipped(found.skipped);
  const url = freeUrl();
  const path = await inFolder(folder, "denokv.sqlite");
  return {
    url,
    command: bound(cpu, [
      found.path,
      "--sqlite-path",
      path,
      "serve",
      "--addr",
      url.host,
    ]),
    env: { DENO_KV_ACCESS_TOKEN: ACCESS_TOKEN, ...env },
  };
};

/** The first system's design: Hono on `Deno.openKv(file)`. */
export const hono: Starter = async ({ folder, cpu, env }) => {
  const url = freeUrl();
  const path = await inFolder(folder, "kv.sqlite");
  return {
    url,
    command: bound(cpu, [
      Deno.execPath(),
      "run",
      "--unstable-kv",
      `--allow-net=${url.host}`,
      `--allow-read=${folder}`,
      `--allow-write=${folder}`,
      "--allow-env=PORT,KVSTORE_SECRET,KVSTORE_PATH",
      `${import.meta.dirname}/peers/hono_kv.ts`,
    ]),
    env: {
      PORT: url.port,
      KVSTORE_SECRET: REST_SECRET,
      KVSTORE_PATH: path,
      ...env,
    },
  };
};

/** A `Deno.serve` that reads a body and answers that many bytes. */
export function bare(answerBytes: number): Starter {
  return ({ cpu, env }) => {
    const url = freeUrl();
    return Promise.resolve({
      url,
      command: bound(cpu, [
        Deno.execPath(),
        "run",
        `--allow-net=${url.host}`,
        `${import.meta.dirname}/peers/bare.ts`,
        url.port,
        `${answerBytes}`,
      ]),
      env: { ...env },
    });
  };
}

/** Resolves when the server answers at all; it is stopped when disposed. */
export async function start(launch: Launch): Promise<Server> {
  const child = spawn(launch);
  const lastWords = tail(child.stderr);
  const stop = async () => {
    try {
      child.kill("SIGTERM");
    } catch {
      // It has ended already.
    }
    const timer = setTimeout(() => child.kill("SIGKILL"), 10_000);
    await child.status;
    clearTimeout(timer);
  };
  const ended = child.status.then(async (status) => {
    throw new Error(
      `The server ended with code ${status.code}.\n${
        launch.command.join(" ")
      }\n${await lastWords}`,
    );
  });
  ended.catch(() => {});
  const timeLimit = new AbortController();
  const timer = setTimeout(() => timeLimit.abort(), 15_000);
  try {
    await Promise.race([serves(launch.url, timeLimit.signal), ended]);
  } catch (error) {
    await stop();
    throw error;
  } finally {
    clearTimeout(timer);
    timeLimit.abort();
  }
  return {
    url: launch.url,
    residentBytes: () => residentBytes(child.pid),
    processorMs: () => processorMs(child.pid),
    [Symbol.asyncDispose]: stop,
  };
}

export function spawn(launch: Launch): Deno.ChildProcess {
  return new Deno.Command(launch.command[0], {
    args: launch.command.slice(1),
    env: launch.env,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
}

/** Resolves when it answers, and does not say that it serves nothing yet. */
async function serves(url: URL, signal: AbortSignal): Promise<void> {
  await answers(url, signal);
  for (;;) {
    // A peer has no such address, and is served from the first answer on.
    const answer = await fetch(new URL("/-/ready", url), { signal });
    await answer.body?.cancel();
    if (answer.status !== 503) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Resolves when something accepts connections there, however it answers. */
export async function answers(url: URL, signal: AbortSignal): Promise<void> {
  for (;;) {
    try {
      const connection = await Deno.connect({
        hostname: url.hostname,
        port: Number(url.port),
      });
      return connection.close();
    } catch (error) {
      if (!(error instanceof Deno.errors.ConnectionRefused)) throw error;
    }
    if (signal.aborted) throw new Error(`Nothing listens at ${url.origin}.`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** A port that nobody uses at this moment. */
function freeUrl(): URL {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return new URL(`http://127.0.0.1:${listener.addr.port}`);
}

async function inFolder(folder: string, name: string): Promise<string> {
  await Deno.mkdir(folder, { recursive: true });
  return `${folder}/${name}`;
}

function bound(cpu: number | undefined, command: string[]): string[] {
  return cpu === undefined ? command : ["taskset", "-c", `${cpu}`, ...command];
}

async function residentBytes(pid: number): Promise<number> {
  const status = await processFile(pid, "status");
  const match = /VmRSS:\s*(\d+) kB/.exec(status);
  if (!match) throw new Error(`Process ${pid} tells no VmRSS.`);
  return Number(match[1]) * 1024;
}

/** The kernel counts in hundredths of a second, whatever its own clock. */
const TICK_MS = 10;

/** Processor time that a process has taken, its own and the kernel's for it. */
export async function processorMs(pid: number): Promise<number> {
  const stat = await processFile(pid, "stat");
  // The program's name stands in brackets, and may hold anything.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

/** Read with `cat`: Deno gives /proc to those with every permission only. */
async function processFile(pid: number, name: string): Promise<string> {
  const { stdout } = await new Deno.Command("cat", {
    args: [`/proc/${pid}/${name}`],
  }).output();
  return new TextDecoder().decode(stdout);
}

/** The last of what a program says, kept for the case that it fails. */
async function tail(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  for await (const part of stream.pipeThrough(new TextDecoderStream())) {
    text = (text + part).slice(-2000);
  }
  return text;
}
