import assert from "node:assert/strict";
import type { Manifest } from "./manifest.ts";
import { brokenBy, requireSound } from "./manifest_invariants.ts";

const OLD = "20260101t000000z-00000001-aaaa";
const MIDDLE = "20260102t000000z-00000001-bbbb";
const PRESENT = "20260103t000000z-00000002-cccc";
const MAKING = "20260104t000000z-00000003-dddd";

const BEFORE: Manifest = {
  databaseId: "id",
  epoch: 3,
  owner: "me",
  leaseUntilMs: 5,
  handoverTo: null,
  generation: PRESENT,
  beganWithFile: false,
  making: [MAKING],
  deleting: ["20250101t000000z-00000001-eeee"],
  archives: [{ key: "archives/x.json", endedMs: 5 }],
  generations: [
    { name: OLD, startedMs: 1, endedMs: 10, snapshotVersion: 1 },
    { name: MIDDLE, startedMs: 10, endedMs: 20, snapshotVersion: 2 },
    { name: PRESENT, startedMs: 20, endedMs: null, snapshotVersion: 3 },
  ],
  seals: [
    { generation: OLD, epoch: 1, lastTsn: 4, lastVersion: 2 },
    { generation: PRESENT, epoch: 2, lastTsn: 7, lastVersion: 9 },
  ],
  leapVersion: 100,
  head: { generation: PRESENT, epoch: 3, lastTsn: 5, lastVersion: 12 },
};

const without = (name: string) =>
  BEFORE.generations.filter((generation) => generation.name !== name);

const GIVEN_UP: Partial<Manifest> = {
  seals: [
    BEFORE.seals[0],
    { generation: PRESENT, epoch: 2, lastTsn: 3, lastVersion: 5 },
    { generation: PRESENT, epoch: 3, lastTsn: 0, lastVersion: 5 },
  ],
  head: { generation: PRESENT, epoch: 3, lastTsn: 0, lastVersion: 5 },
  lost: [{
    generation: PRESENT,
    epoch: 2,
    tsn: 4,
    lastEpoch: 3,
    afterVersion: 5,
    untilVersion: 12,
    decidedMs: 1,
  }],
};
/** The snapshot of the present one is lost. */
const FROM_EARLIER: Partial<Manifest> = {
  generation: MIDDLE,
  generations: [
    BEFORE.generations[0],
    { ...BEFORE.generations[1], endedMs: null },
  ],
  seals: [BEFORE.seals[0]],
  head: { generation: MIDDLE, epoch: 3, lastTsn: 0, lastVersion: 2 },
  lost: [{ ...GIVEN_UP.lost![0], generation: MIDDLE, afterVersion: 2 }],
};
const BRANCH = { name: "x", lastVersion: 2, createdMs: 0 };

const SOUND: Record<string, Partial<Manifest>> = {
  "what a person gives up": { ...GIVEN_UP, epoch: 4, owner: null },
  "a person goes on from an earlier generation": {
    ...FROM_EARLIER,
    epoch: 4,
    owner: null,
  },
  "a younger one than that of a branch goes": {
    archives: [],
    branches: [{ ...BRANCH, generation: OLD }],
    generations: without(MIDDLE),
    deleting: [...BEFORE.deleting, "archives/x.json", MIDDLE],
  },
  "a renewal": { leaseUntilMs: 9, change: "x" },
  "a wish to be handed over to": { handoverTo: "you" },
  "a takeover": { epoch: 4, owner: "you" },
  "a release with its seal": {
    owner: null,
    seals: [
      ...BEFORE.seals,
      { generation: PRESENT, epoch: 3, lastTsn: 1, lastVersion: 10 },
    ],
  },
  "a leap": { leapVersion: 200 },
  "a new generation": {
    generation: MAKING,
    making: [],
    generations: [
      ...without(PRESENT),
      { name: PRESENT, startedMs: 20, endedMs: 30, snapshotVersion: 3 },
      { name: MAKING, startedMs: 30, endedMs: null, snapshotVersion: 11 },
    ],
  },
  "the oldest goes": {
    archives: [],
    generations: without(OLD),
    seals: [BEFORE.seals[1]],
    deleting: [...BEFORE.deleting, OLD, "archives/x.json", "in the archive"],
  },
  "the oldest goes into an archive": {
    archives: [...BEFORE.archives, { key: "archives/y.json", endedMs: 10 }],
    generations: without(OLD),
    seals: [BEFORE.seals[1]],
  },
  "one that came to nothing goes": {
    making: [],
    deleting: [...BEFORE.deleting, MAKING],
  },
  "what was deleted is forgotten": { deleting: [] },
  "more of the log": { head: { ...BEFORE.head!, lastTsn: 6 } },
  "the log of a new epoch": { head: { ...BEFORE.head!, epoch: 4, lastTsn: 0 } },
};

