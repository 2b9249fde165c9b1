/** Lists the objects in a folder in the order of their keys. */
import { join, relative } from "node:path";
import { compareKeys } from "./keys.ts";
import { segmentOfName } from "./local_paths.ts";
import { linkRefusal } from "./local_place.ts";
import {
  type ListOptions,
  MAX_PAGE_SIZE,
  type ObjectInfo,
} from "./object_store.ts";

interface Child {
  /** The key of a file; of a folder, what its objects' keys begin with. */
  key: string;
  path: string;
  isFolder: boolean;
  isLink: boolean;
}

/** Pages of the objects whose keys begin with `prefix`, in order. */
export async function* walk(
  root: string,
  prefix: string,
  options: ListOptions | undefined,
): AsyncGenerator<ObjectInfo[]> {
  const pageSize = options?.pageSize ?? MAX_PAGE_SIZE;
  let page: Child[] = [];
  const all = files(root, root, "", prefix, options?.startAfter);
  for await (const child of all) {
    page.push(child);
    if (page.length < pageSize) continue;
    yield await inform(page);
    page = [];
  }
  if (page.length > 0) yield await inform(page);
}

async function* files(
  root: string,
  folder: string,
  folderKey: string,
  prefix: string,
  startAfter: string | undefined,
): AsyncGenerator<Child> {
  for (const child of await children(folder, folderKey)) {
    if (child.isLink) {
      // Whether it is a folder or a file is not asked.
      if (mayHold(`${child.key}/`, prefix, startAfter)) {
        throw linkRefusal(root, relative(root, child.path));
      }
    } else if (child.isFolder) {
      if (mayHold(child.key, prefix, startAfter)) {
        yield* files(root, child.path, child.key, prefix, startAfter);
      }
    } else if (
      child.key.startsWith(prefix) &&
      (startAfter === undefined || compareKeys(child.key, startAfter) > 0)
    ) yield child;
  }
}

/** Whether keys that begin with `folderKey` can be among those asked for. */
function mayHold(
  folderKey: string,
  prefix: string,
  startAfter: string | undefined,
): boolean {
  if (!folderKey.startsWith(prefix) && !prefix.startsWith(folderKey)) {
    return false;
  }
  return startAfter === undefined || startAfter.startsWith(folderKey) ||
    compareKeys(folderKey, startAfter) > 0;
}

async function children(folder: string, folderKey: string): Promise<Child[]> {
  const found: Child[] = [];
  try {
    for await (const entry of Deno.readDir(folder)) {
      // Our own folder, and names that nothing here has written.
      if (entry.name.startsWith(".")) continue;
      const segment = segmentOfName(entry.name);
      if (segment === undefined) continue;
      if (!entry.isFile && !entry.isDirectory && !entry.isSymlink) continue;
      found.push({
        key: folderKey + segment + (entry.isDirectory ? "/" : ""),
        path: join(folder, entry.name),
        isFolder: entry.isDirectory,
        isLink: entry.isSymlink,
      });
    }
  } catch (error) {
    // Emptied and removed since its name was read.
    if (folderKey !== "" && error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
  return found.sort((a, b) => compareKeys(a.key, b.key));
}

async function inform(page: readonly Child[]): Promise<ObjectInfo[]> {
  const infos = await Promise.all(page.map(async ({ key, path }) => {
    try {
      const { size, mtime } = await Deno.stat(path);
      return { key, sizeBytes: size, modifiedMs: mtime?.getTime() ?? 0 };
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  }));
  return infos.filter((info) => info !== undefined);
}
