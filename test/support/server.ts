/**
 * The server as a process, with no more permissions than the documented
 * command gives it: started on a free port, awaited by its own words, stopped
 * or killed.
 */
import { fileURLToPath } from "node:url";
import { environmentOf } from "../../src/cli/options.ts";

const MAIN = fileURLToPath(new URL("../../main.ts", import.meta.url));
const SKEWED_CLOCK = fileURLToPath(
  new URL("skewed_clock.ts", import.meta.url),
);
const ROOT = fileURLToPath(new URL("../..", import.meta.url));

export const ACCESS_TOKEN = "an access token for tests";
export const REST_SECRET = "denorocks";

/** What is under test is what this checkout says, and no check of it. */
const RUN = ["run", "--quiet", "--no-prompt", "--no-check", "--cached-only"];

/** A program with fewer descriptors than this process; how many is in `$0`. */
const WITH_DESCRIPTORS = 'ulimit -n "$0" && exec "$@"';

/** Only a server that hangs needs so long, and no busy machine. */
const START_LIMIT_MS = 90_000;
const STOP_LIMIT_MS = 30_000;
const LOG_LIMIT_MS = 180_000;
/** The address stands at the end of its line, in both forms of the log. */
const LISTENING = /Listening on http:\/\/[^\s"]*:(\d+)(?:\n|")/;
/** Before anything is served, where there is a backup. */
const BOUND = /address=http:\/\/[^\s"]*:(\d+)(?:\s|")/;
/** Of the log, for the message of a test that fails. */
const LAST_WORDS_CHARS = 4000;

export interface ServerSettings {
  /** The database file; its folder has to be there. */
  path: string;
  /** Of 127.0.0.1. Default: any free one. */
  port?: number;
  /** Further arguments, after `serve`. */
  args?: string[];
  /** Beside the secrets; an empty text removes one of those. */
  env?: Record<string, string>;
  backup?: BackedUpTo;
  /** Reached without being named on the command line. */
  reaches?: BackedUpTo;
  /** Further hosts, with their ports. */
  net?: string[];
  /** How far its clock is ahead of this machine's. */
  clockSkewMs?: number;
  /** Of the environment, what it may see. Default: all that `serve` reads. */
  seesOnly?: string[];
  /** Files and connections that the process may have open (`ulimit -n`). */
  maxDescriptors?: number;
}

/** A backup, and what it needs to be reached. */
export interface BackedUpTo {
  url: string;
  /** Of an S3, or of Google's emulator. */
  endpoint?: string;
  env?: Record<string, string>;
  /** Of a folder. */
  folder?: string;
}

/** The permissions that docs/object-stores.md names for a backup. */
export function backupPermissions({ url, endpoint, folder }: BackedUpTo) {
  const isS3 = endpoint !== undefined && url.startsWith("s3:");
  return {
    net: endpoint === undefined ? [] : [new URL(endpoint).host],
    files: folder === undefined ? [] : [folder],
    env: isS3
      ? [
        "AWS_*",
        "HOME",
        "USERPROFILE",
        "HOMEPATH",
        "HOMEDRIVE",
        "_X_AMZN_TRACE_ID",
      ]
      : url.startsWith("gs:")
      ? ["GOOGLE_SDK_NODE_LOGGING"]
      : [],
    other: [`--allow-sys=osUptime${isS3 ? ",osRelease" : ""}`],
  };
}

export function backupArgs({ url, endpoint }: BackedUpTo): string[] {
  if (endpoint === undefined) return ["--backup", url];
  const flag = url.startsWith("gs:") ? "--gcs-endpoint" : "--s3-endpoint";
  return ["--backup", url, flag, endpoint];
}

/** A `denokv` command that runs and ends; its output, and its exit code. */
export async function runCommand(
  args: string[],
  settings: {
    backup?: BackedUpTo;
    net?: string[];
    folder: string;
    /** Besides, to read only. */
    reads?: string[];
    env?: Record<string, string>;
    /** Kills it; its code is then that of no exit. */
    killedBy?: AbortSignal;
  },
): Promise<{ code: number; out: string; err: string }> {
  const { backup, net = [], folder, reads = [], env = {} } = settings;
  const allowed = backup && backupPermissions(backup);
  const names = [...Object.keys(env), ...allowed?.env ?? []];
  const hosts = [...net, ...allowed?.net ?? []];
  const folders = [folder, ...allowed?.files ?? []].join(",");
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...RUN,
      ...(hosts.length > 0 ? [`--allow-net=${hosts.join(",")}`] : []),
      `--allow-read=${[folders, ...reads].join(",")}`,
      `--allow-write=${folders}`,
      ...(names.length > 0 ? [`--allow-env=${names.join(",")}`] : []),
      ...allowed?.other ?? [],
      MAIN,
      ...args,
    ],
    cwd: ROOT,
    clearEnv: true,
    env: { ...inherited(), TMPDIR: folder, ...backup?.env, ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let isRunning = true;
  settings.killedBy?.addEventListener("abort", () => {
    if (isRunning) child.kill("SIGKILL");
  });
  const { code, stdout, stderr } = await child.output();
  isRunning = false;
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  return { code, out: text(stdout), err: text(stderr) };
}

