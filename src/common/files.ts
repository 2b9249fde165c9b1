/** What the runtime's own file functions lack. */

/** What holds data or a secret is its owner's alone. */
export const PRIVATE_FILE_MODE = 0o600;

/**
 * An empty file, unless there is one of that name, whose mode stays.
 * @throws where it may not be made
 */
export function createPrivateFile(path: string): void {
  try {
    Deno.openSync(path, {
      createNew: true,
      write: true,
      mode: PRIVATE_FILE_MODE,
    }).close();
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
}

/** Also where a link leads nowhere. @throws where it may not be looked at */
export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
