/**
 * Several machines and one bucket in virtual time, out of a seed: processes
 * are started, killed (with or without their disk), paused and resumed, their
 * clocks are apart, and the bucket is slow, loses answers, and acts on
 * requests long after their callers gave up. The code under it is the real
 * one, from `BackupService` down; only the engine and the bucket are in memory.
 */
import { setImmediate } from "node:timers";
import { BackupService } from "../../src/backup/backup_service.ts";
import { Instance, type InstanceOptions } from "../../src/database/instance.ts";
import type { DurabilityName } from "../../src/backup/backup_durability.ts";
import type { Clock } from "../../src/common/clock.ts";
import { UnavailableError } from "../../src/common/errors.ts";
import { silentLogger } from "../../src/common/log.ts";
import { ManualClock } from "../../src/common/manual_clock.ts";
import { type Random, seededRandom } from "../../src/common/random.ts";
import {
  type FaultSource,
  FaultyObjectStore,
  seededFaults,
} from "../../src/object_store/faulty.ts";
import { MemoryObjectStore } from "../../src/object_store/memory.ts";
import type { ObjectStore } from "../../src/object_store/object_store.ts";
import { MutationType } from "../../src/protocol/messages.ts";
import type { Store } from "../../src/store/store.ts";
import {
  byteString,
  MemoryDisk,
  MemoryEngine,
  textOf,
  utf8,
} from "./memory_engine.ts";

/** Shorter than in life, so that more happens in a run. */
const LEASE_MS = 2000;
const CLOCK_MARGIN_MS = 300;
const TIMEOUT_MS = 700;
const STEP_MS = 10;
const STEPS = 1200;
/** After this no new trouble comes, so that the run can end well. */
const TROUBLE_STEPS = 900;
const MACHINES = 3;
/** Of the file that was there before: its snapshot takes about a second. */
const OLD_ROWS = 800;
const OLD_KEY = `old${OLD_ROWS - 1}`;

/** The same for every instance. */
const SERVICE = {
  logger: silentLogger,
  intervalMs: 200,
  retentionMs: 3_600_000,
  maxRetainedBytes: 1e9,
  verifyEveryMs: 0,
  allowUnfenced: true,
  leaseMs: LEASE_MS,
  clockMarginMs: CLOCK_MARGIN_MS,
  firstTimeoutMs: TIMEOUT_MS,
  // No machine is started anew in a run; disks tell them apart.
  machineStartedMs: () => 1,
};

/** Of an instance that is never ended by another one. */
const FOREVER = {
  endsWhenReplaced: false,
  startsInOutage: false,
  isStandby: true,
};

export interface Settings {
  /** Processes stand by while another one serves, as a server does. */
  standsBy?: boolean;
  durability: DurabilityName;
  /** How far the clocks of the machines are from the bucket's. */
  maxSkewMs: number;
  /** Faults of 1000 requests, of each kind. */
  faults: number;
  /** Machines may lose their disks. */
  losesDisks: boolean;
  /** The first machine has a database that was never backed up. */
  beginsWithFile?: boolean;
  /** Shorter than most pauses: more takeovers from a living owner. */
  leaseMs?: number;
  /** Now and then a machine's file is copied to another, which starts on it. */
  copiesDisks?: boolean;
}

export interface Outcome {
  seed: number;
  problems: string[];
  acknowledged: number;
  takeovers: number;
  lost: number;
}

interface Acknowledged {
  key: string;
  version: number;
  atMs: number;
  by: Process;
}

/** What a process sees of time; while it is paused, nothing fires. */
class ProcessClock implements Clock {
  isPaused = false;
  isDead = false;
  private held: (() => void)[] = [];

  constructor(
    private readonly base: ManualClock,
    private readonly skewMs: number,
  ) {}

  nowMs(): number {
    return this.base.nowMs() + this.skewMs;
  }

  monotonicMs(): number {
    return this.base.monotonicMs();
  }

  /** Runs something of the process, now or when it goes on. */
  run(fire: () => void): void {
    if (this.isDead) return;
    if (this.isPaused) this.held.push(fire);
    else fire();
  }

  resume(): void {
    this.isPaused = false;
    for (const fire of this.held.splice(0)) fire();
  }

  after(delayMs: number, fire: () => void) {
    return this.base.after(delayMs, () => this.run(fire));
  }

  every(intervalMs: number, fire: () => void) {
    return this.base.every(intervalMs, () => this.run(fire));
  }

