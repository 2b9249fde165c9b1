/**
 * Proves at start that a store keeps the promises that ownership of a backup
 * rests on. A store that takes a conditional write and ignores the condition
 * looks well in every other way, until two instances overwrite each other.
 */
import { utf8 } from "../common/bytes.ts";
import type { Random } from "../common/random.ts";
import type { ObjectStore, RequestOptions } from "./object_store.ts";

export type ProbeResult = { ok: true } | { ok: false; reason: string };

/** Replaces that race each other, of which one may win. */
const RACERS = 4;

/**
 * Writes one object under a random name, tries what must not succeed, and
 * deletes it. The reason is a sentence that says what the store did wrong.
 *
 * @throws UnavailableError, ObjectStoreRefusedError: nothing is proven then
 */
export async function probe(
  store: ObjectStore,
  random: Random,
  options?: RequestOptions,
): Promise<ProbeResult> {
  const key = `probe/${random.bytes(12).toHex()}`;
  try {
    const reason = await firstProblem(store, key, options);
    return reason === undefined ? { ok: true } : { ok: false, reason };
  } finally {
    // A probe left behind is harmless; its failure must not hide the result.
    await store.delete([key], options).catch(() => {});
  }
}

async function firstProblem(
  store: ObjectStore,
  key: string,
  options: RequestOptions | undefined,
): Promise<string | undefined> {
  const lost = "Two instances could overwrite each other's backup there.";
  const first = await store.create(key, utf8("first"), options);
  if (!first.written) {
    return `${store.url} refused to create an object that was not there, so ` +
      "no backup can be begun in it.";
  }
  const again = await store.create(key, utf8("again"), options);
  if (again.written) {
    return `${store.url} created an object that was already there: it ` +
      `ignores the condition that it be absent. ${lost}`;
  }

  const second = await store.replace(key, utf8("second"), first.tag, options);
  if (!second.written) {
    return `${store.url} refused to replace an object whose version had not ` +
      "changed, so a backup could not change hands in it.";
  }
  const stale = await store.replace(key, utf8("stale"), first.tag, options);
  if (stale.written) {
    return `${store.url} replaced an object whose version had changed: it ` +
      `ignores the condition on the version. ${lost}`;
  }

  const race = await Promise.allSettled(
    Array.from(
      { length: RACERS },
      (_, i) => store.replace(key, utf8(`racer ${i}`), second.tag, options),
    ),
  );
  const winners = race.filter((result) =>
    result.status === "fulfilled" && result.value.written
  );
  if (winners.length > 1) {
    return `${store.url} let ${winners.length} replacements of one version ` +
      `succeed at once: it looks and writes in two steps. ${lost}`;
  }

  if (await store.get(key, options) === undefined) {
    return `${store.url} did not show an object that had been written ` +
      "before, so a restore from it could miss data.";
  }
  for await (const info of store.list(key, options)) {
    if (info.key === key) return undefined;
  }
  return `${store.url} did not list an object that had been written before, ` +
    "so a restore from it could miss data.";
}
