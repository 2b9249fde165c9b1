/**
 * The bodies of requests that are answered without them: refusals, mostly of
 * strangers. An answer that overtakes its request's body ends in a reset of the
 * HTTP/2 stream, which clients report (curl: error 92) in place of the answer;
 * over HTTP/1.1 it ends the connection. So the answer waits for a body of a
 * usual size, for a moment. What arrives is thrown away: nothing is held.
 */
import type { Clock } from "../common/clock.ts";
import { unknownCoding } from "./body.ts";

/** How long an answer waits. Most bodies come with their headers. */
const MAX_WAIT_MS = 1000;
/** Larger ones are not waited for. */
const MAX_WAITED_BYTES = 1024 * 1024;
/** Answers that wait at once; past it they do not. */
const MAX_WAITING = 256;

export class UnreadBodies {
  private waiting = 0;

  constructor(private readonly clock: Clock) {}

  /**
   * Throws away what nobody has read of a request's body.
   * @returns what the answer should wait for; undefined where nothing is
   */
  discard(request: Request): Promise<void> | undefined {
    if (request.bodyUsed) return undefined;
    // Where a body's form is in doubt, so is what follows it: left alone, the
    // runtime ends the connection.
    if (unknownCoding(request) !== undefined) return undefined;
    const { body } = request;
    if (body === null || body.locked) return undefined;
    const reader = body.getReader();
    const claimedBytes = Number(request.headers.get("content-length") ?? 0);
    if (this.waiting >= MAX_WAITING || claimedBytes > MAX_WAITED_BYTES) {
      void reader.cancel().catch(() => {});
      return undefined;
    }
    return this.readAll(reader);
  }

  private async readAll(
    reader: ReadableStreamDefaultReader<Uint8Array>,
  ): Promise<void> {
    this.waiting++;
    // Ends `read` below; the rest is dropped as it comes.
    const cancel = () => void reader.cancel().catch(() => {});
    const timer = this.clock.after(MAX_WAIT_MS, cancel);
    try {
      let leftBytes = MAX_WAITED_BYTES;
      while (true) {
        const { done, value } = await reader.read();
        if (done) return;
        leftBytes -= value.length;
        if (leftBytes < 0) return cancel();
      }
    } catch {
      // The client has left; so will its answer.
    } finally {
      timer.stop();
      this.waiting--;
    }
  }
}
