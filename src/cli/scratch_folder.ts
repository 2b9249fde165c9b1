/** A folder for a scratch file as large as the database. */
import { StartupError } from "../common/errors.ts";
import { missingPermission } from "../common/permissions.ts";

/**
 * @param who restores into it, and what was not done where it cannot
 * @param parent where a person has named one; otherwise that for temporary
 *   files. The caller removes what is made in it
 * @throws StartupError where it may not be used
 */
export async function scratchFolder(
  who: string,
  nothing: string,
  parent?: string,
): Promise<string> {
  const refusal = () =>
    new StartupError(
      `${who} restores the backup into ${
        parent ?? "the folder for temporary files (TMPDIR, or /tmp)"
      }, which may not be read and written here. Nothing was ${nothing}; add that folder to --allow-read and --allow-write.`,
    );
  let folder: string;
  try {
    folder = await Deno.makeTempDir({ dir: parent, prefix: "denokv-scratch-" });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new StartupError(
        `There is no folder ${parent}. Nothing was ${nothing}; make it, or name another one.`,
      );
    }
    throw missingPermission(error) === undefined ? error : refusal();
  }
  const { state } = await Deno.permissions.query({
    name: "read",
    path: folder,
  });
  if (state === "granted") return folder;
  await Deno.remove(folder);
  throw refusal();
}
