import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import { UnavailableError } from "../common/errors.ts";
import { ManualClock } from "../common/manual_clock.ts";
import { seededRandom } from "../common/random.ts";
import { BackupDurability } from "./backup_durability.ts";
import { FencedError } from "./ownership.ts";

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Durability `s3` beside a manifest that a test answers for, look by look. */
function attached() {
  const clock = new ManualClock(1_700_000_000_000);
  const durability = new BackupDurability("s3");
  const looks: { resolve(): void; reject(error: Error): void }[] = [];
  let count = 0;
  durability.attach({
    clock,
    random: seededRandom(1),
    shipper: { synced() {} },
    ownership: {
      mayServe: () => true,
      ensure: () => Promise.resolve(),
      confirmOwned() {
        count++;
        const { promise, ...settle } = Promise.withResolvers<void>();
        looks.push(settle);
        return promise;
      },
    },
  });
  return {
    clock,
    durability,
    /** Under way. */
    looks,
    get count() {
      return count;
    },
    /** Answers what is under way until `ms` have gone by. */
    async answering(ms: number, error: Error | undefined) {
      for (let at = 0; at < ms; at += 10) {
        for (const look of looks.splice(0)) {
          if (error) look.reject(error);
          else look.resolve();
        }
        await turn();
        clock.advance(10);
      }
      await turn();
    },
  };
}

Deno.test("while the manifest cannot be read, one look at a time is shared by all, less and less often", async () => {
  const world = attached();
  const { durability } = world;
  const confirmed: number[] = [];
  const down = new UnavailableError("down");
  // 600 segments in a minute, each with a commit that waits for it.
  for (let version = 1; version <= 600; version++) {
    void Promise.resolve(durability.confirm(version))
      .then(() => confirmed.push(version));
    void durability.shipped(version);
    assert.ok(world.looks.length <= 1, `${world.looks.length} at once`);
    await world.answering(100, down);
  }
  assert.ok(world.count < 25, `${world.count} looks`);
  assert.deepEqual(confirmed, []);
  const before = world.count;
  // The pause has an end: all are confirmed soon after the first answer.
  await world.answering(10_000, undefined);
  assert.equal(confirmed.length, 600);
  assert.equal(world.count, before + 1);
  assert.equal(durability.confirmedVersion, 600);
});

Deno.test("a look confirms what was shipped before it began, and no more", async () => {
  const { durability, looks } = attached();
  const first = durability.shipped(1);
  const second = durability.shipped(2);
  assert.equal(looks.length, 1);
  looks.shift()!.resolve();
  await turn();
  assert.equal(durability.confirmedVersion, 1);
  assert.equal(looks.length, 1);
  looks.shift()!.resolve();
  await Promise.all([first, second]);
  assert.equal(durability.confirmedVersion, 2);
  assert.equal(looks.length, 0);
});

Deno.test("what comes while the last look ends has a look of its own", async () => {
  const { durability, looks } = attached();
  for (let version = 1; version <= 20; version++) {
    void durability.shipped(version);
    looks.shift()?.resolve();
    // A different moment of the look's end each time.
    for (let i = 0; i < version; i++) await Promise.resolve();
  }
  await turn();
  for (const look of looks.splice(0)) look.resolve();
  await turn();
  assert.equal(durability.confirmedVersion, 20);
});

Deno.test("a refusal ends the looks, also during a pause", async () => {
  const { durability, looks, clock, ...world } = attached();
  const waiting = durability.confirm(1) as Promise<void>;
  const shipped = durability.shipped(1);
  looks.shift()!.reject(new UnavailableError("down"));
  await turn();
  durability.refuse(new UnavailableError("stopping"));
  await assert.rejects(waiting, /stopping/);
  await shipped;
  clock.advance(60_000);
  await turn();
  assert.equal(looks.length, 0);
  await world.answering(100, undefined);

  const fenced = attached();
  const rejected = fenced.durability.confirm(1) as Promise<void>;
  void fenced.durability.shipped(1);
  fenced.looks.shift()!.reject(new FencedError("taken over"));
  await assert.rejects(rejected, FencedError);
});
