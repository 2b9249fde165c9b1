import assert from "node:assert/strict";
import type { Bytes } from "../../common/bytes.ts";
import { UnavailableError } from "../../common/errors.ts";
import { ManualClock } from "../../common/manual_clock.ts";
import type { Durability } from "../durability.ts";
import { DurableHorizon } from "./durable_horizon.ts";

/** A horizon whose syncs and confirmations the test holds in its hand. */
class Bench {
  readonly clock = new ManualClock(1000);
  readonly syncs: PromiseWithResolvers<void>[] = [];
  readonly confirms: {
    version: number;
    answer: PromiseWithResolvers<void>;
  }[] = [];
  readonly events: string[] = [];
  readonly horizon: DurableHorizon;

  constructor(durability: "local" | "held" = "local", version = 100) {
    this.horizon = new DurableHorizon({
      clock: this.clock,
      durability: this.durabilityOf(durability),
      sync: () => {
        const sync = Promise.withResolvers<void>();
        this.syncs.push(sync);
        return sync.promise;
      },
      onSynced: () => this.events.push("synced"),
      onDurable: (groups) =>
        this.events.push(
          `durable ${groups.map(({ version }) => version).join()}`,
        ),
      onSyncFailure: (error) => this.events.push(`failed: ${error.message}`),
      onRefusal: (error) => this.events.push(`refused: ${error.message}`),
    }, version);
  }

  private durabilityOf(kind: "local" | "held"): Durability {
    return {
      name: kind,
      confirm: (version) => {
        if (kind === "local") return;
        const answer = Promise.withResolvers<void>();
        this.confirms.push({ version, answer });
        return answer.promise;
      },
    };
  }

  /** A committed group whose fate is noted. */
  add(
    version: number,
    removals: string[] = [],
    walFrames = version,
    walRun = 0,
    hasWritten = version > this.horizon.committedVersion,
  ): void {
    this.horizon.add({
      version,
      hasWritten,
      walFrames,
      walRun,
      keys: removals.map(key),
      removals: removals.map(key),
      acknowledge: () => this.events.push(`ack ${version}`),
      fail: (error) => {
        assert.ok(error instanceof UnavailableError);
        this.events.push(`fail ${version}`);
      },
    });
  }

  /** Notes when a reader that came now is answered. */
  reader(name: string): void {
    this.horizon.whenSettled().then(
      () => this.events.push(`read ${name}`),
      () => this.events.push(`read ${name} failed`),
    );
  }

  /** Makes every sync seem slow, so that several may run. */
  async slowSyncs(): Promise<void> {
    for (let version = 101; version < 120; version++) {
      this.add(version);
      this.clock.advance(50);
      this.syncs.at(-1)!.resolve();
      await settle();
    }
    assert.ok(this.horizon.takesCommits);
    this.syncs.length = 0;
    this.events.length = 0;
  }
}

async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

const key = (name: string): Bytes => new TextEncoder().encode(name);

Deno.test("a group is acknowledged after its sync, then its readers, then watches", async () => {
  const bench = new Bench();
  bench.add(105);
  bench.reader("a");
  await settle();
  assert.equal(bench.events.length, 0);
  assert.equal(bench.horizon.durableVersion, 100);
  assert.equal(bench.horizon.committedVersion, 105);
  bench.syncs[0].resolve();
  await settle();
  assert.deepEqual(bench.events, [
    "synced",
    "ack 105",
    "durable 105",
    "read a",
  ]);
  assert.equal(bench.horizon.durableVersion, 105);
  assert.equal(bench.horizon.committedVersion, bench.horizon.durableVersion);
});

Deno.test("what is committed while a sync runs needs the next one, which covers all of it", async () => {
  const bench = new Bench();
  bench.add(105);
  assert.equal(bench.horizon.takesCommits, false);
  bench.add(106);
  bench.add(107);
  assert.equal(bench.syncs.length, 1);
  bench.syncs[0].resolve();
  await settle();
  assert.deepEqual(bench.events, ["synced", "ack 105", "durable 105"]);
  assert.equal(bench.syncs.length, 2);
  bench.syncs[1].resolve();
  await settle();
  assert.deepEqual(bench.events.slice(3), [
    "synced",
    "ack 106",
    "ack 107",
    "durable 106,107",
  ]);
  assert.equal(bench.syncs.length, 2);
});

