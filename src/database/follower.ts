/**
 * Keeps a database file that nobody serves at the end of a history that
 * another instance writes: for a warm standby, which then has little left to
 * do when it takes over.
 *
 * Invariant: the file holds exactly what its position says, because both are
 * written in one transaction. A position may turn out to be no history (a
 * fenced owner's late segment): then the file is set aside and begun anew. The
 * worst outcome of a mistake here is a standby that serves what was never
 * acknowledged; what it takes over with is checked against the seals once more.
 */
import type { Clock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import type { LogSize } from "../backup/generation.ts";
import { historyEndOf } from "../backup/history_end.ts";
import {
  type ListedSegment,
  planRestore,
  readSnapshotIndex,
  type RestorePlan,
  sumBytes,
} from "../backup/history.ts";
import {
  asideSuffix,
  decide,
  factsOf,
  isInHistory,
  type Prepared,
  STATE,
} from "../backup/launch.ts";
import { hexVersion, type Manifest } from "../backup/manifest.ts";
import { restore } from "../backup/restore.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import type { Patience } from "../object_store/patience.ts";
import {
  type BackupPosition,
  type BeginAnew,
  findPlace,
  following,
  isBetweenOwners,
  placeOf,
} from "../replica/backup_history.ts";
import { parsePlace } from "../replica/backup_source.ts";
import { parseState, REPLICA_STATE } from "../replica/position_state.ts";
import type { LocalEngine } from "../store/local_engine.ts";
import type { LocalDatabase, RestoreTarget } from "../store/restore_target.ts";

export interface FollowerOptions {
  engine: Pick<LocalEngine, "inspect" | "create" | "catchUp" | "setAside">;
  objects: ObjectStore;
  clock: Clock;
  logger: Logger;
  patience: Patience;
  progress?(doneBytes: number, totalBytes: number): void;
  signal: AbortSignal;
}

export class Follower {
  /** Undefined while the file is none that can follow. */
  position: BackupPosition | undefined;
  /**
   * The file has commits that the bucket lacks, and nobody else has written
   * since: it stays as it is, and is right if this instance takes over.
   */
  isAhead = false;
  /** When the file was last all that the bucket showed, monotonic. */
  caughtUpAtMs: number | undefined;
  /** Of the generation that is followed, as far as it is in the file. */
  private log: LogSize = { sizeBytes: 0, segments: 0 };
  private snapshotBytes = 0;

  constructor(private readonly options: FollowerOptions) {}

  /** Whether this instance could take over with what it has. */
  get isReady(): boolean {
    return this.isAhead || this.caughtUpAtMs !== undefined;
  }

  /** Another instance of this process served the file since. */
  forget(): void {
    this.position = undefined;
    this.isAhead = false;
    this.caughtUpAtMs = undefined;
  }

  /**
   * Brings the file to the end of what the bucket shows.
   * @returns how many segments were new
   * @throws StartupError where the backup is damaged; the file is as it was
   * @throws LocalFileError where it cannot be written
   * @throws UnavailableError where the store does not answer
   */
  async step(manifest: Manifest): Promise<number> {
    if (manifest.generation === null) {
      // Its owner has served nothing yet, or has what is there in its file.
      this.caughtUpAtMs = this.options.clock.monotonicMs();
      return 0;
    }
    if (isBetweenOwners(manifest)) return 0;
    if (this.position === undefined && !await this.begin(manifest)) return 0;
    let segments = 0;
    while (this.position !== undefined) {
      const { position } = this;
      const next = await following(
        this.options.objects,
        manifest,
        position,
        this.options.signal,
      );
      if (next.kind === "enter") {
        await this.enter(next.position);
        continue;
      }
      if (next.kind === "beginAnew") {
        this.beginAnew(next.why, next.isKnown);
        await this.begin(manifest);
        continue;
      }
      if (next.kind === "segments") {
        await this.apply(manifest, position, next.segments);
        segments += next.segments.length;
        if (position.generation !== manifest.generation) continue;
      }
      // What its primary alone has given it has no place in the bucket yet.
      if (isAheadOfPlace(this.position)) this.position = undefined;
      this.caughtUpAtMs = this.options.clock.monotonicMs();
      return segments;
    }
    return segments;
  }

  /**
   * Writes the position once more, as taking over would write: whether the
   * disk has room for that.
   * @throws LocalFileError where it has not
   */
  async prove(manifest: Manifest): Promise<void> {
    const { position } = this;
    if (position === undefined) return;
    const target = await this.options.engine.catchUp();
    try {
      await this.finish(target, manifest, position);
    } catch (error) {
      await target.discard();
      throw error;
    }
  }

  /** Finds out where the file stands, or restores one. */
  private async begin(manifest: Manifest): Promise<boolean> {
    const { engine, objects } = this.options;
    const { url } = objects;
    const local = engine.inspect();
    if (local === undefined) {
      await this.restoreAll(manifest);
      return true;
    }
    const followed = await this.positionOf(local, manifest);
    if (followed !== undefined && "kind" in followed) {
      this.setAside(local, followed.why, followed.isKnown);
      await this.restoreAll(manifest);
      return true;
    }
    if (followed !== undefined) {
      await this.enter(followed);
      return true;
    }
    const facts = { local, url, manifest, end: historyEndOf(manifest) };
    const decision = decide(factsOf(facts));
    this.isAhead = decision.action === "use";
    if (this.isAhead) return false;
    if (decision.action === "catchUp") {
      const epoch = Number(local.state(STATE.epoch));
      const seal = manifest.seals.findLast((seal) =>
        seal.epoch === epoch && seal.lastVersion === local.contentVersion
      )!;
      await this.enter({
        generation: seal.generation,
        epoch,
        tsn: seal.lastTsn,
        version: seal.lastVersion,
      });
      return true;
    }
    const why = decision.action === "setAside"
      ? decision.why
      : "it does not follow the backup's history";
    this.setAside(local, why, await isInHistory({ ...facts, objects }));
    await this.restoreAll(manifest);
    return true;
  }

  /**
   * Where a file that followed is in the bucket. What followed something else,
   * such as its primary, is looked for by its version.
   */
  private async positionOf(
    local: LocalDatabase,
    manifest: Manifest,
  ): Promise<BackupPosition | BeginAnew | undefined> {
    const { objects, signal } = this.options;
    if (local.databaseId !== manifest.databaseId) return undefined;
    const position = parsePosition(local, objects.url);
    if (position !== undefined || !isReplica(local)) return position;
    // Commits after it changed nothing; no segment has them.
    const content = Number(local.state(REPLICA_STATE.content) || local.version);
    return await findPlace(objects, manifest, content, signal);
  }

  private setAside(
    local: LocalDatabase,
    reason: string,
    isKnown: boolean,
  ): void {
    const keptAs = this.options.engine.setAside(asideSuffix(local, isKnown));
    this.options.logger.warn(
      "The local file does not belong to the backup's history and was set aside; it is kept.",
      { reason, keptAs },
    );
  }

  private async restoreAll(manifest: Manifest): Promise<void> {
    const { objects, logger } = this.options;
    const plan = await planRestore(objects, manifest, { kind: "latest" });
    const target = await this.options.engine.create(this.options.signal);
    try {
      const result = await restore({ ...this.options, plan, target });
      const position = {
        ...placeOf(plan.generation, plan.segments.at(-1)),
        version: result.version,
        timeMs: result.timeMs,
      };
      await this.finish(target, manifest, position);
      this.log = {
        sizeBytes: sumBytes(plan.segments),
        segments: plan.segments.length,
      };
      this.snapshotBytes = sumBytes(plan.snapshot.parts);
      this.position = position;
      logger.info("Restored from the backup; its log is followed from here.", {
        ...result,
      });
    } catch (error) {
      await target.discard();
      throw error;
    }
  }

  private async apply(
    manifest: Manifest,
    position: BackupPosition,
    segments: ListedSegment[],
  ): Promise<void> {
    const target = await this.options.engine.catchUp();
    try {
      const result = await restore({
        ...this.options,
        plan: planOf(position, segments),
        target,
        // What it has of a segment is applied once more: it is the same.
        afterVersion: position.chainVersion ?? position.version,
      });
      const reached = {
        ...placeOf(position.generation, segments.at(-1)),
        version: result.version,
        timeMs: result.timeMs,
      };
      await this.finish(target, manifest, reached);
      this.position = reached;
      this.log.sizeBytes += sumBytes(segments);
      this.log.segments += segments.length;
    } catch (error) {
      await target.discard();
      throw error;
    }
  }

  private async enter(position: BackupPosition): Promise<void> {
    const { objects } = this.options;
    const snapshot = await readSnapshotIndex(objects, position.generation);
    this.snapshotBytes = sumBytes(snapshot.parts);
    this.log = { sizeBytes: 0, segments: position.tsn };
    this.position = position;
  }

  private beginAnew(why: string, isKnown: boolean): void {
    this.forget();
    const local = this.options.engine.inspect();
    if (local) this.setAside(local, why, isKnown);
  }

  /**
   * As the owner: brings the file to the end of the history, and lets it leap.
   * @param announceLeap as for `prepare` (`backup/launch.ts`)
   * @returns undefined where the file does not follow; `prepare` decides then
   */
  async takeOver(
    manifest: Manifest,
    endVersion: number,
    announceLeap: (version: number) => Promise<number>,
  ): Promise<Prepared | undefined> {
    if (manifest.generation === null) return undefined;
    const local = this.options.engine.inspect();
    if (this.position === undefined) {
      if (!local || !await this.positionOf(local, manifest)) return undefined;
    }
    await this.step(manifest);
    const { position } = this;
    if (position === undefined) return undefined;
    if (position.version !== endVersion) {
      throw new StartupError(
        `The backup should end at ${
          hexVersion(endVersion)
        }, and the file that followed it is at ${
          hexVersion(position.version)
        }. Nothing was served, and the backup is as it was; move the local file away, so that it is restored.`,
      );
    }
    const leapToVersion = await announceLeap(position.version);
    const target = await this.options.engine.catchUp();
    try {
      await target.finish({
        databaseId: manifest.databaseId,
        version: position.version,
        timeMs: position.timeMs,
        leapToVersion,
        state: {
          [STATE.url]: this.options.objects.url,
          [STATE.followed]: "",
          ...NO_REPLICA,
        },
      });
    } catch (error) {
      await target.discard();
      throw error;
    }
    const { log, snapshotBytes } = this;
    this.forget();
    return {
      decision: { action: "catchUp" },
      bucketVersion: endVersion,
      logVersion: endVersion,
      log,
      snapshotBytes,
    };
  }

  /** What was applied and how far it goes, in one transaction. */
  private finish(
    target: RestoreTarget,
    { databaseId }: Manifest,
    position: BackupPosition,
  ): Promise<void> {
    const { version, timeMs } = position;
    return target.finish({
      databaseId,
      version,
      timeMs,
      leapToVersion: version,
      state: {
        [STATE.url]: this.options.objects.url,
        [STATE.place]: this.options.objects.placeId ?? "",
        // It is no file that an owner left: those two speak of such a one.
        [STATE.epoch]: "",
        [STATE.owner]: "",
        [STATE.followed]: formatPosition(position),
        ...NO_REPLICA,
      },
    });
  }
}

/** Nobody may take the file of an owner, or of a standby, for a replica. */
const NO_REPLICA = {
  [REPLICA_STATE.source]: "",
  [REPLICA_STATE.position]: "",
  [REPLICA_STATE.content]: "",
};

function planOf(
  { generation, version, timeMs = 0 }: BackupPosition,
  segments: ListedSegment[],
): RestorePlan {
  return {
    generation,
    databaseId: "",
    snapshot: {
      version,
      parts: [],
      totals: { entries: 0, queueMessages: 0 },
    },
    snapshotTimeMs: timeMs,
    segments,
    strays: [],
    point: { kind: "latest" },
    sizeBytes: sumBytes(segments),
    damage: undefined,
    endVersion: version,
    isPast: false,
    beforeVersion: undefined,
    lost: [],
  };
}

function isAheadOfPlace(position: BackupPosition | undefined): boolean {
  return position?.chainVersion !== undefined &&
    position.chainVersion !== position.version;
}

/** Of any source; nobody has written to it since. */
function isReplica(local: LocalDatabase): boolean {
  const { source, position } = REPLICA_STATE;
  return Boolean(local.state(source)) &&
    parseState(local.state(position))?.version === local.version;
}

function formatPosition(position: BackupPosition): string {
  const { generation, epoch, tsn, version } = position;
  return `${generation} ${epoch} ${tsn} ${version}`;
}

/**
 * As a standby or as a replica. Undefined in a file that did not follow, or was
 * written to since.
 */
function parsePosition(
  local: LocalDatabase,
  url: string,
): BackupPosition | undefined {
  if (local.state(REPLICA_STATE.source) === url) {
    const position = parseState(local.state(REPLICA_STATE.position));
    return position?.version === local.version
      ? parsePlace(position)
      : undefined;
  }
  if (local.state(STATE.url) !== url) return undefined;
  const text = local.state(STATE.followed) ?? "";
  const match = /^(\S+) (\d+) (\d+) (\d+)$/.exec(text);
  if (match === null || Number(match[4]) !== local.version) return undefined;
  const [, generation, epoch, tsn] = match;
  return {
    generation,
    epoch: Number(epoch),
    tsn: Number(tsn),
    version: local.version,
  };
}