const BROKEN: Record<string, [change: Partial<Manifest>, says: RegExp]> = {
  "another database": [{ databaseId: "other" }, /the database id changes/],
  "a person's decision that fences nobody": [
    GIVEN_UP,
    /the head of the log falls; the seal of epoch 2/,
  ],
  "a branch that is deleted": [
    {
      archives: [],
      branches: [{ ...BRANCH, generation: OLD }],
      generations: without(OLD),
      seals: [BEFORE.seals[1]],
      deleting: [...BEFORE.deleting, "archives/x.json", OLD],
    },
    /the branch x is of no generation/,
  ],
  "an older epoch": [{ epoch: 2 }, /the epoch falls/],
  "an owner in the same epoch": [{ owner: "you" }, /without a new epoch/],
  "a smaller leap": [{ leapVersion: 99 }, /leapVersion falls/],
  "no generation any more": [
    { generation: null },
    /given up for none/,
  ],
  "a generation twice": [
    {
      generations: [
        ...BEFORE.generations.slice(0, 2),
        BEFORE.generations[1],
        BEFORE.generations[2],
      ],
    },
    /-bbbb stands twice/,
  ],
  "a generation that is still being made": [
    { making: [MAKING, PRESENT] },
    /-cccc stands twice/,
  ],
  "a present one that is not listed": [
    { generation: MAKING },
    /-dddd is not listed/,
  ],
  "two without an end": [
    {
      generations: BEFORE.generations.map((one) => ({ ...one, endedMs: null })),
    },
    /-aaaa has no end/,
  ],
  "a generation that is simply gone": [
    { generations: without(OLD), seals: [BEFORE.seals[1]] },
    /-aaaa is lost/,
  ],
  "a hole in the history": [
    {
      generations: without(MIDDLE),
      deleting: [...BEFORE.deleting, MIDDLE],
    },
    /-bbbb goes before an older one/,
  ],
  "a history that is deleted": [
    { deleting: [...BEFORE.deleting, PRESENT] },
    /-cccc is to be deleted and is needed/,
  ],
  "something unknown that is deleted": [
    { deleting: [...BEFORE.deleting, "a folder"] },
    /a folder is to be deleted and unknown/,
  ],
  "an earlier generation that an owner goes on from": [
    FROM_EARLIER,
    /-cccc is lost/,
  ],
  "an older generation that is given up with the present one": [
    {
      ...FROM_EARLIER,
      epoch: 4,
      owner: null,
      seals: [],
      generations: FROM_EARLIER.generations!.slice(1),
    },
    /-aaaa is lost/,
  ],
  "an archive that is gone": [{ archives: [] }, /x\.json is lost/],
  "a seal that is gone": [
    { seals: [BEFORE.seals[0]] },
    /the seal of epoch 2 .* is changed or lost/,
  ],
  "a lower seal": [
    { seals: [BEFORE.seals[0], { ...BEFORE.seals[1], lastTsn: 6 }] },
    /the seal of epoch 2 .* is changed or lost/,
  ],
  "a seal twice": [
    { seals: [...BEFORE.seals, BEFORE.seals[1]] },
    /the seal of epoch 2 .* stands twice/,
  ],
  "a seal of no generation": [
    { seals: [...BEFORE.seals, { ...BEFORE.seals[1], generation: "x" }] },
    /is of no generation/,
  ],
  "a seal of an epoch to come": [
    { seals: [...BEFORE.seals, { ...BEFORE.seals[1], epoch: 4 }] },
    /of an epoch to come/,
  ],
  "a shorter log": [
    { head: { ...BEFORE.head!, lastTsn: 4 } },
    /the head of the log falls/,
  ],
  "a log of which nothing is known any more": [
    { head: undefined },
    /the head of the log falls/,
  ],
  "a snapshot that changes": [
    {
      generations: [
        ...BEFORE.generations.slice(0, 2),
        { ...BEFORE.generations[2], snapshotVersion: 4 },
      ],
    },
    /-cccc is changed/,
  ],
};

for (const [what, change] of Object.entries(SOUND)) {
  Deno.test(`a sound change of the manifest: ${what}`, () => {
    assert.deepEqual(brokenBy(BEFORE, { ...BEFORE, ...change }), []);
  });
}

for (const [what, [change, says]] of Object.entries(BROKEN)) {
  Deno.test(`refused before it is written: ${what}`, () => {
    const after = { ...BEFORE, ...change };
    assert.match(brokenBy(BEFORE, after).join("; "), says);
    assert.throws(() => requireSound(BEFORE, after), says);
  });
}

Deno.test("what was wrong before does not stop every change, and is not made worse", () => {
  const spoilt: Manifest = {
    ...BEFORE,
    generations: [BEFORE.generations[0], ...BEFORE.generations],
  };
  assert.deepEqual(brokenBy(spoilt, { ...spoilt, leaseUntilMs: 9 }), []);
  assert.match(
    brokenBy(spoilt, { ...spoilt, deleting: [OLD] }).join("; "),
    /is to be deleted and is needed/,
  );
  assert.deepEqual(brokenBy(undefined, BEFORE), []);
  assert.match(brokenBy(undefined, spoilt).join("; "), /stands twice/);
});
