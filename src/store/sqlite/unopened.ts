/**
 * SQLite says "unable to open database file" of whatever keeps it from a file.
 * A look at the place tells which of the usual reasons it is.
 */
import { dirname } from "node:path";

/** What a person does about it; undefined where the place looks well. */
export function placeProblem(
  path: string,
  readOnly = false,
): string | undefined {
  try {
    const folder = dirname(path);
    const found = look(folder);
    if (found === undefined) {
      return `The folder ${folder} is not there; make it, or correct the path.`;
    }
    if (!found.isDirectory) {
      return `${folder} is a file and no folder; correct the path.`;
    }
    const file = look(path);
    if (file?.isDirectory) {
      return `${path} is a folder; name a file in it.`;
    }
    if (!readOnly) return undefined;
    return file === undefined
      ? `${path} is not there, and nothing is made where it is only read; correct the path.`
      : "Also to read, SQLite needs its two files beside the database (-wal and -shm): the folder has to be writable, or they have to be there.";
  } catch {
    // Not allowed to look; the error itself is told then.
    return undefined;
  }
}

function look(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
