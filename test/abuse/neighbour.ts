/**
 * The well-behaved client next to an attack: a few small requests, one after
 * the other, over both HTTP versions. It measures how long each one takes, and
 * holds the server to what it says: its own writes are read, and watched.
 */
import assert from "node:assert/strict";
import { fromUtf8 } from "../../src/common/bytes.ts";
import { key, point, set } from "../../src/store/contract/support.ts";
import { KvClient, type RawWatch } from "../support/kv_client.ts";
import { REST_SECRET } from "../support/server.ts";
import {
  http1,
  http2Connection,
  request,
  type Transport,
} from "../support/transport.ts";

/** Between two rounds, so that it is a client and no load. */
const PAUSE_MS = 5;
/** A request without an answer for so long has none. */
const HANG_MS = 30_000;
const LOOK_EVERY_MS = 10;

/**
 * How long this process could not run while it had to: of the time that a
 * request took, that part is no fault of the server.
 */
class OwnStalls {
  totalMs = 0;
  private lastMs = performance.now();
  private readonly timer = setInterval(() => this.look(), LOOK_EVERY_MS);

  private look(): void {
    const nowMs = performance.now();
    this.totalMs += Math.max(0, nowMs - this.lastMs - 2 * LOOK_EVERY_MS);
    this.lastMs = nowMs;
  }

  stop(): void {
    clearInterval(this.timer);
  }
}

export interface NeighbourSettings {
  url: string;
  /** Where writes have to wait, as while an fsync hangs. */
  readsOnly?: boolean;
}

export class Neighbour {
  requests = 0;
  worst = { ms: 0, what: "nothing" };
  /** What it got and did not expect; the first one ends its round. */
  readonly failures: string[] = [];
  private isStopped = false;
  private readonly stalls = new OwnStalls();
  private readonly loops: Promise<void>[] = [];
  private readonly closing: (() => void)[] = [];
  private readonly rounds = new Map<string, number>();
  private onRound: () => void = () => {};

  private constructor(private readonly settings: NeighbourSettings) {}

  static async open(settings: NeighbourSettings): Promise<Neighbour> {
    const neighbour = new Neighbour(settings);
    const { url } = settings;
    for (const transport of [http1(url), http2Connection(url)]) {
      const client = await KvClient.open(transport);
      const name = `neighbour ${transport.name}`;
      await client.commit([set(name, "0")]);
      const watch = await client.watch([key(name)]);
      await watch.frames.next();
      neighbour.closing.push(() => {
        watch.cancel();
        transport.close();
      });
      neighbour.rounds.set(name, 0);
      neighbour.loops.push(neighbour.loop(client, watch, name));
    }
    return neighbour;
  }

  private async loop(
    client: KvClient,
    watch: RawWatch,
    name: string,
  ): Promise<void> {
    const { transport } = client;
    let round = 0;
    let text = "0";
    while (!this.isStopped && this.failures.length === 0) {
      await this.measured(`health over ${transport.name}`, async () => {
        assert.equal((await get(transport, "/-/health")).status, 200);
      });
      await this.measured(`a read over ${transport.name}`, async () => {
        const [[entry]] = await client.read(point(name));
        assert.equal(fromUtf8(entry.value), text);
      });
      if (!this.settings.readsOnly) {
        text = `${round + 1}`;
        await this.measured(
          `a write over ${transport.name}`,
          () => client.commit([set(name, text)]),
        );
        await this.measured(`a watch over ${transport.name}`, async () => {
          const { value } = await watch.frames.next();
          assert.equal(fromUtf8(value.entries[0].value), text);
        });
      }
      await this.measured(`REST over ${transport.name}`, async () => {
        const answer = await get(transport, `/${encodeURIComponent(name)}`, {
          authorization: REST_SECRET,
        });
        assert.equal(fromUtf8(answer.body), text);
      });
      this.rounds.set(name, ++round);
      this.onRound();
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    this.onRound();
  }

  private async measured(
    what: string,
    work: () => Promise<unknown>,
  ): Promise<void> {
    if (this.failures.length > 0) return;
    const startedMs = performance.now();
    const stalledMs = this.stalls.totalMs;
    let hang: ReturnType<typeof setTimeout> | undefined;
    try {
      const hanging = new Promise<never>((_, reject) => {
        hang = setTimeout(
          () => reject(new Error(`no answer within ${HANG_MS} ms`)),
          HANG_MS,
        );
      });
      await Promise.race([work(), hanging]);
    } catch (error) {
      this.failures.push(`${what}: ${error}`);
    } finally {
      clearTimeout(hang);
    }
    this.requests++;
    const tookMs = performance.now() - startedMs;
    const ms = tookMs - (this.stalls.totalMs - stalledMs);
    if (ms > this.worst.ms) this.worst = { ms, what };
  }

  /** Waits until it has been through so many more rounds, or has failed. */
  async goRounds(count: number): Promise<void> {
    const wanted = [...this.rounds].map(([name, done]) =>
      [name, done + count] as const
    );
    const isThere = () =>
      this.failures.length > 0 ||
      wanted.every(([name, at]) => this.rounds.get(name)! >= at);
    while (!isThere()) {
      await new Promise<void>((resolve) => this.onRound = resolve);
    }
  }

  async stop(): Promise<void> {
    this.isStopped = true;
    await Promise.all(this.loops);
    for (const close of this.closing) close();
    this.stalls.stop();
  }
}

const get = (
  transport: Transport,
  path: string,
  headers?: Record<string, string>,
) => request(transport, "GET", path, headers);
