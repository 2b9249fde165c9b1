/**
 * Versions leap where some that nobody here knows of may have been issued: by
 * a machine that was lost, or by a file that was restored. The manifest says
 * how far they have leapt, before one above is issued.
 */
import { StartupError } from "../common/errors.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { listSegments, readSnapshotIndex } from "./history.ts";
import { type Manifest, VERSION_LEAP } from "./manifest.ts";
import type { ManifestStore } from "./manifest_store.ts";

/**
 * The manifest with a leap over every version up to `version`, and over those
 * of every leap before; where it is written, versions may go on after its
 * `leapVersion`.
 */
export function withLeap(manifest: Manifest, version: number): Manifest {
  const leapVersion = VERSION_LEAP + Math.max(version, manifest.leapVersion);
  return { ...manifest, leapVersion };
}

/**
 * For a file that goes on as the same database beside the one that has this
 * backup, and perhaps still writes to it.
 * @returns what the file's versions may go on after; no other file gets it
 * @throws StartupError where the backup does not say which database it is of
 * @throws UnavailableError where the store does not answer: to be tried again
 */
export async function announceLeap(
  objects: ObjectStore,
  manifests: ManifestStore,
): Promise<number> {
  for (;;) {
    const found = await manifests.read();
    if (found === undefined) {
      throw new StartupError(
        "The backup's manifest is missing, so it is not known which database it is of, nor which versions that database has issued. Nothing was restored; name the whole backup with --from, or restore without --same-database.",
      );
    }
    const next = withLeap(
      found.manifest,
      await endOf(objects, found.manifest),
    );
    // What became of a try without an answer does not matter: another one
    // leaps once more.
    const { won } = await manifests.swap(found, next, () => true);
    if (won) return next.leapVersion;
  }
}

/** The newest version in the bucket. */
async function endOf(
  objects: ObjectStore,
  manifest: Manifest,
): Promise<number> {
  const { generation } = manifest;
  if (generation === null) return 0;
  const { newestVersion } = await listSegments(objects, generation, manifest);
  return newestVersion ||
    (await readSnapshotIndex(objects, generation)).version;
}
