/**
 * Runs a store and the model side by side, in rounds: writes are started
 * without waiting for each other, reads go in between, then all is awaited
 * and compared; now and then time moves on or the store is opened anew.
 */
import assert from "node:assert/strict";
import { ManualClock } from "../../src/common/manual_clock.ts";
import { seededRandom } from "../../src/common/random.ts";
import type {
  Entry,
  ReadRange,
  WriteOutcome,
} from "../../src/protocol/messages.ts";
import {
  eventually,
  everything,
  START_MS,
  turns,
} from "../../src/store/contract/support.ts";
import type { Store } from "../../src/store/store.ts";
import type { StorePlace } from "../../src/store/store_contract.ts";
import { FollowedWatch } from "./followed_watch.ts";
import { Generator } from "./generator.ts";
import {
  describeEntry,
  describeRange,
  Model,
  type Snapshot,
  toAtomicWrite,
  type Write,
} from "./model.ts";

const MOST_WATCHES = 6;

interface StartedWrite {
  write: Write;
  outcome: Promise<WriteOutcome>;
}

interface StartedRead {
  ranges: ReadRange[];
  lists: Entry[][] | Promise<Entry[][]>;
  /** How many writes of the round had been acknowledged when it was asked. */
  acknowledged: number;
}

export interface ModelRun {
  operations: number;
  committed: number;
  checkFailed: number;
  refused: number;
  watchStates: number;
  reopened: number;
}

/**
 * @param operations how many writes, reads and time steps to go through
 * @throws AssertionError at the first answer that the model does not give
 */
export async function runModel(
  place: StorePlace,
  seed: number,
  operations: number,
): Promise<ModelRun> {
  const runner = new Runner(place, seed);
  try {
    await runner.open();
    while (runner.run.operations < operations) await runner.round();
    return runner.run;
  } catch (error) {
    const where = `seed ${seed}, operation ${runner.run.operations}: `;
    if (error instanceof Error) error.message = where + error.message;
    throw error;
  } finally {
    await runner.close();
  }
}

class Runner {
  readonly run: ModelRun = {
    operations: 0,
    committed: 0,
    checkFailed: 0,
    refused: 0,
    watchStates: 0,
    reopened: 0,
  };
  private store!: Store;
  private readonly clock = new ManualClock(START_MS);
  private readonly model = new Model(START_MS);
  private readonly generator: Generator;
  private readonly storeRandom;
  private watches: FollowedWatch[] = [];
  /** The states since all watches were last known to be at the present. */
  private history: Snapshot[] = [this.model.snapshot()];
  private lastVersion = 0;

  constructor(private readonly place: StorePlace, seed: number) {
    this.generator = new Generator(seededRandom(seed), this.model);
    this.storeRandom = seededRandom(seed + 1);
  }

  async open(): Promise<void> {
    const { clock, storeRandom: random } = this;
    this.store = await this.place.open({ clock, random });
  }

  async close(): Promise<void> {
    for (const watch of this.watches.splice(0)) watch.cancel();
    await this.store?.close();
  }

  async round(): Promise<void> {
    const { generator } = this;
    await this.traffic();
    if (generator.chance(40)) this.passTime();
    await this.settle();
    if (generator.chance(30)) this.changeWatches();
    if (generator.chance(1) && generator.chance(50)) await this.reopen();
  }

  /** Writes and reads at once, then all the answers against the model. */
  private async traffic(): Promise<void> {
    const { generator, store } = this;
    const writes: StartedWrite[] = [];
    const reads: StartedRead[] = [];
    let acknowledged = 0;
    for (let i = 1 + generator.below(12); i > 0; i--) {
      this.run.operations++;
      if (generator.chance(60)) {
        const write = generator.write();
        const outcome = store.write(toAtomicWrite(write));
        const place = writes.push({ write, outcome });
        outcome.then(() => acknowledged = Math.max(acknowledged, place));
      } else {
        const ranges = generator.ranges();
        reads.push({ ranges, lists: store.read(ranges), acknowledged });
      }
      if (generator.chance(15)) await turns(1 + generator.below(3));
    }
    const states = [this.model.snapshot()];
    for (const { write, outcome } of writes) {
      this.applied(write, await outcome);
      states.push(this.model.snapshot());
    }
    this.history.push(...states.slice(1));
    await this.checkReads(reads, states);
  }

