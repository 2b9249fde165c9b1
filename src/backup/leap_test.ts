import assert from "node:assert/strict";
import { systemClock } from "../common/clock.ts";
import { systemRandom } from "../common/random.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import { announceLeap, withLeap } from "./leap.ts";
import { type Manifest, VERSION_LEAP } from "./manifest.ts";
import { ManifestStore } from "./manifest_store.ts";

const NONE: Manifest = {
  databaseId: "00000000-0000-4000-8000-000000000000",
  epoch: 1,
  owner: "an owner",
  leaseUntilMs: 0,
  handoverTo: null,
  generation: null,
  beganWithFile: false,
  making: [],
  deleting: [],
  archives: [],
  generations: [],
  seals: [],
  leapVersion: 0,
};

function place() {
  const objects = new MemoryObjectStore({ clock: systemClock });
  const manifests = () => new ManifestStore(objects, systemClock, systemRandom);
  return { objects, manifests };
}

Deno.test("a leap goes over the version, and over every leap before", () => {
  const first = withLeap(NONE, 1000);
  assert.equal(first.leapVersion, 1000 + VERSION_LEAP);
  assert.equal(
    withLeap(first, 1000).leapVersion,
    first.leapVersion + VERSION_LEAP,
  );
  assert.equal(
    withLeap(first, 10 * VERSION_LEAP).leapVersion,
    11 * VERSION_LEAP,
  );
});

Deno.test("of several that leap at once, none gets what another one has", async () => {
  const { objects, manifests } = place();
  await manifests().swap(undefined, NONE);
  const leaps = await Promise.all(
    Array.from({ length: 5 }, () => announceLeap(objects, manifests())),
  );
  assert.equal(new Set(leaps).size, 5);
  const { manifest } = (await manifests().read())!;
  assert.equal(manifest.leapVersion, Math.max(...leaps));
  // Whose it is has not changed.
  assert.deepEqual({ ...manifest, leapVersion: 0 }, NONE);
});

Deno.test("a backup without a manifest belongs to no known database", async () => {
  const { objects, manifests } = place();
  await assert.rejects(
    announceLeap(objects, manifests()),
    /manifest is missing.*Nothing was restored.*without --same-database/,
  );
});
