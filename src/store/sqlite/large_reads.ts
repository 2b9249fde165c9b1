/**
 * Reads that are too large for one turn of the serving thread: on a connection
 * and in a snapshot of their own, slice by slice, with other requests in
 * between. One at a time: each holds what it has read in memory.
 */
import type { Clock } from "../../common/clock.ts";
import { messageOf, UnavailableError } from "../../common/errors.ts";
import type { Entry, ReadRange } from "../../protocol/messages.ts";
import { openConnection, waitNoMore } from "./connection.ts";
import { Pieces, restOf } from "./pieces.ts";
import { Reader } from "./reader.ts";

export class LargeReads {
  private line: Promise<unknown> = Promise.resolve();
  /** The one that has the file open. */
  private running: Promise<unknown> | undefined;
  /** Set while the file may have no connection but the writer's. */
  private suspended: PromiseWithResolvers<void> | undefined;
  private isClosed = false;
  private readonly pieces = new Pieces();

  constructor(private readonly path: string, private readonly clock: Clock) {}

  /**
   * All ranges from one snapshot, the newest at some moment from now on. What
   * is committed there may not be durable yet.
   * @throws UnavailableError where the file cannot be read
   */
  read(ranges: readonly ReadRange[]): Promise<Entry[][]> {
    const answer = this.line.then(async () => {
      while (this.suspended) await this.suspended.promise;
      if (this.isClosed) throw closed();
      const running = this.readNow(ranges);
      this.running = running.catch(() => {});
      return await running;
    });
    // The next in line does not care how this one ended.
    this.line = answer.catch(() => {});
    return answer;
  }

  private async readNow(ranges: readonly ReadRange[]): Promise<Entry[][]> {
    const { clock, pieces } = this;
    let db: ReturnType<typeof openConnection> | undefined;
    try {
      db = openConnection(this.path, true);
      waitNoMore(db);
      const reader = new Reader(db, clock);
      db.exec("begin");
      const nowMs = clock.nowMs();
      const answer: Entry[][] = [];
      for (const range of ranges) {
        const entries: Entry[] = [];
        answer.push(entries);
        let rest = range;
        while (true) {
          const left = range.limit - entries.length;
          const piece = pieces.next(reader, rest, nowMs, left);
          for (const entry of piece.entries) entries.push(entry);
          if (piece.isLast) break;
          rest = restOf(rest, piece.entries);
          await this.turn();
        }
      }
      return answer;
    } catch (error) {
      throw new UnavailableError(
        `The database could not be read (${
          messageOf(error)
        }). Nothing was changed; ask again.`,
      );
    } finally {
      db?.close();
    }
  }

  private turn(): Promise<void> {
    return new Promise((resolve) => this.clock.endOfTurn(resolve));
  }

  /** Waits for the read that runs; the next ones wait until `resume`. */
  async suspend(): Promise<void> {
    this.suspended ??= Promise.withResolvers();
    await this.running;
  }

  resume(): void {
    this.suspended?.resolve();
    this.suspended = undefined;
  }

  /** Waits for the read that runs; the next ones are refused. */
  async close(): Promise<void> {
    this.isClosed = true;
    this.resume();
    await this.running;
  }
}

function closed(): UnavailableError {
  return new UnavailableError(
    "The server is stopping; nothing of the data was changed.",
  );
}
