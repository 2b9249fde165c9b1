/**
 * `file://`: objects as files in a folder, on a local disk or a network share.
 *
 * A write goes to a temporary file, is synced, and becomes the object by one
 * link or rename, so a reader (or a power cut) finds the old version or the
 * new one, never a part. That last step, together with the look that a
 * condition asks for, happens under one file lock: conditions are exact
 * among all processes whose locks reach each other. `create` holds even where
 * locks do not, because a hard link is refused where the name exists.
 *
 * A deletion is not synced: after a power cut the object may be there again.
 *
 * The version tag is a hash of the content: file times and inode numbers
 * repeat too easily. What is not safe on a network share: docs/object-stores.md.
 */
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import type { Bytes } from "../common/bytes.ts";
import type { Clock } from "../common/clock.ts";
import { messageOf, UnavailableError } from "../common/errors.ts";
import { missingPermission } from "../common/permissions.ts";
import type { Random } from "../common/random.ts";
import { checkKey, checkRange, quote } from "./keys.ts";
import {
  FolderNames,
  isMissing,
  linkNew,
  readPart,
  readVersion,
  removeEmptyFolders,
  writeSynced,
} from "./local_files.ts";
import { FolderLock } from "./local_lock.ts";
import { pathOfKey } from "./local_paths.ts";
import { LocalPlace, refuseLinks } from "./local_place.ts";
import { walk } from "./local_walk.ts";
import {
  DEFAULT_REQUEST_TIMEOUT_MS,
  type HeadOptions,
  type ListOptions,
  type ObjectHead,
  type ObjectInfo,
  type ObjectStore,
  ObjectStoreRefusedError,
  type RequestOptions,
  type StoredObject,
  type VersionTag,
  type WriteResult,
} from "./object_store.ts";
import {
  closedError,
  inParallel,
  type Limits,
  withinLimits,
} from "./time_limit.ts";

export interface LocalFolderOptions {
  /** An absolute path; the folder has to exist. */
  folder: string;
  clock: Clock;
  random: Random;
  timeoutMs?: number;
}

/** A temporary file this old belongs to a process that is gone. */
const STALE_TEMPORARY_MS = 24 * 3600_000;

const DELETE_WIDTH = 16;

/** What decides, under the lock, whether a written file becomes the object. */
type Condition = { kind: "none" } | { kind: "absent" } | {
  kind: "tag";
  tag: VersionTag;
};

export class LocalFolderStore implements ObjectStore {
  readonly url: string;
  readonly #folder: string;
  readonly #random: Random;
  readonly #limits: Limits;
  readonly #closing = new AbortController();
  readonly #lock: FolderLock;

  readonly #names = new FolderNames();
  readonly #place: LocalPlace;

