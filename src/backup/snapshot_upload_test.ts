import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import { utf8 } from "../common/bytes.ts";
import { silentLogger } from "../common/log.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { seededRandom } from "../common/random.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import { DATA_PATIENCE, Patience } from "../object_store/patience.ts";
import {
  type BackupSource,
  SnapshotGivenUpError,
  type SnapshotOptions,
} from "../store/backup_source.ts";
import { SnapshotUpload } from "./snapshot_upload.ts";

const PARTS = 5;

/** A source of small parts, and when each was asked for. */
function scene(requests: () => number, givesUpFirst = false) {
  const clock = new ManualClock(0);
  const askedMs: number[] = [];
  let tries = 0;
  const source: Pick<BackupSource, "snapshot"> = {
    async snapshot({ onBegin, onPart }: SnapshotOptions) {
      onBegin(7);
      tries++;
      for (let i = 0; i < PARTS; i++) {
        if (givesUpFirst && tries === 1) throw new SnapshotGivenUpError("long");
        askedMs.push(clock.monotonicMs());
        const bytes = utf8(`${i}`);
        await onPart({ bytes, entries: 1, endKey: bytes, sha256: `${i}` });
      }
      const counts = { entries: PARTS, queueMessages: 0, sizeBytes: PARTS };
      return { version: 7, timeMs: 0, ...counts };
    },
  };
  const upload = new SnapshotUpload({
    objects: new MemoryObjectStore({ clock }),
    source: source as BackupSource,
    epoch: 1,
    clock,
    random: seededRandom(1),
    logger: silentLogger,
    patience: new Patience({ clock, ...DATA_PATIENCE }),
    maxLogBytes: 1,
    requests,
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
  return { run, spacings };
}

Deno.test("a snapshot leaves room for the requests that are served beside it", async () => {
  let served = 0;
  const busy = scene(() => ++served);
  assert.equal((await busy.run()).parts.length, PARTS);
  assert.ok(busy.spacings().every((ms) => ms >= 100), `${busy.spacings()}`);
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
