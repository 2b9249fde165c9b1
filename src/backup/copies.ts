/**
 * The copies of the manifest that owners leave beside the history. The one of
 * the last epoch takes its place where it is lost, and shows where somebody
 * has put an older one there: what an old manifest does not know of would be
 * no history any more.
 */
import { StartupError } from "../common/errors.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { decodeManifest, type Manifest, UnreadableError } from "./manifest.ts";
import type { ManifestStore, VersionedManifest } from "./manifest_store.ts";
import {
  isGenerationName,
  MANIFEST_KEY,
  manifestCopiesPrefix,
  manifestCopyKey,
} from "./names.ts";
import { topNames } from "./unclaimed.ts";

export interface ManifestCopy {
  key: string;
  generation: string;
  epoch: number;
}

/** Of one generation, the last epoch first. */
export async function copiesOf(
  objects: ObjectStore,
  generation: string,
  signal?: AbortSignal,
): Promise<ManifestCopy[]> {
  const prefix = manifestCopiesPrefix(generation);
  const copies: ManifestCopy[] = [];
  for await (const { key } of objects.list(prefix, { signal })) {
    const match = /^([0-9a-f]{8})\.json$/.exec(key.slice(prefix.length));
    if (match === null) continue;
    copies.push({ key, generation, epoch: parseInt(match[1], 16) });
  }
  return copies.reverse();
}

/** Undefined where it cannot be read. @throws StartupError for a newer format */
export async function readCopy(
  objects: ObjectStore,
  key: string,
): Promise<Manifest | undefined> {
  const object = await objects.get(key);
  if (object === undefined) return undefined;
  try {
    return decodeManifest(object.data).manifest;
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error;
    return undefined;
  }
}

/**
 * A copy that tells of more than the manifest does; undefined where it is the
 * newest that there is. Costs two requests where nothing is wrong.
 */
export async function newerCopy(
  objects: ObjectStore,
  { generation, epoch }: Pick<Manifest, "generation" | "epoch">,
  signal?: AbortSignal,
): Promise<ManifestCopy | undefined> {
  if (generation !== null) {
    const startAfter = manifestCopyKey(generation, epoch);
    const prefix = manifestCopiesPrefix(generation);
    for await (
      const { key } of objects.list(prefix, { startAfter, signal })
    ) return { key, generation, epoch: epoch + 1 };
  }
  for await (const { name } of topNames(objects, signal, generation ?? "")) {
    // They begin with a digit; nothing else of a backup does.
    if (!isGenerationName(name)) break;
    const [newest] = await copiesOf(objects, name, signal);
    if (newest === undefined || newest.epoch < epoch) continue;
    if (newest.epoch > epoch || generation === null) return newest;
    // Within one second names do not tell which generation came first.
    const copy = await readCopy(objects, newest.key);
    const there = copy?.generations.find(({ name }) => name === generation);
    if (there && there.endedMs !== null) return newest;
  }
  return undefined;
}

/**
 * The manifest, which no copy contradicts. One that was read while another
 * launch took over is read again.
 * @throws StartupError where it is an older one than there was
 */
export async function readNewestManifest(
  objects: ObjectStore,
  manifests: Pick<ManifestStore, "read">,
  signal?: AbortSignal,
): Promise<VersionedManifest | undefined> {
  let found = await manifests.read();
  for (;;) {
    const newer = found && await newerCopy(objects, found.manifest, signal);
    if (!found || !newer) return found;
    const again = await manifests.read();
    if (again?.nonce === found.nonce) throw outdated(newer);
    found = again;
  }
}

function outdated({ key }: ManifestCopy): StartupError {
  return new StartupError(
    `The backup's ${MANIFEST_KEY} is older than its history: ${key} was written by a later owner. Somebody has put an old one in its place. Nothing was opened, restored or changed. Bring the newest version of it back, or let \`backup repair\` show what can take its place.`,
  );
}

/** What a generation's folder tells of itself, where it is all there is. */
export async function manifestOfFolder(
  objects: ObjectStore,
): Promise<Pick<Manifest, "generations" | "seals" | "head"> | undefined> {
  for (const { key } of await copiesOf(objects, "")) {
    const copy = await readCopy(objects, key);
    if (copy === undefined) continue;
    const inFolder = <T extends { generation: string }>(item: T) => ({
      ...item,
      generation: "",
    });
    return {
      generations: copy.generations
        .filter(({ name }) => name === copy.generation)
        .map((generation) => ({ ...generation, name: "" })),
      seals: copy.seals
        .filter(({ generation }) => generation === copy.generation)
        .map(inFolder),
      ...(copy.head?.generation === copy.generation &&
        { head: inFolder(copy.head) }),
    };
  }
  return undefined;
}
