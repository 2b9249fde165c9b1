/**
 * The stream of a KV Connect watch: frames as the consumer takes them, and a
 * keep-alive now and then for the proxies in between.
 */
import type { Bytes } from "../common/bytes.ts";
import type { Clock, Timer } from "../common/clock.ts";
import { encodeWatchFrame, WATCH_PING } from "../protocol/datapath.ts";
import type { Watch } from "../store/store.ts";

const PING_INTERVAL_MS = 5000;

/**
 * Watches on one connection. An HTTP/2 connection carries at most 200 streams
 * at once here, and a client whose watches take them all hangs in its next
 * write without an error.
 */
const MAX_WATCHES_PER_CONNECTION = 128;

interface Open {
  ping(): void;
  end(): void;
}

export class WatchStreams {
  private readonly open = new Set<Open>();
  private readonly perConnection = new Map<string, number>();
  private timer: Timer | undefined;

  constructor(private readonly clock: Clock) {}

  /** Whether this connection may carry one more; why not, in a sentence. */
  refusal(connection: string): string | undefined {
    const count = this.perConnection.get(connection) ?? 0;
    if (count < MAX_WATCHES_PER_CONNECTION) return undefined;
    return `This connection carries ${count} watches, which is the limit: with more, the other requests on it would hang. Open another Deno.openKv handle, or watch up to 10 keys at once.`;
  }

  /** The body of the answer to a watch. */
  stream(watch: Watch, connection: string): ReadableStream<Bytes> {
    this.perConnection.set(
      connection,
      (this.perConnection.get(connection) ?? 0) + 1,
    );
    let hasFrame = false;
    let isOpen = true;
    let out: ReadableStreamDefaultController<Bytes>;
    const leave = () => {
      if (!isOpen) return;
      isOpen = false;
      watch.cancel();
      this.leave(entry, connection);
    };
    const entry: Open = {
      ping: () => {
        // The first frame comes first, and a slow consumer needs no ping.
        if (hasFrame && (out.desiredSize ?? 0) > 0) out.enqueue(WATCH_PING);
      },
      end: () => {
        if (!isOpen) return;
        leave();
        out.close();
      },
    };
    this.open.add(entry);
    this.timer ??= this.clock.every(PING_INTERVAL_MS, () => this.pingAll());
    return new ReadableStream<Bytes>({
      start: (controller) => {
        out = controller;
      },
      pull: async () => {
        try {
          const state = await watch.next();
          if (!isOpen || state === null) return;
          hasFrame = true;
          // Every key in every frame, changed or not: Deno 2.9.6 shows a key
          // that a later frame calls unchanged as absent. The Rust server
          // sends all of them too.
          const all = state.entries.map(() => true);
          out.enqueue(encodeWatchFrame(state.entries, all));
        } catch {
          // The store fails or closes: the client opens the watch again.
          entry.end();
        }
      },
      cancel: leave,
    });
  }

  private leave(entry: Open, connection: string): void {
    this.open.delete(entry);
    const left = (this.perConnection.get(connection) ?? 1) - 1;
    if (left > 0) this.perConnection.set(connection, left);
    else this.perConnection.delete(connection);
    if (this.open.size > 0) return;
    this.timer?.stop();
    this.timer = undefined;
  }

  private pingAll(): void {
    for (const entry of this.open) entry.ping();
  }

  /** Ends every stream in order, as before a shutdown. */
  endAll(): void {
    for (const entry of [...this.open]) entry.end();
  }
}
