/** What becomes of a folder: mounts, links, deleted parts, faults of its disk. */
import assert from "node:assert/strict";
import { Mounts } from "../../test/support/mounts.ts";
import { type FaultShim, faultShim } from "../../test/support/shim.ts";
import { fromUtf8, utf8 } from "../common/bytes.ts";
import { systemClock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import { seededRandom, systemRandom } from "../common/random.ts";
import { LocalFolderStore } from "./local_folder.ts";
import { ObjectStoreRefusedError } from "./object_store.ts";
import { probe } from "./probe.ts";

const clock = systemClock;
const random = systemRandom;

function open(folder: string): Promise<LocalFolderStore> {
  return LocalFolderStore.open({ folder, clock, random });
}

async function withFolder(
  test: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function requests(store: LocalFolderStore): (() => Promise<unknown>)[] {
  return [
    () => store.get("a/b"),
    () => store.getRange("a/b", 0, 1),
    () => store.head("a/b"),
    () => store.put("a/b", utf8("2")),
    () => store.create("a/c", utf8("2")),
    () => store.replace("a/b", utf8("2"), "tag"),
    () => store.delete(["a/b"]),
    () => Array.fromAsync(store.list("")),
  ];
}

function names(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}

Deno.test("nothing is written to a folder before the first write", () =>
  withFolder(async (folder) => {
    const store = await open(folder);
    assert.equal(store.placeId, undefined);
    assert.equal(await store.get("a/b"), undefined);
    assert.deepEqual(await Array.fromAsync(store.list("")), []);
    assert.deepEqual(names(folder), []);

    await store.put("a/b", utf8("1"));
    assert.ok(store.placeId);
    // The same for whoever opens it, and for a copy.
    assert.equal((await open(folder)).placeId, store.placeId);
  }));

Deno.test("of instances that begin a place together all have its id", () =>
  withFolder(async (folder) => {
    const stores = await Promise.all(
      Array.from({ length: 8 }, () => open(folder)),
    );
    await Promise.all(stores.map((store, i) => store.put(`${i}`, utf8("x"))));
    const ids = new Set(stores.map(({ placeId }) => placeId));
    assert.equal(ids.size, 1);
    assert.ok(!ids.has(undefined));
  }));

Deno.test("a share that is unmounted under a server is an outage, whatever lies below", async () => {
  await using mounts = await Mounts.open();
  if (mounts === undefined) return;
  await mounts.memory("share");
  // Below the mount point: nothing, and then another place.
  for (const below of ["nothing", "another place"]) {
    const point = `point-${below.length}`;
    if (below === "another place") {
      await Deno.mkdir(mounts.path(point));
      await (await open(mounts.path(point))).put("a/b", utf8("other"));
    }
    await mounts.bind("share", point);
    const folder = mounts.path(point);
    const store = await open(folder);
    await store.put("a/b", utf8("1"));
    await mounts.detach(point);
    const before = names(folder);
    for (const ask of requests(store)) {
      await assert.rejects(ask(), UnavailableError);
    }
    assert.deepEqual(names(folder), before);
    // Another share in its place is not it either.
    await mounts.memory(point);
    for (const ask of requests(store)) {
      await assert.rejects(ask(), UnavailableError);
    }
    assert.deepEqual(names(folder), []);
    await mounts.detach(point);

    await mounts.bind("share", point);
    assert.deepEqual((await store.get("a/b"))!.data, utf8("1"));
    await store.put("a/b", utf8("2"));
  }
});

Deno.test("a place that may only be read is refused by the probe, and can be read", async () => {
  await using mounts = await Mounts.open();
  if (mounts === undefined) return;
  for (const name of ["begun", "empty"]) {
    await Deno.mkdir(mounts.path(name));
    if (name === "begun") {
      await (await open(mounts.path(name))).put("a", utf8("1"));
    }
    await mounts.bind(name, name);
    await mounts.makeReadOnly(name);
    const store = await open(mounts.path(name));
    await assert.rejects(
      probe(store, seededRandom(1)),
      (error) =>
        error instanceof ObjectStoreRefusedError &&
        /Read-only file system/.test(error.message),
    );
    const found = await store.get("a");
    assert.equal(found !== undefined, name === "begun");
  }
});

Deno.test("a symbolic link in the place is refused", () =>
  withFolder(async (root) => {
    const folder = `${root}/place`;
    await Deno.mkdir(folder);
    const store = await open(folder);
    await store.put("a/b", utf8("1"));
    await store.put("z", utf8("1"));
    await Deno.rename(`${folder}/a`, `${root}/elsewhere`);
    for (const target of [`${root}/elsewhere`, `${root}/nothing`]) {
      await Deno.symlink(target, `${folder}/a`);
      for (const ask of requests(store)) {
        await assert.rejects(
          ask(),
          (error) =>
            error instanceof ObjectStoreRefusedError &&
            / a is a symbolic link/.test(error.message),
        );
      }
      // What cannot be behind it is in order.
      assert.equal((await Array.fromAsync(store.list("z"))).length, 1);
      await Deno.remove(`${folder}/a`);
    }
    // An object itself.
    await Deno.symlink(`${root}/elsewhere/b`, `${folder}/y`);
    await assert.rejects(store.get("y"), ObjectStoreRefusedError);
    await assert.rejects(
      Array.fromAsync(store.list("")),
      ObjectStoreRefusedError,
    );
    await Deno.remove(`${folder}/y`);

    // The place itself may be reached by one.
    await Deno.symlink(folder, `${root}/link`);
    const linked = await open(`${root}/link`);
    assert.deepEqual((await linked.get("z"))!.data, utf8("1"));
    await linked.put("z", utf8("2"));
  }));

Deno.test("the place's own folder may be deleted while it is written", () =>
  withFolder(async (folder) => {
    const store = await open(folder);
    await store.put("a/b", utf8("1"));
    const { placeId } = store;
    for (const part of ["", "/tmp", "/lock", "/place"]) {
      await Deno.remove(`${folder}/.denokv${part}`, { recursive: true });
      assert.deepEqual((await store.get("a/b"))!.data, utf8("1"));
      const { tag } = (await store.get("a/b"))!;
      assert.ok((await store.replace("a/b", utf8("1"), tag)).written);
      assert.equal((await open(folder)).placeId, placeId);
    }
  }));

Deno.test("compare-and-swap holds while the lock file is deleted again and again", () =>
  withFolder(async (folder) => {
    const stores = await Promise.all([1, 2, 3].map(() => open(folder)));
    await stores[0].put("counter", utf8("0"));
    let done = 0;
    let unsure = 0;
    const removing: Promise<void>[] = [];
    await Promise.all(stores.map(async (store, i) => {
      for (let round = 0; round < 40;) {
        const { data, tag } = (await store.get("counter"))!;
        const [count] = fromUtf8(data)!.split(" ");
        const next = `${Number(count) + 1} ${i}.${round}`;
        removing.push(
          Deno.remove(`${folder}/.denokv/lock`).catch(() => {}),
        );
        // As the manifest does it: who is not sure looks for its own mark.
        const won = await store.replace("counter", utf8(next), tag).then(
          ({ written }) => written,
          async (error) => {
            if (!(error instanceof UnavailableError)) throw error;
            unsure++;
            const found = (await store.get("counter"))!;
            return fromUtf8(found.data) === next;
          },
        );
        if (won) {
          round++;
          done++;
        }
      }
    }));
    await Promise.all(removing);
    const count = Number(
      fromUtf8((await stores[0].get("counter"))!.data)!.split(" ")[0],
    );
    // Who was unsure may have been overwritten before it looked.
    assert.ok(count >= done && count <= done + unsure, `${count} ${done}`);
  }));

/** A process over `folder` whose disk has the shim's faults. */
async function runWithFaults(
  shim: FaultShim,
  folder: string,
  script: string,
): Promise<string> {
  const module = (name: string) => new URL(name, import.meta.url).href;
  const code = `
    import { LocalFolderStore } from "${module("./local_folder.ts")}";
    import { probe } from "${module("./probe.ts")}";
    import { systemClock as clock } from "${module("../common/clock.ts")}";
    import { systemRandom as random } from "${module("../common/random.ts")}";
    const folder = ${JSON.stringify(folder)};
    const store = await LocalFolderStore.open({ folder, clock, random });
    const bytes = (text) => new TextEncoder().encode(text);
    const said = (asked) => asked.then(
      (value) => console.log(JSON.stringify(value)),
      (error) => console.log(error.name, error.message));
    ${script}`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-lock", "-"],
    env: shim.env,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const input = child.stdin.getWriter();
  await input.write(utf8(code));
  await input.close();
  const { success, stdout, stderr } = await child.output();
  assert.ok(success, fromUtf8(stderr));
  return fromUtf8(stdout)!;
}

Deno.test("a file system without locks is refused by the probe", () =>
  withFolder(async (root) => {
    await using shim = await faultShim(root);
    if (shim === undefined) return;
    for (const lockErrno of [37, 95]) {
      const folder = `${root}/place-${lockErrno}`;
      await Deno.mkdir(folder);
      shim.set({ lockErrno });
      const said = await runWithFaults(
        shim,
        folder,
        "await said(probe(store, random));",
      );
      assert.match(said, /^ObjectStoreRefusedError .* has no file locks/);
    }
  }));

Deno.test("a swap is won, and seen, only when its folder was synced", () =>
  withFolder(async (root) => {
    await using shim = await faultShim(root);
    if (shim === undefined) return;
    const folder = `${root}/place`;
    await Deno.mkdir(folder);
    const store = await open(folder);
    const { tag } = await store.create("manifest", utf8("1")) as {
      tag: string;
    };
    await store.put("a/b/c", utf8("1"));
    // The folder itself: its swap, and the look for what became of it.
    shim.set({ fsyncFailures: 2, suffix: "/place" });
    const said = await runWithFaults(
      shim,
      folder,
      `await said(store.replace("manifest", bytes("2"), "${tag}"));
       await said(store.get("manifest").then(({ data }) => data.length));
       await said(store.replace("manifest", bytes("2"), "${tag}"));
       await said(store.get("manifest").then(({ data }) => data.length));`,
    );
    const lines = said.trim().split("\n");
    assert.match(lines[0], /^UnavailableError/);
    assert.match(lines[1], /^UnavailableError/);
    assert.deepEqual(lines.slice(2), ['{"written":false}', "1"]);
    assert.equal(shim.counts().fsyncsFailed, 2);

    // A folder that was made before, by whoever: its own name, too.
    shim.set({ fsyncFailures: 1, suffix: "/a" });
    const made = await runWithFaults(
      shim,
      folder,
      `await said(store.put("a/b/d", bytes("2")));
       await said(store.put("a/b/d", bytes("2")));`,
    );
    assert.match(made, /^UnavailableError .*\n"[0-9a-f]+"\n$/);
  }));
