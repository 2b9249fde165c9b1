/**
 * What has to be so before a launch may own a history: the place is the one of
 * this database and can keep instances apart; and what its file says of the
 * launch before.
 */
import { StartupError } from "../common/errors.ts";
import { machineStartedMs } from "../common/machine.ts";
import { probe } from "../object_store/probe.ts";
import type { EngineLock } from "../store/local_engine.ts";
import { readNewestManifest } from "./copies.ts";
import type { HandoverCalls } from "./handover.ts";
import { requirePlace } from "./launch.ts";
import { ManifestStore } from "./manifest_store.ts";
import type { OwnershipOptions } from "./ownership.ts";
import { goneOwner, machineMark } from "./same_machine.ts";
import type { BackupServiceOptions } from "./service_options.ts";
import { readOfNonEmpty } from "./unclaimed.ts";

/**
 * Whether a backup may begin or go on in this place, before anything of it is
 * written.
 * @param onSeen called when the manifest was read, or is known to be absent
 * @throws StartupError where it may not
 * @throws UnavailableError where the store does not answer
 */
export async function requireUsable(
  options: BackupServiceOptions,
  onSeen?: () => void,
): Promise<void> {
  const { objects, engine, logger } = options;
  await requirePlace(objects, engine.inspect(), logger);
  await requireOurs(options, onSeen);
  await requireFencing(options);
}

/** Before anything is written there. */
async function requireOurs(
  { objects, clock, random, signal }: BackupServiceOptions,
  onSeen: (() => void) | undefined,
): Promise<void> {
  const manifests = new ManifestStore(objects, clock, random);
  const seen = {
    read: async () => {
      const found = await manifests.read();
      onSeen?.();
      return found;
    },
  };
  if (await readNewestManifest(objects, seen, signal)) return;
  await readOfNonEmpty(objects, manifests, signal);
}

async function requireFencing(
  { objects, random, logger, allowUnfenced }: BackupServiceOptions,
): Promise<void> {
  const result = await probe(objects, random);
  if (result.ok) {
    if (result.keepsAll === undefined) return;
    logger.warn(
      "Nothing may be deleted in the backup's place. It works, and it grows for ever: what is older than the retention stays, and so does the little that every start writes to try the place out. Allow deleting objects there.",
      { reason: result.keepsAll },
    );
    return;
  }
  if (!allowUnfenced) {
    throw new StartupError(
      `This object store cannot keep two instances apart: ${result.reason} Nothing was opened. Use another store, or --allow-unfenced-backup where only one instance can ever run.`,
    );
  }
  logger.warn(
    "This object store cannot keep two instances apart: if two ever run at once, one overwrites the other's history.",
    { reason: result.reason },
  );
}

/** What shows later that a launch of this machine had this very lock. */
export function markOf(
  { machineStartedMs: startedMs = machineStartedMs, clock }:
    BackupServiceOptions,
  { identity }: EngineLock,
): string {
  return machineMark(startedMs(clock), identity);
}

/** For whoever wants to own the history with the file of this engine. */
export function ownershipOptions(
  options: BackupServiceOptions,
  calls: HandoverCalls,
  lock: EngineLock,
): OwnershipOptions {
  const { objects, engine } = options;
  const local = engine.inspect();
  return {
    ...options,
    databaseId: local?.databaseId,
    previousOwner: goneOwner(local, objects.url, markOf(options, lock)),
    servesThroughOutages: options.durability === "local",
    onHandoverRequested: (launch) => calls.request(launch),
  };
}
