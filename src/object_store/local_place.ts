/**
 * Whether a folder is still the place that it was. A share that is not mounted
 * leaves an empty folder where its files were, or the folder of another time:
 * a marker in the place tells it from those. Its id stays for as long as the
 * place does, and goes along where the folder is copied.
 */
import { join } from "node:path";
import { utf8 } from "../common/bytes.ts";
import { UnavailableError } from "../common/errors.ts";
import type { Random } from "../common/random.ts";
import {
  isMissing,
  linkNew,
  makeFolder,
  syncFolder,
  writeSynced,
} from "./local_files.ts";
import { OWN_FOLDER } from "./local_paths.ts";
import { ObjectStoreRefusedError } from "./object_store.ts";

const MARKER = "place";
const ID_BYTES = 16;
const MAX_MARKER_CHARS = 200;
const NOT_THERE = "its files are not there";

export class LocalPlace {
  readonly folder: string;
  /** Without symbolic links, as it was opened. */
  readonly realFolder: string;
  readonly #random: Random;
  #id: string | undefined;
  #root: Deno.FileInfo;
  #making: Promise<string> | undefined;

  private constructor(
    folder: string,
    realFolder: string,
    random: Random,
    root: Deno.FileInfo,
  ) {
    this.folder = folder;
    this.realFolder = realFolder;
    this.#random = random;
    this.#root = root;
  }

  /** Looks at a folder, and writes nothing. */
  static async open(folder: string, random: Random): Promise<LocalPlace> {
    const root = await Deno.stat(folder);
    if (!root.isDirectory) throw new Error("it is not a folder");
    const realFolder = await Deno.realPath(folder);
    const place = new LocalPlace(folder, realFolder, random, root);
    await place.#refuseOwnLink();
    place.#id = await place.#read();
    return place;
  }

  /** Undefined where nothing was ever written. */
  get id(): string | undefined {
    return this.#id;
  }

  get temporaries(): string {
    return join(this.folder, OWN_FOLDER, "tmp");
  }

  /** @throws UnavailableError where another folder has the place's name */
  async check(): Promise<void> {
    if (this.#id === undefined) {
      await Deno.stat(this.folder);
      return;
    }
    const id = await this.#read();
    if (id === this.#id) return;
    if (id !== undefined) throw this.#gone("another place has its name now");
    if (!await this.#isSameFolder()) throw this.#gone(NOT_THERE);
  }

  /**
   * The same before a write. Our own folder, which somebody may have deleted,
   * is made where the rest of the place is there.
   */
  async makeReady(): Promise<void> {
    const id = await this.#read();
    if (id === undefined || this.#id === undefined) {
      this.#id = await (this.#making ??= this.#make().finally(() => {
        this.#making = undefined;
      }));
    } else if (id !== this.#id) {
      throw this.#gone("another place has its name now");
    }
  }

  /** Makes the folder of half-written files, after `makeReady`. */
  async makeTemporaries(): Promise<void> {
    await makeFolder(join(this.folder, OWN_FOLDER));
    await makeFolder(this.temporaries);
  }

  async #make(): Promise<string> {
    // Before the first write any folder will do, such as a share that was
    // mounted only now.
    if (this.#id === undefined) this.#root = await Deno.stat(this.folder);
    else if (!await this.#isSameFolder()) throw this.#gone(NOT_THERE);
    await this.makeTemporaries();
    const id = this.#id ?? this.#random.bytes(ID_BYTES).toHex();
    const temporary = join(
      this.temporaries,
      this.#random.bytes(ID_BYTES).toHex(),
    );
    try {
      await writeSynced(temporary, utf8(id), new AbortController().signal);
      const isOurs = await linkNew(temporary, this.#marker);
      await syncFolder(join(this.folder, OWN_FOLDER));
      if (!isSame(await Deno.stat(this.folder), this.#root)) {
        // It went away between the look and the write.
        if (isOurs) await Deno.remove(this.#marker);
        throw this.#gone(NOT_THERE);
      }
    } finally {
      await Deno.remove(temporary).catch(() => {});
    }
    // Another instance may have been first.
    return await this.#read() ?? id;
  }

  get #marker(): string {
    return join(this.folder, OWN_FOLDER, MARKER);
  }

  async #read(): Promise<string | undefined> {
    try {
      // In one call of the runtime: every request comes by here.
      const id = await Deno.readTextFile(this.#marker);
      return id.slice(0, MAX_MARKER_CHARS).trim() || undefined;
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  async #refuseOwnLink(): Promise<void> {
    try {
      const { isSymlink } = await Deno.lstat(join(this.folder, OWN_FOLDER));
      if (isSymlink) throw linkRefusal(this.folder, OWN_FOLDER);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }

  /**
   * Whether a folder without a marker is the one that was opened. An empty one
   * is not: numbers of devices are used again.
   */
  async #isSameFolder(): Promise<boolean> {
    const root = await Deno.stat(this.folder);
    if (!isSame(root, this.#root)) return false;
    for await (const { name } of Deno.readDir(this.folder)) {
      if (name !== OWN_FOLDER) return true;
    }
    return false;
  }

  #gone(why: string): UnavailableError {
    return new UnavailableError(
      `The folder ${this.folder} is not the place that was opened: ${why}. Mount it again; nothing was written.`,
    );
  }
}

function isSame(a: Deno.FileInfo, b: Deno.FileInfo): boolean {
  return a.dev === b.dev && a.ino === b.ino &&
    a.birthtime?.getTime() === b.birthtime?.getTime();
}

/**
 * Refuses a path below the folder that leads over a symbolic link. What lies
 * behind it is not in the listing of the place and not under its lock.
 * @param realFolder the folder without symbolic links, when it was opened
 * @param path with "/"
 * @throws ObjectStoreRefusedError
 */
export async function refuseLinks(
  folder: string,
  realFolder: string,
  path: string,
): Promise<void> {
  try {
    // One call where the object is there; the rest is for all other cases.
    if (await Deno.realPath(join(folder, path)) === join(realFolder, path)) {
      return;
    }
  } catch {
    // It is missing, or a link leads out of what may be read.
  }
  const names = path.split("/");
  for (let count = 1; count <= names.length; count++) {
    const part = names.slice(0, count).join("/");
    try {
      const { isSymlink } = await Deno.lstat(join(folder, part));
      if (isSymlink) throw linkRefusal(folder, part);
    } catch (error) {
      if (isMissing(error)) return;
      throw error;
    }
  }
}

export function linkRefusal(
  folder: string,
  path: string,
): ObjectStoreRefusedError {
  return new ObjectStoreRefusedError(
    `In the folder ${folder}, ${path} is a symbolic link, and a backup holds none: what lies behind it would be missing from its listings. Put the files themselves there.`,
  );
}
