/**
 * Database files that a launch has set aside: what they are, how much room they
 * take, and an end to those that hold nothing of their own.
 */
import { basename, dirname } from "node:path";
import { inspectFile, removeDatabase } from "./unserved_file.ts";

export interface AsideFile {
  path: string;
  sizeBytes: number;
  /** When it was set aside. */
  sinceMs: number;
  /** All that it holds was in the backup when it was set aside. */
  isInHistory: boolean;
}

const SUFFIX = /^\.epoch-(\d+|none)-([0-9a-f]{20})(-in-history)?(-\d+)?$/;

/** @param path of the database itself, which need not be there */
export function asideFiles(path: string): AsideFile[] {
  const folder = dirname(path);
  const found: AsideFile[] = [];
  for (const { name, isFile } of Deno.readDirSync(folder)) {
    if (!isFile || !name.startsWith(basename(path))) continue;
    const match = SUFFIX.exec(name.slice(basename(path).length));
    if (match === null) continue;
    const aside = `${folder}/${name}`;
    const { ctime, mtime } = Deno.statSync(aside);
    found.push({
      path: aside,
      sizeBytes: ["", "-wal", "-shm"]
        .reduce((sum, end) => sum + sizeOf(aside + end), 0),
      // A new name changes the first of them alone.
      sinceMs: (ctime ?? mtime)?.getTime() ?? Infinity,
      isInHistory: match[3] !== undefined,
    });
  }
  return found.sort((a, b) => a.path < b.path ? -1 : 1);
}

function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

/**
 * Removes those that hold nothing of their own and are old enough, where they
 * still are what they were. Under the instance lock of the database.
 * @returns those that were removed
 */
export async function removeOldAside(
  path: string,
  databaseId: string,
  beforeMs: number,
): Promise<AsideFile[]> {
  const removed: AsideFile[] = [];
  for (const file of asideFiles(path)) {
    if (!file.isInHistory || file.sinceMs >= beforeMs) continue;
    const [, epoch, version] = SUFFIX.exec(
      basename(file.path).slice(basename(path).length),
    )!;
    const local = inspectFile(file.path);
    const isAsItWas = local !== undefined && !local.hasForeignWrites &&
      local.databaseId === databaseId &&
      local.state("backup_epoch") === epoch &&
      local.version === Number(BigInt(`0x${version.slice(0, 16)}`));
    if (!isAsItWas) continue;
    await removeDatabase(file.path);
    removed.push(file);
  }
  return removed;
}
