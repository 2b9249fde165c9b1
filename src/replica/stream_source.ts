/**
 * A history as the primary streams it over HTTP
 * (docs/formats/replica-stream.md): a first copy, then its log.
 *
 * What goes on behind a position is shown by the primary, which refuses a
 * version that it never had, and by the frames, each of which says what comes
 * before it. What a connection cut or changed is not handed out.
 */
import type { Clock } from "../common/clock.ts";
import { withDeadline } from "../common/deadline.ts";
import { messageOf, StartupError, UnavailableError } from "../common/errors.ts";
import { type Frame, FrameReader } from "../log/frames.ts";
import { versionstampHex } from "../protocol/versionstamp.ts";
import type { RestoreTarget } from "../store/restore_target.ts";
import type { Next, Position, Snapshot, Source } from "./source.ts";

/** A primary sends something each second; after this it is gone. */
const SILENCE_MS = 10_000;
/** For the head of an answer. */
const ANSWER_MS = 10_000;
/** Characters of a refusal that are told. */
const MAX_SENTENCE = 500;
const ID = "x-denokv-database-id";
/** What the place of a position begins with that came over a stream. */
const PLACE = "stream";
/** The last commit came over it, so its time is as the log has it. */
const COMMIT_PLACE = "stream commit";

export interface StreamSourceOptions {
  /** The primary's address; holds no credentials. */
  url: string;
  accessToken: string;
  clock: Clock;
  /** Of the replica's file; undefined while there is none. */
  databaseId(): string | undefined;
}

/** The log does not reach back to the replica's position any more. */
export class StreamGoneError extends UnavailableError {
  override name = "StreamGoneError";
}

interface Connection {
  frames: FrameReader;
  abort: AbortController;
  epoch: number;
  /** Up to where its frames were handed out. */
  version: number;
}

export class StreamSource implements Source {
  readonly via = "stream";
  newestVersion = 0;
  /** When the primary last said anything, in monotonic milliseconds. */
  heardAtMs: number | undefined;
  private connection: Connection | undefined;
  /** What was handed out was all there was. */
  private isAtEnd = false;

  constructor(private readonly options: StreamSourceOptions) {}

  get url(): string {
    return this.options.url;
  }

  get primaryUrl(): string {
    return this.options.url;
  }

  // --------------------------------------------------------------- first copy

  async snapshot(signal: AbortSignal): Promise<Snapshot> {
    const { answer, abort } = await this.ask("/-/snapshot", signal);
    let databaseId: string;
    try {
      if (answer.status !== 200) throw await this.refusal(answer);
      databaseId = this.databaseIdOf(answer);
      this.requireSame(databaseId);
    } catch (error) {
      abort.abort();
      throw error;
    }
    const frames = new FrameReader(answer.body!, this.url);
    const begin = await this.nextFrame(frames, signal, abort);
    if (begin.kind !== "snapshot") throw this.unexpected(begin);
    const { version, sizeBytes } = begin;
    const place = { epoch: epochOf(answer), place: PLACE };
    return {
      kind: "snapshot",
      databaseId,
      state: { version, epoch: place.epoch },
      sizeBytes,
      drop: () => abort.abort(),
      load: async (target, progress) => {
        try {
          const timeMs = await this.load(
            (kept) => this.nextFrame(frames, kept, abort),
            begin,
            target,
            signal,
            progress,
          );
          return { version, timeMs, ...place };
        } finally {
          abort.abort();
        }
      },
    };
  }

  /** @returns when the last commit in it was made */
  private async load(
    next: (signal: AbortSignal) => Promise<Frame>,
    { version, sizeBytes }: Extract<Frame, { kind: "snapshot" }>,
    target: Pick<RestoreTarget, "load">,
    signal: AbortSignal,
    progress?: (doneBytes: number, totalBytes: number) => void,
  ): Promise<number> {
    let doneBytes = 0;
    for (let parts = 0;; parts++) {
      const frame = await next(signal);
      if (frame.kind === "snapshotEnd") {
        if (frame.parts !== parts || frame.version !== version) {
          throw this.torn();
        }
        return frame.timeMs;
      }
      if (frame.kind !== "part") throw this.unexpected(frame);
      if (frame.number !== parts) throw this.torn();
      doneBytes += frame.bytes.length;
      await target.load(frame.bytes);
      progress?.(doneBytes, Math.max(doneBytes, sizeBytes));
    }
  }