  endOfTurn(fire: () => void) {
    return this.base.endOfTurn(() => this.run(fire));
  }
}

/**
 * Answers reach a process only while it runs; a dead one gets none.
 * @param hasClock whether the store says what time it is
 */
function seenBy(
  store: ObjectStore,
  clock: ProcessClock,
  hasClock: boolean,
): ObjectStore {
  const reached = <T>(answer: Promise<T>) =>
    new Promise<T>((resolve, reject) =>
      answer.then(
        (value) => clock.run(() => resolve(value)),
        (error) => clock.run(() => reject(error)),
      )
    );
  return {
    url: store.url,
    get: (...args) => reached(store.get(...args)),
    getRange: (...args) => reached(store.getRange(...args)),
    head: (...args) =>
      reached(
        store.head(...args).then((head) =>
          hasClock || !head ? head : { ...head, nowMs: undefined }
        ),
      ),
    put: (...args) => reached(store.put(...args)),
    create: (...args) => reached(store.create(...args)),
    replace: (...args) => reached(store.replace(...args)),
    delete: (...args) => reached(store.delete(...args)),
    close: () => reached(store.close()),
    async *list(...args) {
      const listed = reached((async () => {
        const found = [];
        for await (const info of store.list(...args)) found.push(info);
        return found;
      })());
      yield* await listed;
    },
  };
}

class Process {
  readonly clock: ProcessClock;
  service:
    | Pick<BackupService, "store" | "snapshot" | "close">
    | Instance
    | undefined;
  isServing = false;

  constructor(
    readonly machine: number,
    readonly disk: MemoryDisk,
    base: ManualClock,
    skewMs: number,
  ) {
    this.clock = new ProcessClock(base, skewMs);
  }
}

export async function simulate(
  seed: number,
  settings: Settings,
): Promise<Outcome> {
  return await new World(seed, settings).run();
}

class World {
  private readonly random: Random;
  private readonly clock = new ManualClock(1_700_000_000_000);
  private readonly bucket: MemoryObjectStore;
  private readonly disks = Array.from(
    { length: MACHINES },
    () => new MemoryDisk(),
  );
  private readonly skews: number[];
  private readonly processes = new Set<Process>();
  private readonly acknowledged: Acknowledged[] = [];
  private readonly problems: string[] = [];
  private hasTrouble = true;
  private readonly hasStoreClock: boolean;
  /** A machine without the file that is to be backed up waits for that. */
  private hasBegun = false;
  private written = 0;
  private takeovers = 0;

  constructor(
    private readonly seed: number,
    private readonly settings: Settings,
  ) {
    this.random = seededRandom(seed);
    this.bucket = new MemoryObjectStore({ clock: this.clock });
    this.hasStoreClock = seed % 2 === 0;
    const { maxSkewMs } = settings;
    this.skews = this.disks.map(() =>
      this.random.below(2 * maxSkewMs + 1) - maxSkewMs
    );
    if (!settings.beginsWithFile) return;
    const version = 9;
    const value = utf8("old");
    const rows = new Map(Array.from({ length: OLD_ROWS }, (_, i) => [
      byteString(utf8(`old${i}`)),
      { value, version },
    ]));
    this.disks[0].database = {
      databaseId: "old",
      version,
      floor: version,
      log: [],
      rows,
      state: new Map(),
    };
  }

  /** Undefined until the backup has begun. */
  private async manifest(): Promise<{ generation: string | null } | undefined> {
    const object = await this.bucket.get("manifest.json");
    return object && JSON.parse(textOf(object.data));
  }