  private applied(write: Write, outcome: WriteOutcome): void {
    const plan = this.model.plan(write);
    const asText = () =>
      JSON.stringify(write, (_, v) => typeof v === "bigint" ? `${v}n` : v);
    assert.equal(outcome.status, plan.status, `a write's outcome: ${asText()}`);
    if (outcome.status === "checkFailed" && plan.status === "checkFailed") {
      assert.deepEqual(outcome.failedChecks, plan.failedChecks);
      this.run.checkFailed++;
    } else if (outcome.status === "committed" && plan.status === "committed") {
      assert.ok(outcome.version > this.lastVersion, "a versionstamp went back");
      assert.equal(outcome.order, 0);
      this.lastVersion = outcome.version;
      plan.commit(outcome.version);
      this.run.committed++;
    } else this.run.refused++;
  }

  /**
   * Each read must show the data after some number of the round's writes: at
   * least those acknowledged before it, and no fewer than the read before.
   */
  private async checkReads(
    reads: StartedRead[],
    states: Snapshot[],
  ): Promise<void> {
    let seen = 0;
    for (const { ranges, lists, acknowledged } of reads) {
      const got = (await lists).map((list) =>
        list.map(describeEntry).join(" ")
      );
      seen = Math.max(seen, acknowledged);
      const first = seen;
      while (
        seen < states.length &&
        !ranges.every((range, i) =>
          describeRange(states[seen], range) === got[i]
        )
      ) seen++;
      assert.ok(
        seen < states.length,
        `a read shows what never was, or is too old: ${
          JSON.stringify({
            got,
            expected: ranges.map((range) =>
              describeRange(states[first], range)
            ),
          })
        }`,
      );
    }
  }

  private passTime(): void {
    this.run.operations++;
    const byMs = this.generator.below(this.generator.chance(90) ? 20 : 5000);
    const untilMs = this.model.nowMs + byMs;
    for (const atMs of this.model.expiriesUpTo(untilMs)) {
      this.model.setTime(atMs);
      this.history.push(this.model.snapshot());
    }
    this.model.setTime(untilMs);
    this.clock.advance(byMs);
  }

  /** Nothing is under way now: the store and the watches say the same. */
  private async settle(): Promise<void> {
    const { generator, history } = this;
    if (generator.chance(20)) {
      const [all] = await this.store.read([everything()]);
      assert.equal(
        all.map(describeEntry).join(" "),
        describeRange(this.model.rows, everything()),
        "the whole of the data",
      );
    }
    if (this.watches.length === 0 || !generator.chance(50)) return;
    await eventually(
      "every watch shows the present state",
      () =>
        this.watches.map((watch) => {
          watch.ask();
          return watch.check(history);
        }).every(Boolean),
    );
    this.run.watchStates += this.watches.length;
    this.history = [this.model.snapshot()];
    for (const watch of this.watches) watch.forgetHistory();
  }

  private changeWatches(): void {
    const { generator, watches } = this;
    if (watches.length === MOST_WATCHES) {
      watches.splice(generator.below(MOST_WATCHES), 1)[0].cancel();
    }
    watches.push(
      new FollowedWatch(
        this.store,
        generator.watchedKeys(),
        generator.chance(60),
        this.history,
      ),
    );
    assert.equal(this.store.stats().watches, watches.length);
  }

  private async reopen(): Promise<void> {
    await this.close();
    if (this.generator.chance(50)) this.passTime();
    this.history = [this.model.snapshot()];
    const before = this.store.databaseId;
    await this.open();
    assert.equal(this.store.databaseId, before);
    assert.ok(this.store.stats().durableVersion >= this.lastVersion);
    this.run.reopened++;
  }
}
