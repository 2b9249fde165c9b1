/**
 * Who may use the REST API: the holder of its own secret (`KVSTORE_SECRET`,
 * bare or as a bearer token) or of the access token (as a bearer token); with
 * public reads, anyone for single keys.
 */
import { bearerOf, Secret } from "./secret.ts";

export interface Access {
  mayRead(request: Request): boolean;
  mayWrite(request: Request): boolean;
  /** Whether the request carries the access token, as KV Connect does. */
  isFromClient(request: Request): boolean;
  /** False where no secret is set, so that no request could ever write. */
  readonly isWritePossible: boolean;
}

export interface AccessOptions {
  restSecret?: string;
  accessToken?: string;
  publicReads: boolean;
}

export function createAccess(options: AccessOptions): Access {
  const rest = options.restSecret ? new Secret(options.restSecret) : undefined;
  const token = options.accessToken
    ? new Secret(options.accessToken)
    : undefined;
  const holdsSecret = (request: Request) => {
    const header = request.headers.get("authorization");
    if (header === null) return false;
    if (rest?.matches(header)) return true;
    const bearer = bearerOf(header);
    if (bearer === undefined) return false;
    // Both are compared, whichever matches: no timing tells them apart.
    const isRest = rest?.matches(bearer) ?? false;
    const isToken = token?.matches(bearer) ?? false;
    return isRest || isToken;
  };
  return {
    mayRead: options.publicReads ? () => true : holdsSecret,
    mayWrite: holdsSecret,
    isFromClient(request) {
      const bearer = bearerOf(request.headers.get("authorization"));
      return bearer !== undefined && (token?.matches(bearer) ?? false);
    },
    isWritePossible: rest !== undefined || token !== undefined,
  };
}