  async run(): Promise<Outcome> {
    for (let step = 0; step < STEPS; step++) {
      this.hasTrouble = step < TROUBLE_STEPS;
      this.hasBegun ||= !this.settings.beginsWithFile ||
        await this.manifest() !== undefined;
      this.act();
      this.clock.advance(STEP_MS);
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    await this.judge();
    const { seed, problems, acknowledged, takeovers, lost } = this;
    return {
      seed,
      problems,
      acknowledged: acknowledged.length,
      takeovers,
      lost,
    };
  }

  private lost = 0;

  private chance(of1000: number): boolean {
    return this.random.below(1000) < of1000;
  }

  /** While its owner may be running, and without its lock. */
  private copyDisk(): void {
    const from = this.disks[this.random.below(MACHINES)];
    const to = this.disks[this.random.below(MACHINES)];
    if (from === to || to.holder || from.database === undefined) return;
    to.database = structuredClone(from.database);
  }

  private act(): void {
    if (this.settings.copiesDisks && this.hasTrouble && this.chance(30)) {
      this.copyDisk();
    }
    if (this.chance(this.processes.size === 0 ? 300 : 12)) this.start();
    for (const process of [...this.processes]) {
      if (process.isServing && !process.clock.isPaused && this.chance(250)) {
        if (this.chance(700)) this.write(process);
        else this.readBack(process);
      }
      if (!this.hasTrouble) {
        if (process.clock.isPaused) process.clock.resume();
        continue;
      }
      if (process.clock.isPaused) {
        // Nothing else in this step: what goes on is still under way.
        if (this.chance(8)) {
          process.clock.resume();
          continue;
        }
      } else if (this.chance(4)) process.clock.isPaused = true;
      if (this.chance(3)) this.kill(process);
      else if (process.isServing && this.chance(2)) {
        void process.service!.close().catch(() => {});
        process.isServing = false;
        this.processes.delete(process);
      } else if (process.isServing && this.chance(4)) {
        void process.service!.snapshot().catch(() => {});
      } else if (process.isServing && this.chance(1)) {
        process.disk.foreignCommit();
      }
    }
  }

  private start(): void {
    const machine = this.hasBegun ? this.random.below(MACHINES) : 0;
    const disk = this.disks[machine];
    if (disk.holder) return;
    const process = new Process(
      machine,
      disk,
      this.clock,
      this.skews[machine],
    );
    this.processes.add(process);
    const { faults: rate } = this.settings;
    const seeded = seededFaults(this.random, {
      slow: 5 * rate,
      lostRequest: rate,
      lostAnswer: rate,
      silence: rate,
      maxDelayMs: 900,
    });
    const faults: FaultSource = (request) =>
      (this.hasTrouble ? seeded(request) : undefined) ??
        { kind: "slow", actAtMs: 3, answerAtMs: 6 };
    const objects = seenBy(
      new FaultyObjectStore(this.bucket, {
        clock: this.clock,
        faults,
        timeoutMs: TIMEOUT_MS,
      }),
      process.clock,
      this.hasStoreClock,
    );
    const { clock } = process;
    const random = seededRandom(this.random.below(2 ** 31));
    const options = {
      objects,
      engine: new MemoryEngine(disk, clock, random),
      clock,
      random,
      durability: this.settings.durability,
      ...SERVICE,
      leaseMs: this.settings.leaseMs ?? LEASE_MS,
    };
    if (this.settings.standsBy) return this.startInstance(process, options);
    void BackupService.open(options).then((service) => {
      if (clock.isDead) return;
      this.takeovers++;
      process.service = service;
      process.isServing = true;
      void service.ended.then(() => {
        process.isServing = false;
        void service.close().catch(() => {}).finally(() =>
          this.processes.delete(process)
        );
      });
    }, (error) => this.failed(process, error));
  }

  /** One that stands by when it does not own the history, again and again. */
  private startInstance(
    process: Process,
    options: Omit<InstanceOptions, keyof typeof FOREVER>,
  ): void {
    const isStandby = this.chance(500);
    const instance = new Instance({ ...options, ...FOREVER, isStandby });
    process.service = instance;
    instance.start(() => {
      if (process.clock.isDead) return;
      this.takeovers++;
      process.isServing = true;
    }).catch((error) => this.failed(process, error));
  }

  private failed(process: Process, error: Error): void {
    this.processes.delete(process);
    if (process.clock.isDead || error instanceof UnavailableError) return;
    if (error.message === "locked" || /asked to stop/.test(error.message)) {
      return;
    }
    if (
      this.settings.beginsWithFile && process.machine > 0 &&
      /holds no whole snapshot of it yet/.test(error.message)
    ) return;
    this.problems.push(`a launch failed: ${error.message}`);
  }

  private kill(process: Process): void {
    process.clock.isDead = true;
    process.isServing = false;
    this.processes.delete(process);
    const { disk } = process;
    const isHolder = disk.holder === process.clock;
    disk.release(process.clock);
    if (!this.settings.losesDisks || !isHolder || !this.chance(500)) return;
    disk.database = undefined;
    // A pending request of the dead one must not write to the new disk.
    this.disks[process.machine] = new MemoryDisk();
  }

  private write(process: Process): void {
    const key = `k${++this.written}`;
    const written = process.service!.store.write({
      checks: [],
      enqueues: [],
      mutations: [{
        type: MutationType.SET,
        key: utf8(key),
        value: utf8(`${key} by ${process.machine}`),
        encoding: 3,
        expireAtMs: -1,
        sumMin: null,
        sumMax: null,
        sumClamp: false,
      }],
    });
    written.then((outcome) => {
      if (process.clock.isDead || outcome.status !== "committed") return;
      this.acknowledged.push({
        key,
        version: outcome.version,
        atMs: this.clock.nowMs(),
        by: process,
      });
    }, () => {});
  }

  /** A write that was acknowledged before the read began has to be seen. */
  private readBack(process: Process): void {
    if (this.acknowledged.length === 0) return;
    const { settings } = this;
    const last = Math.min(this.acknowledged.length, 20);
    const sought = this.acknowledged[
      this.acknowledged.length - 1 - this.random.below(last)
    ];
    if (settings.durability !== "s3") return;
    void readKey(process.service!.store, sought.key).then((value) => {
      if (process.clock.isDead || value !== undefined) return;
      this.problems.push(
        `a read on machine ${process.machine} missed ${sought.key}, acknowledged at ${sought.atMs} by machine ${sought.by.machine}`,
      );
    }, () => {});
  }

  /** Whatever is running is killed; a fresh machine restores, and is asked. */
  private async judge(): Promise<void> {
    for (const process of [...this.processes]) {
      // Nothing that `local` still had to ship is at stake here.
      this.settings.losesDisks || await this.shipped(process);
      process.clock.isDead = true;
      process.disk.release(process.clock);
    }
    this.processes.clear();
    // Where the history has not begun, its file is what there is.
    const isInFile = this.settings.beginsWithFile &&
      !(await this.manifest())?.generation;
    const disk = new MemoryDisk();
    if (isInFile) disk.database = this.disks[0].database;
    this.disks.push(disk);
    const judge = new Process(
      MACHINES,
      this.disks[MACHINES],
      this.clock,
      0,
    );
    const random = seededRandom(this.seed + 1);
    const opening = BackupService.open({
      objects: this.bucket,
      engine: new MemoryEngine(judge.disk, judge.clock, random),
      clock: judge.clock,
      random,
      durability: "s3",
      ...SERVICE,
    });
    const service = await this.eventually(opening);
    if (service === undefined) {
      this.problems.push("no instance could take over in the end");
      return;
    }
    if (
      this.settings.beginsWithFile &&
      await readKey(service.store, OLD_KEY) === undefined
    ) this.problems.push("what was there before the backup is lost");
    const versions = new Map<number, string>();
    for (const { key, version } of this.acknowledged) {
      const twin = versions.get(version);
      if (twin !== undefined) {
        this.problems.push(`version ${version} is that of ${twin} and ${key}`);
      }
      versions.set(version, key);
      const [[entry]] = await service.store.read([{
        start: utf8(key),
        end: utf8(key + "\0"),
        limit: 1,
        reverse: false,
        isPoint: true,
      }]);
      if (entry === undefined) {
        this.lost++;
        if (this.settings.durability === "s3") {
          this.problems.push(
            `${key} was acknowledged with version ${version} and is not in the history`,
          );
        }
      } else if (entry.version !== version) {
        this.problems.push(
          `${key} was acknowledged with version ${version} and has ${entry.version}`,
        );
      }
    }
    const closing = service.close();
    await this.eventually(closing.then(() => true));
  }

  private async shipped(process: Process): Promise<void> {
    const { service } = process;
    if (service) await this.eventually(service.close().then(() => true));
  }

  /** Lets time pass until it is settled; undefined where it never is. */
  private async eventually<T>(promise: Promise<T>): Promise<T | undefined> {
    let settled: { value?: T; error?: unknown } | undefined;
    promise.then(
      (value) => settled = { value },
      (error) => settled = { error },
    );
    for (let step = 0; step < 3000; step++) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      if (settled) break;
      this.clock.advance(STEP_MS);
    }
    if (settled?.error) {
      this.problems.push(`in the end: ${(settled.error as Error).message}`);
    }
    return settled?.value;
  }
}

async function readKey(
  store: Store,
  key: string,
): Promise<string | undefined> {
  const [[entry]] = await store.read([{
    start: utf8(key),
    end: utf8(key + "\0"),
    limit: 1,
    reverse: false,
    isPoint: true,
  }]);
  return entry && textOf(entry.value);
}
