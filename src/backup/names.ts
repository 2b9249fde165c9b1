/**
 * Names of the objects below a backup's URL (docs/formats/backup.md). Those of
 * a generation are the layout that the Rust server's S3 sync reads: hexadecimal
 * fields of fixed width, so that names sort as commits were made.
 */
import type { Random } from "../common/random.ts";

export const MANIFEST_KEY = "manifest.json";
export const VERIFIED_KEY = "verified.json";
/** Of what a launch tries out (`object_store/probe.ts`). */
export const PROBE_PREFIX = "probe/";
export const ARCHIVES_PREFIX = "archives/";
/** Written again and again by the launch that asks for a hand-over. */
export const HANDOVER_KEY = "handover.json";

/** Below the backup's URL; "" where that is a generation's folder itself. */
function inside(generation: string, name: string): string {
  return generation === "" ? name : `${generation}/${name}`;
}

/** Epochs and segment numbers share one number of 64 bits. */
const MAX_PART = 2 ** 32;

export interface SegmentName {
  epoch: number;
  /** 1, 2, 3… without gaps in each epoch of a generation. */
  tsn: number;
  /** The versionstamps of 12 bytes of the first and last entry, 24 digits. */
  first: string;
  last: string;
}

export function segmentsPrefix(generation: string): string {
  return inside(generation, "logs/");
}

export function segmentKey(generation: string, name: SegmentName): string {
  const prefix = segmentsPrefixOf(generation, name.epoch, name.tsn);
  return `${prefix}${name.first}_${name.last}.bin`;
}

/** What the name of the segment of this number begins with. */
export function segmentsPrefixOf(
  generation: string,
  epoch: number,
  tsn: number,
): string {
  return `${segmentsPrefix(generation)}0001_${hex(epoch, 8)}${hex(tsn, 8)}_`;
}

/** Undefined for what is no segment's name. */
export function parseSegmentKey(
  generation: string,
  key: string,
): SegmentName | undefined {
  const prefix = segmentsPrefix(generation);
  if (!key.startsWith(prefix)) return undefined;
  // Version 0, which Deno Deploy wrote, has epoch and number apart.
  const match =
    /^(?:0001_([0-9a-f]{8})([0-9a-f]{8})|0{8}([0-9a-f]{8})_0{8}([0-9a-f]{8}))_([0-9a-f]{24})_([0-9a-f]{24})\.bin$/
      .exec(key.slice(prefix.length));
  if (match === null) return undefined;
  return {
    epoch: parseInt(match[1] ?? match[3], 16),
    tsn: parseInt(match[2] ?? match[4], 16),
    first: match[5],
    last: match[6],
  };
}

/** The version in a versionstamp of 20 or 24 digits. */
export function versionOf(stamp: string): number {
  return Number(BigInt(`0x${stamp.slice(0, 16)}`));
}

export function snapshotKey(
  generation: string,
  epoch: number,
  part: number,
): string {
  return `${snapshotsPrefix(generation)}0001_${hex(epoch, 16)}_${
    hex(part, 16)
  }.bin`;
}

export function snapshotsPrefix(generation: string): string {
  return inside(generation, "snapshots/");
}

/** Says that the snapshot is whole; the Rust reader waits for it. */
export function differentialKey(generation: string): string {
  return inside(generation, "differential");
}

/** Lists the parts of the snapshot, with sizes and sums. */
export function snapshotIndexKey(generation: string): string {
  return inside(generation, "snapshot.json");
}

/** What the manifest was, as the owner of an epoch last changed it. */
export function manifestCopyKey(generation: string, epoch: number): string {
  return `${manifestCopiesPrefix(generation)}${hex(epoch, 8)}.json`;
}

export function manifestCopiesPrefix(generation: string): string {
  return inside(generation, "manifest/");
}

/** Of generations up to `last`; no two are ever written under one name. */
export function archiveKey(
  last: string,
  epoch: number,
  random: Random,
): string {
  return `${ARCHIVES_PREFIX}${last}-${hex(epoch, 8)}-${
    random.bytes(8).toHex()
  }.json`;
}

/** Sorts by time. */
export function generationName(
  startedMs: number,
  epoch: number,
  random: Random,
): string {
  const time = new Date(startedMs).toISOString().slice(0, 19);
  const digits = time.replaceAll(/[-:]/g, "").toLowerCase();
  return `${digits}z-${hex(epoch, 8)}-${random.bytes(2).toHex()}`;
}

export function isGenerationName(text: string): boolean {
  return /^\d{8}t\d{6}z-[0-9a-f]{8}-[0-9a-f]{4}$/.test(text);
}

/** When the generation was begun, by the clock of who began it. */
export function startOf(generation: string): number {
  return Date.parse(generation.replace(
    /^(\d{4})(\d\d)(\d\d)t(\d\d)(\d\d)(\d\d)z.*$/,
    "$1-$2-$3T$4:$5:$6Z",
  ));
}

/** The epoch that began the generation. */
export function epochOf(generation: string): number {
  return parseInt(generation.split("-")[1], 16);
}

function hex(value: number, digits: number): string {
  if (digits === 8 && value >= MAX_PART) {
    throw new RangeError(`${value} does not fit into ${digits} digits`);
  }
  return value.toString(16).padStart(digits, "0");
}
