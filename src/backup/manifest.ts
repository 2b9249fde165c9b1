/**
 * The manifest: the one object of a backup that is changed by compare-and-swap
 * alone. It says who owns the history, which generation holds it, and where
 * the epochs of former owners end (docs/fencing.md).
 *
 * Each version carries a fresh nonce: stores whose tags are content hashes
 * then never take two versions for one, and a swap whose answer was lost is
 * told by the nonce.
 */
import { createHash } from "node:crypto";
import { type Bytes, fromUtf8, utf8 } from "../common/bytes.ts";
import { type Clock, sleep } from "../common/clock.ts";
import { messageOf, StartupError, UnavailableError } from "../common/errors.ts";
import type { Random } from "../common/random.ts";
import type { ObjectStore, VersionTag } from "../object_store/object_store.ts";
import { Patience } from "../object_store/patience.ts";
import { MANIFEST_KEY } from "./names.ts";

export interface Generation {
  name: string;
  startedMs: number;
  /** When another took its place; null for the present one. */
  endedMs: number | null;
  snapshotVersion: number;
  /**
   * Of `snapshot.json`, in hexadecimal, which has the sums of all its parts.
   * Absent: a server made the generation that noted none.
   */
  snapshotSha256?: string;
}

/** A former line of the history, which no retention deletes. */
export interface Branch {
  name: string;
  /** The last generation of that line. */
  generation: string;
  /** Where it ends: the version of its last commit. */
  lastVersion: number;
  createdMs: number;
}

/** A part of the history that a person has given up, because it was damaged. */
export interface LostRange {
  generation: string;
  /** The first segment that was missing. */
  epoch: number;
  tsn: number;
  /** The last one of which there was a segment. */
  lastEpoch: number;
  /** Versions after this one are lost, */
  afterVersion: number;
  /** up to this one, as far as names of objects tell. */
  untilVersion: number;
  decidedMs: number;
}

/** Nothing behind `lastTsn` of this epoch is history. */
export interface Seal {
  generation: string;
  epoch: number;
  /** 0: the epoch left no segment there. */
  lastTsn: number;
  /** The version that the history of the generation has up to there. */
  lastVersion: number;
}

/** Generations of old, in an object of their own. */
export interface Archive {
  key: string;
  /** When its last generation ended. */
  endedMs: number;
}

/** What a manifest and an archive have in common. */
export interface History {
  generations: Generation[];
  seals: Seal[];
}

export interface Manifest extends History {
  databaseId: string;
  epoch: number;
  /** The owner's launch, a UUID; null: released in order. */
  owner: string | null;
  /** By the owner's clock. */
  leaseUntilMs: number;
  /** A launch that waits for ownership. */
  handoverTo: string | null;
  /** Null until the first one is complete. */
  generation: string | null;
  /**
   * The database was there before its backup. Without a generation, only its
   * own file can go on then; otherwise nothing was acknowledged yet.
   */
  beganWithFile: boolean;
  /** Begun and not complete: folders that nothing of the history is in. */
  making: string[];
  /** Folders and archives that are being deleted; nothing else ever is. */
  deleting: string[];
  /** Oldest first; they come before all that `generations` holds. */
  archives: Archive[];
  /**
   * Every version that a restored file may have issued lies below one leap
   * above it: the next restore leaps over that too.
   */
  leapVersion: number;
  /** Absent: none. */
  branches?: Branch[];
  /** Absent: nothing. */
  lost?: LostRange[];
}

/** What stands where a manifest or an archive should is none. */
export class UnreadableError extends StartupError {
  override name = "UnreadableError";
}

/** The format of the object; a newer one is not touched. */
const FORMAT = 1;
/** The wait between tries to learn what became of a swap: first, and most. */
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 2000;

export interface VersionedManifest {
  manifest: Manifest;
  tag: VersionTag;
  nonce: string;
}

export function encodeManifest(manifest: Manifest, nonce: string): Bytes {
  const { generations, seals, leapVersion, branches, lost, ...rest } = manifest;
  return json({
    format: FORMAT,
    nonce,
    ...rest,
    leapVersion: hexVersion(leapVersion),
    ...historyObject({ generations, seals }),
    ...(branches && {
      branches: branches.map((branch) => ({
        ...branch,
        lastVersion: hexVersion(branch.lastVersion),
      })),
    }),
    ...(lost && {
      lost: lost.map((range) => ({
        ...range,
        afterVersion: hexVersion(range.afterVersion),
        untilVersion: hexVersion(range.untilVersion),
      })),
    }),
  });
}

export function encodeArchive(history: History): Bytes {
  return json({ format: FORMAT, ...historyObject(history) });
}

