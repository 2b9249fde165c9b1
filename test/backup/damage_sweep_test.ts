/**
 * Every kind of damage to every object of a small backup of several epochs and
 * generations: a restore either gives exactly what the history is, or refuses.
 * The backup and its server are real, the bucket is memory, so that thousands
 * of damages take seconds.
 */
import assert from "node:assert/strict";
import {
  type Bytes,
  byteString,
  fromUtf8,
  utf8,
} from "../../src/common/bytes.ts";
import { StartupError } from "../../src/common/errors.ts";
import { silentLogger } from "../../src/common/log.ts";
import { systemClock } from "../../src/common/clock.ts";
import { systemRandom } from "../../src/common/random.ts";
import { decodeLogEntries, LogKind } from "../../src/log/entry.ts";
import { readSnapshotRange } from "../../src/log/snapshot_range.ts";
import { MemoryObjectStore } from "../../src/object_store/memory.ts";
import { BackupService } from "../../src/backup/backup_service.ts";
import { readNewestManifest } from "../../src/backup/copies.ts";
import { planRestore, type RestorePoint } from "../../src/backup/history.ts";
import { ManifestStore } from "../../src/backup/manifest_store.ts";
import { restore } from "../../src/backup/restore.ts";
import { atomic, set } from "../../src/store/contract/support.ts";
import { SqliteLocalEngine } from "../../src/store/sqlite/local_engine.ts";
import { TestFolder } from "../support/server.ts";

type Objects = Map<string, Bytes>;
/** Keys and values, as one text. */
type State = string;

interface Backup {
  /** After its last owner has given it up. */
  objects: Objects;
  /** While it ran. */
  running: Objects;
  /** What the database held after each version. */
  states: Map<number, State>;
  latest: State;
}

async function makeBackup(): Promise<Backup> {
  await using folder = await TestFolder.make();
  const memory = new MemoryObjectStore({ clock: systemClock });
  const contents = new Map<string, string>();
  const states = new Map<number, State>();
  let count = 0;
  const serving = async (
    file: string,
    work: (service: BackupService) => Promise<void>,
  ) => {
    const service = await BackupService.open({
      objects: new MemoryObjectStore({ clock: systemClock, sharing: memory }),
      engine: new SqliteLocalEngine({
        path: `${folder.path}/${file}.sqlite`,
        clock: systemClock,
        random: systemRandom,
        logger: silentLogger,
      }),
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
      durability: "s3",
      intervalMs: 10,
      retentionMs: 3_600_000,
      maxRetainedBytes: 1e9,
      verifyEveryMs: 0,
      allowUnfenced: false,
    });
    await work(service);
    await service.close();
  };
  /** Each has a segment of its own; later ones write over earlier ones. */
  const write = async (service: BackupService, times: number) => {
    for (let i = 0; i < times; i++) {
      const key = `key ${count % 4}`;
      const value = `value ${count++}`;
      const done = await service.store.write(atomic([set(key, value)]));
      assert.equal(done.status, "committed");
      contents.set(key, value);
      if (done.status === "committed") states.set(done.version, text(contents));
    }
  };
  await serving("first", async (service) => {
    await write(service, 3);
    await service.snapshot();
    await write(service, 3);
  });
  await serving("second", async (service) => {
    await write(service, 2);
    await service.snapshot();
    await write(service, 3);
  });
  await serving("second", (service) => write(service, 2));
  const all = async () => {
    const objects: Objects = new Map();
    for await (const { key } of memory.list("")) {
      objects.set(key, (await memory.get(key))!.data);
    }
    return objects;
  };
  let running: Objects = new Map();
  await serving("third", async (service) => {
    await write(service, 3);
    running = await all();
  });
  return { objects: await all(), running, states, latest: text(contents) };
}

function text(contents: ReadonlyMap<string, string>): State {
  return JSON.stringify([...contents].sort(([a], [b]) => a < b ? -1 : 1));
}