export interface StoppedServer {
  /** Null where a signal ended it. */
  code: number | null;
  tookMs: number;
}

export class ServerProcess implements AsyncDisposable {
  readonly url: string;
  private hasEnded = false;

  private constructor(
    private readonly child: Deno.ChildProcess,
    readonly port: number,
    private readonly log: ServerLog,
    /** All of its standard output, once it has ended. */
    readonly printed: Promise<string>,
  ) {
    this.url = `http://127.0.0.1:${port}`;
    child.status.then(() => this.hasEnded = true);
  }

  /** One that has not said that it listens, and perhaps never will. */
  static starting(settings: ServerSettings): ServerProcess {
    const child = spawn(settings);
    const printed = new Response(child.stdout).text();
    return new ServerProcess(child, 0, new ServerLog(child.stderr), printed);
  }

  /** Resolves when the server has said that it listens. */
  static start(settings: ServerSettings): Promise<ServerProcess> {
    return ServerProcess.reached(settings, LISTENING);
  }

  /** Resolves when it has its port, whether it serves already or not. */
  static bound(settings: ServerSettings): Promise<ServerProcess> {
    return ServerProcess.reached(settings, BOUND);
  }

  private static async reached(
    settings: ServerSettings,
    line: RegExp,
  ): Promise<ServerProcess> {
    const child = spawn(settings);
    const limit = setTimeout(() => child.kill("SIGKILL"), START_LIMIT_MS);
    const log = new ServerLog(child.stderr);
    const printed = new Response(child.stdout).text();
    try {
      await log.until(line);
      const port = Number(line.exec(log.text)![1]);
      return new ServerProcess(child, port, log, printed);
    } catch {
      throw new Error(`the server did not start: ${log.text}`);
    } finally {
      clearTimeout(limit);
    }
  }

  get pid(): number {
    return this.child.pid;
  }

  /** Null where a signal ended it. */
  get exitCode(): Promise<number | null> {
    return this.child.status.then(async ({ code, signal }) => {
      await this.log.isRead;
      return signal === null ? code : null;
    });
  }

  /** Resolves when it has logged what the pattern says. */
  async logged(pattern: RegExp): Promise<void> {
    await this.log.until(pattern);
  }

  /** What it has logged lately. */
  get lastWords(): string {
    return this.log.text;
  }

  /** Lines that it has logged. */
  get loggedLines(): number {
    return this.log.lines;
  }

  get isRunning(): boolean {
    return !this.hasEnded;
  }

  /** Asks it to stop, and waits until it has. */
  async stop(signal: "SIGTERM" | "SIGINT" = "SIGTERM"): Promise<StoppedServer> {
    const startedMs = performance.now();
    const limit = setTimeout(() => this.signal("SIGKILL"), STOP_LIMIT_MS);
    this.signal(signal);
    const status = await this.child.status;
    clearTimeout(limit);
    await Promise.all([this.log.isRead, this.printed]);
    return {
      code: status.signal === null ? status.code : null,
      tookMs: performance.now() - startedMs,
    };
  }

