/**
 * A disk that is really full: it is said steadily, deletions are taken, and
 * room that was made is found without help.
 */
import assert from "node:assert/strict";
import { encodeKey } from "../src/protocol/key.ts";
import { type Mutation, MutationType } from "../src/protocol/messages.ts";
import { set, until, WatchedServer } from "./support/faulty_server.ts";
import { RefusedError } from "./support/kv_client.ts";
import { REST_SECRET } from "./support/server.ts";
import { SmallDisk } from "./support/small_disk.ts";

/** As by default. */
const RESERVE_MIB = 32;
/** Longer than some of the server's own attempts take. */
const STEADY_MS = 5000;
const TEXT = "x".repeat(60_000);

const del = (name: string): Mutation => ({
  ...set(name, ""),
  type: MutationType.DELETE,
});

function fullDiskTest(
  title: string,
  sizeMib: number,
  run: (disk: SmallDisk, server: WatchedServer) => Promise<void>,
): void {
  Deno.test(`full disk: ${title}`, async () => {
    await using disk = await SmallDisk.mount(sizeMib);
    if (!disk) return;
    await using server = new WatchedServer(disk.database);
    await server.start();
    await server.putNext("stable", "1");
    await reserved(server);
    await run(disk, server);
  });
}

const reserved = (server: WatchedServer) =>
  until(
    "the reserve",
    async () =>
      await server.metric("denokv_disk_reserve_bytes") ===
        RESERVE_MIB * 1024 * 1024,
  );

/** Writes until the server says that the disk is full; how many it took. */
async function writeUntilFull(
  server: WatchedServer,
  name: string,
): Promise<number> {
  for (let i = 0;; i++) {
    try {
      await server.putNext(`${name} ${i}`, TEXT);
    } catch (error) {
      assert.ok(error instanceof RefusedError, String(error));
      assert.equal(error.status, 503);
      assert.match(error.sentence, /disk is full.*free space.*delete entries/);
      return i;
    }
  }
}

/** Whether it is not ready, for the same reason, at every look. */
async function isSteadilyFull(server: WatchedServer): Promise<boolean> {
  const untilMs = performance.now() + STEADY_MS;
  while (performance.now() < untilMs) {
    const { status, cause, reason } = await server.readiness();
    if (status === 200) return false;
    assert.equal(cause, "full");
    assert.match(reason!, /disk is full/);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return true;
}

async function remove(server: WatchedServer, names: string[]): Promise<void> {
  await server.client.commit(names.map(del));
  for (const name of names) server.acknowledged.delete(name);
}

fullDiskTest(
  "by other files: deletions and expiry go on, all else waits for room",
  96,
  async (disk, server) => {
    const expireAtMs = Date.now() + 4000;
    await server.client.commit([{ ...set("expires", "x"), expireAtMs }]);
    await server.put(
      Object.fromEntries(Array.from({ length: 9 }, (_, i) => [`d${i}`, TEXT])),
    );
    disk.fill();
    await writeUntilFull(server, "big");
    assert.ok(await isSteadilyFull(server));
    assert.equal(await server.metric("denokv_ready"), 0);
    assert.equal(
      server.server.lastWords.match(/ERROR Writes are refused/g)?.length,
      1,
    );

    await remove(server, ["d0", "d1"]);
    const version = server.acknowledged.get("d2")!.version;
    const key = encodeKey(["d2"]);
    await server.client.commit([del("d2")], [{ key, version, order: 0 }]);
    server.acknowledged.delete("d2");
    const rest = await fetch(`${server.server.url}/d3`, {
      method: "DELETE",
      headers: { authorization: `Bearer ${REST_SECRET}` },
    });
    assert.ok(rest.ok, await rest.text());
    server.acknowledged.delete("d3");
    for (const name of ["d0", "d1", "d2", "d3"]) {
      assert.equal(await server.get(name), undefined);
    }
    await until(
      "the deletion of what has expired",
      async () => await server.metric("denokv_expired_deleted_total") === 1,
    );
    // Whatever else a write does, it is refused whole.
    await assert.rejects(
      server.client.commit([del("d4"), set("small", "x")]),
      /503: The disk is full/,
    );
    await server.verify();
    assert.equal((await server.readiness()).status, 503);

    disk.free(50);
    await server.untilReadiness(200);
    await reserved(server);
    await server.verify();
    await server.putNext("small", "x");
    await server.verifyAfterCrash();
  },
);

fullDiskTest(
  "by the database itself: deleting entries makes room for others",
  96,
  async (_, server) => {
    // What a checkpoint that failed has left is room that can still be used.
    let rounds = 0;
    do {
      const count = await writeUntilFull(server, `big ${rounds++}`);
      assert.ok(count > 10, `${count} writes in round ${rounds}`);
      assert.ok(rounds < 5, "it must not go to and fro");
    } while (!await isSteadilyFull(server));
    const names = [...server.acknowledged.keys()].filter((name) =>
      name.startsWith("big")
    );
    assert.ok(names.length > 100);
    for (let i = 0; i < names.length; i += 5) {
      await remove(server, names.slice(i, i + 5));
    }
    await server.untilReadiness(200);
    for (let i = 0; i < 100; i++) await server.putNext(`new ${i}`, TEXT);
    await server.verify();
    await server.verifyAfterCrash();
  },
);

fullDiskTest(
  "a server that is started on it serves reads and deletions",
  96,
  async (disk, server) => {
    await server.put({ d0: TEXT, d1: TEXT });
    disk.fill();
    await writeUntilFull(server, "big");
    for (const end of [() => server.crash(), () => server.stop()]) {
      await end();
      await server.start();
      await server.verify();
      await remove(server, [server.acknowledged.has("d0") ? "d0" : "d1"]);
    }
    disk.free(50);
    await server.untilReadiness(200);
    await server.putNext("small", "x");
    await server.verifyAfterCrash();
  },
);
