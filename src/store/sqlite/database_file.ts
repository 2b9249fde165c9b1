/**
 * The file behind symbolic links. SQLite puts its log beside the file that a
 * link leads to, and two servers that come by different links have to meet at
 * one lock.
 */
import { dirname, isAbsolute } from "node:path";
import { messageOf, StartupError } from "../../common/errors.ts";
import { missingPermission } from "../../common/permissions.ts";

/** As many as the system itself follows. */
const MAX_LINKS = 40;

/**
 * The path without links in its last part. Links of folders stay: what is put
 * beside the file lands in the same place through them.
 * @throws StartupError where a link may not be read, or leads in a circle
 */
export function databaseFile(path: string): string {
  let file = path;
  try {
    for (let links = 0; links < MAX_LINKS; links++) {
      if (!isLink(file)) return file;
      const target = Deno.readLinkSync(file);
      // Not normalised: `..` goes up from where a linked folder really is.
      file = isAbsolute(target) ? target : `${dirname(file)}/${target}`;
    }
  } catch (error) {
    const missing = missingPermission(error);
    if (missing) throw new StartupError(`${missing} Nothing was opened.`);
    throw new StartupError(
      `The link ${path} cannot be followed: ${
        messageOf(error)
      }. Nothing was opened.`,
    );
  }
  throw new StartupError(
    `The link ${path} leads in a circle. Nothing was opened.`,
  );
}

function isLink(path: string): boolean {
  try {
    return Deno.lstatSync(path).isSymlink;
  } catch (error) {
    // It is made when it is opened.
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