/** With a sum of its own: one number that was changed would be believed. */
function json(object: Record<string, unknown>): Bytes {
  const sha256 = sumOf(object);
  return utf8(JSON.stringify({ ...object, sha256 }, null, 1) + "\n");
}

function sumOf(object: Record<string, unknown>): string {
  return createHash("sha256").update(JSON.stringify(object)).digest("hex");
}

function historyObject({ generations, seals }: History) {
  return {
    generations: generations.map((generation) => ({
      ...generation,
      snapshotVersion: hexVersion(generation.snapshotVersion),
    })),
    seals: seals.map((seal) => ({
      ...seal,
      lastVersion: hexVersion(seal.lastVersion),
    })),
  };
}

function historyOf(object: Record<string, unknown>): History {
  return {
    generations: list(object.generations, "generations").map((item) => ({
      name: string(item.name, "name"),
      startedMs: whole(item.startedMs, "startedMs"),
      endedMs: item.endedMs === null ? null : whole(item.endedMs, "endedMs"),
      snapshotVersion: version(item.snapshotVersion, "snapshotVersion"),
      ...(item.snapshotSha256 !== undefined && {
        snapshotSha256: string(item.snapshotSha256, "snapshotSha256"),
      }),
    })),
    seals: list(object.seals, "seals").map((item) => ({
      generation: string(item.generation, "generation"),
      epoch: whole(item.epoch, "epoch"),
      lastTsn: whole(item.lastTsn, "lastTsn"),
      lastVersion: version(item.lastVersion, "lastVersion"),
    })),
  };
}

/** @throws StartupError where it is none, or a newer one */
export function decodeManifest(
  data: Bytes,
): { manifest: Manifest; nonce: string } {
  const object = parse(MANIFEST_KEY, data);
  try {
    const text = (name: string) => string(object[name], name);
    const manifest: Manifest = {
      databaseId: text("databaseId"),
      epoch: whole(object.epoch, "epoch"),
      owner: object.owner === null ? null : text("owner"),
      leaseUntilMs: whole(object.leaseUntilMs, "leaseUntilMs"),
      handoverTo: object.handoverTo === null ? null : text("handoverTo"),
      generation: object.generation === null ? null : text("generation"),
      // One that does not say so may be of a database that has something.
      beganWithFile: object.beganWithFile !== false,
      making: names(object.making, "making"),
      deleting: names(object.deleting, "deleting"),
      archives: list(object.archives, "archives").map((item) => ({
        key: string(item.key, "key"),
        endedMs: whole(item.endedMs, "endedMs"),
      })),
      leapVersion: version(object.leapVersion, "leapVersion"),
      ...historyOf(object),
      ...personsDecisionsOf(object),
    };
    return { manifest, nonce: text("nonce") };
  } catch (error) {
    throw unreadable(MANIFEST_KEY, messageOf(error));
  }
}

/** Where there are none the member is absent. */
function personsDecisionsOf(
  object: Record<string, unknown>,
): Pick<Manifest, "branches" | "lost"> {
  const decisions: Pick<Manifest, "branches" | "lost"> = {};
  if (object.branches !== undefined) {
    decisions.branches = list(object.branches, "branches").map((item) => ({
      name: string(item.name, "name"),
      generation: string(item.generation, "generation"),
      lastVersion: version(item.lastVersion, "lastVersion"),
      createdMs: whole(item.createdMs, "createdMs"),
    }));
  }
  if (object.lost !== undefined) {
    decisions.lost = list(object.lost, "lost").map((item) => ({
      generation: string(item.generation, "generation"),
      epoch: whole(item.epoch, "epoch"),
      tsn: whole(item.tsn, "tsn"),
      lastEpoch: whole(item.lastEpoch, "lastEpoch"),
      afterVersion: version(item.afterVersion, "afterVersion"),
      untilVersion: version(item.untilVersion, "untilVersion"),
      decidedMs: whole(item.decidedMs, "decidedMs"),
    }));
  }
  return decisions;
}

/** @throws StartupError where it is none, or a newer one */
export function decodeArchive(key: string, data: Bytes): History {
  const object = parse(key, data);
  try {
    return historyOf(object);
  } catch (error) {
    throw unreadable(key, messageOf(error));
  }
}

