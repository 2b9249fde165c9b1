import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import { utf8 } from "../common/bytes.ts";
import { silentLogger } from "../common/log.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { seededRandom } from "../common/random.ts";
import { LAST_INDEX, LogEncoder } from "../log/entry.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { DATA_PATIENCE, Patience } from "../object_store/patience.ts";
import { Encoding, NEVER_MS } from "../protocol/messages.ts";
import type { BackupSource, LogRow } from "../store/backup_source.ts";
import { Shipper } from "./shipper.ts";

const PUT_MS = 5;

/** A log of equal commits, and a bucket whose puts end when the test says. */
class Scene {
  readonly clock = new ManualClock(0);
  /** How many commits each segment brought, in order. */
  readonly segments: number[] = [];
  private readonly rows: LogRow[] = [];
  private endPut: (() => void) | undefined;
  readonly shipper: Shipper;

  constructor(intervalMs = 0) {
    const memory = new MemoryObjectStore({ clock: this.clock });
    const objects = new Proxy<ObjectStore>(memory, {
      get: (target, name: keyof ObjectStore) =>
        name === "put"
          ? async (...args: Parameters<ObjectStore["put"]>) => {
            await new Promise<void>((resolve) => this.endPut = resolve);
            await target.put(...args);
          }
          : (target[name] as () => void).bind(target),
    });
    this.shipper = new Shipper({
      objects,
      source: this.source() as BackupSource,
      epoch: 1,
      clock: this.clock,
      random: seededRandom(1),
      logger: silentLogger,
      intervalMs,
      maxRetainedBytes: 1e9,
      patience: new Patience({ clock: this.clock, ...DATA_PATIENCE }),
      start: { generation: "g", tsn: 0, bucketVersion: 0, logVersion: 0 },
      onGap: () => assert.fail("there is no gap"),
      onShipped: (version) =>
        this.segments.push(version - this.segments.reduce((a, b) => a + b, 0)),
    });
  }

  private source(): Partial<BackupSource> {
    const after = (version: number) =>
      this.rows.filter((row) => row.version > version);
    const synced = () => this.rows.length;
    return {
      get syncedVersion() {
        return synced();
      },
      logFloorVersion: 0,
      logBytesAfter: (version) =>
        after(version).reduce((sum, row) => sum + row.entries.length, 0),
      readLog: (version) => after(version),
      retainAfter() {},
    };
  }

  /** So many commits become durable here. */
  commit(count: number): void {
    for (let i = 0; i < count; i++) {
      const version = this.rows.length + 1;
      const log = new LogEncoder();
      const value = utf8("x".repeat(100));
      log.append(
        version,
        0,
        LAST_INDEX,
        utf8("key"),
        value,
        Encoding.BYTES,
        NEVER_MS,
      );
      const entries = log.bytes.slice();
      this.rows.push({ firstVersion: version, version, timeMs: 0, entries });
    }
    this.shipper.synced(this.rows.length);
  }

  /** Whether a put is on its way, when all that can happen has happened. */
  async isPutting(): Promise<boolean> {
    await setImmediate();
    return this.endPut !== undefined;
  }

  /** The put that is on its way ends, 10 ms after it began. */
  async put(): Promise<void> {
    assert.ok(await this.isPutting());
    this.clock.advance(PUT_MS);
    const { endPut } = this;
    this.endPut = undefined;
    endPut!();
    await setImmediate();
  }
}

Deno.test("with an interval, one segment takes what came within it", async () => {
  const scene = new Scene(1000);
  scene.commit(3);
  scene.clock.advance(999);
  scene.commit(2);
  assert.equal(await scene.isPutting(), false);
  scene.clock.advance(1);
  await scene.put();
  assert.deepEqual(scene.segments, [5]);
});

Deno.test("a lonely writer waits for nobody", async () => {
  const scene = new Scene();
  for (let i = 0; i < 5; i++) {
    scene.commit(1);
    await scene.put();
  }
  assert.deepEqual(scene.segments, [1, 1, 1, 1, 1]);
});

Deno.test("a segment waits until those are back who were at it", async () => {
  const scene = new Scene();
  scene.commit(8);
  assert.ok(await scene.isPutting());
  scene.commit(8);
  await scene.put();
  // The first eight are answered and write again; the others wait for them.
  assert.equal(await scene.isPutting(), false);
  scene.commit(4);
  assert.equal(await scene.isPutting(), false);
  scene.commit(4);
  await scene.put();
  assert.equal(await scene.isPutting(), false);
  scene.commit(16);
  await scene.put();
  assert.deepEqual(scene.segments, [8, 16, 16]);
});

Deno.test("those who do not come back are waited for once, and seldom after", async () => {
  const scene = new Scene();
  scene.commit(16);
  await scene.put();
  scene.commit(4);
  assert.equal(await scene.isPutting(), false);
  scene.clock.advance(3 * PUT_MS - 1);
  assert.equal(await scene.isPutting(), false);
  scene.clock.advance(1);
  await scene.put();
  for (let i = 0; i < 7; i++) {
    scene.commit(4);
    await scene.put();
  }
  // Then it is tried again.
  scene.commit(2);
  assert.equal(await scene.isPutting(), false);
  scene.clock.advance(3 * PUT_MS);
  await scene.put();
  for (let i = 0; i < 15; i++) {
    scene.commit(2);
    await scene.put();
  }
  assert.equal(scene.segments.length, 2 + 7 + 1 + 15);
});

Deno.test("what waits for others is shipped at once when it is asked for", async () => {
  const scene = new Scene();
  scene.commit(8);
  await scene.put();
  scene.commit(2);
  assert.equal(await scene.isPutting(), false);
  const drained = scene.shipper.drain();
  await scene.put();
  await drained;
  assert.deepEqual(scene.segments, [8, 2]);
});
