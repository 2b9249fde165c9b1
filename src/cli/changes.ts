/**
 * `changes`: prints what is committed, commit by commit. What it prints is
 * whole commits in their order, each once, however often the server or the
 * network goes away in between.
 */
import { type Clock, sleepUntil } from "../common/clock.ts";
import { withDeadline } from "../common/deadline.ts";
import { messageOf, StartupError, UnavailableError } from "../common/errors.ts";
import { missingPermission } from "../common/permissions.ts";
import { systemRandom } from "../common/random.ts";
import { retry } from "../common/retry.ts";
import { member } from "./ask.ts";
import {
  CommitReader,
  type FeedLine,
  type FeedPart,
} from "./change_commits.ts";
import type { ChangesConfig } from "./config.ts";
import { type CliIo, say } from "./io.ts";
import { ResumeFile } from "./resume_file.ts";

/** Nothing reaches back so far: going on would leave something out. */
const GONE_EXIT_CODE = 8;
/** A feed says something every 5 s; after this long its server is taken for gone. */
const SILENCE_MS = 30_000;
const PAUSES = { firstMs: 200, maxMs: 5000 };

/** The server is away, or the feed was cut: it can be opened again. */
class CutError extends UnavailableError {}

/** Nobody reads what is printed any more, or the command was told to end. */
class OverError extends Error {}

type FeedReader = ReadableStreamDefaultReader<string>;

/** What it needs beside the usual of a command. */
export interface ChangesDeps {
  /**
   * To standard output, at the pace of who reads it; rejects where nobody does,
   * and where it cannot be written.
   */
  write(bytes: Uint8Array): Promise<void>;
  /** Ends a feed that follows, in order. */
  signal: AbortSignal;
  clock: Clock;
}

/**
 * @returns the exit code: 0 done, or ended by a signal or by the reader of its
 *   output; 8 where nothing reaches back so far
 * @throws StartupError where the server cannot be asked, or refuses
 */
export async function changes(
  config: ChangesConfig,
  io: CliIo,
  deps: ChangesDeps,
): Promise<number> {
  const file = config.resumeFile === undefined
    ? undefined
    : new ResumeFile(config.resumeFile);
  const feed = new Feed(config, io, deps, file);
  feed.position = file?.read() ?? config.from;
  try {
    return await feed.run();
  } catch (error) {
    if (error instanceof OverError || deps.signal.aborted) return 0;
    throw error;
  } finally {
    await file?.flush();
  }
}

class Feed {
  /** The last versionstamp up to which all was printed. Absent: from now. */
  position: string | undefined;
  private isTold = false;

  constructor(
    private readonly config: ChangesConfig,
    private readonly io: CliIo,
    private readonly deps: ChangesDeps,
    private readonly file: ResumeFile | undefined,
  ) {}

  async run(): Promise<number> {
    const { config } = this;
    const { clock, signal } = this.deps;
    for (;;) {
      const answer = await retry(() => this.open(), {
        clock,
        random: systemRandom,
        policy: PAUSES,
        signal,
        isTemporary: (error) => config.follows && error instanceof CutError,
        onFailure: (error) => this.tell(error),
      });
      if (answer.status === 410) {
        say(this.io, "error", await sentenceOf(answer));
        return GONE_EXIT_CODE;
      }
      try {
        const code = await this.print(answer);
        if (code !== undefined) return code;
      } catch (error) {
        if (!config.follows || !(error instanceof CutError)) throw error;
        this.tell(error);
      }
      await sleepUntil(clock, PAUSES.firstMs, signal);
    }
  }

  /** An outage is told once. */
  private tell(error: unknown): void {
    if (this.isTold || this.deps.signal.aborted) return;
    this.isTold = true;
    say(
      this.io,
      "warning",
      `${messageOf(error)} It is asked again until it answers.`,
    );
  }

  /** A feed, or the 410 that says that there is none from there. */
  private async open(): Promise<Response> {
    const { config } = this;
    const { signal } = this.deps;
    const query = new URLSearchParams({ follow: String(config.follows) });
    if (this.position !== undefined) query.set("from", this.position);
    for (const prefix of config.prefixes) query.append("prefix", prefix);
    const { secret } = config;
    const url = `${config.url}/-/changes`;
    const late = new AbortController();
    let answer: Response;
    try {
      answer = await withDeadline(
        this.deps.clock,
        SILENCE_MS,
        "it has not answered for 30 s",
        fetch(`${url}?${query}`, {
          headers: secret === undefined
            ? {}
            : { authorization: `Bearer ${secret}` },
          redirect: "manual",
          signal: AbortSignal.any([signal, late.signal]),
        }),
      );
    } catch (error) {
      late.abort();
      const missing = missingPermission(error);
      if (missing !== undefined) throw new StartupError(missing);
      throw new CutError(`${url} could not be asked: ${messageOf(error)}.`);
    }
    const { status } = answer;
    const isFeed = answer.headers.get("content-type") === FEED_TYPE;
    if (status === 410 || status === 200 && isFeed) return answer;
    const sentence = await sentenceOf(answer);
    if (status === 429 || status >= 500) throw new CutError(sentence);
    throw new StartupError(sentence);
  }

