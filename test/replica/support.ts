/** A primary that keeps what it was at every version, and its replicas. */
import assert from "node:assert/strict";
import { encodeKey } from "../../src/protocol/key.ts";
import { mutation, range, set } from "../../src/store/contract/support.ts";
import { type Mutation, MutationType } from "../../src/protocol/messages.ts";
import { KvClient } from "../support/kv_client.ts";
import {
  ACCESS_TOKEN,
  type BackedUpTo,
  ServerProcess,
  type ServerSettings,
} from "../support/server.ts";
import { http1 } from "../support/transport.ts";

/** A whole database, as text: what two of them are compared by. */
export type State = string;

const EVERYTHING = range(encodeKey([]), new Uint8Array([0xff]));
/** Keys that mutations of {@linkcode History} touch. */
const KEYS = 12;

export async function stateOf(client: KvClient): Promise<State> {
  const [entries] = await client.read(EVERYTHING);
  return entries.map(({ key, value, version }) =>
    `${key.toHex()}=${value.toHex()}@${version}`
  ).join("\n");
}

/** What the primary was after each of its commits, in their order. */
export class History {
  readonly states: State[] = [];
  private count = 0;

  constructor(public client: KvClient, first: State) {
    this.states.push(first);
  }

  static async of(server: ServerProcess): Promise<History> {
    const client = await KvClient.open(http1(server.url));
    return new History(client, await stateOf(client));
  }

  get last(): State {
    return this.states.at(-1)!;
  }

  /** Sets some keys and deletes one, in one commit. */
  async commit(): Promise<void> {
    const i = this.count++;
    const mutations: Mutation[] = [
      set(`key ${i % KEYS}`, `${i}`),
      set("all", `${i}`),
    ];
    if (i % 3 === 0) {
      const key = `key ${(i * 7 + 1) % KEYS}`;
      if (key !== `key ${i % KEYS}`) {
        mutations.push(mutation(MutationType.DELETE, key));
      }
    }
    await this.write(mutations);
  }

  /** Another primary goes on; a last write may have been made unheard. */
  async goOn(server: ServerProcess): Promise<void> {
    this.client.close();
    this.client = await KvClient.open(http1(server.url));
    const state = await stateOf(this.client);
    if (state !== this.last) this.states.push(state);
  }

  async write(mutations: Mutation[]): Promise<void> {
    await this.client.commit(mutations);
    this.states.push(await stateOf(this.client));
  }
}

/**
 * Reads a replica again and again: each answer has to be a state that the
 * primary had, and none may be earlier than the one before.
 */
export class Observer {
  answers = 0;
  private at = 0;
  private isEnded = false;
  private readonly running: Promise<void>;

  constructor(
    private readonly url: () => string,
    private readonly history: () => readonly State[],
  ) {
    this.running = this.run();
    // Told by `end`.
    this.running.catch(() => {});
  }

  private async run(): Promise<void> {
    let client: KvClient | undefined;
    while (!this.isEnded) {
      let state: State;
      try {
        client ??= await KvClient.open(http1(this.url()));
        state = await stateOf(client);
      } catch {
        // Killed, or not there yet; another connection may see another one.
        client?.close();
        client = undefined;
        await new Promise((resolve) => setTimeout(resolve, 20));
        continue;
      }
      // The primary answers its writer after the replica may have had it.
      const at = await this.find(state);
      assert.ok(at >= 0, `a state that the primary never had:\n${state}`);
      assert.ok(at >= this.at, `back from state ${this.at} to ${at}`);
      this.at = at;
      this.answers++;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    client?.close();
  }

  /**
   * The first time from the last answer on that the primary was in the state:
   * after a rewind it is once more what it was. A write whose primary was
   * killed shows when the next one is there.
   */
  private async find(state: State): Promise<number> {
    for (let tries = 0; tries < 3000; tries++) {
      const at = this.history().indexOf(state, this.at);
      if (at >= 0) return at;
      if (this.isEnded && tries > 200) break;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return this.history().indexOf(state);
  }

  async end(): Promise<void> {
    this.isEnded = true;
    await this.running;
  }
}

export function replicaArgs({ url, endpoint }: BackedUpTo): string[] {
  return [
    "--replica-from",
    url,
    ...(endpoint ? ["--s3-endpoint", endpoint] : []),
    "--replica-interval",
    "200ms",
  ];
}

export function startReplica(
  path: string,
  backup: BackedUpTo,
  more: Partial<ServerSettings> = {},
): Promise<ServerProcess> {
  return ServerProcess.start({
    ...more,
    path,
    reaches: backup,
    env: { ...backup.env, ...more.env },
    args: [...replicaArgs(backup), ...more.args ?? []],
  });
}

/** The state that a replica is asked for, within a generous time. */
export async function comesTo(
  server: ServerProcess,
  wanted: () => State,
  withinMs = 30_000,
): Promise<void> {
  const deadlineMs = Date.now() + withinMs;
  let state = "";
  while (Date.now() < deadlineMs) {
    const client = await KvClient.open(http1(server.url));
    try {
      state = await stateOf(client);
    } finally {
      client.close();
    }
    if (state === wanted()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.equal(state, wanted(), server.lastWords);
}

export async function readiness(
  server: ServerProcess,
  // deno-lint-ignore no-explicit-any -- the test says what it expects of it
): Promise<any> {
  const answer = await fetch(`${server.url}/-/ready`, {
    headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
  });
  return await answer.json();
}
