/**
 * Several instances of one database, as processes that are killed, paused and
 * stopped at random moments, under writes and reads that keep book: what was
 * acknowledged is never lost, never there twice, and never missed by a read.
 */
import assert from "node:assert/strict";
import { fromUtf8 } from "../../src/common/bytes.ts";
import { type Random, seededRandom } from "../../src/common/random.ts";
import { encodeKey } from "../../src/protocol/key.ts";
import { range } from "../../src/store/contract/support.ts";
import { KvClient, RefusedError } from "./kv_client.ts";
import { auditAll, Writer } from "./ledger.ts";
import { ServerProcess, type ServerSettings, TestFolder } from "./server.ts";
import { http1 } from "./transport.ts";

/** What does not answer for so long is left to itself, and asked no more. */
const PATIENCE_MS = 1000;
const LONGEST_PAUSE_MS = 3000;
/** The longest that nobody may acknowledge anything at all in a test. */
const LIMIT_MS = 60_000;
/** 10 s are what is promised; the rest is for a busy machine. */
const STOP_LIMIT_MS = 25_000;

export type Trouble =
  | "kill"
  | "killWithDisk"
  | "stop"
  | "pause"
  | "start"
  | "snapshot";

export interface ChaosOptions {
  seed: number;
  /** For so long there is trouble. */
  durationMs: number;
  /** Between two troubles, at the most. */
  everyMs: number;
  /** Of each instance; it is started with them again and again. */
  instances: Omit<ServerSettings, "path">[];
  troubles: readonly Trouble[];
  writers: number;
}

export interface ChaosOutcome {
  acknowledged: number;
  reads: number;
  /** What was done, and for how long nobody acknowledged anything after it. */
  troubles: { kind: Trouble; gapMs: number }[];
  /** How often the database got another owner. */
  epochs: number;
}

interface Place {
  settings: Omit<ServerSettings, "path">;
  folder: TestFolder;
  server: ServerProcess | undefined;
  isPaused: boolean;
}

/** Runs it, and fails where anything was lost or read too old. */
export async function runChaos(options: ChaosOptions): Promise<ChaosOutcome> {
  const places = await Promise.all(options.instances.map(async (settings) => ({
    settings,
    folder: await TestFolder.make(),
    server: undefined,
    isPaused: false,
  })));
  const chaos = new Chaos(options, places);
  try {
    return await chaos.run();
  } finally {
    await chaos.end();
    for (const { folder } of places) await folder[Symbol.asyncDispose]();
  }
}

class Chaos {
  private readonly random: Random;
  private readonly writers: Writer[] = [];
  /** Nobody waits for them: the server that has them is paused. */
  private readonly leftAlone: Promise<unknown>[] = [];
  private readonly clients = new Map<ServerProcess, KvClient>();
  private isOver = false;
  private failure: unknown;
  private acknowledged = 0;
  private reads = 0;
  private acknowledgedAtMs = performance.now();
  private gapMs = 0;
  private readonly troubles: { kind: Trouble; gapMs: number }[] = [];

  constructor(
    private readonly options: ChaosOptions,
    private readonly places: Place[],
  ) {
    this.random = seededRandom(options.seed);
  }

  async run(): Promise<ChaosOutcome> {
    const { durationMs, everyMs, writers, troubles } = this.options;
    for (const place of this.places) await this.start(place);
    const load = [
      ...Array.from({ length: writers }, (_, i) => this.write(`w${i}`)),
      this.read(),
    ].map((work) =>
      work.catch((error) => {
        this.failure ??= error;
      })
    );
    await this.untilMore(20);
    const first = await this.epoch();
    const endMs = performance.now() + durationMs;
    while (performance.now() < endMs) {
      this.check();
      const kind = troubles[this.random.below(troubles.length)];
      const place = this.places[this.random.below(this.places.length)];
      this.gapMs = 0;
      if (!await this.trouble(kind, place)) {
        await pause(20);
        continue;
      }
      await pause(this.random.below(everyMs));
      this.troubles.push({ kind, gapMs: Math.round(this.gapMs) });
    }
    // Everything comes back by itself.
    for (const place of this.places) {
      if (place.isPaused) this.resume(place);
      await this.start(place);
    }
    await this.untilMore(20);
    this.isOver = true;
    await Promise.all(load);
    await Promise.all(this.leftAlone);
    this.check();
    await this.audit();
    return {
      acknowledged: this.acknowledged,
      reads: this.reads,
      troubles: this.troubles,
      epochs: await this.epoch() - first,
    };
  }

  /** By whoever serves; one that just lost it refuses. */
  private async audit(): Promise<void> {
    const limitMs = performance.now() + LIMIT_MS;
    for (;;) {
      const client = await this.anyClient();
      try {
        if (client) return void await auditAll(this.writers, client);
      } catch (error) {
        if (!(error instanceof RefusedError)) throw error;
      }
      assert.ok(performance.now() < limitMs, "nobody serves any more");
    }
  }

  async end(): Promise<void> {
    this.isOver = true;
    for (const client of this.clients.values()) client.close();
    for (const { server } of this.places) await server?.kill();
  }

  private check(): void {
    if (this.failure) throw this.failure;
    for (const { server, settings } of this.places) {
      if (server === undefined || server.isRunning) continue;
      // One that is told to end when it is replaced may.
      if (settings.args?.includes("--exit-when-replaced")) continue;
      throw new Error(`an instance ended by itself: ${server.lastWords}`);
    }
  }

  // -------------------------------------------------------------- trouble