  /** Undefined where the feed ended and is to be opened again. */
  private async print(answer: Response): Promise<number | undefined> {
    const commits = new CommitReader();
    const reader = answer.body!.pipeThrough(new TextDecoderStream())
      .getReader();
    try {
      for (let parts; (parts = await this.next(reader, commits));) {
        this.isTold = false;
        await this.take(parts);
        const end = parts.at(-1);
        if (end?.kind !== "end") continue;
        if (end.status === 410) {
          say(this.io, "error", end.message);
          return GONE_EXIT_CODE;
        }
        throw new CutError(end.message);
      }
    } finally {
      await reader.cancel().catch(() => {});
    }
    return this.config.follows ? undefined : 0;
  }

  private async next(
    reader: FeedReader,
    commits: CommitReader,
  ): Promise<FeedPart[] | undefined> {
    let chunk: ReadableStreamReadResult<string>;
    try {
      chunk = await withDeadline(
        this.deps.clock,
        SILENCE_MS,
        "The server has said nothing for 30 s.",
        reader.read(),
      );
    } catch (error) {
      this.deps.signal.throwIfAborted();
      throw new CutError(`The feed was cut: ${messageOf(error)}`);
    }
    return chunk.done ? undefined : commits.push(chunk.value);
  }

  /** Who reads it may take long; the command ends when it is told to. */
  private async write(text: string): Promise<void> {
    const { signal, write } = this.deps;
    const ended = Promise.withResolvers<never>();
    const end = () => ended.reject(new OverError());
    signal.addEventListener("abort", end);
    try {
      if (signal.aborted) end();
      await Promise.race([
        ended.promise,
        write(new TextEncoder().encode(text)),
      ]);
    } catch (error) {
      if (error instanceof OverError) throw error;
      if (isClosed(error)) throw new OverError();
      throw new StartupError(
        `Standard output could not be written: ${
          messageOf(error)
        }. The last commits are missing from it, and what came last may be cut in the middle of a line${
          this.position === undefined
            ? "."
            : `: whole is what came up to ${this.position}.`
        }`,
      );
    } finally {
      signal.removeEventListener("abort", end);
    }
  }

  /** Prints what is whole, and then notes that it was. */
  private async take(parts: readonly FeedPart[]): Promise<void> {
    const { config } = this;
    let text = "";
    let position: string | undefined;
    for (const part of parts) {
      if (part.kind === "end") break;
      position = part.versionstamp;
      if (part.kind === "heartbeat" && !config.heartbeats) continue;
      for (const line of part.lines) text += shown(line, config.format);
    }
    if (text !== "") await this.write(text);
    if (position === undefined) return;
    this.position = position;
    this.file?.note(position);
  }
}

const FEED_TYPE = "application/x-ndjson";

/** What a pipe and a socket say whose other end is closed. */
function isClosed(error: unknown): boolean {
  return error instanceof Deno.errors.BrokenPipe ||
    error instanceof Deno.errors.ConnectionReset;
}

function shown({ text, json }: FeedLine, format: "json" | "text"): string {
  if (format === "json") return `${text}\n`;
  const field = (name: string) => member(json, name);
  const type = String(field("type"));
  if (type === "heartbeat") {
    return `${field("at")} ${field("versionstamp")} heartbeat\n`;
  }
  const key = JSON.stringify(field("key"));
  const value = type === "set" ? ` = ${JSON.stringify(field("value"))}` : "";
  return `${field("committedAt")} ${
    field("versionstamp")
  } ${type} ${key}${value}\n`;
}

async function sentenceOf(answer: Response): Promise<string> {
  const { status, url } = answer;
  const text = (await answer.text().catch(() => "")).trim();
  return /^[^<{]{1,2000}$/.test(text)
    ? `The server refused (${status}): ${text}`
    : `What answers at ${
      new URL(url).origin
    } (status ${status}) is no denokv server, or one without change feeds. Check --url.`;
}
