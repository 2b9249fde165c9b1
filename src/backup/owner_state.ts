/** How a launch stands as the owner of a history. */
import { UnavailableError } from "../common/errors.ts";
import { ObjectStoreRefusedError } from "../object_store/object_store.ts";
import { UnreadableError } from "./manifest.ts";

/** Another instance owns the history now, or this one has given it up. */
export class FencedError extends UnavailableError {
  override name = "FencedError";
}

/** The store does not answer, or not as it should: to be tried again. */
export function isOutage(error: unknown): error is Error {
  return !(error instanceof FencedError) &&
    (error instanceof UnavailableError ||
      error instanceof UnreadableError ||
      error instanceof ObjectStoreRefusedError);
}

export type OwnerStanding =
  /** Its lease runs, or is renewed when somebody asks. */
  | { kind: "owner" }
  /** It serves without a lease, because the store does not answer. */
  | { kind: "cutOff"; sinceMs: number }
  /** It is giving the history up: nothing is tried without end any more. */
  | { kind: "releasing" }
  /** It has given it up, or lost it. For good. */
  | { kind: "ended"; error: FencedError };

/** The standing, as the parts of an ownership share it. */
export class OwnerState {
  now: OwnerStanding = { kind: "owner" };
  /** Resolves when the ownership is lost to another instance. */
  readonly lost: Promise<FencedError>;
  private readonly lostWith = Promise.withResolvers<FencedError>();

  constructor() {
    this.lost = this.lostWith.promise;
  }

  /** @throws FencedError where it has ended */
  requireOwner(): void {
    if (this.now.kind === "ended") throw this.now.error;
  }

  cutOff(sinceMs: number): void {
    if (this.now.kind === "owner") this.now = { kind: "cutOff", sinceMs };
  }

  reconnect(): void {
    if (this.now.kind === "cutOff") this.now = { kind: "owner" };
  }

  beginRelease(): void {
    if (this.now.kind !== "ended") this.now = { kind: "releasing" };
  }

  /** It was given up in order. */
  released(): void {
    const error = new FencedError(
      "This instance has handed the database over.",
    );
    this.now = { kind: "ended", error };
  }

  /** It is lost. @returns the error for all who ask from now on */
  fence(message: string): FencedError {
    const error = new FencedError(message);
    this.now = { kind: "ended", error };
    this.lostWith.resolve(error);
    return error;
  }
}
