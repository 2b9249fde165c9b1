/** Whether the snapshot of a generation is there as it was put. */
import { StartupError } from "../common/errors.ts";
import { sha256 } from "../log/segment.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { readSnapshotIndex } from "./history.ts";
import type { Generation } from "./manifest.ts";
import { snapshotsPrefix } from "./names.ts";

/**
 * Its index, and the names and sizes of its parts; with `contents` every part
 * is read as well. The log behind it is not looked at.
 * @returns undefined where it is whole
 */
export async function whyNotWhole(
  objects: ObjectStore,
  generation: Generation,
  depth: "sizes" | "contents",
): Promise<string | undefined> {
  try {
    const { name } = generation;
    const { parts } = await readSnapshotIndex(objects, name, generation);
    const sizes = new Map<string, number>();
    for await (const info of objects.list(snapshotsPrefix(name))) {
      sizes.set(info.key, info.sizeBytes);
    }
    const bad = parts.find(({ key, sizeBytes }) =>
      sizes.get(key) !== sizeBytes
    );
    if (bad) return `${bad.key} is missing or cut short`;
    if (depth === "sizes") return undefined;
    for (const { key, sha256: digest } of parts) {
      const part = await objects.get(key);
      if (part === undefined) return `${key} is missing`;
      if (digest && (await sha256(part.data)).toHex() !== digest) {
        return `${key} is damaged: its checksum does not fit its contents`;
      }
    }
    return undefined;
  } catch (error) {
    if (!(error instanceof StartupError)) throw error;
    return `its snapshot is not whole: ${error.message}`;
  }
}
