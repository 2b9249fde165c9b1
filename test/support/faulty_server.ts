/**
 * A server on a disk with faults, and the memory of what it acknowledged: in
 * the end all of that has to be there.
 */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { fromUtf8, utf8 } from "../../src/common/bytes.ts";
import { encodeKey } from "../../src/protocol/key.ts";
import {
  Encoding,
  type Mutation,
  MutationType,
  NEVER_MS,
  type ReadRange,
} from "../../src/protocol/messages.ts";
import { KvClient, RefusedError } from "./kv_client.ts";
import { ACCESS_TOKEN, ServerProcess, TestFolder } from "./server.ts";
import { type FaultShim, faultShim } from "./shim.ts";
import { http1 } from "./transport.ts";

const STATE_LIMIT_MS = 60_000;

export function set(name: string, text: string): Mutation {
  return {
    type: MutationType.SET,
    key: encodeKey([name]),
    value: utf8(text),
    encoding: Encoding.BYTES,
    expireAtMs: NEVER_MS,
    sumMin: null,
    sumMax: null,
    sumClamp: false,
  };
}

export function point(name: string): ReadRange {
  const start = encodeKey([name]);
  const end = new Uint8Array(start.length + 1);
  end.set(start);
  return { start, end, limit: 1, reverse: false, isPoint: true };
}

/** A server that can be killed and started anew on the same file. */
export class WatchedServer implements AsyncDisposable {
  server!: ServerProcess;
  client!: KvClient;
  private isOpen = false;
  private readonly versions = new Set<number>();
  /** The newest acknowledged text and version of every key. */
  readonly acknowledged = new Map<string, { text: string; version: number }>();
  private lastVersion = 0;

  constructor(
    readonly path: string,
    private readonly env: Record<string, string> = {},
    private readonly args: string[] = [],
  ) {}

  async start(): Promise<void> {
    const { path, env, args } = this;
    this.server = await ServerProcess.start({ path, env, args });
    this.client = await KvClient.open(http1(this.server.url));
    this.isOpen = true;
  }

  /** As a power failure of the process alone: what was written stays. */
  async crash(): Promise<void> {
    this.leave();
    await this.server.kill();
  }

  /** In order; the test fails where its exit code says otherwise. */
  async stop(): Promise<void> {
    this.leave();
    assert.equal((await this.server.stop()).code, 0);
  }

  private leave(): void {
    if (this.isOpen) this.client.close();
    this.isOpen = false;
  }

  /** Sets keys in one atomic write; the test fails unless it is committed. */
  async put(entries: Record<string, string>): Promise<number> {
    const mutations = Object.entries(entries).map(([name, text]) =>
      set(name, text)
    );
    const version = await this.client.commit(mutations);
    assert.ok(!this.versions.has(version), "a versionstamp was issued twice");
    this.versions.add(version);
    for (const [name, text] of Object.entries(entries)) {
      const before = this.acknowledged.get(name)?.version ?? 0;
      if (version > before) this.acknowledged.set(name, { text, version });
    }
    return version;
  }

  /** The same, one after the other: versions have to increase. */
  async putNext(name: string, text: string): Promise<void> {
    const version = await this.put({ [name]: text });
    assert.ok(version > this.lastVersion, `${version} <= ${this.lastVersion}`);
    this.lastVersion = version;
  }

  /** A write that the server has to answer with 503 and a sentence. */
  async putRefused(name: string, text: string): Promise<string> {
    const error = await this.client.commit([set(name, text)]).then(
      () => assert.fail(`${name} was acknowledged`),
      (error: unknown) => error,
    );
    assert.ok(error instanceof RefusedError, String(error));
    assert.equal(error.status, 503);
    assert.match(error.sentence, /\.$/);
    return error.sentence;
  }

  async get(name: string): Promise<string | undefined> {
    const entry = (await this.client.read(point(name)))[0][0];
    return entry && fromUtf8(entry.value);
  }

  /** As its owner sees it; others are told the cause alone. */
  async readiness(): Promise<
    { status: number; cause?: string; reason?: string }
  > {
    const answer = await fetch(`${this.server.url}/-/ready`, {
      headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
    });
    const { cause, reason } = await answer.json();
    return { status: answer.status, cause, reason };
  }

  async untilReadiness(status: number): Promise<void> {
    await until(
      `readiness ${status}`,
      async () => (await this.readiness()).status === status,
    );
  }

  async metric(name: string): Promise<number> {
    return (await this.server.metrics()).get(name) ?? NaN;
  }

  /** Everything acknowledged is there, under its versionstamp. */
  async verify(): Promise<void> {
    for (const [name, { text, version }] of this.acknowledged) {
      const entry = (await this.client.read(point(name)))[0][0];
      assert.ok(entry, `${name} is lost`);
      assert.deepEqual([fromUtf8(entry.value), entry.version], [text, version]);
    }
  }

  /** The same after kill -9, and the file is whole. */
  async verifyAfterCrash(): Promise<void> {
    await this.crash();
    await this.start();
    await this.verify();
    await this.putNext("after the crash", "x");
    await this.stop();
    verifyIntegrity(this.path);
    await this.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.leave();
    await this.server?.[Symbol.asyncDispose]();
  }
}

export class FaultyServer extends WatchedServer {
  private constructor(
    private readonly folder: TestFolder,
    readonly shim: FaultShim,
    args: string[],
  ) {
    super(folder.database, shim.env, args);
  }

  /** Undefined, after printing SKIPPED, where faults cannot be made. */
  static async open(args: string[] = []): Promise<FaultyServer | undefined> {
    const folder = await TestFolder.make();
    const shim = await faultShim(folder.path);
    if (!shim) {
      await folder[Symbol.asyncDispose]();
      return undefined;
    }
    const server = new FaultyServer(folder, shim, args);
    await server.start();
    return server;
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await super[Symbol.asyncDispose]();
    await this.shim[Symbol.asyncDispose]();
    await this.folder[Symbol.asyncDispose]();
  }
}

/** Only while nothing in this process has the file open. */
export function verifyIntegrity(path: string): void {
  const db = new DatabaseSync(path);
  try {
    const rows = db.prepare("pragma integrity_check").all();
    assert.deepEqual(rows.map((row) => row.integrity_check), ["ok"]);
  } finally {
    db.close();
  }
}

/** Waits for something that shows only when asked for. */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + STATE_LIMIT_MS;
  while (!await holds()) {
    assert.ok(performance.now() < deadline, `never came: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
