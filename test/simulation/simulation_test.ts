/**
 * Thousands of runs of the world in `world.ts`, each out of its own seed. To
 * replay one: `DENOKV_SIMULATION_SEED=<seed>`; for more of them:
 * `DENOKV_SIMULATION_RUNS=<count>`.
 */
import assert from "node:assert/strict";
import { Lease } from "../../src/backup/lease.ts";
import { Ownership } from "../../src/backup/ownership.ts";
import { Candidate } from "../../src/backup/takeover.ts";
import { type Outcome, type Settings, simulate } from "./world.ts";

const RUNS = Number(Deno.env.get("DENOKV_SIMULATION_RUNS") ?? 1000);
const SEED = Deno.env.get("DENOKV_SIMULATION_SEED");
const FIRST_SEED = SEED === undefined
  ? Math.floor(Math.random() * 2 ** 31)
  : Number(SEED);

const HARD: Settings = {
  durability: "s3",
  maxSkewMs: 100,
  faults: 8,
  losesDisks: true,
};

async function runs(count: number, settings: Settings): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  const first = FIRST_SEED;
  for (let i = 0; i < (SEED === undefined ? count : 1); i++) {
    outcomes.push(await simulate(first + i, settings));
  }
  return outcomes;
}

function check(outcomes: readonly Outcome[]): void {
  const bad = outcomes.filter(({ problems }) => problems.length > 0);
  for (const { seed, problems } of bad.slice(0, 5)) {
    console.error(`DENOKV_SIMULATION_SEED=${seed}: ${problems.join("; ")}`);
  }
  assert.equal(bad.length, 0, `${bad.length} of ${outcomes.length} runs`);
}

function total(
  outcomes: readonly Outcome[],
  name: "acknowledged" | "takeovers",
) {
  return outcomes.reduce((sum, outcome) => sum + outcome[name], 0);
}

Deno.test("s3: no acknowledged write is lost, no history forks, no stale read", async () => {
  const outcomes = await runs(2 * RUNS, HARD);
  check(outcomes);
  if (SEED !== undefined) return;
  // It would prove nothing if nothing happened.
  assert.ok(total(outcomes, "acknowledged") > 20 * RUNS);
  assert.ok(total(outcomes, "takeovers") > 5 * RUNS);
});

Deno.test("s3: clocks far apart cost no write, no fork and no stale read", async () => {
  check(await runs(RUNS / 2, { ...HARD, maxSkewMs: 3000 }));
});

Deno.test("s3: a folder that was copied to another machine does not skip the lease", async () => {
  check(await runs(RUNS / 2, { ...HARD, copiesDisks: true }));
});

Deno.test("s3: a bucket that fails at every tenth request", async () => {
  check(await runs(RUNS / 2, { ...HARD, faults: 25 }));
});

Deno.test("s3: instances that stand by and take over from each other: no write is lost, no stale read", async () => {
  const outcomes = await runs(RUNS / 2, { ...HARD, standsBy: true });
  check(outcomes);
  if (SEED !== undefined) return;
  assert.ok(total(outcomes, "acknowledged") > 10 * RUNS);
  assert.ok(total(outcomes, "takeovers") > RUNS);
});

Deno.test("local: no version is issued twice, and no history forks", async () => {
  check(await runs(RUNS / 2, { ...HARD, durability: "local" }));
  check(
    await runs(RUNS / 2, { ...HARD, durability: "local", losesDisks: false }),
  );
  check(
    await runs(RUNS / 4, { ...HARD, durability: "local", standsBy: true }),
  );
});

Deno.test("a database that was there before its backup is not begun anew without its file", async () => {
  for (const durability of ["s3", "local"] as const) {
    const settings = { ...HARD, losesDisks: false, beginsWithFile: true };
    check(await runs(RUNS / 5, { ...settings, durability }));
  }
});

/** Breaks a method of a class for as long as the work takes. */
async function without(
  { prototype: broken }: { prototype: object },
  name: string,
  instead: () => unknown,
  work: () => Promise<void>,
): Promise<void> {
  const prototype = broken as Record<string, unknown>;
  assert.equal(typeof prototype[name], "function");
  const whole = prototype[name];
  prototype[name] = instead;
  try {
    await work();
  } finally {
    prototype[name] = whole;
  }
}

/** One in some hundreds shows what is broken; far more are not needed. */
const MAX_SEARCH_RUNS = 8000;

/** Runs until one of them goes wrong as it should. */
async function findsProblem(settings: Settings, pattern: RegExp) {
  for (let i = 0; i < MAX_SEARCH_RUNS; i++) {
    const { problems } = await simulate(FIRST_SEED + i, settings);
    if (problems.some((problem) => pattern.test(problem))) return;
  }
  assert.fail(`${MAX_SEARCH_RUNS} runs found nothing`);
}

Deno.test("the simulation finds an acknowledgement without a look at the manifest", async () => {
  await without(
    Ownership,
    "confirmOwned",
    () => Promise.resolve(),
    () => findsProblem({ ...HARD, leaseMs: 500 }, /is not in the history/),
  );
});

Deno.test("the simulation finds a takeover without seals", async () => {
  await without(
    Candidate,
    "seal",
    () => Promise.resolve(),
    () =>
      findsProblem(
        HARD,
        /not in the history|is that of|a launch failed|in the end/,
      ),
  );
});

Deno.test("the simulation finds an owner that answers without a lease", async () => {
  // Without looks too, which would show it the takeover a moment later.
  await without(
    Lease,
    "look",
    () => {},
    () =>
      without(
        Ownership,
        "mayServe",
        () => true,
        () => findsProblem(HARD, /a read on machine \d missed/),
      ),
  );
});
