/** Reading request bodies, with a limit on their size and on their time. */
import type { Bytes } from "../common/bytes.ts";
import { concatBytes } from "../common/bytes.ts";
import { type Clock, systemClock, type Timer } from "../common/clock.ts";
import { InvalidRequestError, TooLargeError } from "../common/errors.ts";

/** How long a body may take to arrive. */
const MAX_BODY_MS = 30_000;
const LOOK_EVERY_MS = 1000;

/** The body did not arrive in time. */
export class BodyTimeoutError extends Error {
  override name = "BodyTimeoutError";
}

interface Arrival {
  startedMs: number;
  reject(error: Error): void;
}

/**
 * Bodies on their way. One timer looks over all of them, and only while there
 * are any: a timer for each would cost more than reading most bodies.
 */
const arrivals = new Set<Arrival>();
let timer: Timer | undefined;

function lookOver(clock: Clock): void {
  const now = clock.monotonicMs();
  for (const arrival of arrivals) {
    if (now - arrival.startedMs < MAX_BODY_MS) break;
    arrivals.delete(arrival);
    arrival.reject(
      new BodyTimeoutError(
        `The request body did not arrive within ${
          MAX_BODY_MS / 1000
        } s; nothing was done.`,
      ),
    );
  }
  if (arrivals.size > 0) return;
  timer?.stop();
  timer = undefined;
}

/**
 * The whole body.
 * @throws TooLargeError, BodyTimeoutError, InvalidRequestError (cut off)
 */
export function readBody(
  request: Request,
  maxBytes: number,
): Promise<Bytes> {
  const length = request.headers.get("content-length");
  if (length !== null && Number(length) > maxBytes) {
    return Promise.reject(tooLarge(maxBytes));
  }
  const clock = systemClock;
  timer ??= clock.every(LOOK_EVERY_MS, () => lookOver(clock));
  return new Promise((resolve, reject) => {
    const arrival = { startedMs: clock.monotonicMs(), reject };
    arrivals.add(arrival);
    // With a length the server itself holds the body to it.
    const whole = length !== null
      ? request.bytes() as Promise<Bytes>
      : gather(request, maxBytes);
    whole.then(
      (bytes) => {
        arrivals.delete(arrival);
        resolve(bytes);
      },
      (error) => {
        arrivals.delete(arrival);
        reject(
          error instanceof TooLargeError ? error : new InvalidRequestError(
            "The request body was cut off; nothing was done.",
          ),
        );
      },
    );
  });
}

async function gather(request: Request, maxBytes: number): Promise<Bytes> {
  if (request.body === null) return new Uint8Array(0);
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of request.body) {
    length += part.length;
    if (length > maxBytes) throw tooLarge(maxBytes);
    parts.push(part);
  }
  return concatBytes(parts);
}

/** A refused request's body is read up to this size, and thrown away. */
const MAX_REFUSED_BODY_BYTES = 65_536;

/**
 * A refusal, held back until the body that it refuses is in: over HTTP/2 an
 * answer that overtakes it ends in a reset of the stream, and clients report
 * that (curl: error 92) in place of the sentence.
 */
export function afterBody(
  request: Request,
  refusal: Response,
): Response | Promise<Response> {
  if (request.body === null || request.bodyUsed) return refusal;
  const answer = () => refusal;
  return readBody(request, MAX_REFUSED_BODY_BYTES).then(answer, answer);
}

function tooLarge(maxBytes: number): TooLargeError {
  return new TooLargeError(
    `The request body may have at most ${maxBytes} bytes; nothing was done.`,
  );
}