  /** As a crash would. */
  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.child.status;
    await Promise.all([this.log.isRead, this.printed]);
  }

  signal(name: Deno.Signal): void {
    if (!this.hasEnded) this.child.kill(name);
  }

  /** The samples of `/-/metrics`, by name and labels as they stand there. */
  async metrics(): Promise<Map<string, number>> {
    const answer = await fetch(`${this.url}/-/metrics`);
    const samples = new Map<string, number>();
    for (const line of (await answer.text()).split("\n")) {
      const at = line.lastIndexOf(" ");
      if (at > 0 && !line.startsWith("#")) {
        samples.set(line.slice(0, at), Number(line.slice(at + 1)));
      }
    }
    return samples;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

function spawn(settings: ServerSettings) {
  const { path, port = 0, args = [], backup, reaches, clockSkewMs } = settings;
  const env = clockSkewMs === undefined
    ? settings.env ?? {}
    : { ...settings.env, TEST_CLOCK_SKEW_MS: `${clockSkewMs}` };
  const reached = backup ?? reaches;
  const allowed = reached && backupPermissions(reached);
  const folder = path.slice(0, path.lastIndexOf("/"));
  const secrets = {
    DENO_KV_ACCESS_TOKEN: ACCESS_TOKEN,
    KVSTORE_SECRET: REST_SECRET,
  };
  const names = settings.seesOnly ?? [
    ...environmentOf("serve"),
    ...Object.keys({ ...secrets, ...env }),
  ];
  const folders = [folder, ...allowed?.files ?? []].join(",");
  // Whoever takes any free port needs the right to take that one again.
  const listensOn = port === 0 ? "127.0.0.1" : `127.0.0.1:${port}`;
  const { maxDescriptors } = settings;
  const [program, ...before] = maxDescriptors === undefined
    ? [Deno.execPath()]
    : ["sh", "-c", WITH_DESCRIPTORS, `${maxDescriptors}`, Deno.execPath()];
  return new Deno.Command(program, {
    args: [
      ...before,
      ...RUN,
      "--v8-flags=--max-semi-space-size=4",
      ...(clockSkewMs === undefined ? [] : [`--preload=${SKEWED_CLOCK}`]),
      `--allow-net=${
        [listensOn, ...allowed?.net ?? [], ...settings.net ?? []].join(",")
      }`,
      `--allow-read=${folders}`,
      `--allow-write=${folders}`,
      `--allow-env=${[...names, ...allowed?.env ?? []].join(",")}`,
      ...allowed?.other ?? [],
      MAIN,
      "--sqlite-path",
      path,
      "serve",
      "--addr",
      `127.0.0.1:${port}`,
      ...(backup ? backupArgs(backup) : []),
      ...args,
    ],
    cwd: ROOT,
    clearEnv: true,
    env: { ...inherited(), ...secrets, ...backup?.env, ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** What the runtime itself needs to find its cache. */
function inherited(): Record<string, string> {
  const env: Record<string, string> = { NO_COLOR: "1" };
  for (const name of ["PATH", "HOME", "DENO_DIR"]) {
    const value = Deno.env.get(name);
    if (value !== undefined) env[name] = value;
  }
  return env;
}

/** What a server says on standard error: read all the time, the last is kept. */
export class ServerLog {
  text = "";
  /** Line ends that have come. */
  lines = 0;
  readonly isRead: Promise<void>;
  private hasEnded = false;
  private waiting: (() => void)[] = [];

  constructor(stream: ReadableStream<Uint8Array>) {
    this.isRead = this.read(stream);
  }

  /**
   * Resolves when the text matches; rejects when it has ended without, or has
   * said nothing of the kind for longer than any test waits.
   */
  async until(pattern: RegExp): Promise<void> {
    let isLate = false;
    const limit = setTimeout(() => {
      isLate = true;
      this.wake();
    }, LOG_LIMIT_MS);
    try {
      while (!pattern.test(this.text)) {
        if (this.hasEnded) throw new Error(`it ended: ${this.text}`);
        if (isLate) throw new Error(`no ${pattern} in ${this.text}`);
        await new Promise<void>((resolve) => this.waiting.push(resolve));
      }
    } finally {
      clearTimeout(limit);
    }
  }

  private async read(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
      this.text = (this.text + chunk).slice(-LAST_WORDS_CHARS);
      this.lines += chunk.split("\n").length - 1;
      this.wake();
    }
    this.hasEnded = true;
    this.wake();
  }

  private wake(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}

/** A folder of its own for a test, removed in the end. */
export class TestFolder implements AsyncDisposable {
  private constructor(readonly path: string) {}

  static async make(): Promise<TestFolder> {
    return new TestFolder(await Deno.makeTempDir({ prefix: "denokv-test-" }));
  }

  get database(): string {
    return `${this.path}/denokv.sqlite`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** The seed of a random test: given, or new; printed, so that it can be given. */
export function testSeed(): number {
  const given = Deno.env.get("DENOKV_TEST_SEED");
  const seed = given === undefined
    ? crypto.getRandomValues(new Uint32Array(1))[0]
    : Number(given);
  console.log(`DENOKV_TEST_SEED=${seed}`);
  return seed;
}

/** A whole number from the environment: more rounds on demand. */
export function testCount(name: string, usual: number): number {
  const given = Deno.env.get(name);
  return given === undefined ? usual : Number(given);
}
