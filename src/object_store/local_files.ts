/** Reads and writes single files so that a power cut leaves them whole. */
import { dirname } from "node:path";
import type { Bytes } from "../common/bytes.ts";

/** A file read through one handle, so that all of it is one version. */
export async function readVersion(
  path: string,
  signal?: AbortSignal,
): Promise<{ data: Bytes; modifiedMs: number }> {
  using file = await Deno.open(path);
  const { size, mtime } = await file.stat();
  return {
    data: await fill(file, size, signal),
    modifiedMs: mtime?.getTime() ?? 0,
  };
}

/** Up to `sizeBytes` of a file from an offset on, none past its end. */
export async function readPart(
  path: string,
  offsetBytes: number,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<Bytes> {
  using file = await Deno.open(path);
  const { size } = await file.stat();
  await file.seek(offsetBytes, Deno.SeekMode.Start);
  const leftBytes = Math.max(0, size - offsetBytes);
  return await fill(file, Math.min(sizeBytes, leftBytes), signal);
}

async function fill(
  file: Deno.FsFile,
  sizeBytes: number,
  signal: AbortSignal | undefined,
): Promise<Bytes> {
  const data = new Uint8Array(sizeBytes);
  let at = 0;
  while (at < sizeBytes) {
    signal?.throwIfAborted();
    const count = await file.read(data.subarray(at));
    // Objects are never changed in place: someone else cut it short.
    if (count === null) throw new Error("the file is shorter than it was");
    at += count;
  }
  return data;
}

/** Writes a new file and makes its content durable, not yet its name. */
export async function writeSynced(
  path: string,
  data: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  using file = await Deno.open(path, { write: true, createNew: true });
  let at = 0;
  while (at < data.length) {
    signal.throwIfAborted();
    at += await file.write(data.subarray(at));
  }
  await file.sync();
}

/**
 * Gives a temporary file a name that has to be free; false where it is taken.
 */
export async function linkNew(
  temporary: string,
  path: string,
): Promise<boolean> {
  try {
    await Deno.link(temporary, path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) {
      // A share may lose the answer to a link and be asked again by the
      // system: a second name on our own file says that it was made.
      return (await Deno.stat(temporary)).nlink === 2;
    }
    if (!isWithoutLinks(error)) throw error;
  }
  // No hard links here (FAT, some shares): the lock alone has to do.
  try {
    await Deno.lstat(path);
    return false;
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  await Deno.rename(temporary, path);
  return true;
}

function isWithoutLinks(error: unknown): boolean {
  return error instanceof Error && "code" in error &&
    (error.code === "EPERM" || error.code === "ENOTSUP" ||
      error.code === "EOPNOTSUPP" || error.code === "ENOSYS");
}

/** Makes a folder in one that is there. One that exists is no error. */
export async function makeFolder(path: string): Promise<void> {
  try {
    await Deno.mkdir(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    return;
  }
  await syncFolder(dirname(path));
}

/** Folders that are remembered as durable; past it, they are synced again. */
const MAX_DURABLE_FOLDERS = 1000;

/**
 * What is known of the folders: which names survive a power cut, and in which
 * folders that failed. As long as it did, nothing may be told of their objects.
 */
export class FolderNames {
  readonly #unsynced = new Set<string>();
  readonly #durable = new Set<string>();

  /** Makes the names in a folder survive a power cut. */
  async sync(folder: string): Promise<void> {
    try {
      await syncFolder(folder);
      this.#unsynced.delete(folder);
    } catch (error) {
      this.#unsynced.add(folder);
      throw error;
    }
  }

  /** Tries again what failed before. */
  async settle(): Promise<void> {
    for (const folder of this.#unsynced) {
      try {
        await this.sync(folder);
      } catch (error) {
        if (!isMissing(error)) throw error;
        // It was emptied and removed since.
        this.#unsynced.delete(folder);
      }
    }
  }

  /**
   * Makes the folders from `root` down to `folder`, durably: also those that
   * are there, because whoever made them may have died before it synced.
   */
  async make(folder: string, root: string): Promise<void> {
    const unsure: string[] = [];
    for (let at = folder; at !== root; at = dirname(at)) {
      if (await isThere(at) && this.#durable.has(at)) break;
      unsure.push(at);
    }
    for (const path of unsure.reverse()) {
      try {
        await Deno.mkdir(path);
      } catch (error) {
        if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
      }
      await this.sync(dirname(path));
      if (this.#durable.size >= MAX_DURABLE_FOLDERS) this.#durable.clear();
      this.#durable.add(path);
    }
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Removes `folder` and those above it, up to `root`, while they are empty. */
export async function removeEmptyFolders(
  folder: string,
  root: string,
): Promise<void> {
  for (let at = folder; at !== root; at = dirname(at)) {
    try {
      await Deno.remove(at);
    } catch {
      // It holds something, or is in use: it stays.
      return;
    }
  }
}

/** Makes the names in a folder survive a power cut. */
export async function syncFolder(folder: string): Promise<void> {
  // Windows does not open folders, and writes their names by itself.
  if (Deno.build.os === "windows") return;
  using handle = await Deno.open(folder);
  await handle.sync();
}

/**
 * Whether there is no such object. Where another object's folder has its
 * name, or an object the name of its folder, there is none either.
 */
export function isMissing(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound ||
    error instanceof Deno.errors.NotADirectory ||
    error instanceof Deno.errors.IsADirectory;
}
