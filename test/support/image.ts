/**
 * The image without a container runtime, as far as that goes: the Dockerfile's
 * own lines build it below a folder, from exactly the files that it copies,
 * and its entry and health check run there with an environment of their own
 * and no way to a registry. What is missing: the other user, and a network of
 * its own.
 */
import assert from "node:assert/strict";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import type { Variables } from "./launched.ts";
import { ServerLog } from "./server.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Folders of the image that are below its root here. */
const OWN_FOLDERS = ["/usr/local", "/data", "/app", "/tmp"];

/** As Docker waits after SIGTERM before it kills. */
const STOP_LIMIT_MS = 10_000;

interface Instruction {
  name: string;
  rest: string;
}

export interface Ran {
  code: number;
  out: string;
  err: string;
}

export class Image implements AsyncDisposable {
  private constructor(
    readonly root: string,
    private readonly env: Variables,
    private readonly entrypoint: string[],
    private readonly command: string[],
    private readonly healthcheck: string[],
  ) {}

  /** Undefined, after saying SKIPPED, where no registry gives its packages. */
  static async build(): Promise<Image | undefined> {
    const root = await Deno.makeTempDir({ prefix: "denokv-image-" });
    const lines = instructions(await readSource("Dockerfile"));
    const env: Variables = {
      PATH: `${root}/usr/local/bin:${root}/bin:/usr/bin:/bin`,
      HOME: `${root}/home`,
      TMPDIR: `${root}/tmp`,
      // Of the image that it is made from.
      DENO_DIR: `${root}/deno-dir`,
      NO_COLOR: "1",
    };
    for (const folder of ["bin", "usr/local/bin", "tmp", "home"]) {
      await Deno.mkdir(`${root}/${folder}`, { recursive: true });
    }
    await Deno.symlink(Deno.execPath(), `${root}/bin/deno`);
    let folder = root;
    const image = () =>
      new Image(
        root,
        env,
        exec(lines, "ENTRYPOINT"),
        exec(lines, "CMD"),
        exec(lines, "HEALTHCHECK"),
      );
    for (const { name, rest } of lines) {
      if (name === "WORKDIR") {
        folder = below(root, rest);
        await Deno.mkdir(folder, { recursive: true });
      }
      if (name === "COPY") await copy(rest.split(" "), folder);
      if (name === "ENV") {
        for (const pair of rest.split(" ")) {
          const [key, value] = pair.split("=");
          env[key] = below(root, value);
        }
      }
      if (name !== "RUN") continue;
      // There is no such user here.
      const line = below(root, rest).replaceAll(" -o deno -g deno", "");
      // How this machine reaches a registry is in its variables.
      const { code, err } = await output(
        "sh",
        ["-c", line],
        { ...Deno.env.toObject(), ...env },
        folder,
      );
      if (code === 0) continue;
      assert.match(err, /registry|npm|fetch|connect|dns/i, err);
      console.log(`SKIPPED: ${line}: ${err.slice(-300)}`);
      await image()[Symbol.asyncDispose]();
      return undefined;
    }
    // From here on it has to do with what is there.
    env.HTTPS_PROXY = env.HTTP_PROXY = "http://127.0.0.1:9";
    env.NO_PROXY = "127.0.0.1";
    env.AWS_EC2_METADATA_DISABLED = "true";
    return image();
  }

  /** A path of the image. */
  path(path: string): string {
    return `${this.root}${path}`;
  }

  /** `docker run`, or what compose makes of a service. */
  run(
    args: string[] = this.command,
    env: Variables = {},
  ): Container {
    return new Container(
      this,
      this.spawn([...this.entrypoint, ...args], env),
      env,
    );
  }

  /** `docker exec` in a container with these variables. */
  async exec(args: string[], env: Variables): Promise<Ran> {
    const [program, ...rest] = args;
    return await output(
      program,
      rest,
      { ...this.env, ...env },
      this.path("/app"),
    );
  }

  checkHealth(env: Variables): Promise<Ran> {
    return this.exec(this.healthcheck, env);
  }

  private spawn([program, ...args]: string[], env: Variables) {
    return command(program, args, { ...this.env, ...env }, this.path("/app"))
      .spawn();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.root, { recursive: true });
  }
}

export class Container {
  readonly log: ServerLog;

