/**
 * Segments that are known to come next, handed out one by one while the ones
 * behind them are on their way.
 */
import type { ListedSegment } from "../backup/history.ts";
import { versionOf } from "../backup/names.ts";
import { checkedSegments, type FetchOptions } from "../backup/restore.ts";
import type { SegmentContents } from "../log/segment.ts";
import type { Commits, Position } from "./source.ts";

export interface SegmentRunOptions {
  generation: string;
  segments: readonly ListedSegment[];
  /** The version that the first of them has before it. */
  chainVersion: number;
  isForeign: boolean;
  /** Entries up to here are in the file. */
  afterVersion: number;
  place(segment: ListedSegment): Pick<Position, "place" | "epoch">;
}

export class SegmentRun {
  private readonly items: AsyncIterator<
    { item: ListedSegment; contents: SegmentContents }
  >;
  private readonly ended = new AbortController();

  constructor(
    /** Where whoever asks has to be. */
    private at: Position,
    private readonly options: SegmentRunOptions,
    fetching: FetchOptions,
  ) {
    const { generation, segments, chainVersion, isForeign } = options;
    const signal = fetching.signal
      ? AbortSignal.any([fetching.signal, this.ended.signal])
      : this.ended.signal;
    this.items = checkedSegments(
      { ...fetching, signal },
      generation,
      segments,
      { version: chainVersion, isForeign },
    );
  }

  isAt({ place, version }: Position): boolean {
    return place === this.at.place && version === this.at.version;
  }

  /** Undefined where there are no more. */
  async next(): Promise<Commits | undefined> {
    const { value, done } = await this.items.next();
    if (done) return undefined;
    const { item, contents } = value;
    const { entries, times, timeMs } = contents;
    const afterVersion = Math.min(this.options.afterVersion, this.at.version);
    this.at = {
      ...this.options.place(item),
      version: Math.max(versionOf(item.last), this.at.version),
      timeMs,
    };
    return { kind: "commits", entries, afterVersion, times, position: this.at };
  }

  /** What is on its way is dropped. */
  async end(): Promise<void> {
    this.ended.abort();
    await this.items.return?.();
  }
}

/** The run that a source is in the midst of, where it is. */
export class PresentRun {
  private run: SegmentRun | undefined;

  begin(run: SegmentRun): void {
    this.run = run;
  }

  /**
   * What it has next; undefined where there is none, or it does not go on from
   * this position. It is over then.
   */
  async next(position: Position): Promise<Commits | undefined> {
    const { run } = this;
    this.run = undefined;
    if (!run?.isAt(position)) {
      await run?.end();
      return undefined;
    }
    const commits = await run.next();
    if (commits !== undefined) this.run = run;
    return commits;
  }
}
