/** What a folder alone does: files, locks among processes, shares that go. */
import assert from "node:assert/strict";
import { fromUtf8, utf8 } from "../common/bytes.ts";
import { systemClock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import { systemRandom } from "../common/random.ts";
import { LocalFolderStore } from "./local_folder.ts";
import { ObjectStoreRefusedError } from "./object_store.ts";

const clock = systemClock;
const random = systemRandom;

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

function open(folder: string, timeoutMs?: number): Promise<LocalFolderStore> {
  return LocalFolderStore.open({
    folder,
    clock,
    random,
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  });
}

/** Starts a process of its own over the same folder. */
async function startProcess(
  folder: string,
  script: string,
): Promise<Deno.ChildProcess> {
  const module = (name: string) => new URL(name, import.meta.url).href;
  const code = `
    import { LocalFolderStore } from "${module("./local_folder.ts")}";
    import { systemClock as clock } from "${module("../common/clock.ts")}";
    import { systemRandom as random } from "${module("../common/random.ts")}";
    const folder = ${JSON.stringify(folder)};
    const store = await LocalFolderStore.open({ folder, clock, random });
    const text = (data) => new TextDecoder().decode(data);
    const bytes = (text) => new TextEncoder().encode(text);
    ${script}`;
  const child = new Deno.Command(Deno.execPath(), {
    // The least that a local folder needs.
    args: [
      "run",
      "--no-prompt",
      "--no-lock",
      `--allow-read=${folder}`,
      `--allow-write=${folder}`,
      "-",
    ],
    cwd: folder,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const input = child.stdin.getWriter();
  await input.write(utf8(code));
  await input.close();
  return child;
}

Deno.test("ordinary keys are ordinary files", () =>
  withFolder(async (folder) => {
    const store = await open(folder);
    await store.put("gen-1/logs/0001_0a.bin", utf8("x"));
    assert.equal(
      await Deno.readTextFile(`${folder}/gen-1/logs/0001_0a.bin`),
      "x",
    );
    await store.put(".odd name?", utf8("y"));
    assert.equal(await Deno.readTextFile(`${folder}/%2Eodd%20name%3F`), "y");

    // What others keep there is no object.
    await Deno.writeTextFile(`${folder}/.DS_Store`, "");
    await Deno.writeTextFile(`${folder}/a file`, "");
    await Deno.writeTextFile(`${folder}/100%`, "");
    const listed = await Array.fromAsync(store.list(""));
    assert.deepEqual(listed.map(({ key }) => key), [
      ".odd name?",
      "gen-1/logs/0001_0a.bin",
    ]);

    await store.delete(["gen-1/logs/0001_0a.bin"]);
    const left = Deno.readDirSync(folder).map(({ name }) => name);
    assert.ok(![...left].includes("gen-1"), "empty folders go too");
  }));

Deno.test("no temporary file stays, and those of the dead are removed", () =>
  withFolder(async (folder) => {
    const store = await open(folder);
    await store.create("a", utf8("1"));
    await store.create("a", utf8("2"));
    await store.replace("a", utf8("3"), "stale");
    await store.put("b", utf8("4"));
    const own = `${folder}/.denokv/tmp`;
    assert.deepEqual([...Deno.readDirSync(own)], []);

    await Deno.writeTextFile(`${own}/dead`, "half a");
    await Deno.writeTextFile(`${own}/alive`, "half a");
    const longAgo = new Date(clock.nowMs() - 48 * 3600_000);
    await Deno.utime(`${own}/dead`, longAgo, longAgo);
    await open(folder);
    assert.deepEqual([...Deno.readDirSync(own)].map(({ name }) => name), [
      "alive",
    ]);
  }));

Deno.test("a folder that is not there is refused, and not made", () =>
  withFolder(async (root) => {
    const folder = `${root}/not-mounted`;
    await assert.rejects(open(folder), ObjectStoreRefusedError);
    await assert.rejects(Deno.stat(folder), Deno.errors.NotFound);
    await Deno.writeTextFile(`${root}/file`, "");
    await assert.rejects(open(`${root}/file`), ObjectStoreRefusedError);
  }));

Deno.test("a share that goes away is an outage, not an empty backup", () =>
  withFolder(async (root) => {
    const folder = `${root}/share`;
    await Deno.mkdir(folder);
    const store = await open(folder);
    const tag = await store.put("a", utf8("1"));
    for (const leaves of ["nothing", "an empty folder"]) {
      await Deno.rename(folder, `${root}/away`);
      if (leaves === "an empty folder") await Deno.mkdir(folder);
      for (
        const ask of [
          () => store.get("a"),
          () => store.getRange("a", 0, 1),
          () => store.head("a"),
          () => store.put("a", utf8("2")),
          () => store.create("b", utf8("2")),
          () => store.replace("a", utf8("2"), tag),
          () => store.delete(["a"]),
          () => Array.fromAsync(store.list("")),
        ]
      ) await assert.rejects(ask(), UnavailableError);
      if (leaves === "an empty folder") await Deno.remove(folder);
      await Deno.rename(`${root}/away`, folder);
      assert.deepEqual((await store.get("a"))!.data, utf8("1"));
    }
  }));

Deno.test("a key in the way of another is refused", () =>
  withFolder(async (folder) => {
    const store = await open(folder);
    await store.put("a/b", utf8("1"));
    await assert.rejects(store.put("a", utf8("2")), ObjectStoreRefusedError);
    await assert.rejects(
      store.put("a/b/c", utf8("2")),
      ObjectStoreRefusedError,
    );
    assert.equal(await store.get("a"), undefined);
    assert.equal(await store.get("a/b/c"), undefined);
    await assert.rejects(
      store.put("日".repeat(100), utf8("2")),
      ObjectStoreRefusedError,
    );
  }));

Deno.test("a lock that another process holds is waited for, within the limit", () =>
  withFolder(async (folder) => {
    const store = await open(folder, 100);
    // Without a limit that a busy machine would reach.
    await store.put("first", utf8("1"), { timeoutMs: 20_000 });
    const held = await Deno.open(`${folder}/.denokv/lock`, {
      create: true,
      write: true,
    });
    try {
      await held.lock(true);
      await assert.rejects(store.put("a", utf8("late")), UnavailableError);
      await assert.rejects(store.create("b", utf8("late")), UnavailableError);
      const patient = store.put("c", utf8("3"), { timeoutMs: 20_000 });
      held.close();
      await patient;
    } finally {
      try {
        held.close();
      } catch {
        // It was closed above.
      }
    }
    // What was given up while it waited is not written afterwards.
    assert.equal(await store.get("a"), undefined);
    assert.equal(await store.get("b"), undefined);
    assert.deepEqual((await store.get("c"))!.data, utf8("3"));
  }));

Deno.test("four processes that count by compare-and-swap lose nothing", () =>
  withFolder(async (folder) => {
    const store = await open(folder);
    await store.put("counter", utf8("0"));
    const script = `
      let won = 0, lost = 0;
      if ((await store.create("first", bytes("x"))).written) won = 1000;
      for (let done = 0; done < 25;) {
        const { data, tag } = await store.get("counter");
        const next = bytes(String(Number(text(data)) + 1));
        if ((await store.replace("counter", next, tag)).written) done++;
        else lost++;
      }
      console.log(won);`;
    const printed = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const child = await startProcess(folder, script);
        const { success, stdout, stderr } = await child.output();
        assert.ok(success, fromUtf8(stderr));
        return fromUtf8(stdout)!.trim();
      }),
    );
    assert.equal(fromUtf8((await store.get("counter"))!.data), "100");
    assert.deepEqual(printed.sort(), ["0", "0", "0", "1000"]);
  }));

Deno.test("a process killed while it writes leaves whole objects and no lock", () =>
  withFolder(async (folder) => {
    const store = await open(folder);
    const sizeBytes = 300_000;
    for (let round = 0; round < 3; round++) {
      const child = await startProcess(
        folder,
        `for (let n = 0;; n++) {
          const data = new Uint8Array(${sizeBytes}).fill(n);
          await Promise.all([0, 1, 2].map((i) => store.put("at/" + i, data)));
        }`,
      );
      const reading = child.stdout.cancel();
      const first = (await store.get("at/0"))?.tag;
      while ((await store.get("at/0"))?.tag === first) {
        // It has written again when this ends.
      }
      child.kill("SIGKILL");
      assert.equal((await child.status).signal, "SIGKILL");
      await reading;
      await child.stderr.cancel();

      for await (const { key } of store.list("at/")) {
        const { data } = (await store.get(key))!;
        assert.equal(data.length, sizeBytes);
        assert.ok(data.every((byte) => byte === data[0]));
      }
      await store.put("at/1", utf8("the lock is free"));
      await store.delete(["at/0", "at/1", "at/2"]);
    }
  }));
