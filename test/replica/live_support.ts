/** A primary and live replicas of it in this process, over real connections. */
import assert from "node:assert/strict";
import { systemClock } from "../../src/common/clock.ts";
import { silentLogger } from "../../src/common/log.ts";
import { systemRandom } from "../../src/common/random.ts";
import { LiveSource } from "../../src/replica/live_source.ts";
import { Replica } from "../../src/replica/replica.ts";
import type { Source } from "../../src/replica/source.ts";
import { StreamSource } from "../../src/replica/stream_source.ts";
import { type RunningServer, startServer } from "../../src/server/server.ts";
import { SqliteReplicaEngine } from "../../src/store/sqlite/replica_engine.ts";
import { openSqliteStore } from "../../src/store/sqlite/store.ts";
import { atomic, range, set } from "../../src/store/contract/support.ts";
import type { ReadRange } from "../../src/protocol/messages.ts";
import type { Store } from "../../src/store/store.ts";

const TOKEN = "a token of the tests";

/** Each commit sets all of them to one number: any other state never was. */
const NAMES = ["a", "b", "c", "d", "e", "f"];

export class Primary implements AsyncDisposable {
  store!: Store;
  server!: RunningServer;
  /** The number of each commit, by its version. */
  readonly history = new Map<number, number>();
  number = 0;

  private constructor(
    readonly folder: string,
    private readonly port: number,
    private readonly maxLogBytes: number | undefined,
  ) {}

  static async start(
    folder: string,
    maxLogBytes?: number,
    port = 0,
  ): Promise<Primary> {
    const primary = new Primary(folder, port, maxLogBytes);
    await primary.open();
    return primary;
  }

  async open(port = this.port): Promise<void> {
    this.store = await openSqliteStore({
      path: `${this.folder}/primary.sqlite`,
      maxLogBytes: this.maxLogBytes,
    });
    this.server = startServer({
      store: this.store,
      clock: systemClock,
      logger: silentLogger,
      hostname: "127.0.0.1",
      port,
      version: "0",
      accessToken: TOKEN,
      publicReads: false,
      maxInFlightBytes: 64 * 1024 * 1024,
      replicaRetainedBytes: 4 * 1024 * 1024,
      changesRetainedBytes: 4 * 1024 * 1024,
      corsOrigins: [],
      logsAccess: false,
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.server.port}`;
  }

  /** The same file, on the same port. */
  async restart(): Promise<void> {
    const { port } = this.server;
    await this.close();
    await this.open(port);
  }

  async write(padding = ""): Promise<number> {
    const number = ++this.number;
    const outcome = await this.store.write(
      atomic(NAMES.map((name) => set(name, `${number} ${padding}`))),
    );
    assert.equal(outcome.status, "committed");
    const { version } = outcome as { version: number };
    this.history.set(version, number);
    return version;
  }

  async close(): Promise<void> {
    await this.server.drain(5000);
    await this.store.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

export class LiveReplica implements AsyncDisposable {
  private replica!: Replica;
  private started!: Promise<unknown>;
  private lastNumber = 0;
  private lastVersion = 0;

  private constructor(
    private readonly path: string,
    private readonly url: string,
    private readonly bucket?: () => Source,
  ) {}

  static start(
    path: string,
    url: string,
    bucket?: () => Source,
  ): LiveReplica {
    const live = new LiveReplica(path, url, bucket);
    live.open();
    return live;
  }

  open(): void {
    const { path, url } = this;
    const stream = new StreamSource({
      url,
      accessToken: TOKEN,
      clock: systemClock,
      databaseId: () => this.replica.databaseId,
    });
    this.replica = new Replica({
      engine: new SqliteReplicaEngine({
        path,
        clock: systemClock,
        random: systemRandom,
        logger: silentLogger,
        maxWatches: 100,
        keepsHistory: false,
      }),
      source: new LiveSource({
        stream,
        bucket: this.bucket?.(),
        clock: systemClock,
        logger: silentLogger,
      }),
      clock: systemClock,
      logger: silentLogger,
    });
    this.started = this.replica.start(() => {});
    this.started.catch(() => {});
  }

  get report() {
    return this.replica.report();
  }

  get version(): number {
    return this.replica.report().version;
  }

  read(ranges: ReadRange[]) {
    return this.replica.store.read(ranges);
  }

  /** What it shows is a state that the primary had, and no earlier one. */
  check(history: Map<number, number>): void {
    if (!this.replica.store.isOpen) return;
    const found = this.replica.store.read([range("a", "g")]) as {
      value: Uint8Array;
      version: number;
    }[][];
    const [entries] = found;
    if (entries.length === 0) return assert.equal(this.lastNumber, 0);
    assert.equal(entries.length, NAMES.length);
    const versions = new Set(entries.map(({ version }) => version));
    assert.equal(versions.size, 1, "a state that never was");
    const [version] = versions;
    const numbers = entries.map(({ value }) =>
      Number(new TextDecoder().decode(value).split(" ")[0])
    );
    const number = history.get(version);
    // A commit may be applied here before its writer was told.
    if (number !== undefined) {
      assert.ok(numbers.every((each) => each === number));
    }
    assert.equal(new Set(numbers).size, 1);
    assert.ok(version >= this.lastVersion, "it went back");
    assert.ok(numbers[0] >= this.lastNumber, "it went back");
    this.lastVersion = version;
    this.lastNumber = numbers[0];
  }

  async until(
    what: string,
    holds: () => boolean,
    withinMs = 60_000,
  ): Promise<void> {
    const failed = this.started.then(() => {});
    failed.catch(() => {});
    const untilMs = performance.now() + withinMs;
    while (!holds()) {
      assert.ok(performance.now() < untilMs, `never came: ${what}`);
      await Promise.race([
        failed,
        new Promise((resolve) => setTimeout(resolve, 5)),
      ]);
    }
  }

  reaches(version: number): Promise<void> {
    return this.until(
      `version ${version}`,
      () => this.replica.store.isOpen && this.version >= version,
    );
  }

  async stop(): Promise<void> {
    await this.replica.close();
  }

  async restart(): Promise<void> {
    await this.stop();
    this.open();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
