/**
 * Where a server on this machine says at which address it listens, for the
 * commands that ask it: a container's health check knows the server's
 * variables, and not the flags that it was started with.
 */
import { messageOf, UsageError } from "../common/errors.ts";
import { missingPermission } from "../common/permissions.ts";
import { type Address, parseAddress } from "./address.ts";

/**
 * Undefined where no server has written it yet.
 * @throws UsageError where it may not be read
 */
export function readAddressFile(path: string): Address | undefined {
  try {
    return parseAddress(Deno.readTextFileSync(path).trim());
  } catch (error) {
    const missing = missingPermission(error);
    if (missing !== undefined) throw new UsageError(missing);
    // Absent, or half written by a server that starts this moment.
    return undefined;
  }
}

/** @returns why it could not be written; undefined where it was */
export function writeAddressFile(
  path: string,
  url: string,
): string | undefined {
  try {
    Deno.writeTextFileSync(path, `${new URL(url).host}\n`);
    return undefined;
  } catch (error) {
    return missingPermission(error, path) ?? `${messageOf(error)}.`;
  }
}
