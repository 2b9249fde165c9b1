/**
 * For kill_test.ts: applies a history and goes back and forth in it, for ever,
 * with a line for each step.
 */
import { systemClock } from "../../src/common/clock.ts";
import { seededRandom, systemRandom } from "../../src/common/random.ts";
import { batchOf, HistoryModel } from "../../src/store/sqlite/replica_model.ts";
import { openReplicaWriter } from "../../src/store/sqlite/replica_writer.ts";

const [path, seed, round] = Deno.args;
const model = new HistoryModel(seededRandom(Number(seed)), 9);
const commits = model.next(1000);
const random = seededRandom(Number(seed) * 1000 + Number(round));
const writer = openReplicaWriter({
  path,
  clock: systemClock,
  random: systemRandom,
  keepsHistory: true,
});
console.log("open");
for (;;) {
  const from = Number(writer.state("applied") ?? 0);
  if (random.below(3) === 0 || from === commits.length) {
    await writer.goTo(model.states[random.below(from + 1)].point);
    console.log("there");
    continue;
  }
  const next = commits.slice(from, from + 1 + random.below(100));
  const state = { applied: String(from + next.length) };
  const batch = batchOf(next, writer.newestVersion, { state });
  if (random.below(3) === 0) await writer.keep(batch);
  else {
    await writer.goTo();
    await writer.apply(batch);
  }
  console.log("applied");
}