  // --------------------------------------------------------------------- log

  async next(position: Position, signal: AbortSignal): Promise<Next> {
    if (this.isAtEnd && this.connection?.version === position.version) {
      this.isAtEnd = false;
      return { kind: "end" };
    }
    try {
      const opened = await this.connect(position, signal);
      if ("kind" in opened) return opened;
      return await this.follow(opened, position, signal);
    } catch (error) {
      this.disconnect();
      throw error;
    }
  }

  /** Over the connection that there is, where it stands at this position. */
  private async connect(
    position: Position,
    signal: AbortSignal,
  ): Promise<Connection | Next> {
    if (this.connection?.version === position.version) return this.connection;
    this.disconnect();
    const { version, place, timeMs } = position;
    // Where an older copy of the database was put back, the version may have
    // been given to another commit since.
    const time = place === COMMIT_PLACE ? `&time=${timeMs}` : "";
    const { answer, abort } = await this.ask(
      `/-/log?after=${versionstampHex(version, 0)}${time}`,
      signal,
    );
    const { status } = answer;
    const epoch = epochOf(answer);
    try {
      // Of an old owner, or another database, a refusal says nothing either.
      if (status === 200 || status === 409 || status === 410) {
        this.requireSame(this.databaseIdOf(answer));
        this.requireOwner(epoch, position);
      }
      if (status === 409) {
        const why = await this.sentenceOf(answer);
        abort.abort();
        return { kind: "beginAnew", why };
      }
      if (status !== 200) throw await this.refusal(answer);
    } catch (error) {
      abort.abort();
      throw error;
    }
    const frames = new FrameReader(answer.body!, this.url);
    return this.connection = { frames, abort, epoch, version };
  }

  private async follow(
    connection: Connection,
    position: Position,
    signal: AbortSignal,
  ): Promise<Next> {
    for (;;) {
      const frame = await this.nextFrame(
        connection.frames,
        signal,
        connection.abort,
      );
      if (frame.kind === "beat") {
        this.newestVersion = frame.durableVersion;
        if (frame.version !== position.version) throw this.torn();
        if (frame.durableVersion <= position.version) return { kind: "end" };
        continue;
      }
      if (frame.kind !== "commits") throw this.unexpected(frame);
      const { previousVersion, version, times, entries } = frame;
      if (previousVersion !== position.version || version <= position.version) {
        throw this.torn();
      }
      this.newestVersion = Math.max(frame.durableVersion, version);
      this.isAtEnd = frame.durableVersion <= version;
      connection.version = version;
      return {
        kind: "commits",
        entries,
        afterVersion: previousVersion,
        times,
        position: {
          version,
          timeMs: times.at(-1)?.timeMs ?? position.timeMs,
          epoch: connection.epoch,
          place: times.length > 0 ? COMMIT_PLACE : PLACE,
        },
      };
    }
  }

  /** The next request goes on from its own position. */
  disconnect(): void {
    this.connection?.abort.abort();
    this.connection = undefined;
    this.isAtEnd = false;
  }

  // ---------------------------------------------------------------- requests