function parse(key: string, data: Bytes): Record<string, unknown> {
  let object: Record<string, unknown>;
  try {
    object = JSON.parse(fromUtf8(data) ?? "");
  } catch (error) {
    throw unreadable(key, messageOf(error));
  }
  if (typeof object !== "object" || object === null) {
    throw unreadable(key, "no object");
  }
  if (typeof object.format === "number" && object.format > FORMAT) {
    throw new StartupError(
      `The backup's ${key} has format ${object.format}; this server knows ${FORMAT}. It was written by a newer one, and nothing was changed.`,
    );
  }
  const { sha256, ...rest } = object;
  // One that was written before there were sums has none.
  if (sha256 !== undefined && sha256 !== sumOf(rest)) {
    throw unreadable(key, "its checksum does not fit its contents");
  }
  return object;
}

function unreadable(key: string, why: string): UnreadableError {
  return new UnreadableError(
    `The backup's ${key} cannot be read (${why}). Nothing was changed; check that the URL is the one of this backup${
      key === MANIFEST_KEY
        ? ". If it is, `backup repair` shows what can take its place, and asks."
        : "."
    }`,
  );
}

function string(value: unknown, name: string): string {
  if (typeof value !== "string") throw new Error(`${name} is no text`);
  return value;
}

function whole(value: unknown, name: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) {
    throw new Error(`${name} is no whole number`);
  }
  return value as number;
}

function list(value: unknown, name: string): Record<string, unknown>[] {
  if (!Array.isArray(value)) throw new Error(`${name} is no list`);
  return value;
}

/** A manifest from before there were such names has none. */
function names(value: unknown, name: string): string[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new Error(`${name} is no list`);
  return value.map((item) => string(item, name));
}

/** 20 digits, as people see versionstamps. */
export function hexVersion(value: number): string {
  return value.toString(16).padStart(16, "0") + "0000";
}

function version(value: unknown, name: string): number {
  if (typeof value !== "string" || !/^[0-9a-f]{16}0000$/.test(value)) {
    throw new Error(`${name} is no versionstamp`);
  }
  return Number(BigInt(`0x${value.slice(0, 16)}`));
}

/** How long a request is waited for, where no lease depends on it. */
const FIRST_TIMEOUT_MS = 10_000;
const MAX_TIMEOUT_MS = 30_000;

export class ManifestStore {
  private readonly patience: Patience;

  /** @param firstTimeoutMs of a request; it grows while answers are slow */
  constructor(
    private readonly objects: ObjectStore,
    private readonly clock: Clock,
    private readonly random: Random,
    firstTimeoutMs = FIRST_TIMEOUT_MS,
  ) {
    this.patience = new Patience({
      clock,
      firstMs: firstTimeoutMs,
      maxMs: MAX_TIMEOUT_MS,
    });
  }

  /** @throws UnavailableError, StartupError where it cannot be read */
  async read(): Promise<VersionedManifest | undefined> {
    const object = await this.patience.run((timeoutMs) =>
      this.objects.get(MANIFEST_KEY, { timeoutMs })
    );
    if (object === undefined) return undefined;
    return { ...decodeManifest(object.data), tag: object.tag };
  }

  /** Which version is there now; less work than reading it. */
  async tag(): Promise<VersionTag | undefined> {
    const head = await this.patience.run((timeoutMs) =>
      this.objects.head(MANIFEST_KEY, { timeoutMs })
    );
    return head?.tag;
  }

  /**
   * Puts `next` in the place of exactly `previous` (undefined: of nothing).
   * Where no answer came, it looks until it knows what became of it: the swap
   * may act seconds later, so not finding it means nothing while the version
   * that it replaces is still there. Then it is sent again, with the same
   * bytes; only one of the two can act.
   *
   * @param giveUp ends the looking; what became of the swap is then unknown
   * @throws UnavailableError where the caller gave up
   */
  async swap(
    previous: VersionedManifest | undefined,
    next: Manifest,
    giveUp?: (error: UnavailableError) => boolean,
  ): Promise<{ won: boolean; current: VersionedManifest | undefined }> {
    const nonce = this.random.bytes(16).toHex();
    const data = encodeManifest(next, nonce);
    let retryMs = FIRST_RETRY_MS;
    for (;;) {
      try {
        const result = await this.patience.run((timeoutMs) =>
          previous === undefined
            ? this.objects.create(MANIFEST_KEY, data, { timeoutMs })
            : this.objects.replace(MANIFEST_KEY, data, previous.tag, {
              timeoutMs,
            })
        );
        if (result.written) {
          const current = { manifest: next, tag: result.tag, nonce };
          return { won: true, current };
        }
        // A conflict, or the second try of one that acted.
        const current = await this.read();
        return { won: current?.nonce === nonce, current };
      } catch (error) {
        if (!(error instanceof UnavailableError)) throw error;
        if (giveUp?.(error)) throw error;
      }
      await sleep(this.clock, retryMs);
      retryMs = Math.min(2 * retryMs, MAX_RETRY_MS);
    }
  }
}