/** What `restore` would put into a file. @throws StartupError */
async function restored(
  objects: Objects,
  point: RestorePoint,
  folder = "",
): Promise<State> {
  const store = new MemoryObjectStore({ clock: systemClock });
  for (const [key, data] of objects) {
    if (key.startsWith(folder)) await store.put(key.slice(folder.length), data);
  }
  const manifests = new ManifestStore(store, systemClock, systemRandom);
  const found = await readNewestManifest(store, manifests);
  const plan = await planRestore(store, found?.manifest, point);
  const contents = new Map<string, string>();
  const name = (key: Bytes) => fromUtf8(key.slice(1, -1)) ?? byteString(key);
  await restore({
    objects: store,
    plan,
    clock: systemClock,
    target: {
      // deno-lint-ignore require-await -- what it throws is the promise's
      load: async (range) =>
        readSnapshotRange(range, (key, value) => {
          contents.set(name(key), fromUtf8(value) ?? "");
        }),
      // deno-lint-ignore require-await -- as above
      async apply(entries, after, upTo) {
        let applied = 0;
        let lastVersion = after;
        for (const entry of decodeLogEntries(entries)) {
          if (entry.version <= after || entry.version > upTo) continue;
          if (entry.kind === LogKind.SET) {
            contents.set(name(entry.key), fromUtf8(entry.value) ?? "");
          } else contents.delete(name(entry.key));
          applied++;
          lastVersion = entry.version;
        }
        return { applied, lastVersion };
      },
    },
  });
  return text(contents);
}

interface Damage {
  what: string;
  changes: [string, Bytes | undefined][];
}

/** Of one object's bytes alone. */
function* damagesOf(key: string, data: Bytes): Generator<Damage> {
  const one = (what: string, bytes: Bytes | undefined): Damage => ({
    what: `${key}: ${what}`,
    changes: [[key, bytes]],
  });
  yield one("deleted", undefined);
  for (const length of [0, 1, data.length >> 1, data.length - 1]) {
    yield one(`cut to ${length}`, data.slice(0, length));
  }
  yield one("with a byte more", new Uint8Array([...data, 10]));
  for (let i = 0; i < 40; i++) {
    const at = Math.floor(i * data.length / 40);
    for (const bit of [1, 0x20]) {
      const bytes = data.slice();
      bytes[at] ^= bit;
      yield one(`bit ${bit} of byte ${at} changed`, bytes);
    }
  }
  yield* numbersOf(key, data);
}

/** Each number of a JSON, and each versionstamp, higher and lower. */
function* numbersOf(key: string, data: Bytes): Generator<Damage> {
  if (!key.endsWith(".json")) return;
  const json = fromUtf8(data)!;
  for (const { 0: found, index } of json.matchAll(/\b\d+\b|[0-9a-f]{20}/g)) {
    for (const other of changed(found)) {
      const bytes = utf8(
        json.slice(0, index) + other + json.slice(index + found.length),
      );
      yield {
        what: `${key}: ${found} at ${index} made ${other}`,
        changes: [[key, bytes]],
      };
    }
  }
}

function changed(found: string): string[] {
  if (found.length === 20) {
    const version = BigInt(`0x${found.slice(0, 16)}`);
    return [version - 1n, version + 1n, version + 100n, 0n]
      .filter((other) => other >= 0n && other !== version)
      .map((other) => other.toString(16).padStart(16, "0") + "0000");
  }
  const number = Number(found);
  return [number - 1, number + 1, number + 50, 0]
    .filter((other) => other >= 0 && other !== number).map(String);
}

/** Two objects of one kind: swapped, or one in the other's place. */
function* damagesOfPairs(objects: Objects): Generator<Damage> {
  const kindOf = (key: string) =>
    /logs|snapshots|snapshot\.json|differential|manifest/.exec(key)?.[0];
  const entries = [...objects];
  for (const [i, [a, dataA]] of entries.entries()) {
    for (const [b, dataB] of entries.slice(i + 1)) {
      if (kindOf(a) !== kindOf(b)) continue;
      yield {
        what: `${a} and ${b} swapped`,
        changes: [[a, dataB], [b, dataA]],
      };
      yield { what: `${b} a copy of ${a}`, changes: [[b, dataA]] };
      yield { what: `${a} a copy of ${b}`, changes: [[a, dataB]] };
      yield {
        what: `${b} moved to ${a}`,
        changes: [[a, dataB], [b, undefined]],
      };
    }
  }
}

