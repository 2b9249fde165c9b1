/**
 * A request's body that goes out in small pieces, with a pause after each, so
 * that the thread serves others in between. A body in one piece is copied
 * twice and written to the connection in one go.
 *
 * A Blob, because the runtime announces the length of no other stream, and S3
 * demands it. Its own parts stay empty: the runtime asks for `size` and
 * `stream()`. One that did not would send nothing, and be refused by the store,
 * which knows the digest of what it should get.
 */
import type { Clock } from "../common/clock.ts";
import { sleep } from "../common/clock.ts";

export const PIECE_BYTES = 64 * 1024;

export class PacedBody extends Blob {
  constructor(
    private readonly data: Uint8Array,
    private readonly pauseMs: number,
    private readonly clock: Clock,
  ) {
    super();
  }

  override get size(): number {
    return this.data.length;
  }

  override stream(): ReadableStream<Uint8Array<ArrayBuffer>> {
    const { data, pauseMs, clock } = this;
    let at = 0;
    return new ReadableStream({
      async pull(controller) {
        if (at > 0) await sleep(clock, pauseMs);
        const piece = data.subarray(at, at + PIECE_BYTES);
        at += piece.length;
        controller.enqueue(piece as Uint8Array<ArrayBuffer>);
        if (at >= data.length) controller.close();
      },
    }, { highWaterMark: 0 });
  }
}