  private async ask(
    path: string,
    signal: AbortSignal,
  ): Promise<{ answer: Response; abort: AbortController }> {
    const { url, accessToken, clock } = this.options;
    const abort = new AbortController();
    const onAbort = () => abort.abort(signal.reason);
    signal.throwIfAborted();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      const answer = await withDeadline(
        clock,
        ANSWER_MS,
        `${url} does not answer.`,
        fetch(new URL(path, url), {
          headers: {
            authorization: `Bearer ${accessToken}`,
            // On one machine, time is dearer than bytes.
            ...isLoopback(url) ? {} : { "accept-encoding": "deflate-raw" },
          },
          redirect: "error",
          signal: abort.signal,
        }),
      );
      this.heardAtMs = clock.monotonicMs();
      return { answer, abort };
    } catch (error) {
      abort.abort();
      signal.throwIfAborted();
      throw new UnavailableError(
        `${url} cannot be reached: ${messageOf(error)}`,
      );
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  private async nextFrame(
    frames: FrameReader,
    signal: AbortSignal,
    abort: AbortController,
  ): Promise<Frame> {
    const { clock } = this.options;
    signal.throwIfAborted();
    const onAbort = () => abort.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      const frame = await withDeadline(
        clock,
        SILENCE_MS,
        `${this.url} has said nothing for ${SILENCE_MS / 1000} s.`,
        frames.next(),
      );
      this.heardAtMs = clock.monotonicMs();
      if (frame !== null) return frame;
      throw new UnavailableError(`${this.url} has cut its stream.`);
    } catch (error) {
      abort.abort();
      signal.throwIfAborted();
      throw error;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  private requireSame(databaseId: string): void {
    const own = this.options.databaseId();
    if (own === undefined || own === databaseId) return;
    throw new StartupError(
      `${this.url} serves another database than this replica holds. Nothing of it was taken; name the right primary, or move the replica's file away, and it is made anew.`,
    );
  }

  private requireOwner(epoch: number, position: Position): void {
    if (epoch >= position.epoch) return;
    throw new UnavailableError(
      `${this.url} is an earlier owner of the database (epoch ${epoch}) than the one that this replica has followed (${position.epoch}). Nothing of it was taken.`,
    );
  }

  private databaseIdOf({ headers }: Response): string {
    const id = headers.get(ID);
    if (id) return id;
    throw new StartupError(
      `${this.url} does not answer as a denokv server that offers its log. Nothing was taken from it; check the address.`,
    );
  }

  private async refusal(answer: Response): Promise<Error> {
    const { status } = answer;
    const sentence = await this.sentenceOf(answer);
    if (status === 410) return new StreamGoneError(sentence);
    if (status === 429 || status >= 500) {
      return new UnavailableError(`${this.url}: ${sentence}`);
    }
    return new StartupError(
      `${this.url} refuses its log (${status}): ${sentence}`,
    );
  }

  /** The first line of an answer, for a person; the rest may never come. */
  private async sentenceOf({ status, body }: Response): Promise<string> {
    const reader = body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    try {
      while (text.length < MAX_SENTENCE && !text.includes("\n")) {
        if (reader === undefined) break;
        const { value } = await withDeadline(
          this.options.clock,
          ANSWER_MS,
          "The sentence does not come.",
          reader.read(),
        );
        if (value === undefined) break;
        text += value;
      }
    } catch {
      // What came of it is told.
    }
    reader?.cancel().catch(() => {});
    return text.split("\n", 1)[0].slice(0, MAX_SENTENCE) ||
      `it answers with status ${status}.`;
  }

  private unexpected(frame: Frame): Error {
    if (frame.kind !== "end") return this.torn();
    return frame.status === 410
      ? new StreamGoneError(frame.sentence)
      : new UnavailableError(`${this.url}: ${frame.sentence}`);
  }

  private torn(): UnavailableError {
    return new UnavailableError(
      `The stream of ${this.url} has a gap. Nothing behind it was taken; it is asked for anew.`,
    );
  }

  close(): Promise<void> {
    this.disconnect();
    return Promise.resolve();
  }
}

function epochOf({ headers }: Response): number {
  const epoch = Number(headers.get("x-denokv-epoch") ?? 0);
  return Number.isSafeInteger(epoch) ? epoch : 0;
}

function isLoopback(url: string): boolean {
  const { hostname } = new URL(url);
  return hostname === "localhost" || hostname === "[::1]" ||
    hostname.startsWith("127.");
}
