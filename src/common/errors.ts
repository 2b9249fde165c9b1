/**
 * The few kinds of error that anyone outside a room has to tell apart, named
 * after what the caller does about them. Each message is a sentence for a
 * person: what happened, what state the data is in, what to do.
 */

/** The request is wrong and will stay wrong: change it. Nothing was applied. */
export class InvalidRequestError extends Error {
  override name = "InvalidRequestError";
}

/** The request is larger than a limit allows. Nothing was applied. */
export class TooLargeError extends Error {
  override name = "TooLargeError";
}

/** Not now, perhaps later: the same request may be sent again. */
export class UnavailableError extends Error {
  override name = "UnavailableError";
}

/**
 * A limit on how many may be open at once is reached. Clients repeat what is
 * merely unavailable several times a second; this one has to reach a person.
 */
export class TooManyError extends UnavailableError {
  override name = "TooManyError";
}

/** A flag, an argument or a setting is wrong: exit code 2. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** The server cannot start or go on as things are: exit code 1. */
export class StartupError extends Error {
  override name = "StartupError";
}

/**
 * This machine's own file or disk does not let us: it is full, say. What others
 * hold is whole, and the same may be tried again when there is room.
 */
export class LocalFileError extends StartupError {}

/** What an unknown thrown value says, without its stack. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
