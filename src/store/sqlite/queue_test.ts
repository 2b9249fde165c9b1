import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { silentLogger } from "../../common/log.ts";
import { systemClock } from "../../common/clock.ts";
import { seededRandom } from "../../common/random.ts";
import { atomic, set } from "../contract/support.ts";
import { openWriteSession } from "./session.ts";
import { openSqliteStore } from "./store.ts";

const message = (deadlineMs: number) => ({
  payload: new Uint8Array([0xff, 0x0f, 0x5f]),
  deadlineMs,
  keysIfUndelivered: [new Uint8Array([2, 0]), new Uint8Array([0xff])],
  backoffScheduleMs: null,
});

async function withPath(
  run: (path: string) => void | Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  try {
    await run(`${folder}/denokv.sqlite`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("a message is in the table as Deno's embedded KV would have put it", () =>
  withPath(async (path) => {
    const store = await openSqliteStore({ path });
    await store.write(atomic([set("a", "1")], [], [
      message(5000),
      { ...message(6000), backoffScheduleMs: [], keysIfUndelivered: [] },
      { ...message(7000), backoffScheduleMs: [1, 3_600_000] },
    ]));
    // One that fails leaves no message.
    await store.write(
      atomic([], [{ key: new Uint8Array([2, 0]), version: 5, order: 0 }], [
        message(8000),
      ]),
    );
    await store.close();
    const db = new DatabaseSync(path);
    const rows = db.prepare("select * from queue order by ts").all();
    db.close();
    assert.deepEqual(rows.map((row) => [row.ts, row.backoff_schedule]), [
      [5000, "[100,1000,5000,30000,60000]"],
      [6000, "[]"],
      [7000, "[1,3600000]"],
    ]);
    assert.equal(rows[0].keys_if_undelivered, "[[2,0],[255]]");
    assert.deepEqual(rows[0].data, message(0).payload);
    assert.equal(new Set(rows.map((row) => row.id)).size, 3);
    assert.match(String(rows[0].id), /^[0-9a-f-]{36}$/);
  }));

Deno.test("whatever messages there are, the next start finds its own trace of them", () =>
  withPath(async (path) => {
    const open = (seed: number) =>
      openSqliteStore({ path, random: seededRandom(seed) });
    let store = await open(0);
    const { floorVersion } = store.stats().log;
    for (let i = 1; i <= 200; i++) {
      await store.write(atomic([], [], [message(i)]));
      await store.close();
      store = await open(i);
      assert.equal(store.stats().log.floorVersion, floorVersion, `seed ${i}`);
    }
    await store.close();
  }));

Deno.test("what the tables hold shows in one text, whatever the order", () =>
  withPath((path) => {
    const session = openWriteSession({
      path,
      clock: systemClock,
      random: seededRandom(1),
      logger: silentLogger,
    });
    const { queue, db } = session;
    const seen = new Set<string>();
    const note = () => {
      const { contents } = queue;
      assert.ok(!seen.has(contents), "another state has the same text");
      seen.add(contents);
      queue.reload();
      assert.equal(
        queue.contents,
        contents,
        "kept up to date and counted anew",
      );
    };
    note();
    for (let i = 0; i < 20; i++) {
      queue.add(message(1000 + i));
      note();
    }
    queue.committed();
    const before = queue.contents;

    session.beginStatement.run();
    queue.add(message(1));
    session.rollback();
    assert.equal(queue.contents, before);

    // What another program does to a message: takes it, puts it off.
    const change = (sql: string) => {
      db.exec(sql);
      queue.reload();
      assert.notEqual(queue.contents, before, sql);
    };
    change(
      "insert into queue_running select ts, id, data, backoff_schedule, keys_if_undelivered from queue where ts = 1003; delete from queue where ts = 1003",
    );
    change("update queue_running set deadline = 77");
    change("delete from queue_running");
    change("update queue set ts = ts + 1 where ts = 1019");
    session.close();
  }));
