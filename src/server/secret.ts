/** Comparing secrets. */
import { utf8 } from "../common/bytes.ts";

/**
 * Compares what a client sent with a secret, in a time that depends on the
 * length of what was sent alone. A missing secret matches nothing.
 */
export class Secret {
  private readonly bytes: Uint8Array;

  constructor(secret: string) {
    this.bytes = utf8(secret);
  }

  matches(sent: string): boolean {
    const { bytes } = this;
    const given = utf8(sent);
    let difference = given.length ^ bytes.length;
    for (let i = 0; i < given.length; i++) {
      difference |= given[i] ^ bytes[i % bytes.length];
    }
    return difference === 0 && bytes.length > 0;
  }
}

/** What follows `Bearer ` in an authorization header; undefined where absent. */
export function bearerOf(authorization: string | null): string | undefined {
  if (authorization === null || authorization.length < 7) return undefined;
  return authorization.slice(0, 7).toLowerCase() === "bearer "
    ? authorization.slice(7)
    : undefined;
}