Deno.test("syncs that end out of order acknowledge in order", async () => {
  const bench = new Bench();
  await bench.slowSyncs();
  for (const version of [201, 202, 203]) bench.add(version);
  assert.equal(bench.syncs.length, 3, "one for each on a slow disk");
  bench.syncs[2].resolve();
  bench.syncs[1].resolve();
  await settle();
  // A later sync may have run before the earlier commit was in the log.
  assert.equal(bench.events.length, 0);
  assert.equal(bench.horizon.durableVersion, 119);
  bench.syncs[0].resolve();
  await settle();
  assert.deepEqual(
    bench.events.filter((event) => event.startsWith("ack")),
    ["ack 201", "ack 202", "ack 203"],
  );
});

Deno.test("no more than some syncs run at once, however slow", async () => {
  const bench = new Bench();
  await bench.slowSyncs();
  for (let version = 201; version < 220; version++) bench.add(version);
  assert.equal(bench.syncs.length, 4);
  assert.equal(bench.horizon.takesCommits, false);
  bench.syncs[0].resolve();
  await settle();
  assert.equal(bench.syncs.length, 5);
  for (let i = 1; i < 5; i++) {
    bench.syncs[i].resolve();
    await settle();
  }
  assert.equal(bench.events.filter((event) => /^ack/.test(event)).length, 19);
  assert.equal(bench.horizon.durableVersion, 219);
});

Deno.test("a failed sync fails what waits, whatever later syncs say", async () => {
  const bench = new Bench();
  await bench.slowSyncs();
  bench.add(201, [], 2010);
  bench.add(202, [], 2020);
  bench.add(203, [], 2030);
  bench.reader("a");
  bench.syncs[0].resolve();
  await settle();
  bench.syncs[2].resolve();
  bench.syncs[1].reject(new Error("EIO"));
  await settle();
  const events = bench.events.filter((event) => event !== "synced");
  assert.deepEqual(events.slice(0, 4), [
    "ack 201",
    "durable 201",
    "fail 202",
    "fail 203",
  ]);
  assert.match(events[4], /^failed: .*EIO.*everything acknowledged is kept\.$/);
  assert.deepEqual(events.slice(5), ["read a failed"]);
  assert.equal(bench.horizon.durableVersion, 201);
  assert.equal(bench.horizon.syncFailures, 1);
  // Only the part that a sync in good order covered is certain.
  assert.equal(bench.horizon.certainFrames(0), 2010);

  bench.add(204);
  bench.reader("b");
  await settle();
  assert.deepEqual(bench.events.slice(-2), ["fail 204", "read b failed"]);
});

Deno.test("a failed sync fails later ones that ended before it", async () => {
  const bench = new Bench();
  await bench.slowSyncs();
  bench.add(201);
  bench.add(202);
  bench.syncs[1].resolve();
  await settle();
  bench.syncs[0].reject(new Error("EIO"));
  await settle();
  assert.deepEqual(bench.events.slice(0, 2), ["fail 201", "fail 202"]);
  assert.equal(bench.events.length, 3);
  assert.equal(bench.horizon.durableVersion, 119);
});

Deno.test("frames of one run of the log say nothing of another", async () => {
  const bench = new Bench();
  bench.add(105, [], 2000, 0);
  bench.syncs[0].resolve();
  await settle();
  assert.equal(bench.horizon.certainFrames(0), 2000);
  assert.equal(bench.horizon.certainFrames(1), 0);
  bench.add(106, [], 3, 1);
  assert.equal(bench.horizon.certainFrames(1), 0);
  bench.syncs[1].resolve();
  await settle();
  assert.equal(bench.horizon.certainFrames(1), 3);
});

Deno.test("confirmations that come out of order acknowledge in order", async () => {
  const bench = new Bench("held");
  for (const [i, version] of [105, 106, 107].entries()) {
    bench.add(version);
    bench.syncs[i].resolve();
    await settle();
  }
  // The next commits do not wait for confirmations, only acknowledgements do.
  assert.deepEqual(bench.confirms.map(({ version }) => version), [
    105,
    106,
    107,
  ]);
  assert.deepEqual(bench.events, ["synced", "synced", "synced"]);
  bench.confirms[2].answer.resolve();
  bench.confirms[1].answer.resolve();
  await settle();
  assert.equal(bench.events.length, 3);
  assert.equal(bench.horizon.durableVersion, 100);
  bench.confirms[0].answer.resolve();
  await settle();
  assert.deepEqual(
    bench.events.filter((event) => event.startsWith("ack")),
    ["ack 105", "ack 106", "ack 107"],
  );
  assert.equal(bench.horizon.durableVersion, 107);
});

