/** How fast a replica's file goes back in time. */
import { systemClock } from "../../src/common/clock.ts";
import { systemRandom } from "../../src/common/random.ts";
import { LAST_INDEX, LogEncoder } from "../../src/log/entry.ts";
import { Encoding, NEVER_MS } from "../../src/protocol/messages.ts";
import type { ReplicaCommits } from "../../src/store/replica_writer.ts";
import { openReplicaWriter } from "../../src/store/sqlite/replica_writer.ts";
import { createRestoreTarget } from "../../src/store/sqlite/restore_target.ts";
import { type Measured, median, type Plan, type Row } from "../row.ts";

const KEYS = 100_000;
const MUTATIONS = 200_000;
/** Gone back over. */
const UNDONE = 100_000;
const BATCH = 10_000;

export const pitrRow: Row = {
  id: "pitr-checkout",
  title: "pitr checkout, 100,000 mutations back over 10^5 keys",
  unit: "ms",
  judged: "ours",
  atLeast: 2000,
  aim: 1000,
  needs: [],
  measure: checkout,
};

async function checkout({ folder, rounds }: Plan): Promise<Measured> {
  const path = `${folder}/replica.sqlite`;
  const target = await createRestoreTarget(path, { clock: systemClock });
  await target.finish({
    databaseId: "11111111-1111-4111-8111-111111111111",
    version: 1,
    leapToVersion: 1,
    state: {},
  });
  const writer = openReplicaWriter({
    path,
    clock: systemClock,
    random: systemRandom,
    keepsHistory: true,
  });
  try {
    const applyMs: number[] = [];
    for (let done = 0; done < MUTATIONS; done += BATCH) {
      const commits = commitsAfter(1 + done);
      const startedMs = performance.now();
      await writer.apply(commits);
      applyMs.push(performance.now() - startedMs);
    }
    const ours: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const startedMs = performance.now();
      await writer.goTo({ version: 1 + MUTATIONS - UNDONE, order: 0 });
      ours.push(performance.now() - startedMs);
      await writer.goTo();
    }
    const rate = Math.round(BATCH / median(applyMs) * 1000);
    return { ours, peer: [], note: `applied at ${rate} mutations/s` };
  } finally {
    await writer.close();
  }
}

/** Each a commit of one mutation, of a random key. */
function commitsAfter(version: number): ReplicaCommits {
  const encoder = new LogEncoder();
  const value = new Uint8Array(100);
  for (let i = 1; i <= BATCH; i++) {
    const key = new Uint8Array(16);
    new DataView(key.buffer).setUint32(4, systemRandom.below(KEYS));
    encoder.append(
      version + i,
      0,
      LAST_INDEX,
      key,
      value,
      Encoding.BYTES,
      NEVER_MS,
    );
  }
  return {
    entries: encoder.bytes.slice(),
    afterVersion: version,
    version: version + BATCH,
    timeMs: systemClock.nowMs(),
    times: [],
    state: {},
  };
}
