/**
 * Proves at start that a store keeps the promises that ownership of a backup
 * rests on. A store that takes a conditional write and ignores the condition
 * looks well in every other way, until two instances overwrite each other.
 */
import { fromUtf8, utf8 } from "../common/bytes.ts";
import { UnavailableError } from "../common/errors.ts";
import type { Random } from "../common/random.ts";
import {
  type ObjectStore,
  ObjectStoreRefusedError,
  type RequestOptions,
  type VersionTag,
} from "./object_store.ts";

export type ProbeResult =
  | {
    ok: true;
    /** Why nothing can be deleted; absent where it can. */
    keepsAll?: string;
  }
  | { ok: false; reason: string };

/** Replaces that race each other, of which one may win. */
const RACERS = 4;

/**
 * Writes objects under a random name, tries what must not succeed, and deletes
 * them. The reason is a sentence that says what the store did wrong.
 *
 * Each question has an object of its own, and all are asked together: Google
 * takes one write a second to one object, and its store waits for that.
 *
 * @throws UnavailableError, ObjectStoreRefusedError: nothing is proven then
 */
export async function probe(
  store: ObjectStore,
  random: Random,
  options?: RequestOptions,
): Promise<ProbeResult> {
  const name = `probe/${random.bytes(12).toHex()}`;
  const created = `${name}/create`;
  const replaced = `${name}/replace`;
  const raced = `${name}/race`;
  // A probe left behind is harmless; its failure must not hide the result.
  const clear = () =>
    store.delete([created, replaced, raced], options).then(
      () => undefined,
      (error) =>
        error instanceof ObjectStoreRefusedError ? error.message : undefined,
    );
  let keepsAll: string | undefined;
  try {
    const asked = await Promise.allSettled([
      asking(store, created, problemOfCreate, options),
      asking(store, replaced, problemOfReplace, options),
      asking(store, raced, problemOfRace, options),
    ]);
    for (const result of asked) {
      if (result.status === "rejected") throw result.reason;
      if (result.value !== undefined) return bad(result.value);
    }
    const reason = await problemOfReading(store, created, options);
    if (reason !== undefined) return bad(reason);
  } finally {
    keepsAll = await clear();
  }
  return keepsAll === undefined ? { ok: true } : { ok: true, keepsAll };
}

function bad(reason: string): ProbeResult {
  return { ok: false, reason };
}

const LOST = "Two instances could overwrite each other's backup there.";

/** About an object that holds "first". */
interface Question {
  store: ObjectStore;
  key: string;
  tag: VersionTag;
  options: RequestOptions | undefined;
}

async function asking(
  store: ObjectStore,
  key: string,
  problemOf: (question: Question) => Promise<string | undefined>,
  options: RequestOptions | undefined,
): Promise<string | undefined> {
  const first = await store.create(key, utf8("first"), options);
  if (!first.written) return await notCreated(store, key, options);
  return await problemOf({ store, key, tag: first.tag, options });
}

async function problemOfCreate(
  { store, key, options }: Question,
): Promise<string | undefined> {
  const again = await store.create(key, utf8("again"), options);
  if (!again.written) return undefined;
  return `${store.url} created an object that was already there: it ` +
    `ignores the condition that it be absent. ${LOST}`;
}

async function problemOfReplace(
  { store, key, tag, options }: Question,
): Promise<string | undefined> {
  const second = await store.replace(key, utf8("second"), tag, options);
  if (!second.written) {
    await requireAbsence(store, key, "second", options);
    return `${store.url} refused to replace an object whose version had not ` +
      "changed, so a backup could not change hands in it.";
  }
  const stale = await store.replace(key, utf8("stale"), tag, options);
  if (!stale.written) return undefined;
  return `${store.url} replaced an object whose version had changed: it ` +
    `ignores the condition on the version. ${LOST}`;
}

async function problemOfRace(
  { store, key, tag, options }: Question,
): Promise<string | undefined> {
  const race = await Promise.allSettled(
    Array.from(
      { length: RACERS },
      (_, i) => store.replace(key, utf8(`racer ${i}`), tag, options),
    ),
  );
  const winners = race.filter((result) =>
    result.status === "fulfilled" && result.value.written
  );
  if (winners.length <= 1) return undefined;
  return `${store.url} let ${winners.length} replacements of one version ` +
    `succeed at once: it looks and writes in two steps. ${LOST}`;
}

async function problemOfReading(
  store: ObjectStore,
  key: string,
  options: RequestOptions | undefined,
): Promise<string | undefined> {
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

async function notCreated(
  store: ObjectStore,
  key: string,
  options: RequestOptions | undefined,
): Promise<string> {
  await requireAbsence(store, key, "first", options);
  return `${store.url} refused to create an object that was not there, so ` +
    "no backup can be begun in it.";
}

/**
 * The runtime may repeat a request whose answer was lost: the conflict is then
 * with its own first attempt, and says nothing of the store.
 * @throws UnavailableError where what the probe wrote is there
 */
async function requireAbsence(
  store: ObjectStore,
  key: string,
  text: string,
  options: RequestOptions | undefined,
): Promise<void> {
  const found = await store.get(key, options);
  if (found === undefined || fromUtf8(found.data) !== text) return;
  throw new UnavailableError(
    `An answer of ${store.url} was lost while it was tried out; nothing is proven yet.`,
  );
}
