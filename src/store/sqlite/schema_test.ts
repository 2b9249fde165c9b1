import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { StartupError } from "../../common/errors.ts";
import { everything, point, set, texts } from "../contract/support.ts";
import { commit } from "../contract/support.ts";
import { checkSqliteVersion } from "./schema.ts";
import { openSqliteStore } from "./store.ts";

async function withFolder(
  run: (path: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  try {
    await run(`${folder}/denokv.sqlite`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function execute(path: string, sql: string): void {
  const db = new DatabaseSync(path);
  try {
    db.exec(sql);
  } finally {
    db.close();
  }
}

/** Every table, index and row of the file. */
function dump(path: string): unknown[] {
  const db = new DatabaseSync(path);
  try {
    const objects = db.prepare("select * from sqlite_schema order by name")
      .all();
    return [
      objects,
      ...objects.filter((object) => object.type === "table").map((object) =>
        db.prepare(`select * from "${object.name}"`).all()
      ),
    ];
  } finally {
    db.close();
  }
}

const MIGRATION_STATE =
  "create table migration_state (k integer not null primary key, version integer not null);";

/** As the first versions of Deno's embedded KV left it. */
const VERSION_1 = `
  pragma journal_mode = wal;
  ${MIGRATION_STATE}
  insert into migration_state values (0, 1);
  create table data_version (k integer primary key, version integer not null);
  insert into data_version values (0, 40);
  create table kv (
    k blob primary key,
    v blob not null,
    v_encoding integer not null,
    version integer not null
  ) without rowid;
  insert into kv values (x'026100', x'31', 3, 17);
`;

const VERSION_2 = `
  ${VERSION_1}
  update migration_state set version = 2;
  create table queue (
    ts integer not null, id text not null, data blob not null,
    backoff_schedule text not null, keys_if_undelivered blob not null,
    primary key (ts, id)
  );
  create table queue_running (
    deadline integer not null, id text not null, data blob not null,
    backoff_schedule text not null, keys_if_undelivered blob not null,
    primary key (deadline, id)
  );
  insert into queue values (9999999999999, 'id', x'ff0f30', 'null', '[]');
`;

for (const [version, sql] of [[1, VERSION_1], [2, VERSION_2]] as const) {
  Deno.test(`a file of schema version ${version} is brought up to date, its data kept`, () =>
    withFolder(async (path) => {
      execute(path, sql);
      const store = await openSqliteStore({ path });
      const [[entry]] = await store.read([point("a")]);
      assert.deepEqual([texts([entry]), entry.version], [["1"], 17]);
      assert.ok(store.stats().log.floorVersion > 40);
      assert.ok(await commit(store, [set("b", "2")]) > 40);
      await commit(store, [set("gone", "3", 1)]);
      await store.close();

      // Deno's own KV takes it for a file of the present.
      const kv = await Deno.openKv(path);
      const found = await kv.get(["a"]);
      assert.deepEqual(found.value, new TextEncoder().encode("1"));
      assert.equal(found.versionstamp, "00000000000000110000");
      await kv.set(["c"], 3, { expireIn: 3_600_000 });
      kv.close();
      const db = new DatabaseSync(path);
      assert.equal(
        db.prepare("select version from migration_state").get()!.version,
        3,
      );
      assert.equal(
        db.prepare("select count(*) as n from queue").get()!.n,
        version - 1,
      );
      db.close();
    }));
}

Deno.test("a new file has the very schema that Deno's embedded KV makes", () =>
  withFolder(async (path) => {
    await (await openSqliteStore({ path })).close();
    const theirs = `${path}-theirs`;
    (await Deno.openKv(theirs)).close();
    const columns = (path: string) => {
      const db = new DatabaseSync(path);
      try {
        const names = db.prepare(
          "select name from sqlite_schema where type = 'table' and name not like 'denokv_%' order by name",
        ).all().map((row) => String(row.name));
        return names.map((name) => [
          name,
          db.prepare(`pragma table_xinfo(${name})`).all(),
          db.prepare(`pragma index_list(${name})`).all(),
        ]);
      } finally {
        db.close();
      }
    };
    assert.deepEqual(columns(path), columns(theirs));
  }));

const REFUSED: [title: string, sql: string, sentence: RegExp][] = [
  [
    "a newer schema",
    `${MIGRATION_STATE} insert into migration_state values (0, 4);`,
    /schema version 4; this server knows 3\. .*not changed/,
  ],
  [
    "the views of the Rust server's S3 sync",
    `${MIGRATION_STATE} insert into migration_state values (0, 3);
     create table tt_redo_log (x);
     create view kv as select 1 as k, 2 as v;`,
    /Rust server's S3 sync: .*not changed/,
  ],
  [
    "tables of the same names, of another program",
    "create table kv (key text, value text); insert into kv values ('a', 'b');",
    /not a Deno KV database\. It was not changed/,
  ],
  [
    "a data_version alone",
    "create table data_version (k integer);",
    /not a Deno KV database\. It was not changed/,
  ],
];

for (const [title, sql, sentence] of REFUSED) {
  for (const readOnly of [false, true]) {
    const how = readOnly ? " read-only" : "";
    Deno.test(`${title}: refused${how} with a sentence, and left alone`, () =>
      withFolder(async (path) => {
        execute(path, sql);
        const before = dump(path);
        const bytes = await Deno.readFile(path);
        await assert.rejects(
          openSqliteStore({ path, readOnly }),
          (error) =>
            error instanceof StartupError && sentence.test(error.message),
        );
        assert.deepEqual(await Deno.readFile(path), bytes);
        assert.deepEqual(dump(path), before);
        // Nothing of it stays open or locked.
        execute(path, "begin exclusive; rollback");
      }));
  }
}

Deno.test("a file that is no database is refused, and left alone", () =>
  withFolder(async (path) => {
    const bytes = new TextEncoder().encode("no database ".repeat(1000));
    await Deno.writeFile(path, bytes);
    await assert.rejects(openSqliteStore({ path }), StartupError);
    assert.deepEqual(new Uint8Array(await Deno.readFile(path)), bytes);
  }));

Deno.test("tables of other programs beside ours are left alone", () =>
  withFolder(async (path) => {
    execute(
      path,
      `${VERSION_2} create table _litestream_seq (id integer primary key, seq integer); insert into _litestream_seq values (1, 7);`,
    );
    const store = await openSqliteStore({ path });
    await commit(store, [set("b", "2")]);
    assert.equal((await store.read([everything()]))[0].length, 2);
    await store.close();
    const db = new DatabaseSync(path);
    assert.equal(db.prepare("select seq from _litestream_seq").get()!.seq, 7);
    db.close();
  }));

Deno.test("a file that another program keeps locked is refused after a while; a short lock is waited for", () =>
  withFolder(async (path) => {
    await (await openSqliteStore({ path })).close();
    const lock = (ms: number) =>
      new Deno.Command(Deno.execPath(), {
        args: [
          "eval",
          `import { DatabaseSync } from "node:sqlite";
           const db = new DatabaseSync(Deno.args[0]);
           db.exec("begin immediate");
           console.log("locked");
           setTimeout(() => { db.exec("rollback"); db.close(); }, ${ms});`,
          path,
        ],
        stdout: "piped",
      }).spawn();
    for (const [ms, opens] of [[300, true], [6000, false]] as const) {
      const child = lock(ms);
      const reader = child.stdout.getReader();
      await reader.read();
      if (opens) await (await openSqliteStore({ path })).close();
      else {
        await assert.rejects(
          openSqliteStore({ path }),
          (error) =>
            error instanceof StartupError &&
            /Another program holds .* locked\./.test(error.message),
        );
        child.kill("SIGKILL");
      }
      while (!(await reader.read()).done);
      await child.status;
    }
  }));

Deno.test("a file that is up to date is opened without a write", () =>
  withFolder(async (path) => {
    await (await openSqliteStore({ path })).close();
    const before = await Deno.readFile(path);
    const store = await openSqliteStore({ path });
    assert.equal((await Deno.stat(`${path}-wal`)).size, 0);
    await store.close();
    assert.deepEqual(await Deno.readFile(path), before);
  }));

Deno.test("an SQLite that could corrupt the file is refused", () => {
  for (const version of ["3.51.3", "3.51.10", "3.52.0", "4.0.0", "3.53.2"]) {
    checkSqliteVersion(version);
  }
  for (const version of ["3.51.2", "3.50.9", "3.7.0", "2.9.9", ""]) {
    assert.throws(() => checkSqliteVersion(version), StartupError, version);
  }
});
