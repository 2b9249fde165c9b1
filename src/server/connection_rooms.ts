/**
 * What the runtime keeps of the answers on one connection. Nobody can take it
 * back from a client that does not take it: 1,500 streams on eight connections
 * held the whole budget for as long as they liked, and everyone else's answers
 * were refused. So each connection has a small room of its own, and what does
 * not fit waits with nothing read.
 */
import { Budget } from "../common/budget.ts";
import type { Clock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import { type Client, nameOf } from "./client.ts";

/** For eight answers of any size. */
export const MAX_CONNECTION_BYTES = 1024 * 1024;
/** How long an answer waits for others on its connection, and how many may. */
const MAX_WAIT_MS = 15_000;
const MAX_WAITING = 1024;
const REFUSAL =
  "This connection has large answers on it that were not taken. Nothing was changed; take them, and ask again.";

export class ConnectionRooms {
  private readonly rooms = new Map<string, Budget>();
  /** Requests that have what they need already. */
  private readonly holders = new WeakSet<Client>();
  /** On all connections. */
  private waiting = 0;

  constructor(private readonly clock: Clock) {}

  /** Connections with an answer that is not taken. */
  get size(): number {
    return this.rooms.size;
  }

  /** Whether one more answer on this connection would have to wait. */
  isSpent(client: Client): boolean {
    if (this.rooms.size === 0) return false;
    const room = this.rooms.get(nameOf(client));
    return room !== undefined &&
      (room.waiting > 0 || room.usedBytes >= room.limitBytes);
  }

  /** Takes room for the request, until it is over; once is enough. */
  tryTake(client: Client, sizeBytes: number): boolean {
    if (this.holders.has(client)) return true;
    const name = nameOf(client);
    const room = this.roomOf(name);
    if (!room.tryTake(sizeBytes)) return false;
    this.hold(client, name, room, sizeBytes);
    return true;
  }

  /** @throws UnavailableError where it does not come, or nobody wants it */
  async take(
    client: Client,
    sizeBytes: number,
    signal: AbortSignal,
  ): Promise<void> {
    if (this.holders.has(client)) return;
    const name = nameOf(client);
    const room = this.roomOf(name);
    if (this.waiting >= MAX_WAITING) throw new UnavailableError(REFUSAL);
    this.waiting++;
    try {
      await room.take(sizeBytes, { signal });
    } finally {
      this.waiting--;
    }
    this.hold(client, name, room, sizeBytes);
  }

  private roomOf(name: string): Budget {
    let room = this.rooms.get(name);
    if (room === undefined) {
      room = new Budget({
        clock: this.clock,
        limitBytes: MAX_CONNECTION_BYTES,
        maxWaitMs: MAX_WAIT_MS,
        refusal: REFUSAL,
      });
      this.rooms.set(name, room);
    }
    return room;
  }

  private hold(
    client: Client,
    name: string,
    room: Budget,
    sizeBytes: number,
  ): void {
    this.holders.add(client);
    const over = () => {
      room.give(sizeBytes);
      if (room.usedBytes === 0) this.rooms.delete(name);
    };
    client.completed.then(over, over);
  }
}