  private constructor(options: LocalFolderOptions, place: LocalPlace) {
    this.#folder = options.folder;
    this.#place = place;
    this.#random = options.random;
    this.url = `file://${options.folder.replace(/[%#?]/g, encodeURIComponent)}`;
    this.#limits = {
      clock: options.clock,
      timeoutMs: options.timeoutMs ?? DEFAULT_REQUEST_TIMEOUT_MS,
      closed: this.#closing.signal,
    };
    this.#lock = new FolderLock(options.folder);
  }

  /**
   * Opens a folder and removes what crashed writers left behind in it. Nothing
   * is written before the first write.
   * @throws ObjectStoreRefusedError where it is missing or may not be used
   */
  static async open(options: LocalFolderOptions): Promise<LocalFolderStore> {
    const { folder, random } = options;
    try {
      const place = await LocalPlace.open(folder, random);
      const store = new LocalFolderStore(options, place);
      await store.#removeStaleTemporaries();
      return store;
    } catch (error) {
      if (error instanceof ObjectStoreRefusedError) throw error;
      const missing = missingPermission(error, folder);
      if (missing) throw new ObjectStoreRefusedError(missing);
      // It is not made here: a share that is not mounted looks like this.
      throw new ObjectStoreRefusedError(
        `The folder ${folder} cannot be used for objects: ` +
          `${messageOf(error)}. Make it (or mount it) and allow this user ` +
          "to read and write it.",
      );
    }
  }

  get placeId(): string | undefined {
    return this.#place.id;
  }

  get(
    key: string,
    options?: RequestOptions,
  ): Promise<StoredObject | undefined> {
    return this.#run(options, "reading", key, async (path, signal) => {
      const file = await this.#ifThere(() => readVersion(path, signal));
      return file && { data: file.data, tag: tagOf(file.data) };
    });
  }

  getRange(
    key: string,
    offsetBytes: number,
    sizeBytes: number,
    options?: RequestOptions,
  ): Promise<Bytes | undefined> {
    return this.#run(options, "reading", key, (path, signal) => {
      checkRange(offsetBytes, sizeBytes);
      return this.#ifThere(() =>
        readPart(path, offsetBytes, sizeBytes, signal)
      );
    });
  }

  head(key: string, options?: HeadOptions): Promise<ObjectHead | undefined> {
    return this.#run(options, "reading", key, async (path, signal) => {
      const file = await this.#ifThere(() => readVersion(path, signal));
      return file && {
        key,
        sizeBytes: file.data.length,
        modifiedMs: file.modifiedMs,
        tag: tagOf(file.data),
        ...(options?.now && await this.#now()),
      };
    });
  }

  /** By the file system's clock, which is that of the server on a share. */
  async #now(): Promise<{ nowMs?: number }> {
    const path = join(
      this.#place.temporaries,
      this.#random.bytes(12).toHex(),
    );
    try {
      using file = await Deno.open(path, { write: true, createNew: true });
      const { mtime } = await file.stat();
      return mtime ? { nowMs: mtime.getTime() } : {};
    } catch {
      // A folder that may only be read, say: then it is not known.
      return {};
    } finally {
      await Deno.remove(path).catch(() => {});
    }
  }

  async put(
    key: string,
    data: Uint8Array,
    options?: RequestOptions,
  ): Promise<VersionTag> {
    await this.#write(key, data, { kind: "none" }, options);
    return tagOf(data);
  }

  create(
    key: string,
    data: Uint8Array,
    options?: RequestOptions,
  ): Promise<WriteResult> {
    return this.#write(key, data, { kind: "absent" }, options);
  }

  replace(
    key: string,
    data: Uint8Array,
    tag: VersionTag,
    options?: RequestOptions,
  ): Promise<WriteResult> {
    return this.#write(key, data, { kind: "tag", tag }, options);
  }

  async *list(
    prefix: string,
    options?: ListOptions,
  ): AsyncGenerator<ObjectInfo> {
    const pages = walk(this.#folder, prefix, options);
    while (true) {
      const page = await withinLimits(
        this.#limits,
        options,
        `Listing ${this.url}`,
        async () => {
          try {
            await this.#names.settle();
            const page = await pages.next();
            await this.#place.check();
            return page;
          } catch (error) {
            throw this.#explain(error, "listing", prefix);
          }
        },
      );
      if (page.done) return;
      yield* page.value;
    }
  }

  async delete(
    keys: readonly string[],
    options?: RequestOptions,
  ): Promise<void> {
    keys.forEach(checkKey);
    await inParallel(
      keys,
      DELETE_WIDTH,
      (key) =>
        this.#run(options, "deleting", key, async (path, signal) => {
          await this.#place.makeReady();
          await this.#lock.hold(signal, async () => {
            try {
              await Deno.remove(path);
            } catch (error) {
              if (isMissing(error)) return;
              throw error;
            }
            await removeEmptyFolders(dirname(path), this.#folder);
          });
        }),
    );
  }

  close(): Promise<void> {
    this.#closing.abort(closedError(this.url));
    return Promise.resolve();
  }

  #write(
    key: string,
    data: Uint8Array,
    condition: Condition,
    options: RequestOptions | undefined,
  ): Promise<WriteResult> {
    return this.#run(options, "writing", key, async (path, signal) => {
      await this.#place.makeReady();
      const temporary = join(
        this.#place.temporaries,
        this.#random.bytes(12).toHex(),
      );
      try {
        await this.#writeTemporary(temporary, data, signal);
        const written = await this.#lock.hold(
          signal,
          () => this.#moveIntoPlace(temporary, path, condition),
        );
        if (!written) return { written: false };
        await this.#names.sync(dirname(path));
        return { written: true, tag: tagOf(data) };
      } finally {
        await Deno.remove(temporary).catch(() => {});
      }
    });
  }

  async #writeTemporary(
    path: string,
    data: Uint8Array,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      await writeSynced(path, data, signal);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      // Somebody has deleted the folder that it is in.
      await this.#place.makeTemporaries();
      await writeSynced(path, data, signal);
    }
  }

  /** Under the lock: whether the condition held and the object is written. */
  async #moveIntoPlace(
    temporary: string,
    path: string,
    condition: Condition,
  ): Promise<boolean> {
    if (condition.kind === "tag") {
      const present = await this.#ifThere(() => readVersion(path));
      if (present === undefined || tagOf(present.data) !== condition.tag) {
        return false;
      }
    }
    await this.#names.make(dirname(path), this.#folder);
    if (condition.kind === "absent") return await linkNew(temporary, path);
    await Deno.rename(temporary, path);
    return true;
  }

  /** Runs one request on the key's path, with errors a person can read. */
  #run<T>(
    options: RequestOptions | undefined,
    doing: string,
    key: string,
    work: (path: string, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const what = `${capital(doing)} ${quote(key)} in ${this.url}`;
    return withinLimits(this.#limits, options, what, async (signal) => {
      checkKey(key);
      const path = pathOfKey(key);
      if (path === undefined) {
        throw new ObjectStoreRefusedError(
          `The folder ${this.#folder} cannot hold the key ${quote(key)}: ` +
            "a file's name would be longer than 255 bytes.",
        );
      }
      try {
        // What may be taken back by a power cut is told to nobody.
        await this.#names.settle();
        await refuseLinks(this.#folder, this.#place.realFolder, path);
        return await work(join(this.#folder, path), signal);
      } catch (error) {
        throw this.#explain(error, doing, key);
      }
    });
  }

  /** What `read` gives, or undefined where the object is missing. */
  async #ifThere<T>(read: () => Promise<T>): Promise<T | undefined> {
    let found: T | undefined;
    try {
      found = await read();
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
    // A share that went away must not look like a backup that is empty, or be
    // confused with what lies below its mount point.
    await this.#place.check();
    return found;
  }

  #explain(error: unknown, doing: string, key: string): unknown {
    if (
      error instanceof RangeError || error instanceof UnavailableError ||
      error instanceof ObjectStoreRefusedError ||
      (error instanceof DOMException && error.name === "AbortError")
    ) return error;
    const missing = missingPermission(error, this.#folder);
    if (missing) return new ObjectStoreRefusedError(missing);
    const message = `The folder ${this.#folder} failed at ${doing} ` +
      `${quote(key)}: ${messageOf(error)}.`;
    if (isRefusal(error)) {
      return new ObjectStoreRefusedError(
        `${message} It has to be usable for this user.`,
      );
    }
    if (isMisplaced(error)) {
      return new ObjectStoreRefusedError(
        `${message} Another object, or a folder of objects, has this name.`,
      );
    }
    return new UnavailableError(`${message} It can be tried again.`);
  }

  /** As far as it may: a folder that may only be read has its owner. */
  async #removeStaleTemporaries(): Promise<void> {
    const before = this.#limits.clock.nowMs() - STALE_TEMPORARY_MS;
    const { temporaries } = this.#place;
    try {
      for await (const { name } of Deno.readDir(temporaries)) {
        await removeIfOlder(join(temporaries, name), before);
      }
    } catch (error) {
      if (missingPermission(error) !== undefined) throw error;
      if (!isMissing(error) && !isRefusal(error)) throw error;
    }
  }
}

async function removeIfOlder(path: string, beforeMs: number): Promise<void> {
  try {
    const { mtime } = await Deno.stat(path);
    if (mtime !== null && mtime.getTime() < beforeMs) await Deno.remove(path);
  } catch (error) {
    // Another process may have removed it first.
    if (!isMissing(error)) throw error;
  }
}

function tagOf(data: Uint8Array): VersionTag {
  return createHash("sha256").update(data).digest("hex");
}

function isRefusal(error: unknown): boolean {
  return error instanceof Deno.errors.PermissionDenied ||
    error instanceof Deno.errors.NotCapable ||
    error instanceof Error && "code" in error && error.code === "EROFS";
}

function isMisplaced(error: unknown): boolean {
  return error instanceof Deno.errors.IsADirectory ||
    error instanceof Deno.errors.NotADirectory;
}

function capital(text: string): string {
  return text[0].toUpperCase() + text.slice(1);
}
