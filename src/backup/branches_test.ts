import assert from "node:assert/strict";
import { systemClock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import { systemRandom } from "../common/random.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import { archiveOldGenerations } from "./archive.ts";
import { branchOf, isBranchName } from "./branches.ts";
import { planRestore } from "./history.ts";
import {
  decodeManifest,
  encodeManifest,
  type Generation,
  type Manifest,
} from "./manifest.ts";
import { ManifestStore } from "./manifest_store.ts";
import { removeBranch } from "./remove_branch.ts";
import { expiredGenerations } from "./retention.ts";

function generation(number: number): Generation {
  return {
    name: `20260101t0000${`${number}`.padStart(2, "0")}z-00000001-abcd`,
    startedMs: number,
    endedMs: number === 59 ? null : number + 1,
    snapshotVersion: number,
    snapshotSha256: "00",
  };
}

const generations = Array.from({ length: 60 }, (_, i) => generation(i));
const MANIFEST: Manifest = {
  databaseId: "id",
  epoch: 1,
  owner: "an owner",
  leaseUntilMs: 0,
  handoverTo: null,
  generation: generations[59].name,
  beganWithFile: false,
  making: [],
  deleting: [],
  archives: [],
  generations,
  seals: [],
  leapVersion: 0,
  branches: [
    {
      name: "one",
      generation: generations[3].name,
      lastVersion: 3,
      createdMs: 4,
    },
    {
      name: "two",
      generation: generations[3].name,
      lastVersion: 3,
      createdMs: 5,
    },
  ],
};

function place() {
  const objects = new MemoryObjectStore({ clock: systemClock });
  return {
    objects,
    manifests: new ManifestStore(objects, systemClock, systemRandom),
  };
}

Deno.test("no retention takes the generation of a branch, and no archive hides it", async () => {
  const names = expiredGenerations(MANIFEST, 1e9, 1);
  assert.equal(names.length, 58);
  assert.ok(!names.includes(generations[3].name));
  const { branches: _, ...without } = MANIFEST;
  assert.equal(expiredGenerations(without, 1e9, 1).length, 59);

  let manifest = MANIFEST;
  await archiveOldGenerations({
    objects: place().objects,
    random: systemRandom,
    ownership: {
      epoch: 1,
      manifest,
      update: (change) => Promise.resolve(manifest = change(manifest)),
    },
  });
  assert.equal(manifest.archives.length, 1);
  assert.equal(manifest.generations.length, 17);
  assert.equal(manifest.generations[0].name, generations[3].name);
});

Deno.test("a branch is removed whoever owns the backup, and no other one", async () => {
  const { objects, manifests } = place();
  await manifests.swap(undefined, MANIFEST);
  await removeBranch(objects, manifests, "one");
  const { manifest } = (await manifests.read())!;
  assert.deepEqual(manifest, {
    ...MANIFEST,
    branches: MANIFEST.branches!.slice(1),
  });
  await assert.rejects(
    removeBranch(objects, manifests, "one"),
    /no branch one; it has two\. Nothing/,
  );
  assert.throws(() => branchOf(undefined, "x"), StartupError);
  assert.deepEqual(
    ["a", "before-20261121t061500z", "", "-x", "a b", "../x"]
      .map(isBranchName),
    [true, true, false, false, false, false],
  );
});

Deno.test("branches and what was given up are in the manifest, and its sum is of them, too", () => {
  const lost = [{
    generation: generations[0].name,
    epoch: 1,
    tsn: 2,
    lastEpoch: 3,
    afterVersion: 4,
    untilVersion: 5,
    decidedMs: 6,
  }];
  const data = encodeManifest({ ...MANIFEST, lost }, "n");
  assert.deepEqual(decodeManifest(data).manifest, { ...MANIFEST, lost });
  const text = new TextDecoder().decode(data);
  const encode = (text: string) => new TextEncoder().encode(text);
  assert.throws(
    () => decodeManifest(encode(text.replace('"tsn": 2', '"tsn": 1'))),
    /its checksum does not fit/,
  );
  // One from before there were sums has none.
  const { sha256: _, ...older } = JSON.parse(text);
  assert.deepEqual(
    decodeManifest(encode(JSON.stringify(older))).manifest,
    { ...MANIFEST, lost },
  );
});

Deno.test("a point between a branch and the newest generations is looked for in the archives", async () => {
  const { objects } = place();
  let manifest = MANIFEST;
  await archiveOldGenerations({
    objects,
    random: systemRandom,
    ownership: {
      epoch: 1,
      manifest,
      update: (change) => Promise.resolve(manifest = change(manifest)),
    },
  });
  for (const point of [20, 3, 50]) {
    for (
      const at of [
        { kind: "version", version: point },
        { kind: "time", timeMs: point },
      ] as const
    ) {
      // There are no snapshots here: the sentence names what was looked for.
      await assert.rejects(
        planRestore(objects, manifest, at),
        new RegExp(generations[point].name),
      );
    }
  }
});
