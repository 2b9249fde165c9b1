import assert from "node:assert/strict";
import { clearInterval, setInterval } from "node:timers";
import { systemClock } from "../common/clock.ts";
import { silentLogger } from "../common/log.ts";
import { systemRandom } from "../common/random.ts";
import { MemoryObjectStore } from "../object_store/memory.ts";
import { atomic, set } from "../store/contract/support.ts";
import { SqliteLocalEngine } from "../store/sqlite/local_engine.ts";
import { BackupService } from "./backup_service.ts";

Deno.test("local: a file that was copied to another place goes on above what its original may have issued", async () => {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  const awake = setInterval(() => {}, 1000);
  const memory = new MemoryObjectStore({ clock: systemClock });
  const open = (place: string) =>
    BackupService.open({
      objects: new MemoryObjectStore({ clock: systemClock, sharing: memory }),
      engine: new SqliteLocalEngine({
        path: `${folder}/${place}/denokv.sqlite`,
        clock: systemClock,
        random: systemRandom,
        logger: silentLogger,
      }),
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
      durability: "local",
      intervalMs: 3_600_000,
      retentionMs: 3_600_000,
      maxRetainedBytes: 1e9,
      verifyEveryMs: 0,
      allowUnfenced: false,
      leaseMs: 300,
      clockMarginMs: 50,
    });
  const put = async (service: BackupService, key: string) => {
    const outcome = await service.store.write(atomic([set(key, "v")]));
    assert.equal(outcome.status, "committed");
    return outcome.status === "committed" ? outcome.version : 0;
  };
  try {
    await Deno.mkdir(`${folder}/original`);
    const original = await open("original");
    await put(original, "shipped");
    await original.close();
    const again = await open("original");
    await again.snapshot();
    await Deno.mkdir(`${folder}/copy`);
    for (const end of ["", "-wal", "-shm", "-lock"]) {
      const from = `${folder}/original/denokv.sqlite${end}`;
      await Deno.copyFile(from, `${folder}/copy/denokv.sqlite${end}`)
        .catch(() => {});
    }
    // Acknowledged there, and never shipped: the machine is lost with it.
    const lost = await put(again, "lost");
    const copy = await open("copy");
    const version = await put(copy, "after");
    assert.ok(version > lost + 2 ** 31, `${version} after ${lost}`);
    await copy.close();
    await again.close();
  } finally {
    clearInterval(awake);
    await Deno.remove(folder, { recursive: true });
  }
});
