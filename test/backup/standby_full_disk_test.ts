/**
 * A standby whose own disk is full: it says so, leaves the database to others
 * as long as it cannot serve it, and takes over as soon as there is room.
 */
import assert from "node:assert/strict";
import { SmallDisk } from "../support/small_disk.ts";
import { ServerProcess } from "../support/server.ts";
import { ARGS, isThere, put, readiness, until, World } from "./support.ts";

const STANDBY = [...ARGS, "--standby"];
const DISK_MIB = 24;

async function epochOf({ objects }: World): Promise<number> {
  const { data } = (await objects.get("manifest.json"))!;
  return JSON.parse(new TextDecoder().decode(data)).epoch;
}

async function saysThatItIsFull(standby: ServerProcess): Promise<void> {
  await until(async () => {
    assert.ok(standby.isRunning, standby.lastWords);
    const { cause, backup } = await readiness(standby);
    return cause === "disk" && backup.lastErrorKind === "disk";
  });
  const metrics = await standby.metrics();
  assert.equal(metrics.get('denokv_backup_error{kind="disk"}'), 1);
  assert.equal(metrics.get('denokv_backup_error{kind="damaged"}'), 0);
}

for (const isFullAtFirst of [true, false]) {
  Deno.test(
    `a standby whose disk is full ${
      isFullAtFirst ? "from the start" : "when it has followed"
    } stays one, and takes over when there is room`,
    async () => {
      await using w = await World.begin(`full-${isFullAtFirst}`);
      if (w === undefined) return;
      await using disk = await SmallDisk.mount(DISK_MIB);
      if (disk === undefined) return;
      const { backup } = w;
      await using owner = await ServerProcess.start({
        path: w.folder.database,
        backup,
        args: STANDBY,
      });
      await put(owner, "before");
      if (isFullAtFirst) disk.fill();
      await using standby = await ServerProcess.bound({
        path: disk.database,
        backup,
        args: STANDBY,
      });
      if (isFullAtFirst) await saysThatItIsFull(standby);
      else {
        await standby.logged(/its log is followed from here/);
        disk.fill();
      }
      await put(owner, "last");
      const epoch = await epochOf(w);
      await owner.kill();
      await standby.logged(/cannot take over/);
      await saysThatItIsFull(standby);
      // One that found out in a takeover may have made one.
      const tries = await epochOf(w) - epoch;
      assert.ok(tries <= (isFullAtFirst ? 0 : 1), `${tries} takeovers`);

      disk.free(DISK_MIB - 4);
      await until(async () => (await readiness(standby)).status === 200);
      for (const key of ["before", "last"]) {
        assert.ok(await isThere(standby, key), key);
      }
      await put(standby, "next");
      assert.equal((await standby.stop()).code, 0);
    },
  );
}
