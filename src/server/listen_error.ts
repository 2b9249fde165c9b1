/** Why an address cannot be listened on: what a person does about it differs. */
import { messageOf, StartupError } from "../common/errors.ts";
import { missingPermission } from "../common/permissions.ts";

/** On most systems, lower ports are for programs with a special right. */
const FIRST_OPEN_PORT = 1024;

export function listenError(
  error: unknown,
  { hostname, port }: { hostname: string; port: number },
): StartupError {
  const host = hostname.includes(":") ? `[${hostname}]` : hostname;
  return new StartupError(
    `${whatAndWhy(error, host, port)} The database was not changed.`,
  );
}

function whatAndWhy(error: unknown, host: string, port: number): string {
  const missing = missingPermission(error);
  if (missing !== undefined) return missing;
  const address = `${host}:${port}`;
  if (error instanceof Deno.errors.AddrInUse) {
    return `Another program listens on ${address} already. Stop that program, or choose another --addr.`;
  }
  if (error instanceof Deno.errors.AddrNotAvailable) {
    return `${host} is no address of this machine. Choose one that it has in --addr, or 0.0.0.0:${port} for all of them.`;
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return port > 0 && port < FIRST_OPEN_PORT
      ? `This user may not listen on ${address}: ports below ${FIRST_OPEN_PORT} need a right of their own (on Linux CAP_NET_BIND_SERVICE). Choose a higher port in --addr, or give that right.`
      : `The system does not let this user listen on ${address} (${
        reasonOf(error)
      }). Choose another --addr.`;
  }
  const reason = reasonOf(error);
  return /lookup address|name resolution/i.test(reason)
    ? `The name ${host} leads to no address. Correct --addr.`
    : `The server cannot listen on ${address} (${reason}). Choose another --addr.`;
}

function reasonOf(error: unknown): string {
  return messageOf(error).trim().replace(/[.\s]+$/, "");
}
