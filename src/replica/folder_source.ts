/**
 * A folder of the layout that the Rust server's S3 sync reads, without a
 * manifest: one that Deno Deploy wrote, or one generation of a backup of ours.
 * Its log's names say what comes next.
 */
import { sha256 } from "../log/segment.ts";
import { utf8 } from "../common/bytes.ts";
import { uuidOf } from "../common/random.ts";
import { manifestOfFolder } from "../backup/copies.ts";
import { listFolder } from "../backup/folder.ts";
import {
  damageOf,
  type ListedSegment,
  listSegments,
  planRestore,
} from "../backup/history.ts";
import {
  differentialKey,
  parseSegmentKey,
  segmentsPrefix,
  snapshotIndexKey,
  versionOf,
} from "../backup/names.ts";
import { restore } from "../backup/restore.ts";
import type { BucketSourceOptions } from "./bucket_options.ts";
import { firstState } from "./first_state.ts";
import { Pace } from "./pace.ts";
import { PresentRun, SegmentRun } from "./segment_run.ts";
import type { Next, Position, Snapshot } from "./source.ts";

/** Nothing tells that something came but a listing. */
const MAX_INTERVALS = 5;

const PLACE = /^folder (\S*)$/;

export function isFolderPlace(place: string): boolean {
  return PLACE.test(place);
}

export class FolderSource {
  readonly primaryUrl = undefined;
  newestVersion = 0;
  private readonly pace: Pace;
  private readonly run = new PresentRun();
  private isForeign: boolean | undefined;

  constructor(private readonly options: BucketSourceOptions) {
    this.pace = new Pace(options);
  }

  async snapshot(
    signal: AbortSignal,
    which: "newest" | "earliest" = "newest",
  ): Promise<Snapshot | Extract<Next, { kind: "notYet" }>> {
    const { objects } = this.options;
    if (await objects.head(differentialKey(""), { signal }) === undefined) {
      const why = `The snapshot in ${objects.url} is not complete yet.`;
      return { kind: "notYet", why };
    }
    const newest = await planRestore(objects, undefined, { kind: "latest" });
    const end = newest.segments.at(-1);
    if (end) this.newestVersion = versionOf(end.last);
    const { plan, last } = firstState(newest, which);
    return {
      kind: "snapshot",
      databaseId: await idOf(objects.url),
      sizeBytes: plan.sizeBytes,
      load: async (target, progress) => {
        const { version, timeMs } = await restore({
          ...this.options,
          plan,
          target,
          progress,
          signal,
        });
        const key = last?.key ?? "";
        return { version, timeMs, epoch: 0, place: `folder ${key}` };
      },
    };
  }

  async next(position: Position, signal: AbortSignal): Promise<Next> {
    const commits = await this.run.next(position);
    if (commits !== undefined) return commits;
    await this.pace.pause(signal);
    const last = PLACE.exec(position.place)?.[1];
    if (last === undefined) {
      const why = "the folder does not tell where its state is in the log";
      return { kind: "beginAnew", why };
    }
    const segments = await this.segmentsAfter(last, position.version, signal);
    if (segments.length === 0) {
      this.pace.slow(MAX_INTERVALS);
      return { kind: "end" };
    }
    this.pace.quicken();
    this.newestVersion = versionOf(segments.at(-1)!.last);
    const isForeign = this.isForeign!;
    const lastVersion = last === ""
      ? 0
      : versionOf(parseSegmentKey("", last)!.last);
    const run = new SegmentRun(position, {
      generation: "",
      segments,
      chainVersion: position.version,
      isForeign,
      // Of a foreign one the snapshot alone may be behind its own version.
      afterVersion: isForeign ? lastVersion : position.version,
      place: ({ key }) => ({ epoch: 0, place: `folder ${key}` }),
    }, { ...this.options, signal });
    this.run.begin(run);
    return await this.next(position, signal);
  }

  private async segmentsAfter(
    last: string,
    version: number,
    signal: AbortSignal,
  ): Promise<readonly ListedSegment[]> {
    const { objects } = this.options;
    this.isForeign ??=
      await objects.head(snapshotIndexKey(""), { signal }) === undefined;
    const { segments } = await listFolder(objects, signal, last || undefined);
    if (segments.length === 0 || this.isForeign) return segments;
    // It may hold what a fenced owner put too late: its seals say so.
    const records = await manifestOfFolder(objects);
    const name = last === "" ? undefined : parseSegmentKey("", last);
    const listing = await listSegments(
      objects,
      "",
      {
        seals: records?.seals ?? [],
        epoch: Infinity,
        head: records?.head,
      },
      signal,
      name && { epoch: name.epoch, tsn: name.tsn + 1 },
    );
    const damage = damageOf(listing, version);
    if (damage) throw damage;
    return listing.history.filter(({ key }) =>
      key > (last || segmentsPrefix(""))
    );
  }
}

/** Such a folder names no database: all of its replicas are one. */
async function idOf(url: string): Promise<string> {
  const sum = await sha256(utf8(url));
  return uuidOf(new Uint8Array(sum.subarray(0, 16)), 8);
}
