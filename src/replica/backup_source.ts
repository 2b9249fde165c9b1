/**
 * A backup of ours, out of its manifest: seals are respected, and new
 * generations followed.
 *
 * A segment is handed out when it is certain to stay history: it was listed,
 * and a look at the manifest that began after that still showed the epoch that
 * it was listed in. Whoever takes over later lists after its swap, so after
 * that look, and seals the epoch behind it (docs/fencing.md).
 *
 * Nothing is listed while there can be nothing new: an owner that puts
 * segments renews its lease, which changes the manifest, and the manifest's
 * tag is asked for instead.
 */
import { StartupError } from "../common/errors.ts";
import { type ListedSegment, planRestore } from "../backup/history.ts";
import type { VersionedManifest } from "../backup/manifest_store.ts";
import type { Manifest } from "../backup/manifest.ts";
import { versionOf } from "../backup/names.ts";
import { restore } from "../backup/restore.ts";
import {
  type BackupPosition,
  type BeginAnew,
  findPlace,
  following,
  isBetweenOwners,
  placeOf,
} from "./backup_history.ts";
import type { BucketSourceOptions } from "./bucket_options.ts";
import { firstState } from "./first_state.ts";
import { Pace } from "./pace.ts";
import { PresentRun, SegmentRun } from "./segment_run.ts";
import type { Next, Position, Snapshot } from "./source.ts";

/** Of an owner that does not say how long its lease is. */
const OLD_LEASE_MS = 10_000;
/** Looks at the tag alone are so many intervals apart at the most. */
const MAX_INTERVALS = 2;
/** It is listed at least this often, whatever the manifest says. */
const MAX_UNLISTED_MS = 30_000;

const PLACE = /^backup (\S+) (\d+) (\d+)$/;

export function isBackupPlace(place: string): boolean {
  return PLACE.test(place);
}

type Found =
  | BeginAnew
  | { kind: "end"; from: BackupPosition }
  | { kind: "segments"; segments: ListedSegment[]; from: BackupPosition };

export class BackupSource {
  newestVersion = 0;
  private readonly pace: Pace;
  private known: VersionedManifest | undefined;
  /** When the present version of the manifest was first seen, monotonic. */
  private changedAtMs = 0;
  private listedAtMs = -Infinity;
  private readonly run = new PresentRun();

  constructor(private readonly options: BucketSourceOptions) {
    this.pace = new Pace(options);
  }

  get primaryUrl(): string | undefined {
    return this.known?.manifest.ownerUrl ?? undefined;
  }

  async snapshot(
    signal: AbortSignal,
    which: "newest" | "earliest" = "newest",
  ): Promise<Snapshot | Extract<Next, { kind: "notYet" }>> {
    const { objects } = this.options;
    for (;;) {
      const manifest = await this.look();
      if (manifest.generation === null) {
        const why = `The first snapshot in ${objects.url} is not complete yet.`;
        return { kind: "notYet", why };
      }
      if (isBetweenOwners(manifest)) return BETWEEN_OWNERS;
      const newest = await planRestore(objects, manifest, { kind: "latest" });
      if ((await this.look()).epoch !== manifest.epoch) continue;
      const end = newest.segments.at(-1);
      if (end) this.newestVersion = versionOf(end.last);
      const { plan, last } = firstState(newest, which);
      return {
        kind: "snapshot",
        databaseId: manifest.databaseId,
        sizeBytes: plan.sizeBytes,
        load: async (target, progress) => {
          const { version, timeMs } = await restore({
            ...this.options,
            plan,
            target,
            progress,
            signal,
          });
          const place = placeOf(plan.generation, last);
          return formatPosition({ ...place, version, timeMs }, manifest.epoch);
        },
      };
    }
  }

