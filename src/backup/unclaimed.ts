/**
 * What is in a place that has no manifest. A backup begins in an empty place
 * alone: anything else may be a history whose manifest was lost, or somebody
 * else's, and is left as it is.
 */
import { StartupError } from "../common/errors.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { isGenerationName, MANIFEST_KEY, PROBE_PREFIX } from "./names.ts";
import type { ManifestStore, VersionedManifest } from "./manifest_store.ts";

/** Entries at the top of the place that are looked at, a request for each. */
const MAX_LOOKS = 1000;

/**
 * The names at the top of the place, in order, each without what is below.
 * @param after only names after this one's folder
 */
export async function* topNames(
  objects: ObjectStore,
  signal?: AbortSignal,
  after = "",
): AsyncGenerator<{ name: string; firstKey: string }> {
  let startAfter = after === "" ? undefined : `${after}0`;
  for (;;) {
    const options = { pageSize: 1, signal, ...(startAfter && { startAfter }) };
    let firstKey: string | undefined;
    for await (const { key } of objects.list("", options)) {
      firstKey = key;
      break;
    }
    if (firstKey === undefined) return;
    const [name] = firstKey.split("/", 1);
    yield { name, firstKey };
    // "0" comes right after "/": past everything in the folder.
    startAfter = firstKey.includes("/") ? `${name}0` : firstKey;
  }
}

/** Why no backup may begin here; undefined where the place is empty. */
export async function contentWithoutManifest(
  objects: ObjectStore,
  signal?: AbortSignal,
): Promise<StartupError | undefined> {
  const generations: string[] = [];
  let other: string | undefined;
  let looks = 0;
  for await (const { name, firstKey } of topNames(objects, signal)) {
    if (isGenerationName(name)) generations.push(name);
    // What a launch that was killed left of its probe.
    else if (!firstKey.startsWith(PROBE_PREFIX)) other ??= firstKey;
    if (++looks >= MAX_LOOKS) break;
  }
  const newest = generations.at(-1);
  if (newest !== undefined) {
    return new StartupError(
      `${objects.url} holds ${
        generations.length === 1 ? "a generation" : "generations"
      } of a backup (the newest is ${newest}) and no ${MANIFEST_KEY}: it was deleted or lost. Nothing was opened, written or deleted. Stop every server on it, and let \`backup repair\` make it anew: it shows what it found, and asks. Or take the data out with \`restore --from ${objects.url}/${newest}\`, and serve that file with a backup URL of its own. For a new and empty database give --backup another URL.`,
    );
  }
  if (other === undefined) return undefined;
  return new StartupError(
    `${objects.url} is no place for a new backup: it holds ${other}, and no ${MANIFEST_KEY}. Nothing was opened, written or deleted. If a backup should be there, check the URL, or bring ${MANIFEST_KEY} back; for a new one give --backup an empty place, such as a prefix of its own.`,
  );
}

/**
 * The manifest of a place that has none and is not empty: there by now, where
 * another launch began the backup meanwhile.
 * @throws StartupError where it is still missing: no backup begins there
 */
export async function readOfNonEmpty(
  objects: ObjectStore,
  store: ManifestStore,
  signal?: AbortSignal,
): Promise<VersionedManifest | undefined> {
  const content = await contentWithoutManifest(objects, signal);
  if (content === undefined) return undefined;
  const found = await store.read();
  if (found === undefined) throw content;
  return found;
}
