/** A backup to a folder whose share comes and goes. */
import assert from "node:assert/strict";
import { BackupService } from "../../src/backup/backup_service.ts";
import type { BackupServiceOptions } from "../../src/backup/service_options.ts";
import { systemClock } from "../../src/common/clock.ts";
import { StartupError } from "../../src/common/errors.ts";
import { type Logger, silentLogger } from "../../src/common/log.ts";
import { systemRandom } from "../../src/common/random.ts";
import { openObjectStore } from "../../src/object_store/open.ts";
import { atomic, range, set } from "../../src/store/contract/support.ts";
import { SqliteLocalEngine } from "../../src/store/sqlite/local_engine.ts";
import { until } from "../support/faulty_server.ts";
import { Mounts } from "../support/mounts.ts";
import { TestFolder } from "../support/server.ts";

async function open(
  place: string,
  path: string,
  given: Partial<BackupServiceOptions> = {},
): Promise<BackupService> {
  const parts = {
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
  };
  return await BackupService.open({
    objects: await openObjectStore(`file://${place}`, parts),
    engine: new SqliteLocalEngine({ path, ...parts }),
    durability: "local",
    intervalMs: 50,
    retentionMs: 3_600_000,
    maxRetainedBytes: 1e9,
    verifyEveryMs: 0,
    allowUnfenced: false,
    ...parts,
    ...given,
  });
}

async function count(service: BackupService): Promise<number> {
  const all = range(new Uint8Array([0]), new Uint8Array([0xff]));
  return (await service.store.read([all]))[0].length;
}

function names(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}

/** Hears the warnings. */
function listening(): { logger: Logger; warnings: string[] } {
  const warnings: string[] = [];
  return {
    warnings,
    logger: { ...silentLogger, warn: (what) => void warnings.push(what) },
  };
}

Deno.test("file: with its share unmounted a database is refused at start, and nothing begins below", async () => {
  await using mounts = await Mounts.open();
  if (mounts === undefined) return;
  await using disk = await TestFolder.make();
  await mounts.memory("share");
  await mounts.bind("share", "point");
  const place = mounts.path("point");

  const first = listening();
  let service = await open(place, disk.database, first);
  assert.match(first.warnings.join(), /empty: a new backup begins in it/);
  await service.store.write(atomic([set("a", "x")]));
  await service.close();

  await mounts.detach("point");
  const refused = (error: unknown) =>
    error instanceof StartupError &&
    /is not the place .* Mount/s.test(error.message);
  await assert.rejects(open(place, disk.database), refused);
  assert.deepEqual(names(place), []);

  // What a start on a blank disk may once have begun there.
  await using other = await TestFolder.make();
  await (await open(place, other.database)).close();
  const before = names(place);
  await assert.rejects(open(place, disk.database), refused);
  assert.deepEqual(names(place), before);

  await mounts.bind("share", "point");
  const again = listening();
  service = await open(place, disk.database, again);
  assert.equal(await count(service), 1);
  assert.deepEqual(again.warnings, []);
  await service.close();

  // And from nothing but the share.
  await using blank = await TestFolder.make();
  service = await open(place, blank.database);
  assert.equal(await count(service), 1);
  await service.close();
});

Deno.test("file: a share that is unmounted under a server is an outage, and comes back", async () => {
  await using mounts = await Mounts.open();
  if (mounts === undefined) return;
  await using disk = await TestFolder.make();
  await mounts.memory("share");
  await mounts.bind("share", "point");
  const service = await open(mounts.path("point"), disk.database);
  try {
    await service.store.write(atomic([set("a", "x")]));
    await until("shipped", () => service.report().state === "Active");
    await mounts.detach("point");
    await service.store.write(atomic([set("b", "x")]));
    await until("an outage", () => service.report().state === "Unreachable");
    assert.deepEqual(names(mounts.path("point")), []);
    await mounts.bind("share", "point");
    await until("the end of the outage", () => {
      const { state, localVersion, bucketVersion } = service.report();
      return state === "Active" && localVersion === bucketVersion;
    });
    assert.equal((await service.verify()).entries, 2);
  } finally {
    await service.close();
  }
});

Deno.test("file: a place whose own folder was deleted is known by its backup", async () => {
  await using folder = await TestFolder.make();
  const place = `${folder.path}/place`;
  await Deno.mkdir(place);
  for (let round = 1; round <= 3; round++) {
    const service = await open(place, folder.database);
    await service.store.write(atomic([set(`${round}`, "x")]));
    assert.equal(await count(service), round);
    await service.close();
    await Deno.remove(`${place}/.denokv`, { recursive: true });
  }
});

Deno.test("file: a place that may only be read is refused at start", async () => {
  await using mounts = await Mounts.open();
  if (mounts === undefined) return;
  await using disk = await TestFolder.make();
  await Deno.mkdir(mounts.path("disk"));
  await (await open(mounts.path("disk"), disk.database)).close();
  await mounts.bind("disk", "disk");
  await mounts.makeReadOnly("disk");
  await assert.rejects(
    open(mounts.path("disk"), disk.database),
    /Read-only file system/,
  );
});
