import assert from "node:assert/strict";
import { utf8 } from "../common/bytes.ts";
import { StartupError } from "../common/errors.ts";
import { decodeManifest, encodeManifest, type Manifest } from "./manifest.ts";

const MANIFEST: Manifest = {
  databaseId: "an id",
  epoch: 3,
  owner: "me",
  leaseUntilMs: 5,
  handoverTo: null,
  generation: "g",
  beganWithFile: false,
  making: [],
  deleting: [],
  archives: [{ key: "archives/x.json", endedMs: 900 }],
  generations: [
    // As an older program left it.
    { name: "e", startedMs: 0, endedMs: 1, snapshotVersion: 1 },
    {
      name: "f",
      startedMs: 1,
      endedMs: 2,
      snapshotVersion: 26,
      snapshotTimeMs: 1,
      missingAfterVersion: 0,
    },
    {
      name: "g",
      startedMs: 2,
      endedMs: null,
      snapshotVersion: 27,
      snapshotTimeMs: 3,
      missingAfterVersion: null,
    },
  ],
  seals: [{ generation: "g", epoch: 2, lastTsn: 4, lastVersion: 2 ** 40 }],
  leapVersion: 2 ** 33,
  leaseMs: 10_000,
  head: { generation: "g", epoch: 3, lastTsn: 9, lastVersion: 2 ** 41 },
  change: "c",
};

Deno.test("a manifest is what was written", () => {
  const { manifest, nonce } = decodeManifest(encodeManifest(MANIFEST, "n"));
  assert.deepEqual(manifest, MANIFEST);
  assert.equal(nonce, "n");
});

Deno.test("what is no manifest, or a newer one, is told in a sentence", () => {
  for (const text of ["", "{", "null", "{}", '{"format":1,"epoch":"x"}']) {
    assert.throws(() => decodeManifest(utf8(text)), (error: unknown) => {
      assert(error instanceof StartupError);
      assert.match(error.message, /cannot be read .* Nothing was changed/);
      return true;
    });
  }
  assert.throws(
    () => decodeManifest(utf8('{"format":2}')),
    /has format 2; this server knows 1/,
  );
});
