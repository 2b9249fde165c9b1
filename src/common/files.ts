/** What the runtime's own file functions lack. */

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
