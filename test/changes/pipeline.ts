/**
 * A recipe of examples/changes as a person runs it: `denokv changes` piped into
 * a program that delivers, with anything of it killed at random moments, and
 * the server too.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { seededRandom } from "../../src/common/random.ts";
import { encodeKey } from "../../src/protocol/key.ts";
import {
  Encoding,
  type Mutation,
  MutationType,
  NEVER_MS,
} from "../../src/protocol/messages.ts";
import { versionstampHex } from "../../src/protocol/versionstamp.ts";
import { freePort } from "../support/child_server.ts";
import { KvClient } from "../support/kv_client.ts";
import {
  ACCESS_TOKEN,
  ServerProcess,
  testCount,
  TestFolder,
  testSeed,
} from "../support/server.ts";
import { http1 } from "../support/transport.ts";

const MAIN = fileURLToPath(new URL("../../main.ts", import.meta.url));
const EXAMPLES = fileURLToPath(
  new URL("../../examples/changes/", import.meta.url),
);
/** How long a round may go before something is killed. */
const MAX_ROUND_MS = 1500;

/** A line of the feed; see docs/changes.md. */
export interface Line {
  type: string;
  versionstamp: string;
  index: number;
  key: unknown;
  value?: unknown;
  encoding?: string;
  expireAt?: string;
  committedAt: string;
  last?: true;
}

export interface Recipe {
  /** In examples/changes. */
  program: string;
  env: Record<string, string>;
}

/** Whether `node` is there to run a recipe; prints SKIPPED where it is not. */
export async function hasNode(): Promise<boolean> {
  try {
    return (await new Deno.Command("node", { args: ["--version"] }).output())
      .success;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.log("SKIPPED: node is not installed");
    return false;
  }
}

/** The program and the arguments of `denokv changes` on this server. */
export const changesArgs = (url: string, args: string[]): string[] => [
  Deno.execPath(),
  "run",
  "-A",
  "--quiet",
  "--no-check",
  "--cached-only",
  MAIN,
  "changes",
  "--url",
  url,
  ...args,
];

