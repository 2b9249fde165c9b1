/**
 * Reading request bodies. What a client says about its body costs nothing:
 * memory is taken for what has arrived, all bodies under way share one
 * number of bytes, and each has a time limit. Only requests that have shown
 * their secret come here; what becomes of the others' bodies is in
 * unread_bodies.ts.
 */
import type { Bytes } from "../common/bytes.ts";
import { EMPTY_BYTES } from "../common/bytes.ts";
import type { Clock, Timer } from "../common/clock.ts";
import {
  InvalidRequestError,
  TooLargeError,
  UnavailableError,
} from "../common/errors.ts";

/** How long a body may take to arrive. */
const MAX_BODY_MS = 30_000;
const LOOK_EVERY_MS = 1000;
/**
 * Up to this length the runtime reads the body in one go and sets the claimed
 * length aside for it. Longer ones are read as they come.
 */
const MAX_WHOLE_BYTES = 4096;
/** What all bodies that are read as they come may hold at once. */
const MAX_BODIES_BYTES = 64 * 1024 * 1024;
/** Bodies under way at once: with the above, what all of them may hold. */
const MAX_BODIES = 16_384;
/** The first piece of memory for a body that is read as it comes. */
const FIRST_BYTES = 16 * 1024;

/** The body did not arrive in time. */
export class BodyTimeoutError extends Error {
  override name = "BodyTimeoutError";
}

/** A body on its way. */
interface Arrival {
  startedMs: number;
  /** Held for it at present. */
  heldBytes: number;
  stop(error: Error): void;
}

