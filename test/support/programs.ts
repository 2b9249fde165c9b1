/**
 * Real programs that tests and benchmarks run against: built once from their
 * public sources by the language's own package client, into the ignored
 * `.cache`, and kept there by version.
 *
 * A program that cannot be had (no compiler, no network, a broken build) is
 * no failure: the answer is the reason, and the test says `SKIPPED: why`.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { removeTree } from "./folders.ts";

export type ProgramName = "minio" | "fake-gcs-server" | "denokv" | "litestream";

export type Program = { path: string } | { skipped: string };

interface Recipe {
  version: string;
  /** The compiler that has to be installed. */
  tool: "go" | "cargo";
  /** Arguments that build `version` into `folder`. */
  args(version: string, folder: string): string[];
  /** Environment of the build, beside our own. */
  env(folder: string): Record<string, string>;
  /** Where the build leaves the program, inside its folder. */
  binary: string;
  /** How long it takes on two cores, for the person who waits. */
  minutes: number;
}

function goRecipe(
  module: string,
  version: string,
  binary: string,
  minutes: number,
): Recipe {
  return {
    version,
    tool: "go",
    args: (version) => ["install", `${module}@${version}`],
    env: (folder) => ({ GOBIN: folder, CGO_ENABLED: "0" }),
    binary,
    minutes,
  };
}

const RECIPES: Record<ProgramName, Recipe> = {
  minio: goRecipe(
    "github.com/minio/minio",
    "v0.0.0-20260212201848-7aac2a2c5b7c",
    "minio",
    3,
  ),
  "fake-gcs-server": goRecipe(
    "github.com/fsouza/fake-gcs-server",
    "v1.56.1",
    "fake-gcs-server",
    2,
  ),
  litestream: goRecipe(
    "github.com/benbjohnson/litestream/cmd/litestream",
    "v0.5.18",
    "litestream",
    5,
  ),
  denokv: {
    version: "0.14.0",
    tool: "cargo",
    // Without --locked its S3 client spins for minutes before a request.
    args: (version, folder) => [
      "install",
      "denokv",
      "--version",
      version,
      "--locked",
      "--root",
      folder,
    ],
    env: () => ({}),
    binary: "bin/denokv",
    minutes: 8,
  },
};

const PROGRAMS = fileURLToPath(
  new URL("../../.cache/programs", import.meta.url),
);

/** A build that takes longer than this is given up. */
const BUILD_LIMIT_MS = 30 * 60_000;

/** How often a person who waits for a build hears of it. */
const PROGRESS_MS = 15_000;

const asked = new Map<ProgramName, Promise<Program>>();

/**
 * The path of a program, building it first where needed. Processes that ask
 * at the same time build it once: the others wait. Never rejects.
 */
export function program(name: ProgramName): Promise<Program> {
  let answer = asked.get(name);
  if (answer === undefined) {
    answer = find(name).catch((error: unknown) => ({
      skipped: `${name} could not be had: ${
        error instanceof Error ? error.message : error
      }`,
    }));
    asked.set(name, answer);
  }
  return answer;
}

/**
 * The path of a program, or undefined after printing why a test is skipped.
 */
export async function programOrSkip(
  name: ProgramName,
): Promise<string | undefined> {
  const found = await program(name);
  if ("path" in found) return found.path;
  console.log(`SKIPPED: ${found.skipped}`);
  return undefined;
}

async function find(name: ProgramName): Promise<Program> {
  const recipe = RECIPES[name];
  const folder = join(PROGRAMS, `${name}-${recipe.version}`);
  const path = join(folder, recipe.binary);
  if (await isFile(path)) return { path };

  await Deno.mkdir(PROGRAMS, { recursive: true });
  // The lock goes with the process that holds it, however that ends.
  const lock = await Deno.open(join(PROGRAMS, `${name}.lock`), {
    create: true,
    write: true,
  });
  try {
    if (!await lock.tryLock(true)) {
      say(`waiting for another process that builds ${name}`);
      await lock.lock(true);
    }
    if (await isFile(path)) return { path };
    return await build(name, recipe, folder, path);
  } finally {
    lock.close();
  }
}

/** Builds beside the final folder and moves it there when it is whole. */
async function build(
  name: ProgramName,
  recipe: Recipe,
  folder: string,
  path: string,
): Promise<Program> {
  const building = `${folder}.building`;
  await removeTree(building);
  await Deno.mkdir(building);
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(recipe.tool, {
      args: recipe.args(recipe.version, building),
      env: recipe.env(building),
      // Away from any go.mod or Cargo configuration around us.
      cwd: building,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
  } catch (error) {
    await removeTree(building);
    if (error instanceof Deno.errors.NotFound) {
      return {
        skipped: `${name} has to be built with \`${recipe.tool}\`, ` +
          "which is not installed",
      };
    }
    throw error;
  }

  const started = performance.now();
  const seconds = () => Math.round((performance.now() - started) / 1000);
  say(
    `building ${name} ${recipe.version} with ${recipe.tool}, once ` +
      `(about ${recipe.minutes} minutes)`,
  );
  const progress = setInterval(
    () => say(`still building ${name}: ${seconds()} s`),
    PROGRESS_MS,
  );
  const limit = setTimeout(() => child.kill("SIGKILL"), BUILD_LIMIT_MS);
  try {
    const lastWords = tail(child.stderr);
    const { success } = await child.status;
    if (!success || !await isFile(join(building, recipe.binary))) {
      return {
        skipped: `${name} ${recipe.version} could not be built with ` +
          `${recipe.tool}: ${await lastWords || "it gave no reason"}`,
      };
    }
    await removeTree(folder);
    await Deno.rename(building, folder);
    say(`built ${name} in ${seconds()} s`);
    return { path };
  } finally {
    clearInterval(progress);
    clearTimeout(limit);
    await removeTree(building);
  }
}

/** The last lines of a stream, as one line. */
async function tail(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    text = (text + chunk).slice(-600);
  }
  return text.trim().split("\n").slice(-4).join(" | ");
}

function say(message: string): void {
  console.error(`[programs] ${message}`);
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch {
    return false;
  }
}
