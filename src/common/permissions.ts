/**
 * What a person does about a permission that the runtime refuses. Its own
 * message names one file; a database also needs the files beside it.
 */
import { dirname } from "node:path";

/** "Requires write access to "/data/x", run again with the --allow-write flag" */
const RUNTIME_MESSAGE = /^Requires (\w+) access(?: to "(.*)")?.*--allow-(\w+)/s;

/**
 * A sentence that names the missing permission and the flag that gives it;
 * undefined where the error is another one.
 * @param path needs the permission as a whole, whichever file the error names
 */
export function missingPermission(
  error: unknown,
  path?: string,
): string | undefined {
  if (!(error instanceof Deno.errors.NotCapable)) return undefined;
  const parts = RUNTIME_MESSAGE.exec(error.message);
  if (parts === null) {
    return `A permission of the runtime is missing: ${error.message}.`;
  }
  const [, kind, target, flag] = parts;
  if (target === undefined) {
    return `The permission to use "${kind}" is missing; add --allow-${flag} to the command and run it again.`;
  }
  // A device or a descriptor: the runtime has no narrower flag for it.
  if (flag === "all") {
    return `${target} is no ordinary file, and the runtime opens it with --allow-all alone; name an ordinary file.`;
  }
  const isFile = flag === "read" || flag === "write";
  const what = isFile
    ? `to ${flag} ${path ?? target}`
    : `"${flag}" for ${target}`;
  const value = isFile ? path ?? dirname(target) : target;
  return value.includes(",")
    ? `The permission ${what} is missing. A path with a comma cannot be named in --allow-${flag}: use another path, or --allow-${flag} without one.`
    : `The permission ${what} is missing; add --allow-${flag}=${value} to the command and run it again.`;
}