  constructor(
    private readonly image: Image,
    private readonly child: Deno.ChildProcess,
    private readonly env: Variables,
  ) {
    void child.stdout.cancel();
    this.log = new ServerLog(child.stderr);
  }

  /** @returns the URL, without a slash at its end */
  async listens(): Promise<string> {
    const pattern = /Listening on (http:\S+)\n/;
    await this.log.until(pattern);
    return pattern.exec(this.log.text)![1];
  }

  exec(...args: string[]): Promise<Ran> {
    return this.image.exec(args, this.env);
  }

  health(): Promise<Ran> {
    return this.image.checkHealth(this.env);
  }

  /** @returns its exit code; null where it had to be killed, as Docker does */
  async stop(): Promise<number | null> {
    const kill = (name: Deno.Signal) => {
      try {
        this.child.kill(name);
      } catch {
        // It has ended by itself.
      }
    };
    const limit = setTimeout(() => kill("SIGKILL"), STOP_LIMIT_MS);
    kill("SIGTERM");
    const { code, signal } = await this.child.status;
    clearTimeout(limit);
    await this.log.isRead;
    return signal === null ? code : null;
  }
}

/** A service of compose.yaml: its command, and its variables. */
export async function composeService(
  name: string,
): Promise<{ command: string[]; env: Variables }> {
  const text = await readSource("compose.yaml");
  const service = new RegExp(`^  ${name}:\\n((?:    .*\\n|\\n)+)`, "m")
    .exec(text)![1];
  const block = (key: string) =>
    new RegExp(`^    ${key}:\\n((?:      .*\\n)+)`, "m").exec(service)?.[1] ??
      "";
  const lines = (text: string) =>
    text.split("\n").map((line) => line.trim()).filter(Boolean);
  return {
    command: lines(block("command")).map((line) => line.replace(/^- /, "")),
    env: Object.fromEntries(
      lines(block("environment")).map((line) => line.split(": ")),
    ),
  };
}

export function readSource(name: string): Promise<string> {
  return Deno.readTextFile(`${ROOT}/${name}`);
}

function instructions(text: string): Instruction[] {
  return text.replace(/^#.*\n/gm, "").replace(/\s*\\\n\s*/g, " ")
    .split("\n").filter((line) => line.trim() !== "")
    .map((line) => {
      const [, name, rest] = /^(\w+)\s+(.*)$/.exec(line)!;
      return { name, rest };
    });
}

/** The words of an instruction that runs without a shell. */
function exec(lines: Instruction[], name: string): string[] {
  const { rest } = lines.findLast((line) => line.name === name)!;
  return JSON.parse(rest.slice(rest.indexOf("[")));
}

/** In one pass: the root has such a name in itself. */
function below(root: string, text: string): string {
  const own = new RegExp(
    `(^|[ =,"])(${OWN_FOLDERS.join("|")})(?=$|[/ ,"])`,
    "g",
  );
  return text.replaceAll(own, `$1${root}$2`);
}

/** What .dockerignore lets in. */
async function copy(words: string[], folder: string): Promise<void> {
  const target = words.at(-1)!;
  const ignored = (await readSource(".dockerignore")).split("\n");
  for (const word of words.slice(0, -1)) {
    const name = word.replace(/\*$/, "");
    assert.ok(ignored.includes(`!${name}`), `${name} is not let in`);
    const to = target.endsWith("/")
      ? `${folder}/${name}`
      : `${folder}/${target}`;
    await copyTree(`${ROOT}/${name}`, to);
  }
}

async function copyTree(from: string, to: string): Promise<void> {
  if ((await Deno.stat(from)).isFile) {
    if (from.endsWith("_test.ts")) return;
    await Deno.mkdir(dirname(to), { recursive: true });
    return await Deno.copyFile(from, to);
  }
  for await (const { name } of Deno.readDir(from)) {
    await copyTree(`${from}/${name}`, `${to}/${name}`);
  }
}

function command(
  program: string,
  args: string[],
  env: Variables,
  cwd: string,
): Deno.Command {
  // By its own PATH, as a container finds it.
  return new Deno.Command("/usr/bin/env", {
    args: [program, ...args],
    cwd,
    clearEnv: true,
    env,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

async function output(
  program: string,
  args: string[],
  env: Variables,
  cwd: string,
): Promise<Ran> {
  const { code, stdout, stderr } = await command(program, args, env, cwd)
    .output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  return { code, out: text(stdout), err: text(stderr) };
}
