/**
 * The file that keeps an access token. Whoever reads it owns the database, so
 * it is born with mode 0600 and appears whole or not at all.
 */
import { dirname } from "node:path";
import { messageOf, StartupError, UsageError } from "../common/errors.ts";
import { exists } from "../common/files.ts";
import { missingPermission } from "../common/permissions.ts";
import type { Random } from "../common/random.ts";

/** 192 bits: nobody guesses it. */
const TOKEN_BYTES = 24;

/**
 * The token in a file, without the white space around it.
 * @throws UsageError where it cannot be read
 */
export function readAccessTokenFile(path: string): string {
  try {
    return Deno.readTextFileSync(path).trim();
  } catch (error) {
    const missing = missingPermission(error);
    throw new UsageError(
      missing ??
        `The access token file ${path} cannot be read: ${
          messageOf(error)
        }. Nothing was opened.`,
    );
  }
}

/**
 * The token of the given file; where there is none it is generated, its folder
 * too. Two programs that do this at once get the same token.
 * @throws StartupError where the file cannot be made
 */
export function keepAccessToken(
  path: string,
  random: Random,
): { token: string; isNew: boolean } {
  try {
    const isNew = !exists(path) && create(path, random);
    return { token: readAccessTokenFile(path), isNew };
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const missing = missingPermission(error, dirname(path));
    throw new StartupError(
      missing ??
        `The access token cannot be kept in ${path}: ${
          messageOf(error)
        }. Nothing was opened; make its folder writable, or name another one with --sqlite-path.`,
    );
  }
}

/** Whether someone beside the owner can read the file. */
export function isReadableByOthers(path: string): boolean {
  if (Deno.build.os === "windows") return false;
  const { mode } = Deno.statSync(path);
  return mode !== null && (mode & 0o077) !== 0;
}

/** False where another program was first; its token stays. */
function create(path: string, random: Random): boolean {
  Deno.mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const draft = `${path}.${random.bytes(8).toHex()}`;
  try {
    const file = Deno.openSync(draft, {
      write: true,
      createNew: true,
      mode: 0o600,
    });
    try {
      writeAll(
        file,
        new TextEncoder().encode(
          random.bytes(TOKEN_BYTES).toHex() + "\n",
        ),
      );
      file.syncSync();
    } finally {
      file.close();
    }
    // Unlike a rename, a link never takes the place of a file that is there.
    Deno.linkSync(draft, path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return false;
    throw error;
  } finally {
    if (exists(draft)) Deno.removeSync(draft);
  }
}

function writeAll(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) {
    at += file.writeSync(bytes.subarray(at));
  }
}