export class Bodies {
  /** Bodies that were given up for others. */
  shed = 0;
  private readonly arrivals = new Set<Arrival>();
  private held = 0;
  /**
   * One timer looks over all of them, and only while there are any: a timer
   * for each would cost more than reading most bodies.
   */
  private timer: Timer | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly maxBytes = MAX_BODIES_BYTES,
  ) {}

  get count(): number {
    return this.arrivals.size;
  }

  get heldBytes(): number {
    return this.held;
  }

  /**
   * The whole body.
   * @throws TooLargeError, BodyTimeoutError, UnavailableError (too many at
   *   once), InvalidRequestError (cut off, or coded in a way not known here)
   */
  read(request: Request, maxBytes: number): Promise<Bytes> {
    const header = request.headers.get("content-length");
    const length = header === null ? undefined : Number(header);
    if (length === 0) return Promise.resolve(EMPTY_BYTES);
    if (length !== undefined && length > maxBytes) {
      return Promise.reject(tooLarge(maxBytes));
    }
    if (this.arrivals.size >= MAX_BODIES) return Promise.reject(tooMany());
    this.timer ??= this.clock.every(LOOK_EVERY_MS, () => this.lookOver());
    if (length !== undefined && length <= MAX_WHOLE_BYTES) {
      return this.readWhole(request);
    }
    const coding = unknownCoding(request);
    if (coding !== undefined) {
      return Promise.reject(
        new InvalidRequestError(
          `The transfer coding "${coding}" is not known here: send the body as it is, or chunked. Nothing was done.`,
        ),
      );
    }
    return this.readParts(request, maxBytes, length);
  }

  private readWhole(request: Request): Promise<Bytes> {
    return new Promise((resolve, reject) => {
      const arrival: Arrival = {
        startedMs: this.clock.monotonicMs(),
        heldBytes: 0,
        stop: reject,
      };
      this.arrivals.add(arrival);
      (request.bytes() as Promise<Bytes>).then(
        (bytes) => {
          this.arrivals.delete(arrival);
          resolve(bytes);
        },
        () => {
          this.arrivals.delete(arrival);
          reject(cutOff());
        },
      );
    });
  }

  private async readParts(
    request: Request,
    maxBytes: number,
    length: number | undefined,
  ): Promise<Bytes> {
    const { body } = request;
    if (body === null) return EMPTY_BYTES;
    const reader = body.getReader();
    let stopped = undefined as Error | undefined;
    const arrival: Arrival = {
      startedMs: this.clock.monotonicMs(),
      heldBytes: 0,
      stop(error) {
        stopped ??= error;
        // The rest is thrown away as it comes; `read` below resolves.
        void reader.cancel().catch(() => {});
      },
    };
    this.arrivals.add(arrival);
    let whole: Bytes = EMPTY_BYTES;
    let count = 0;
    try {
      while (true) {
        const { value, done } = await reader.read();
        if (stopped) throw stopped;
        if (done) break;
        const end = count + value.length;
        if (end > maxBytes) throw tooLarge(maxBytes);
        if (end > whole.length) {
          const sizeBytes = length === undefined
            ? Math.min(doubled(end, whole.length), maxBytes)
            : roomFor(end, whole.length, length);
          this.hold(arrival, sizeBytes);
          if (stopped) throw stopped;
          const grown = new Uint8Array(sizeBytes);
          grown.set(count === whole.length ? whole : whole.subarray(0, count));
          whole = grown;
        }
        // Copied: a part of a few bytes may stand in a buffer of 64 KiB.
        whole.set(value, count);
        count = end;
      }
    } catch (error) {
      if (error !== stopped) void reader.cancel().catch(() => {});
      throw isOurs(error) ? error : cutOff();
    } finally {
      this.arrivals.delete(arrival);
      this.held -= arrival.heldBytes;
    }
    if (length !== undefined && count < length) throw cutOff();
    return count === whole.length ? whole : whole.slice(0, count);
  }

  /** Takes room for a body; where there is none, the largest one gives way. */
  private hold(arrival: Arrival, sizeBytes: number): void {
    this.held += sizeBytes - arrival.heldBytes;
    arrival.heldBytes = sizeBytes;
    while (this.held > this.maxBytes) {
      let largest = arrival;
      for (const other of this.arrivals) {
        if (other.heldBytes > largest.heldBytes) largest = other;
      }
      this.held -= largest.heldBytes;
      largest.heldBytes = 0;
      this.arrivals.delete(largest);
      this.shed++;
      largest.stop(tooMany());
      if (largest === arrival) return;
    }
  }

  private lookOver(): void {
    const now = this.clock.monotonicMs();
    for (const arrival of this.arrivals) {
      if (now - arrival.startedMs < MAX_BODY_MS) break;
      this.arrivals.delete(arrival);
      arrival.stop(
        new BodyTimeoutError(
          `The request body did not arrive within ${
            MAX_BODY_MS / 1000
          } s; nothing was done.`,
        ),
      );
    }
    if (this.arrivals.size > 0) return;
    this.timer?.stop();
    this.timer = undefined;
  }
}

/** A transfer coding other than the one that the runtime takes off. */
export function unknownCoding({ headers }: Request): string | undefined {
  const coding = headers.get("transfer-encoding");
  return coding === null || coding.toLowerCase() === "chunked"
    ? undefined
    : coding;
}

/** Room for `needed` bytes of the `length` that the client has told. */
function roomFor(needed: number, present: number, length: number): number {
  // Once a quarter is there, it is believed.
  return needed * 4 >= length ? length : doubled(needed, present);
}

function doubled(needed: number, present: number): number {
  return Math.max(needed, present * 2, FIRST_BYTES);
}

function isOurs(error: unknown): boolean {
  return error instanceof TooLargeError || error instanceof UnavailableError ||
    error instanceof BodyTimeoutError;
}

function cutOff(): InvalidRequestError {
  return new InvalidRequestError(
    "The request body was cut off; nothing was done.",
  );
}

function tooMany(): UnavailableError {
  return new UnavailableError(
    "More request bodies are on their way than this server keeps in memory. Nothing of this one was done; send it again.",
  );
}

function tooLarge(maxBytes: number): TooLargeError {
  return new TooLargeError(
    `The request body may have at most ${maxBytes} bytes; nothing was done.`,
  );
}
