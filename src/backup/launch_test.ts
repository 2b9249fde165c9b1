import assert from "node:assert/strict";
import { decide, type LaunchFacts } from "./launch.ts";

const GENERATION = "20260101t000000z-00000003-abcd";
const end = { generation: GENERATION, version: 100 };

function bucket(
  seals: [epoch: number, lastTsn: number, lastVersion: number][],
): LaunchFacts["bucket"] {
  return {
    end,
    snapshotVersion: 10,
    seals: seals.map(([epoch, lastTsn, lastVersion]) => ({
      generation: GENERATION,
      epoch,
      lastTsn,
      lastVersion,
    })),
  };
}

function local(epoch: number | undefined, contentVersion: number) {
  return { version: contentVersion, contentVersion, epoch };
}

Deno.test("nothing in the bucket: a new database, or the file that is there", () => {
  assert.deepEqual(decide({ local: undefined, bucket: undefined }), {
    action: "new",
  });
  assert.deepEqual(decide({ local: local(1, 5), bucket: undefined }), {
    action: "adopt",
  });
});

Deno.test("no file: restored", () => {
  const facts = { local: undefined, bucket: bucket([[3, 4, 100]]) };
  assert.equal(decide(facts).action, "restore");
});

Deno.test("the file of the last epoch is used, also when it is ahead", () => {
  const seals = bucket([[3, 4, 100]]);
  for (const version of [100, 130]) {
    const facts = { local: local(3, version), bucket: seals };
    assert.equal(decide(facts).action, "use");
  }
});

Deno.test("it is used when those after it wrote nothing", () => {
  const facts = {
    local: local(3, 130),
    bucket: bucket([[3, 4, 100], [4, 0, 100], [5, 0, 100]]),
  };
  assert.equal(decide(facts).action, "use");
});

Deno.test("an older copy of the file is set aside", () => {
  const facts = { local: local(3, 90), bucket: bucket([[3, 4, 100]]) };
  const decision = decide(facts);
  assert.equal(decision.action, "setAside");
});

Deno.test("a file that ended with everything shipped is caught up", () => {
  const facts = {
    local: local(3, 60),
    bucket: bucket([[3, 4, 60], [4, 2, 100]]),
  };
  assert.equal(decide(facts).action, "catchUp");
});

Deno.test("a file that has what was never shipped, while others went on, is a fork", () => {
  const facts = {
    local: local(3, 70),
    bucket: bucket([[3, 4, 60], [4, 2, 100]]),
  };
  const decision = decide(facts);
  assert.equal(decision.action, "setAside");
  assert(decision.action === "setAside");
  assert.match(decision.why, /took over while it held writes/);
});

Deno.test("a file from before the present generation, and one of no epoch, are set aside", () => {
  const seals = bucket([[3, 4, 100]]);
  for (const epoch of [2, undefined]) {
    const facts = { local: local(epoch, 100), bucket: seals };
    assert.equal(decide(facts).action, "setAside", `${epoch}`);
  }
});
