/** What a failed `fetch` says: its own message hides the reason. */
import { messageOf } from "../common/errors.ts";

/** The error's message and, where there is one, that of its cause. */
export function withCause(error: unknown): string {
  const message = messageOf(error);
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof Error ? `${message}: ${cause.message}` : message;
}