  async next(position: Position, signal: AbortSignal): Promise<Next> {
    const commits = await this.run.next(position);
    if (commits !== undefined) return commits;
    await this.pace.pause(signal);
    for (;;) {
      const manifest = this.known?.manifest ?? await this.look();
      const isQuiet = this.isQuiet(manifest, position);
      let found: Found | undefined;
      if (!isQuiet && manifest.generation && !isBetweenOwners(manifest)) {
        this.listedAtMs = this.options.clock.monotonicMs();
        try {
          found = await this.after(manifest, position, signal);
        } catch (error) {
          // What it missed may have been deleted since, in order.
          if (await this.look() === manifest) throw error;
          continue;
        }
      }
      const now = await this.look();
      const { epoch, generation } = now;
      if (epoch !== manifest.epoch) continue;
      // An end is the end as of the newest manifest.
      if (now !== manifest && found?.kind !== "segments") continue;
      if (generation === null || isBetweenOwners(manifest)) {
        return BETWEEN_OWNERS;
      }
      if (found === undefined) {
        this.pace.slow(MAX_INTERVALS);
        return { kind: "end" };
      }
      if (found.kind === "beginAnew") return found;
      if (found.kind === "segments") {
        this.pace.quicken();
        this.run.begin(this.runOf(found, position, epoch, signal));
        return await this.next(position, signal);
      }
      const { from } = found;
      const reached = formatPosition(from, epoch);
      // Ahead of its last segment, it has no place in the bucket yet.
      const isAhead = (from.chainVersion ?? from.version) !== from.version;
      if (isAhead || reached.place === position.place) return { kind: "end" };
      // The next generation's place is kept as the commits are.
      return {
        kind: "commits",
        entries: new Uint8Array(0),
        afterVersion: position.version,
        times: [],
        position: reached,
      };
    }
  }

  private async after(
    manifest: Manifest,
    position: Position,
    signal: AbortSignal,
  ): Promise<Found> {
    const { objects } = this.options;
    const known = parsePlace(position) ??
      await findPlace(objects, manifest, position.version, signal);
    if ("kind" in known) return known;
    let from = known;
    for (;;) {
      const next = await following(objects, manifest, from, signal);
      if (next.kind === "beginAnew") return next;
      if (next.kind !== "enter") return { ...next, from };
      from = next.position;
    }
  }

  /** Nothing can have been put since the last listing, as far as M tells. */
  private isQuiet(manifest: Manifest, { place }: Position): boolean {
    const nowMs = this.options.clock.monotonicMs();
    const leaseMs = manifest.leaseMs ?? OLD_LEASE_MS;
    const parsed = PLACE.exec(place);
    return parsed !== null && parsed[1] === manifest.generation &&
      nowMs - this.changedAtMs > leaseMs + 2 * this.pace.intervalMs &&
      nowMs - this.listedAtMs < MAX_UNLISTED_MS;
  }

  private runOf(
    { segments, from }: Extract<Found, { kind: "segments" }>,
    position: Position,
    epoch: number,
    signal: AbortSignal,
  ): SegmentRun {
    const { generation, chainVersion = position.version } = from;
    this.newestVersion = versionOf(segments.at(-1)!.last);
    return new SegmentRun(position, {
      generation,
      segments,
      chainVersion,
      isForeign: false,
      afterVersion: position.version,
      place: (segment) => ({
        epoch,
        place: formatPlace(placeOf(generation, segment)),
      }),
    }, { ...this.options, signal });
  }

  /** The manifest as it is now; read only where it has changed. */
  private async look(): Promise<Manifest> {
    const { manifests, objects, clock } = this.options;
    const { known } = this;
    if (known !== undefined) {
      const head = await manifests.head();
      if (head?.tag === known.tag) return known.manifest;
    }
    const read = await manifests.read();
    if (read === undefined) {
      throw new StartupError(
        `The backup in ${objects.url} has no manifest.json any more: it was deleted or lost. What this replica has is served; bring it back, or let \`backup repair\` make it anew.`,
      );
    }
    const id = known?.manifest.databaseId;
    if (id !== undefined && read.manifest.databaseId !== id) {
      throw new StartupError(
        `${objects.url} is the backup of another database now. What this replica has is served; give it the place where its database is backed up to.`,
      );
    }
    this.known = read;
    this.changedAtMs = clock.monotonicMs();
    this.pace.quicken();
    return read.manifest;
  }
}

const BETWEEN_OWNERS = {
  kind: "notYet",
  why: "An instance is taking the database over.",
} as const;

function formatPlace(
  { generation, epoch, tsn }: Pick<
    BackupPosition,
    "generation" | "epoch" | "tsn"
  >,
): string {
  return `backup ${generation} ${epoch} ${tsn}`;
}

function formatPosition(position: BackupPosition, epoch: number): Position {
  const { version, timeMs = 0 } = position;
  return { version, timeMs, epoch, place: formatPlace(position) };
}

/** Undefined where it is a place in another source. */
export function parsePlace(
  { place, version, timeMs }: Position,
): BackupPosition | undefined {
  const match = PLACE.exec(place);
  if (match === null) return undefined;
  const [, generation, epoch, tsn] = match;
  return {
    generation,
    epoch: Number(epoch),
    tsn: Number(tsn),
    version,
    timeMs,
  };
}
