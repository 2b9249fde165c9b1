/** A replica's file, and the process that writes it killed at any moment. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../src/common/clock.ts";
import { seededRandom, systemRandom } from "../../src/common/random.ts";
import {
  contentsOf,
  HistoryModel,
} from "../../src/store/sqlite/replica_model.ts";
import { openReplicaWriter } from "../../src/store/sqlite/replica_writer.ts";
import { createRestoreTarget } from "../../src/store/sqlite/restore_target.ts";

const SEED = 5;
const ROUNDS = 8;
const CHILD = fileURLToPath(new URL("kill_child.ts", import.meta.url));

/** Killed after so many steps, in the middle of the next one. */
async function killAfter(
  steps: number,
  path: string,
  round: number,
  folder: string,
): Promise<void> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      `--allow-read=${folder}`,
      `--allow-write=${folder}`,
      CHILD,
      path,
      String(SEED),
      String(round),
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let lines = 0;
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    lines += text.split("\n").length - 1;
    if (lines < steps) continue;
    child.kill("SIGKILL");
    break;
  }
  const { signal } = await child.status;
  assert.equal(signal, "SIGKILL");
}

Deno.test("a replica that is killed at any moment is at a state of its history, and tells which", async () => {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  try {
    const path = `${folder}/a.sqlite`;
    const target = await createRestoreTarget(path, { clock: systemClock });
    await target.finish({
      databaseId: "11111111-1111-4111-8111-111111111111",
      version: 9,
      leapToVersion: 9,
      state: {},
    });
    const model = new HistoryModel(seededRandom(SEED), 9);
    model.next(1000);
    const states = new Map(
      model.states.map((state, i) => [state.point.version, { ...state, i }]),
    );
    const random = seededRandom(SEED);
    let before = 0;
    for (let round = 0; round < ROUNDS; round++) {
      await killAfter(1 + random.below(25), path, round, folder);
      const writer = openReplicaWriter({
        path,
        clock: systemClock,
        random: systemRandom,
        keepsHistory: true,
      });
      // The file shows what it says, and has what its position says.
      const shown = states.get(writer.point.version)!;
      assert.deepEqual(contentsOf(path), shown.contents, `round ${round}`);
      const applied = Number(writer.state("applied") ?? 0);
      assert.ok(applied >= before);
      before = applied;
      assert.equal(writer.newestVersion, model.states[applied].point.version);
      for (const at of [0, applied, random.below(applied + 1)]) {
        const { point, contents } = model.states[at];
        await writer.goTo(point);
        assert.deepEqual(contentsOf(path), contents, `round ${round}`);
      }
      await writer.close();
    }
    assert.ok(before > 0);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
