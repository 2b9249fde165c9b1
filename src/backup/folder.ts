/**
 * The folder of a backup that another program wrote: names alone say what its
 * log is. They sort as commits were made; numbers may have gaps, because
 * nothing says that every number is a segment's.
 */
import { StartupError } from "../common/errors.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import {
  parseSegmentKey,
  type SegmentName,
  segmentsPrefix,
  versionOf,
} from "./names.ts";

interface FolderSegment extends SegmentName {
  key: string;
  sizeBytes: number;
}

/** @throws StartupError where names are not in the order of their commits */
export async function listFolder(
  objects: ObjectStore,
  signal?: AbortSignal,
  /** The last one that is there already. */
  startAfter?: string,
): Promise<{ segments: FolderSegment[]; strays: string[] }> {
  const segments: FolderSegment[] = [];
  const strays: string[] = [];
  let before = startAfter === undefined
    ? undefined
    : { key: startAfter, last: parseSegmentKey("", startAfter)?.last };
  const options = { signal, ...(startAfter && { startAfter }) };
  for await (
    const { key, sizeBytes } of objects.list(segmentsPrefix(""), options)
  ) {
    const name = parseSegmentKey("", key);
    if (name === undefined) {
      strays.push(key);
      continue;
    }
    if (before?.last !== undefined && name.first <= before.last) {
      throw new StartupError(
        `The backup's log is out of order: by its name ${key} comes after ${before.key}, and it begins with ${name.first}, which is not after ${before.last}. Nothing of it was used; find out who wrote it, and bring the object back as it was.`,
      );
    }
    segments.push({ ...name, key, sizeBytes });
    before = { key, last: name.last };
  }
  return { segments, strays };
}

/** Where the log of a folder ends; 0 where it has none. */
export function lastVersionOf(segments: readonly FolderSegment[]): number {
  const last = segments.at(-1);
  return last ? versionOf(last.last) : 0;
}
