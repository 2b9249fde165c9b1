import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import { type Bytes, utf8 } from "../common/bytes.ts";
import { UnavailableError } from "../common/errors.ts";
import { sleep } from "../common/clock.ts";
import { silentLogger } from "../common/log.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { seededRandom } from "../common/random.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import type { PutOptions } from "../object_store/object_store.ts";
import { DATA_PATIENCE, Patience } from "../object_store/patience.ts";
import {
  type BackupSource,
  SnapshotGivenUpError,
  type SnapshotOptions,
} from "../store/backup_source.ts";
import { SnapshotUpload } from "./snapshot_upload.ts";

const PARTS = 5;

/** What it was asked for, and fails where the test says so. */
class WatchedStore extends MemoryObjectStore {
  readonly puts: PutOptions[] = [];
  failures = 0;

  override put(key: string, data: Uint8Array, options: PutOptions = {}) {
    if (this.failures-- > 0) {
      return Promise.reject(new UnavailableError("an outage"));
    }
    this.puts.push(options);
    return super.put(key, data, options);
  }
}

/** A source of small parts, and when each was asked for. */
function scene(requests: (nowMs: number) => number, givesUpFirst = false) {
  const clock = new ManualClock(0);
  const objects = new WatchedStore({ clock });
  const askedMs: number[] = [];
  const pausesMs: number[] = [];
  const handedOut: Bytes[] = [];
  let tries = 0;
  const source: Pick<BackupSource, "snapshot"> = {
    async snapshot({ onBegin, onPart, pauseMs }: SnapshotOptions) {
      onBegin(7);
      tries++;
      for (let i = 0; i < PARTS; i++) {
        if (givesUpFirst && tries === 1) throw new SnapshotGivenUpError("long");
        askedMs.push(clock.monotonicMs());
        const pause = pauseMs?.() ?? 0;
        pausesMs.push(pause);
        // A part of 1 MiB has 15 of them.
        if (pause > 0) await sleep(clock, 15 * pause);
        const bytes = utf8(`${i}`);
        handedOut.push(bytes);
        const endKey = bytes.slice();
        await onPart({ bytes, entries: 1, endKey, sha256: `${i}` });
      }
      const counts = { entries: PARTS, queueMessages: 0, sizeBytes: PARTS };
      return { version: 7, timeMs: 0, ...counts };
    },
  };
  const upload = new SnapshotUpload({
    objects,
    source: source as BackupSource,
    epoch: 1,
    clock,
    random: seededRandom(1),
    logger: silentLogger,
    patience: new Patience({ clock, ...DATA_PATIENCE }),
    maxLogBytes: 1,
    requests: () => requests(clock.monotonicMs()),
    signal: new AbortController().signal,
    onBegin() {},
  }, "g");
  async function run() {
    let isDone = false;
    const done = upload.run(() => Promise.resolve(true))
      .finally(() => isDone = true);
    while (!isDone) {
      clock.advance(1);
      await setImmediate();
    }
    return await done;
  }
  const spacings = () => askedMs.slice(1).map((ms, i) => ms - askedMs[i]);
  return { run, spacings, pausesMs, objects, handedOut };
}

Deno.test("a snapshot leaves room for the requests that are served beside it", async () => {
  let served = 0;
  const busy = scene(() => ++served);
  assert.equal((await busy.run()).parts.length, PARTS);
  assert.ok(busy.spacings().every((ms) => ms >= 100), `${busy.spacings()}`);
});

Deno.test("requests that come while a snapshot rests count as well", async () => {
  // One while the first part is read, and then one in each of the rests.
  const busy = scene((nowMs) =>
    Math.min(Math.floor(nowMs / 50), 1) + Math.floor((nowMs + 30) / 150)
  );
  await busy.run();
  const spacings = busy.spacings();
  assert.ok(spacings.every((ms) => ms >= 140), `${spacings}`);
});

Deno.test("a snapshot is as fast as it can be where nothing is served", async () => {
  const idle = scene(() => 0);
  await idle.run();
  assert.ok(idle.spacings().every((ms) => ms < 100), `${idle.spacings()}`);
});

Deno.test("a snapshot that was too slow leaves no room in its next try", async () => {
  let served = 0;
  const slow = scene(() => ++served, true);
  await slow.run();
  assert.ok(slow.spacings().every((ms) => ms < 100), `${slow.spacings()}`);
});

Deno.test("beside requests a part is read and sent in pieces", async () => {
  let served = 0;
  const busy = scene(() => ++served);
  await busy.run();
  const asked = busy.pausesMs;
  assert.ok(asked.every((ms) => ms > 0), `${asked}`);
  const parts = busy.objects.puts.slice(0, PARTS);
  assert.ok(parts.every(({ pauseMs }) => pauseMs! > 0));
  // The reader of the parts has their digest already.
  assert.deepEqual(
    parts.map(({ sha256 }) => sha256),
    Array.from({ length: PARTS }, (_, i) => `${i}`),
  );

  const idle = scene(() => 0);
  await idle.run();
  assert.deepEqual(idle.pausesMs.slice(1), Array(PARTS - 1).fill(0));
  const last = idle.objects.puts.slice(1, PARTS);
  assert.ok(last.every(({ pauseMs }) => pauseMs === 0));
});

Deno.test("a part's memory is given back when it is in the bucket, not before", async () => {
  const { run, objects, handedOut } = scene(() => 0);
  objects.failures = 3;
  const { parts } = await run();
  const stored = await Promise.all(parts.map(({ key }) => objects.get(key)));
  assert.deepEqual(
    stored.map((object) => object?.data),
    Array.from({ length: PARTS }, (_, i) => utf8(`${i}`)),
  );
  assert.deepEqual(handedOut.map(({ length }) => length), Array(PARTS).fill(0));
});
