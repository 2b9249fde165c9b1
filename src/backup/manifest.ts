/**
 * The manifest: the one object of a backup that is changed by compare-and-swap
 * alone (`manifest_store.ts`). It says who owns the history, which generation
 * holds it, and where the epochs of former owners end (docs/fencing.md).
 */
import { createHash } from "node:crypto";
import { type Bytes, fromUtf8, utf8 } from "../common/bytes.ts";
import { messageOf, StartupError } from "../common/errors.ts";
import {
  list,
  names,
  optional,
  record,
  string,
  version,
  whole,
} from "./json_members.ts";
import { MANIFEST_KEY } from "./names.ts";

export interface Generation {
  name: string;
  startedMs: number;
  /** When another took its place; null for the present one. */
  endedMs: number | null;
  snapshotVersion: number;
  /**
   * When the snapshot's last commit was made. Undefined: an older program made
   * it, and `startedMs` stands for it.
   */
  snapshotTimeMs?: number;
  /**
   * What comes after this version and before the snapshot is in no generation.
   * Null: nothing does. Undefined: an older program made it, and something may.
   */
  missingAfterVersion?: number | null;
  /**
   * Of `snapshot.json`, in hexadecimal, which has the sums of all its parts.
   * Absent: a server made the generation that noted none.
   */
  snapshotSha256?: string;
}

/** The first moment of a generation: when its snapshot's last commit was made. */
export function beginningMs(generation: Generation): number {
  return generation.snapshotTimeMs ?? generation.startedMs;
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

/** A step over every version that a lost machine may have issued. */
export const VERSION_LEAP = 2 ** 32;

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
  /**
   * A launch that stands by: its owner keeps the lease alive, so that it is not
   * taken for dead where nobody asks it anything.
   */
  standby?: string | null;
  /** Where clients reach the owner, where it says so. */
  ownerUrl?: string | null;
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
  /** How long the owner's lease is; absent in an older one. */
  leaseMs?: number;
  /**
   * How far the log went for certain when an owner last changed the manifest:
   * a listing that ends before it has lost something. Absent in an older one.
   */
  head?: Seal;
  /**
   * The last change by an owner, a random id that every other change keeps:
   * so an owner whose swap got no answer knows whether it is in here, whoever
   * else has changed the manifest since. Absent in an older one.
   */
  change?: string;
}

/**
 * What the store gave is no manifest, or no archive: damaged, or the answer of
 * something in between, such as a proxy's page. The next answer may be right.
 */
export class UnreadableError extends StartupError {
  override name = "UnreadableError";
}

/** The format of the object; a newer one is not touched. */
const FORMAT = 1;

export function encodeManifest(manifest: Manifest, nonce: string): Bytes {
  const { generations, seals, leapVersion, head, branches, lost, ...rest } =
    manifest;
  return json({
    format: FORMAT,
    nonce,
    ...rest,
    leapVersion: hexVersion(leapVersion),
    ...(head && { head: sealObject(head) }),
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
      ...(typeof generation.missingAfterVersion === "number" && {
        missingAfterVersion: hexVersion(generation.missingAfterVersion),
      }),
    })),
    seals: seals.map(sealObject),
  };
}

function sealObject(seal: Seal) {
  return { ...seal, lastVersion: hexVersion(seal.lastVersion) };
}

function sealOf(object: Record<string, unknown>): Seal {
  return {
    generation: string(object.generation, "generation"),
    epoch: whole(object.epoch, "epoch"),
    lastTsn: whole(object.lastTsn, "lastTsn"),
    lastVersion: version(object.lastVersion, "lastVersion"),
  };
}

function historyOf(object: Record<string, unknown>): History {
  return {
    generations: list(object.generations, "generations").map((item) => ({
      name: string(item.name, "name"),
      startedMs: whole(item.startedMs, "startedMs"),
      endedMs: item.endedMs === null ? null : whole(item.endedMs, "endedMs"),
      snapshotVersion: version(item.snapshotVersion, "snapshotVersion"),
      ...(item.snapshotTimeMs !== undefined && {
        snapshotTimeMs: whole(item.snapshotTimeMs, "snapshotTimeMs"),
      }),
      ...(item.missingAfterVersion !== undefined && {
        missingAfterVersion: item.missingAfterVersion === null
          ? null
          : version(item.missingAfterVersion, "missingAfterVersion"),
      }),
      ...(item.snapshotSha256 !== undefined && {
        snapshotSha256: string(item.snapshotSha256, "snapshotSha256"),
      }),
    })),
    seals: list(object.seals, "seals").map(sealOf),
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
      ...optional("standby", object.standby),
      ...optional("ownerUrl", object.ownerUrl),
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
      ...(object.leaseMs !== undefined &&
        { leaseMs: whole(object.leaseMs, "leaseMs") }),
      ...(object.head !== undefined &&
        { head: sealOf(record(object.head, "head")) }),
      ...(object.change !== undefined && { change: text("change") }),
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

/** 20 digits, as people see versionstamps. */
export function hexVersion(value: number): string {
  return value.toString(16).padStart(16, "0") + "0000";
}