Deno.test("a refused confirmation fails what waits with its sentence; the log is not in doubt", async () => {
  const bench = new Bench("held");
  bench.add(105, [], 50);
  bench.syncs[0].resolve();
  await settle();
  bench.add(106, [], 60);
  bench.syncs[1].resolve();
  bench.reader("a");
  await settle();
  bench.confirms[1].answer.resolve();
  bench.confirms[0].answer.reject(new Error("Another instance owns it."));
  await settle();
  assert.deepEqual(bench.events.slice(2), [
    "fail 105",
    "fail 106",
    "refused: Another instance owns it.",
    "read a failed",
  ]);
  assert.equal(bench.horizon.durableVersion, 100);
  assert.equal(bench.horizon.syncFailures, 0);
  assert.equal(bench.horizon.certainFrames(0), 60);
});

Deno.test("a group that changed nothing waits for what it met, and for nothing else", async () => {
  const bench = new Bench();
  bench.add(100);
  assert.deepEqual(bench.events, ["ack 100"]);
  bench.add(105);
  bench.add(105);
  assert.equal(bench.syncs.length, 1, "it needs no sync of its own");
  assert.deepEqual(bench.events, ["ack 100"]);
  bench.syncs[0].resolve();
  await settle();
  assert.deepEqual(bench.events, [
    "ack 100",
    "synced",
    "ack 105",
    "ack 105",
    "durable 105,105",
  ]);
  assert.equal(bench.syncs.length, 1);
});

Deno.test("a reader is held up by unsettled rows, removals and expiries, and by nothing else", async () => {
  const bench = new Bench();
  bench.add(105, [
    "removed",
    "expires",
  ]);
  const range = (start: string, end: string) => ({
    start: key(start),
    end: key(end),
    limit: 10,
    reverse: false,
    isPoint: false,
  });
  const { horizon: line } = bench;
  assert.ok(line.isSettled(key("other"), 100));
  assert.ok(line.isSettled(key("other"), undefined));
  // A row shows its version; the absence of one shows nothing.
  assert.equal(line.isSettled(key("set"), 105), false);
  assert.equal(line.isSettled(key("removed"), undefined), false);
  assert.equal(line.isSettled(key("expires"), undefined), false);
  assert.equal(line.isRangeSettled(range("r", "s")), false);
  assert.equal(line.isRangeSettled(range("removed", "removee")), false);
  assert.ok(line.isRangeSettled(range("a", "e")));
  assert.ok(line.isRangeSettled(range("removee", "z")));
  assert.ok(line.isRangeSettled(range("r", "removed")), "its end is exclusive");
  bench.syncs[0].resolve();
  await settle();
  for (const name of ["removed", "expires"]) {
    assert.ok(line.isSettled(key(name), undefined));
  }
  assert.ok(line.isRangeSettled(range("a", "z")));
});

Deno.test("a removal that was made anew stays unsettled until the later one is durable", async () => {
  const bench = new Bench();
  const { horizon } = bench;
  bench.add(105, ["a", "b"]);
  bench.add(106);
  bench.add(107, ["a"]);
  bench.syncs[0].resolve();
  await settle();
  assert.equal(horizon.durableVersion, 105);
  assert.equal(horizon.isSettled(key("a"), undefined), false);
  assert.ok(horizon.isSettled(key("b"), undefined));
  bench.syncs[1].resolve();
  await settle();
  assert.ok(horizon.isSettled(key("a"), undefined));
});

Deno.test("a commit is answered after a sync that began behind it, whatever version it has", async () => {
  const bench = new Bench();
  assert.equal(bench.horizon.durableVersion, 100);
  // As of a file that another program has put back.
  bench.add(5, [], 1, 1, true);
  await settle();
  assert.equal(bench.events.join(), "");
  bench.syncs.shift()!.resolve();
  await settle();
  assert.ok(bench.events.includes("ack 5"), bench.events.join());
  assert.equal(bench.horizon.durableVersion, 100);
});
