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

Deno.test("after a rewind no file of the former line is used, not even that of its last owner", () => {
  const former = { name: "before", generation: GENERATION, lastVersion: 100 };
  // The rewind was epoch 4; its generation begins above all that was issued.
  const rewound: LaunchFacts["bucket"] = {
    end: { generation: "20260102t000000z-00000004-abcd", version: 5000 },
    snapshotVersion: 5000,
    seals: bucket([[2, 3, 60], [3, 4, 100]])!.seals,
    branches: [{ ...former, createdMs: 0 }],
  };
  for (const [epoch, version] of [[3, 100], [3, 60], [2, 60]]) {
    const decision = decide({ local: local(epoch, version), bucket: rewound });
    assert.equal(decision.action, "setAside");
    assert.match((decision as { why: string }).why, /rewound.*branch before/);
  }
  // One with what was never shipped is kept as well.
  const ahead = decide({ local: local(3, 140), bucket: rewound });
  assert.equal(ahead.action, "setAside");
});

Deno.test("where a part of the history was given up, the file of the last one that wrote is used, and no earlier one", () => {
  const given = { generation: GENERATION, epoch: 3, tsn: 2, decidedMs: 0 };
  const repaired = (lastEpoch: number): LaunchFacts["bucket"] => ({
    ...bucket([[3, 1, 100], [4, 0, 100]])!,
    lost: [{ ...given, lastEpoch, afterVersion: 100, untilVersion: 130 }],
  });
  const action = (epoch: number, version: number, lastEpoch: number) =>
    decide({ local: local(epoch, version), bucket: repaired(lastEpoch) })
      .action;
  assert.equal(action(3, 130, 3), "use");
  assert.equal(action(4, 150, 4), "use");
  // Another one has issued versions that nobody knows of any more.
  assert.equal(action(3, 130, 4), "setAside");
  assert.equal(action(3, 100, 4), "catchUp");
});
