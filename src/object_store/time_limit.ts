/** How a request to a store is bounded: by time, by its caller, by `close`. */
import type { Clock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import { unknownOutcome } from "./fetch_error.ts";
import type { RequestOptions } from "./object_store.ts";

export interface Limits {
  clock: Clock;
  /** Where a call names no limit of its own, in ms. */
  timeoutMs: number;
  /** Aborted, with an error as its reason, when the store closes. */
  closed: AbortSignal;
}

/**
 * Runs one request, and settles no later than its limits say even if the
 * request does not heed the signal it is given. Its late answer is dropped.
 *
 * @param what the request, as in "reading x": begins the error's sentence
 */
export function withinLimits<T>(
  limits: Limits,
  options: RequestOptions | undefined,
  what: string,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const timeoutMs = options?.timeoutMs ?? limits.timeoutMs;
  const ends = options?.signal === undefined
    ? [limits.closed]
    : [limits.closed, options.signal];
  for (const end of ends) {
    if (end.aborted) return Promise.reject(end.reason);
  }

  return new Promise<T>((resolve, reject) => {
    const controller = new AbortController();
    const giveUp = (reason: unknown) => {
      release();
      reject(reason);
      controller.abort(reason);
    };
    const onEnd = (event: Event) =>
      giveUp((event.target as AbortSignal).reason);
    const timer = limits.clock.after(timeoutMs, () =>
      giveUp(
        new UnavailableError(
          `${what} took longer than ${timeoutMs} ms and was given up${
            unknownOutcome(what)
          }`,
        ),
      ));
    const release = () => {
      timer.stop();
      for (const end of ends) end.removeEventListener("abort", onEnd);
    };
    for (const end of ends) end.addEventListener("abort", onEnd);
    run(controller.signal).then(
      (value) => {
        release();
        resolve(value);
      },
      (error) => {
        release();
        reject(error);
      },
    );
  });
}

/** What `Limits.closed` is aborted with. */
export function closedError(url: string): UnavailableError {
  return new UnavailableError(`The object store ${url} has been closed.`);
}

/**
 * Runs `work` over the items, at most `width` at once. The first error stops
 * new work and is thrown when what was begun has ended.
 */
export async function inParallel<T>(
  items: readonly T[],
  width: number,
  work: (item: T, index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  let failed = false;
  const lane = async () => {
    while (next < items.length && !failed) {
      const index = next++;
      try {
        await work(items[index], index);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const lanes = Array.from({ length: Math.min(width, items.length) }, lane);
  const results = await Promise.allSettled(lanes);
  for (const result of results) {
    if (result.status === "rejected") throw result.reason;
  }
}
