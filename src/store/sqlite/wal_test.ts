import assert from "node:assert/strict";
import { systemClock } from "../../common/clock.ts";
import { silentLogger } from "../../common/log.ts";
import { seededRandom } from "../../common/random.ts";
import { atomic, eventually, set, turns } from "../contract/support.ts";
import { DurableHorizon } from "./durable_horizon.ts";
import { GroupCommit } from "./group_commit.ts";
import { openWriteSession } from "./session.ts";
import { WaitingWrites } from "./waiting_writes.ts";

Deno.test("a log that begins anew and is longer at once is another run: nothing of it is certain before its sync", async () => {
  const folder = Deno.makeTempDirSync({ prefix: "denokv-test-" });
  const clock = systemClock;
  const session = openWriteSession({
    path: `${folder}/denokv.sqlite`,
    clock,
    random: seededRandom(1),
    logger: silentLogger,
  });
  try {
    const syncs: PromiseWithResolvers<void>[] = [];
    const horizon: DurableHorizon = new DurableHorizon({
      clock,
      durability: { name: "local", confirm() {} },
      sync() {
        syncs.push(Promise.withResolvers());
        return syncs.at(-1)!.promise;
      },
      onSynced: () => writer.schedule(),
      onDurable() {},
      onSyncFailure() {},
      onRefusal() {},
    }, session.dataVersion());
    const writer: GroupCommit = new GroupCommit(session, {
      clock,
      random: seededRandom(2),
      horizon,
      onFailure: assert.fail,
      onCommitted() {},
      onForeignWrite: assert.fail,
      highestVersion: 0,
      batchTimeoutMs: 0,
      waiting: new WaitingWrites(),
    });
    const write = async (name: string, text: string) => {
      const written = writer.write(atomic([set(name, text)]));
      await eventually("a sync", () => syncs.length > 0);
      return { written, sync: syncs.shift()! };
    };
    const first = await write("a", "1");
    assert.equal(writer.certainFrames, 0);
    first.sync.resolve();
    await first.written;
    const { log } = session.walFrames();
    assert.equal(writer.certainFrames, log);

    session.db.exec("pragma wal_checkpoint(passive)");
    const second = await write("b", "x".repeat(60_000));
    assert.ok(session.walFrames().log > log);
    assert.equal(writer.certainFrames, 0);
    second.sync.resolve();
    await second.written;
    assert.equal(writer.certainFrames, session.walFrames().log);

    // Without one in between it goes on.
    const third = await write("c", "1");
    assert.ok(writer.certainFrames > 0);
    third.sync.resolve();
    await third.written;
    await turns(1);
  } finally {
    session.close();
    Deno.removeSync(folder, { recursive: true });
  }
});
