import assert from "node:assert/strict";
import {
  decodeAtomicWrite,
  decodeSnapshotRead,
} from "../src/protocol/datapath.ts";
import {
  encodeAtomicWriteOutput,
  encodeSnapshotReadOutput,
} from "../src/protocol/datapath_answers.ts";
import { encodeKey } from "../src/protocol/key.ts";
import { Encoding, MutationType } from "../src/protocol/messages.ts";
import { numberedKey, VALUE } from "./kv_client.ts";
import {
  atomicWrite,
  committedVersionstamp,
  pointOf,
  snapshotRead,
  stringKey,
  valueSizes,
  versionOf,
} from "./wire.ts";

Deno.test("the benchmark's requests are what the server reads", () => {
  const key = numberedKey(7);
  assert.deepEqual(key, encodeKey(["k000000007"]));
  const [point, list] = decodeSnapshotRead(
    snapshotRead([
      pointOf(key),
      { start: key, end: numberedKey(9), limit: 300 },
    ]).slice(),
  );
  assert.equal(point.isPoint, true);
  assert.deepEqual(point.start, key);
  assert.equal(list.limit, 300);
  assert.deepEqual(list.end, numberedKey(9));

  const versionstamp = Uint8Array.fromHex("00000000000001000000");
  const write = decodeAtomicWrite(
    atomicWrite([{ key, versionstamp }], [stringKey("w")], VALUE).slice(),
    0,
  );
  assert.deepEqual(write.checks, [{ key, version: 256, order: 0 }]);
  const [set] = write.mutations;
  assert.equal(set.type, MutationType.SET);
  assert.equal(set.encoding, Encoding.BYTES);
  assert.deepEqual(set.key, encodeKey(["w"]));
  assert.deepEqual(set.value, VALUE);
});

Deno.test("the benchmark understands the server's answers", () => {
  const entry = {
    key: numberedKey(1).slice(),
    value: VALUE,
    encoding: Encoding.BYTES,
    version: 5,
    order: 0,
  };
  const output = encodeSnapshotReadOutput([[entry, entry], [], [entry]]);
  assert.deepEqual(valueSizes(output), [100, 100, 100]);

  const committed = encodeAtomicWriteOutput({
    status: "committed",
    version: 70_000,
    order: 0,
  });
  assert.equal(versionOf(committedVersionstamp(committed)), 70_000);
  const failed = encodeAtomicWriteOutput({
    status: "checkFailed",
    failedChecks: [0],
  });
  assert.throws(() => committedVersionstamp(failed), /not committed/);
});
