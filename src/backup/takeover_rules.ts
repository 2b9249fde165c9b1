/** Which manifest a takeover may change, and into what. */
import { StartupError } from "../common/errors.ts";
import type { Manifest } from "./manifest.ts";

/** The manifest with a new owner, in the next epoch; or the first one. */
export function takenOver(
  manifest: Manifest | undefined,
  by: {
    databaseId: string;
    beganWithFile: boolean;
    owner: string;
    leaseUntilMs: number;
    leaseMs: number;
    ownerUrl: string | null;
    change: string;
  },
): Manifest {
  const { owner, leaseUntilMs, leaseMs, change } = by;
  const ours = {
    owner,
    leaseUntilMs,
    leaseMs,
    ownerUrl: by.ownerUrl,
    handoverTo: null,
    // Whoever stands by says so again.
    standby: null,
    change,
  };
  if (manifest) return { ...manifest, ...ours, epoch: manifest.epoch + 1 };
  return {
    ...ours,
    databaseId: by.databaseId,
    epoch: 1,
    generation: null,
    beganWithFile: by.beganWithFile,
    making: [],
    deleting: [],
    archives: [],
    generations: [],
    seals: [],
    leapVersion: 0,
  };
}

/** Whoever has no file would begin an empty history in the place of a full one. */
export function checkFile(manifest: Manifest, databaseId?: string): void {
  const { generation, beganWithFile } = manifest;
  if (generation !== null || !beganWithFile || databaseId !== undefined) return;
  throw new StartupError(
    `The backup is of database ${manifest.databaseId}, which was there before it, and holds no whole snapshot of it yet: the first one was not finished. No file of that database is here. Nothing was opened or changed. Start the server with that file, on the machine that has it, and it goes on. If the file is gone for good, begin a new database: give --backup another URL, or delete every object below this one.`,
  );
}

/** Nobody's backup is taken for that of another database. */
export function checkDatabase(manifest: Manifest, databaseId?: string): void {
  if (databaseId === undefined || databaseId === manifest.databaseId) return;
  throw new StartupError(
    `The backup holds database ${manifest.databaseId}, and the local file is database ${databaseId}. Neither was changed; give this file a backup URL of its own, or move it away to restore the one in the backup.`,
  );
}