/** `denokv changes` on this server; its standard output is to be read. */
export function spawnChanges(url: string, args: string[]): Deno.ChildProcess {
  const [program, ...rest] = changesArgs(url, args);
  return new Deno.Command(program, {
    args: rest,
    env: { DENO_KV_ACCESS_TOKEN: ACCESS_TOKEN },
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
}

/** The two programs of a pipe. */
class Pipeline {
  private constructor(
    private readonly feed: Deno.ChildProcess,
    private readonly consumer: Deno.ChildProcess,
    private readonly piped: Promise<void>,
  ) {}

  static async start(
    { program, env }: Recipe,
    url: string,
    follows: boolean,
  ): Promise<Pipeline> {
    const script = `${EXAMPLES}${program}`;
    const { success, stdout, stderr } = await new Deno.Command("node", {
      args: [script, "position"],
      env,
    }).output();
    assert.ok(success, new TextDecoder().decode(stderr));
    const from = new TextDecoder().decode(stdout).trim();
    const feed = spawnChanges(url, [
      "--from",
      from,
      ...(follows ? ["--follow"] : []),
    ]);
    const consumer = new Deno.Command("node", {
      args: [script],
      env,
      stdin: "piped",
      stdout: "null",
      stderr: "inherit",
    }).spawn();
    const piped = feed.stdout.pipeTo(consumer.stdin).catch(() => {});
    return new Pipeline(feed, consumer, piped);
  }

  /** Kills one of them; the other one ends as it does then. */
  async kill(which: "feed" | "consumer"): Promise<void> {
    const { feed, consumer } = this;
    (which === "feed" ? feed : consumer).kill("SIGKILL");
    // A feed that has nothing to say does not notice that nobody listens.
    if (which === "consumer") feed.kill("SIGTERM");
    await this.ended();
  }

  /** As a supervisor stops it. */
  async stop(): Promise<void> {
    this.feed.kill("SIGTERM");
    await this.ended();
  }

  async ended(): Promise<{ feed: number; consumer: number }> {
    const [feed, consumer] = await Promise.all([
      this.feed.status,
      this.consumer.status,
      this.piped,
    ]);
    return { feed: feed.code, consumer: consumer.code };
  }
}

/** Writes commits of one to five mutations until it is told to stop. */
export class Writer {
  /** Acknowledged: how many mutations, by versionstamp. */
  readonly acknowledged = new Map<string, number>();
  private isStopped = false;
  private readonly random: ReturnType<typeof seededRandom>;
  readonly done: Promise<void>;

  constructor(private readonly url: string, seed: number) {
    this.random = seededRandom(seed);
    this.done = this.run();
  }

  stop(): Promise<void> {
    this.isStopped = true;
    return this.done;
  }

  private async run(): Promise<void> {
    while (!this.isStopped) {
      try {
        await this.writeUntilDown();
      } catch {
        // The server was killed: it comes back at the same address.
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  private async writeUntilDown(): Promise<void> {
    const transport = http1(this.url);
    try {
      const client = await KvClient.open(transport);
      while (!this.isStopped) {
        const mutations = Array.from(
          { length: 1 + this.random.below(5) },
          () => this.mutation(),
        );
        const version = await client.commit(mutations);
        this.acknowledged.set(versionstampHex(version, 0), mutations.length);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    } finally {
      transport.close();
    }
  }

  private mutation(): Mutation {
    const { random } = this;
    const isDelete = random.below(5) === 0;
    const [value, encoding] = VALUES[random.below(VALUES.length)];
    return {
      type: isDelete ? MutationType.DELETE : MutationType.SET,
      key: encodeKey(["key", random.below(1_000_000), BigInt(random.below(9))]),
      value: isDelete ? new Uint8Array(0) : value,
      encoding: isDelete ? Encoding.BYTES : encoding,
      expireAtMs: isDelete || random.below(4) > 0
        ? NEVER_MS
        : 4_000_000_000_000,
      sumMin: null,
      sumMax: null,
      sumClamp: false,
    };
  }
}

type Bytes = Uint8Array<ArrayBuffer>;

/** Plain, typed, and one that cannot be read. */
const VALUES: [Bytes, Encoding][] = [
  [new Uint8Array([0xff, 0x0f, 0x22, 2, 0x68, 0x69]), Encoding.V8],
  [
    new Uint8Array([0xff, 0x0f, 0x6f, 0x22, 1, 0x61, 0x49, 4, 0x7b, 1]),
    Encoding.V8,
  ],
  [new Uint8Array([9, 0, 0, 0, 0, 0, 0, 0]), Encoding.LE64],
  [new Uint8Array([1, 2, 10, 34]), Encoding.BYTES],
  [new Uint8Array([0xff, 0x0f, 0x22, 90]), Encoding.V8],
];

/**
 * Writes while the pipe, its ends and the server are killed, lets the pipe
 * catch up, and returns what the server's log holds, commit by commit.
 */
export async function killAndResume(recipe: Recipe): Promise<Line[][]> {
  await using folder = await TestFolder.make();
  const seed = testSeed();
  const random = seededRandom(seed);
  const settings = { path: folder.database, port: freePort() };
  let server = await ServerProcess.start(settings);
  const writer = new Writer(server.url, seed);
  const { url } = server;
  try {
    const rounds = testCount("DENOKV_TEST_FEED_KILLS", 4);
    for (let round = 0; round < rounds; round++) {
      const pipeline = await Pipeline.start(recipe, url, true);
      const pauseMs = random.below(MAX_ROUND_MS);
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      const victim = (["consumer", "feed", "server"] as const)[round % 3];
      if (victim === "server") {
        await server.kill();
        server = await ServerProcess.start(settings);
        await pipeline.stop();
      } else await pipeline.kill(victim);
    }
    await writer.stop();
    const last = await Pipeline.start(recipe, url, false);
    assert.deepEqual(await last.ended(), { feed: 0, consumer: 0 });
    const commits = commitsOf(await linesOf(url));
    const stamps = new Map(
      commits.map((lines) => [lines[0].versionstamp, lines.length]),
    );
    assert.ok(writer.acknowledged.size > 0, "nothing was written");
    for (const [versionstamp, count] of writer.acknowledged) {
      assert.equal(stamps.get(versionstamp), count, versionstamp);
    }
    return commits;
  } finally {
    await writer.stop();
    await server.kill();
  }
}

/** Everything that the server's log holds. */
export async function linesOf(url: string): Promise<Line[]> {
  const answer = await fetch(`${url}/-/changes?from=oldest`, {
    headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
  });
  assert.equal(answer.status, 200);
  return (await answer.text()).trim().split("\n")
    .map((line) => JSON.parse(line) as Line)
    .filter(({ type }) => type !== "heartbeat");
}

/** Each commit's lines; fails where one has no end, or two are mixed. */
export function commitsOf(lines: readonly Line[]): Line[][] {
  const commits: Line[][] = [];
  let present: Line[] = [];
  for (const line of lines) {
    assert.equal(line.index, present.length, "a mutation is missing");
    if (present.length > 0) {
      assert.equal(line.versionstamp, present[0].versionstamp);
    }
    present.push(line);
    if (!line.last) continue;
    commits.push(present);
    present = [];
  }
  assert.equal(present.length, 0, "a commit has no end");
  return commits;
}

/**
 * Fails unless every commit is there, whole and in order; one may come again,
 * and then whatever follows it too.
 */
export function isWholeHistory(
  delivered: readonly Line[][],
  history: readonly Line[][],
): void {
  const indexes = new Map(
    history.map((lines, i) => [lines[0].versionstamp, i]),
  );
  let next = 0;
  let at = 0;
  for (const lines of delivered) {
    const { versionstamp } = lines[0];
    const index = indexes.get(versionstamp);
    assert.ok(index !== undefined, `${versionstamp} is not in the log`);
    assert.deepEqual(lines, history[index]);
    assert.ok(
      index === at || index < next,
      `${versionstamp} came where ${history[at][0].versionstamp} was due`,
    );
    at = index + 1;
    next = Math.max(next, at);
  }
  assert.equal(next, history.length, "the end is missing");
  assert.equal(at, next, "it ends in the middle of a repetition");
}
