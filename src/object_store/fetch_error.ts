/** What a failed `fetch` says: its own message hides the reason. */
import { messageOf } from "../common/errors.ts";

/** The error's message and, where there is one, that of its cause. */
export function withCause(error: unknown): string {
  const message = messageOf(error);
  const cause = error instanceof Error ? error.cause : undefined;
  if (!(cause instanceof Error)) return message;
  const address = /for url \((\w+:\/\/[^/)]+)/.exec(cause.message)?.[1];
  return /connection refused/i.test(cause.message) && address !== undefined
    ? `nothing listens at ${address}`
    : `${message}: ${cause.message}`;
}

/** One refusal follows another until the whole list has been given. */
export const ALL_PERMISSIONS =
  "docs/object-stores.md names all the permissions of this store.";

/**
 * The end of the sentence on a request whose answer is missing.
 * @param what the request, as in "Reading x"
 */
export function unknownOutcome(what: string): string {
  const changesNothing = /^(?:Reading|Listing|Looking) /.test(what);
  return changesNothing
    ? ". It can be tried again."
    : "; the store may have carried it out, or may still do so. It can be tried again.";
}