  private async trouble(kind: Trouble, place: Place): Promise<boolean> {
    const { server, folder, isPaused } = place;
    if (kind === "start") {
      if (server?.isRunning) return false;
      await this.start(place);
      return true;
    }
    if (server === undefined || isPaused) return false;
    if (!server.isRunning) return false;
    if (kind === "pause") {
      place.isPaused = true;
      server.signal("SIGSTOP");
      setTimeout(
        () => this.resume(place),
        this.random.below(LONGEST_PAUSE_MS),
      );
      return true;
    }
    if (kind === "snapshot") {
      const asked = fetch(`${server.url}/-/backup/snapshot`, {
        method: "POST",
        headers: { authorization: "denorocks" },
      });
      this.leftAlone.push(asked.then((answer) => answer.text(), () => {}));
      return true;
    }
    place.server = undefined;
    if (kind === "stop") {
      const { code, tookMs } = await server.stop();
      const isEnded = place.settings.args?.includes("--exit-when-replaced");
      if (!isEnded) assert.equal(code, 0, server.lastWords);
      assert.ok(tookMs < STOP_LIMIT_MS, `a stop took ${tookMs} ms`);
      return true;
    }
    await server.kill();
    if (kind === "killWithDisk") {
      await folder[Symbol.asyncDispose]();
      await Deno.mkdir(folder.path);
    }
    return true;
  }

  private resume(place: Place): void {
    place.isPaused = false;
    place.server?.signal("SIGCONT");
  }

  private async start(place: Place): Promise<void> {
    if (place.server?.isRunning) return;
    place.server = await ServerProcess.bound({
      ...place.settings,
      path: place.folder.database,
    });
  }

  /** The newest that any instance knows. */
  private async epoch(): Promise<number> {
    let epoch = 0;
    for (const { server, isPaused } of this.places) {
      if (!server?.isRunning || isPaused) continue;
      const metrics = await server.metrics();
      epoch = Math.max(epoch, metrics.get("denokv_backup_epoch") ?? 0);
    }
    return epoch;
  }

  // ----------------------------------------------------------------- load

  private async untilMore(count: number): Promise<void> {
    const goal = this.acknowledged + count;
    const limitMs = performance.now() + LIMIT_MS;
    while (this.acknowledged < goal) {
      this.check();
      if (performance.now() > limitMs) {
        const words = this.places.map(({ server }) => server?.lastWords);
        throw new Error(`nobody serves any more: ${words.join("\n---\n")}`);
      }
      await pause(20);
    }
  }

  private async write(name: string): Promise<void> {
    let count = 0;
    const begin = () => {
      const writer = new Writer(`${name}.${++count}`);
      this.writers.push(writer);
      return writer;
    };
    let writer = begin();
    while (!this.isOver) {
      const client = await this.anyClient();
      if (client === undefined) continue;
      const written = writer.write(client);
      const outcome = await within(written);
      if (outcome === true) this.noteAcknowledged();
      else if (outcome === false) await pause(10);
      else {
        this.leftAlone.push(written);
        writer = begin();
      }
    }
  }

  private noteAcknowledged(): void {
    const nowMs = performance.now();
    this.gapMs = Math.max(this.gapMs, nowMs - this.acknowledgedAtMs);
    this.acknowledgedAtMs = nowMs;
    this.acknowledged++;
  }

  /** From any instance, also one that has lost the database. */
  private async read(): Promise<void> {
    while (!this.isOver) {
      const writer = this.writers[this.random.below(this.writers.length)];
      const number = writer?.acknowledged.at(-1)?.number;
      const client = await this.someClient();
      if (client === undefined || number === undefined) {
        await pause(20);
        continue;
      }
      const key = encodeKey([writer.name, "a"]);
      const reading = client.read(
        range(key, new Uint8Array([...key, 0]), { limit: 1 }),
      ).then(([[entry]]) => {
        const seen = Number(fromUtf8(entry?.value ?? new Uint8Array()) ?? "0");
        assert.ok(
          seen >= number,
          `a read shows ${seen} after ${number} was acknowledged`,
        );
        this.reads++;
      }).catch((error) => {
        if (error instanceof assert.AssertionError) this.failure ??= error;
        if (error instanceof RefusedError) assert.ok(error.status >= 500);
      });
      if (await within(reading) === undefined) this.leftAlone.push(reading);
      await pause(5);
    }
  }

  /** Of one that serves, as far as is known. */
  private async anyClient(): Promise<KvClient | undefined> {
    for (const { server, isPaused } of this.places) {
      if (!server?.isRunning || isPaused) continue;
      const ready = await within(
        fetch(`${server.url}/-/ready`).then(
          async (answer) => [answer.status, await answer.text()],
          () => [0],
        ),
      );
      if (ready?.[0] !== 200) continue;
      const client = await this.clientOf(server);
      if (client) return client;
    }
    await pause(10);
    return undefined;
  }

  private someClient(): Promise<KvClient | undefined> {
    const { server } = this.places[this.random.below(this.places.length)];
    return server?.isRunning
      ? this.clientOf(server)
      : Promise.resolve(undefined);
  }

  /** One for the life of a process, so that its connections are old ones. */
  private async clientOf(
    server: ServerProcess,
  ): Promise<KvClient | undefined> {
    const known = this.clients.get(server);
    if (known) return known;
    const client = await within(
      KvClient.open(http1(server.url)).catch(() => undefined),
    );
    if (client) this.clients.set(server, client);
    return client;
  }
}

/** Undefined where it took too long; it goes on. */
async function within<T>(work: Promise<T>): Promise<T | undefined> {
  const late = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => late.resolve(undefined), PATIENCE_MS);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function pause(delayMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delayMs));
}