/** An object once more, under a name that is not there. */
function* duplicates(objects: Objects): Generator<Damage> {
  const folders = [
    ...new Set([...objects.keys()].map((key) => key.split("/")[0])),
  ];
  for (const [key, data] of objects) {
    const names = new Set<string>();
    const segment = /^(.*\/logs\/0001_)(\w{8})(\w{8})(_.*)$/.exec(key);
    if (segment) {
      const [, before, epoch, tsn, after] = segment;
      const hex = (value: number) => value.toString(16).padStart(8, "0");
      for (const e of [0, 1, 2]) {
        for (const n of [1, 2, 3, 9]) {
          names.add(
            `${before}${hex(parseInt(epoch, 16) + e)}${
              hex(parseInt(tsn, 16) + n)
            }${after}`,
          );
        }
      }
    }
    for (const folder of folders) {
      names.add([folder, ...key.split("/").slice(1)].join("/"));
    }
    for (const name of names) {
      if (objects.has(name) || name === key) continue;
      yield { what: `${key} once more as ${name}`, changes: [[name, data]] };
    }
  }
}

function apply(objects: Objects, { changes }: Damage): Objects {
  const damaged = new Map(objects);
  for (const [key, data] of changes) {
    if (data === undefined) damaged.delete(key);
    else damaged.set(key, data);
  }
  return damaged;
}

function* all(objects: Objects): Generator<Damage> {
  for (const [key, data] of objects) yield* damagesOf(key, data);
  yield* damagesOfPairs(objects);
  yield* duplicates(objects);
}

/** What was restored without a word, and is not the history. */
class Sweep {
  readonly silent: string[] = [];
  private count = 0;
  private refused = 0;

  async look(
    objects: Objects,
    damage: Damage,
    point: RestorePoint,
    right: State,
    folder = "",
  ): Promise<void> {
    this.count++;
    try {
      const state = await restored(apply(objects, damage), point, folder);
      if (state !== right) this.silent.push(`${damage.what} (${point.kind})`);
    } catch (error) {
      if (!(error instanceof StartupError)) {
        throw new Error(`${damage.what}: no sentence`, { cause: error });
      }
      assert.match(error.message, /[Nn]othing/, damage.what);
      this.refused++;
    }
  }

  end(): void {
    console.log(
      `${this.count} restores of damaged backups, ${this.refused} refused`,
    );
    assert.deepEqual(this.silent, []);
  }
}

Deno.test("whatever happens to an object, a restore gives the history or refuses", async () => {
  const { objects, states, latest } = await makeBackup();
  const versions = [...states.keys()];
  assert.equal(await restored(objects, { kind: "latest" }), latest);
  for (const version of versions) {
    const point: RestorePoint = { kind: "version", version };
    assert.equal(await restored(objects, point), states.get(version));
  }
  const sweep = new Sweep();
  let i = 0;
  for (const damage of all(objects)) {
    await sweep.look(objects, damage, { kind: "latest" }, latest);
    const version = versions[i++ % versions.length];
    const right = states.get(version)!;
    await sweep.look(objects, damage, { kind: "version", version }, right);
  }
  sweep.end();
});

Deno.test("also beside an owner that runs, and out of a generation's own folder", async () => {
  const { running, states, latest } = await makeBackup();
  const sweep = new Sweep();
  const segments = [...running.keys()].filter((key) => /logs/.test(key)).sort();
  const last = segments.at(-1)!;
  for (const damage of all(running)) {
    // That the end of an epoch without a seal is gone cannot be seen.
    const isEndGone = damage.changes.some(([key, data]) =>
      key === last && data === undefined
    );
    if (isEndGone) continue;
    await sweep.look(running, damage, { kind: "latest" }, latest);
  }
  const folders = new Set(segments.map((key) => key.split("/")[0] + "/"));
  for (const folder of folders) {
    const inFolder = new Map(
      [...running].filter(([key]) => key.startsWith(folder)),
    );
    const right = await restored(inFolder, { kind: "latest" }, folder);
    assert.ok([...states.values()].includes(right));
    const ends = segments.filter((key) => key.startsWith(folder));
    for (const damage of all(inFolder)) {
      const isEndGone = damage.changes.some(([key, data]) =>
        key === ends.at(-1) && data === undefined
      );
      if (isEndGone) continue;
      await sweep.look(inFolder, damage, { kind: "latest" }, right, folder);
    }
  }
  sweep.end();
});
